"""`protlig sample`: generate from a run or a published model."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protlig_dd.cli.common import Commands, add_command, add_device, add_sampler_options, add_shard
from protlig_dd.runs.options import TASKS, SampleOptions

if TYPE_CHECKING:
    from protlig_dd.runs.plan import SamplingPlan
    from protlig_dd.sampling import Tilting

_SAMPLE = """A `_` in a text is a token to generate: --infill 'MKT___LV', --ligand 'c1cc____cc1'.
  protlig sample runs/dual_track_demo --protein MKTAYIAKQRHEAVHWF --num 10 --out ligands.csv
  protlig sample --model airkingbd/dplm_150m --task sequence --length 100 200 --num 10 --out designs.fasta
  protlig sample --model runs/dplm_tiny --task inpainting --length 60 --fix 1-4=ALVE 20-22=EME
  protlig sample --model runs/dplm_tiny --task scaffold --motif '10-40,A15-34,10-40' --protein motif.pdb
  protlig sample --model runs/dplm2_tiny --task folding --protein sequences.fasta --out codes.fasta
  protlig sample runs/structure_kanzi_tiny --task folding --protein x.fasta --tokenizer runs/kanzi_tiny --out x.pdb
--model takes a run, a folder in Hugging Face layout, a Lightning .ckpt file or a Hub id such as airkingbd/dplm_150m. The ending of --out
decides the format: .csv .fasta .smi .sdf .jsonl .pdb; OUT.json gets all settings. A stopped command started again continues."""


def add_sample(commands: Commands) -> None:
    """Add `sample`."""
    sub = add_command(commands, "sample", sample, SampleOptions, "generate from a trained run", _SAMPLE)
    sub.add_argument("run", nargs="?", help="the run folder")
    sub.add_argument("--model", help="instead of RUN: a run folder, or a published checkpoint")
    sub.add_argument("--task", choices=TASKS, metavar="|".join(TASKS[1:]), help="what to generate, in DPLM's terms")
    _add_inputs(sub)
    sub.add_argument("--unconditional", action="store_true", help="generate all tracks, or those of --generate, without any input")
    sub.add_argument("--generate", help="the tracks to generate, separated by commas (default: those not given)")
    sub.add_argument("--num", type=int, help="samples for each input (10; 1 if a causal model takes the most likely tokens)")
    text = "tokens of each generated track; several for --num samples of each (default: drawn from the training lengths)"
    sub.add_argument("--length", type=int, nargs="+", help=text)
    sub.add_argument("--condition", action="append", metavar="NAME=CLASS", help="a class label, such as affinity_bin=2")
    letters = ["", "amino_acids", "dplm", "dplm2"]
    sub.add_argument("--emits", choices=letters, metavar="|".join(letters[1:]), help="letters that may be generated")
    sub.add_argument("--out", help="the file to write (default: print)")
    add_sampler_options(sub)
    _add_property_options(sub)
    add_shard(sub, "samples")
    sub.add_argument("--no-likelihood", action="store_true", help="leave out the likelihood bounds, and the ranking by them")
    add_device(sub)


def _add_inputs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--protein", help="a sequence, a FASTA file, or a PDB/mmCIF file (file.pdb:A for one chain)")
    sub.add_argument("--ligand", help="a SMILES, or a file of them")
    sub.add_argument("--infill", help="a protein or SMILES with gaps `_`")
    sub.add_argument("--structure", help="structure tokens, or a FASTA file of them (inverse_folding)")
    sub.add_argument("--fix", nargs="+", metavar="1-4=ALVE", help="given residues (inpainting)")
    sub.add_argument("--motif", help="10-40,A15-34,10-40: linkers, and residues of --protein (scaffold)")
    sub.add_argument("--total-length", metavar="60-90", help="permitted lengths of the scaffold")
    text = "decodes structure tokens, for --out x.pdb: a run, or a published file (.pt)"
    sub.add_argument("--tokenizer", metavar="RUN_OR_FILE", help=text)


def _add_property_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--property", help="draw towards a property: charge, hydropathy, qed, ..., or module:function")
    sub.add_argument("--property-weight", type=float, help="samples from p(x) exp(weight * property(x)) (1)")
    text = "how (smc: the law itself, in the limit of many particles)"
    sub.add_argument("--property-method", choices=["classifier", "smc", "best_of"], help=text)
    sub.add_argument("--particles", type=int, help="particles of smc, or the n of best_of; multiplies the cost (16)")
    sub.add_argument("--property-is-probability", action="store_true", help="module:function returns a class probability")


def sample(options: SampleOptions) -> Iterator[str]:
    """Generate samples; a stopped command started again continues."""
    from protlig_dd.evaluation.objectives import property_from
    from protlig_dd.runs.open import open_run
    from protlig_dd.runs.output import check_output, rank
    from protlig_dd.runs.plan import SamplingPlan

    if options.table is not None:
        check_output(options.table)
    if options.property:  # refused before a model is opened
        property_from(options.property, ("protein",), is_probability=options.property_is_probability)
    run = open_run(options.source, device=options.device, emits=options.emits)
    plan = SamplingPlan.of(options, run)
    if options.table is not None:
        yield from _write(options, plan, options.table)
        return
    rows = [one.row() for one in plan.draw()]
    for row in rank(rows):
        yield "  ".join(f"{k}={v}" for k, v in row.items())
    yield from _about_property(rows, plan.tilting)


def _write(options: SampleOptions, plan: SamplingPlan, out: Path) -> Iterator[str]:
    """Draw what a stopped command has not drawn yet, and write the table, the coordinates and the settings."""
    from tqdm import tqdm

    from protlig_dd.runs.coordinates import write_coordinates
    from protlig_dd.runs.output import PartialFile, rank, structures_beside, write_rows

    partial = PartialFile(out, plan.settings)
    done = {row["id"] for row in partial.rows}
    fresh = (one.row() for one in plan.draw(done))
    for _ in tqdm(partial.append(fresh), total=len(plan.ids), initial=len(done), unit="sample", disable=None):
        pass
    write_rows(out, rank(partial.rows), plan.settings)
    partial.remove()
    if plan.decoder is not None:
        files = write_coordinates(Path(options.out), partial.rows, plan.requests, plan.num, plan.decoder, options.seed)
        yield f"coordinates: {files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    yield from _about_property(partial.rows, plan.tilting)
    structures = structures_beside(out, partial.rows)
    beside = f", their structure tokens: {structures}" if structures is not None else ""
    yield f"{len(partial.rows)} samples: {out}{beside} (settings: {out}.json)"


def _about_property(rows: Sequence[Mapping[str, Any]], tilting: Tilting | None) -> Iterator[str]:
    """Yield the mean of the property with and without guidance."""
    if tilting is None or not rows:
        return
    means, left_out = [], 0
    for column in ("property", "property_unguided"):
        known = [row[column] for row in rows if math.isfinite(row[column])]
        left_out += len(rows) - len(known)
        means.append(sum(known) / len(known) if known else math.nan)
    line = f"{tilting.name}: mean {means[0]:.4g} by {tilting.method} with weight {tilting.weight:g}; without guidance {means[1]:.4g} (the null)"
    if "ess" in rows[0]:
        sizes = [row["ess"] for row in rows]
        line += f"; effective sample size {sum(sizes) / len(sizes):.3g} of {tilting.particles}, least {min(sizes):.3g}"
    yield line + (f"; {left_out} excluded texts not counted" if left_out else "")
