"""What single changes of settings do to learning: the validation bound after equal training, by change and seed.

    python benchmarks/learning_changes.py protein --fasta families/1bcf.fasta.gz --out protein.jsonl
    python benchmarks/learning_changes.py ligand --smiles zinc250k/train.txt --out ligand.jsonl --steps 300
    python benchmarks/learning_changes.py width --smiles zinc250k/train.txt --out width.jsonl --steps 300

Every run is one `protlig train` on one thread, of the packaged config with the overrides of the table and of one change; so a row of the table
is also a command. Differences are paired by seed: same data order, same noise. Finished runs are kept in --out, so that a stopped benchmark goes
on. CPU seconds are those of the whole command, start-up and reading included.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET = "train.checkpoint_every=0 evaluation.after_training=false evaluation.preview_every=0 train.tracking.tensorboard=false train.tracking.wandb=off"
_STEPS = 750


@dataclass(frozen=True, kw_only=True)
class Study:
    """A packaged config, the overrides of all its runs, and the changes by name."""

    config: str
    base: str
    changes: dict[str, str]


def protein(fasta: str, steps: int) -> Study:
    """Return the changes of `dplm/tiny` on a FASTA file, in batches small enough for short runs, and with a head of its own."""
    optim = "train.optim."
    return Study(
        config="dplm/tiny",
        base=f"data.path={fasta} train.steps={steps} train.validate_every={steps} train.tokens_per_batch=1280 model.tied_head=false",
        changes={
            "token dropout (ESM-2)": "model.token_dropout=true",
            "dropout 0.1": "model.dropout=0.1",
            "batches of similar lengths": "train.length_window=32",
            "batches twice as large, half the steps": f"train.tokens_per_batch=2560 train.steps={steps // 2} train.validate_every={steps // 2}",
            "AdamW": f"{optim}kind=adamw",
            "AdamW, lr / 3": f"{optim}kind=adamw {optim}lr=1e-3",
            "lr x 3": f"{optim}lr=9e-3",
            "lr / 3": f"{optim}lr=1e-3",
            "beta2 0.999": f"{optim}betas=[0.9,0.999]",
            "warm-up 150 steps": f"{optim}warmup_steps=150",
            "cosine": f"{optim}lr_schedule=cosine",
            "warm-up, stable, decay": f"{optim}lr_schedule=wsd {optim}decay_fraction=0.3",
            "no weight average": f"{optim}ema_decay=0",
            "weights as ESM-2's (0.02)": "model.init=esm",
            "head tied to the embedding": "model.tied_head=true",
            "convolution of 9 tokens": "model.conv_width=9",
            "QK norm": "model.qk_norm=true",
            "squared ReLU": "model.activation=relu_squared",
            "constant weights": "diffusion.weighting=constant",
            "weights of the bound": "diffusion.weighting=elbo diffusion.variant.count=tokens",
            "continuous times": "diffusion.variant.num_times=0",
            "times independent, not stratified": "diffusion.times={kind: uniform}",
            "times above 0.1": "diffusion.times={kind: stratified, t_min: 0.1}",
            "bfloat16": "train.precision=bf16",
        },
    )


def ligand(smiles: str, steps: int) -> Study:
    """Return the changes of `recipe/ligand` on a SMILES file."""
    optim = "train.optim."
    return Study(
        config="recipe/ligand",
        base=f"data.path={smiles} data.leakage=false train.steps={steps} train.validate_every={steps}",
        changes={
            "score entropy (SEDD)": "diffusion.parameterization=score diffusion.weighting=elbo",
            "weights of the bound": "diffusion.weighting=elbo",
            "linear weights": "diffusion.weighting=linear",
            "AdamW": f"{optim}kind=adamw",
            "AdamW, lr / 3": f"{optim}kind=adamw {optim}lr=3e-3",
            "lr x 3": f"{optim}lr=3e-2",
            "lr / 3": f"{optim}lr=3e-3",
            "convolution of 5 tokens": "model.conv_width=5",
            "no convolution": "model.conv_width=0",
            "dropout 0.1": "model.dropout=0.1",
            "batches half as large, twice the steps": f"train.batch_size=16 train.steps={2 * steps} train.validate_every={2 * steps}",
            "warm-up, stable, decay": f"{optim}lr_schedule=wsd {optim}decay_fraction=0.3",
            "no weight average": f"{optim}ema_decay=0",
            "squared ReLU": "model.activation=relu_squared",
            "times independent, not stratified": "diffusion.times={kind: uniform}",
        },
    )


def width(smiles: str, steps: int) -> Study:
    """Return `recipe/ligand` at three widths, each with three learning rates; the width 128 with 1e-2 is the base."""
    heads = {32: 2, 128: 4, 256: 4}
    pairs = [(size, lr) for size in heads for lr in ("3e-3", "1e-2", "3e-2") if (size, lr) != (128, "1e-2")]
    return Study(
        config="recipe/ligand",
        base=f"data.path={smiles} data.leakage=false train.steps={steps} train.validate_every={steps}",
        changes={
            f"width {size}, lr {lr}": f"model.hidden_size={size} model.num_heads={heads[size]} train.optim.lr={lr}" for size, lr in pairs
        },
    )


def train(study: Study, change: str, seed: int) -> dict[str, Any]:
    """Train once; return the last validation bound and the CPU seconds.

    Raises:
        RuntimeError: if the training fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        overrides = shlex.split(f"{study.base} {QUIET}") + split_overrides(study.changes.get(change, ""))
        command = [
            sys.executable,
            "-m",
            "protlig_dd",
            "train",
            study.config,
            "--device",
            "cpu",
            "--out",
            folder,
            *overrides,
            f"seed={seed}",
        ]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            told = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{change}, seed {seed}: exit code {process.returncode}: {told.strip().splitlines()[-1]}")
        records = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if "validation/nll" in record][-1]
    found = {name: last.get(f"validation/{name}") for name in ("nll", "nll_raw", "unigram_null")}
    return {"change": change, "seed": seed, "cpu": round(used.ru_utime + used.ru_stime, 1), **found}


def split_overrides(text: str) -> list[str]:
    """Return overrides separated by spaces; a value in braces keeps its spaces."""
    parts: list[str] = []
    for word in text.split(" "):
        if parts and parts[-1].count("{") > parts[-1].count("}"):
            parts[-1] += f" {word}"
        elif word:
            parts.append(word)
    return parts


def table(study: Study, runs: list[dict[str, Any]]) -> str:
    """Return a Markdown table: the bound of each change, its difference from the base by seed, and its CPU seconds as a ratio."""
    of: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        of.setdefault(run["change"], {})[run["seed"]] = run
    base = of["base"]
    lines = ["| change | bound | difference, mean (smallest, largest) | CPU seconds |", "|---|---|---|---|"]
    for change in ("base", *study.changes):
        own = of.get(change, {})
        paired = sorted(set(own) & set(base))
        if not paired:
            continue
        bound = statistics.mean(own[s]["nll"] for s in paired)
        differences = [own[s]["nll"] - base[s]["nll"] for s in paired]
        ratio = statistics.mean(own[s]["cpu"] / base[s]["cpu"] for s in paired)
        spread = f"{statistics.mean(differences):+.3f} ({min(differences):+.3f}, {max(differences):+.3f})"
        lines.append(f"| {change} | {bound:.3f} | {'' if change == 'base' else spread} | x {ratio:.2f} |")
    null = statistics.mean(run["unigram_null"] for run in base.values())
    raw = [run["nll_raw"] - run["nll"] for run in base.values() if run["nll_raw"] is not None]
    lines.append(f"\n{len(base)} seeds; unigram null {null:.3f}; base {statistics.mean(r['cpu'] for r in base.values()):.0f} CPU seconds")
    if raw:
        lines[-1] += f"; raw weights of the base {statistics.mean(raw):+.3f} against averaged ones"
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["protein", "ligand", "width"])
    parser.add_argument("--fasta", default="data/sequences.fasta.gz")
    parser.add_argument("--smiles", default="data/zinc250k/train.txt")
    parser.add_argument("--out", type=Path, required=True, help="a file of finished runs, one JSON object a line")
    parser.add_argument("--steps", type=int, default=_STEPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--only", default="", help="changes whose names contain this text")
    options = parser.parse_args()
    make, data = {"protein": (protein, options.fasta), "ligand": (ligand, options.smiles), "width": (width, options.smiles)}[options.study]
    study = make(data, options.steps)
    runs = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {(run["change"], run["seed"]) for run in runs}
    wanted = [(c, s) for s in range(options.seeds) for c in ("base", *study.changes) if options.only in c or c == "base"]

    def work(job: tuple[str, int]) -> None:
        run = train(study, *job)
        with options.out.open("a") as file:
            file.write(json.dumps(run) + "\n")
        print(run, file=sys.stderr, flush=True)
        runs.append(run)

    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(work, [job for job in wanted if job not in known]))
    print(table(study, runs))


if __name__ == "__main__":
    main()
