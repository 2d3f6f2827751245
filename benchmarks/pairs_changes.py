"""What makes a protein matter: single changes of pairs/small on a table of pairs, from one trained stage of ligands.

    python benchmarks/pairs_changes.py --pairs pairs.csv.gz --ligands RUN/stages/ligand --out changes.jsonl [--only base,k1] [--steps 500]

RUN is a run of `protlig train pairs/small`. Every change is trained with the same seed, steps and data, and measured on the held-out ligands:
the condition gap in nats per token; whether the nearest active is one of the own target, for --targets targets times ten ligands, beside the
same ligands at other targets; similarity to own minus other targets; valid molecules; exact copies of training ligands. Intervals are over
clusters of targets. Every change is a line of --out, from which an interrupted benchmark continues; delete the file when code has changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from protlig_dd.config_files import read_config
from protlig_dd.evaluation.conditioning import condition_dependence
from protlig_dd.evaluation.intervals import Estimate
from protlig_dd.evaluation.specificity import SAMPLES, SHUFFLED, specificity
from protlig_dd.evaluation.targets import sequence_clusters
from protlig_dd.runs.families.table import train_stages
from protlig_dd.runs.generate import Generator
from protlig_dd.runs.held_out import HeldOut
from protlig_dd.runs.open import open_run

CHANGES: dict[str, tuple[str, list[str]]] = {
    "base": ("pairs/small", []),
    "nopre": ("no stage of ligands before", ["train.init_from="]),
    "k1": ("protein as its composition (k = 1)", ["model.given_kmers.protein=1"]),
    "k2": ("k = 2", ["model.given_kmers.protein=2"]),
    "free": ("30 % of the steps without the protein, not 10 %", ["diffusion.tasks={ligand_given_protein: 0.7, ligand_only: 0.3}"]),
    "elbo": ("weights of the bound", ["diffusion.weighting=elbo"]),
    "score": ("score entropy", ["diffusion.parameterization=score", "diffusion.weighting=elbo"]),
    "dropout": ("dropout 0.1", ["model.dropout=0.1"]),
    "lr": ("twice the learning rate", ["train.optim.lr=4e-3"]),
    "w1": ("no guidance", ["sampling.guidance.weight=1"]),
    "w4": ("guidance 4", ["sampling.guidance.weight=4"]),
}


def run(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train one change and return its figures."""
    common = [
        "stages=null", f"data.path={options.pairs}", f"train.init_from={options.ligands}", f"train.steps={options.steps}", "train.validate_every=0",
        f"evaluation.specificity={{num_targets: {options.targets}, samples_per_target: 10}}", "evaluation.after_training=false",
    ]  # fmt: skip
    changes = CHANGES[name][1]
    if name == "nopre":  # the vocabulary stays that of the stage
        common.append(f"tracks.ligand={{vocabulary: {options.ligands / 'vocabulary_ligand.json'}, merges: 0}}")
    started = time.process_time()
    train_stages(read_config("pairs/small", [*common, *changes]), folder, device="cpu")
    seconds = time.process_time() - started
    held = HeldOut(run=open_run(folder, device="cpu"), split="validation")
    table, given = held.scored, held.run.tracks["protein"]
    proteins = [given.decode(table.example(i)["protein"].tolist()) for i in range(len(table))]
    gap = condition_dependence(
        held.run.denoising, table, "ligand_given_protein", clusters=sequence_clusters(proteins).tolist(), num_times=4
    ).gap
    generator = Generator(held.run, seed=0, with_likelihood=False)
    drawn = {target: [s.texts.get("ligand", "") for s in some] for target, some in held.samples_of_targets(generator).items()}
    found = specificity(drawn, held.targets, held.training, seed=0)
    figures = {
        "gap": gap,
        "nearest": found.means[SAMPLES].nearest,
        "shuffled": found.means[SHUFFLED].nearest,
        "difference": found.means[SAMPLES].difference,
        "valid": found.validity,
        "copies": found.copies[0].value,
    }
    return {"name": name, "steps": options.steps, "minutes": round(seconds / 60, 1), **{key: told(value) for key, value in figures.items()}}


def told(value: Estimate) -> str:
    """Return an estimate as a cell of the table."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--ligands", type=Path, required=True, help="the run folder of the stage of ligands")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="names of changes, separated by commas")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--targets", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.is_file() else []
    for name in options.only.split(",") if options.only else CHANGES:
        if name in {line["name"] for line in lines}:
            continue
        with TemporaryDirectory() as folder:
            lines.append(run(name, options, Path(folder)))
        with options.out.open("a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
    columns = ["gap", "nearest", "shuffled", "difference", "valid", "copies", "minutes"]
    rows = [[CHANGES[line["name"]][0], *(str(line[column]) for column in columns)] for line in lines]
    table = [["change", *columns], ["---"] * (len(columns) + 1), *rows]
    sys.stdout.write("".join(f"| {' | '.join(row)} |\n" for row in table))


if __name__ == "__main__":
    main()
