"""The plan of a study: its runs with sizes, data, steps, FLOPs and hours, as JSON, as CSV, and as scripts that start it.

Nothing here builds a model or reads data; `grid.py` makes a plan.
"""

from __future__ import annotations

import csv
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from protlig_dd.config import parse_shard
from protlig_dd.documents import read_json_object
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.files import write_json, write_text, written_whole

PLAN_FILE = "plan.json"
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: the run's name; its config is configs/NAME.yaml, its folder runs/NAME.
        size: the name of its size.
        params: number of parameters, trained or frozen.
        embedding_params: number of parameters in embedding tables.
        examples: number of training examples.
        unique_tokens: number of tokens in these examples.
        tokens: D, training tokens seen.
        steps: optimiser steps.
        flops_6nd: 6 N D with N all parameters.
        flops_counted: matrix products of layers and attention, three times the forward pass.
        hours: estimated duration; None if nothing was measured.
    """

    name: str
    size: str
    params: int
    embedding_params: int
    examples: int
    unique_tokens: int
    tokens: int
    steps: int
    flops_6nd: float
    flops_counted: float
    hours: float | None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or Path(self.name).name != self.name:
            raise ValueError(f"name: found '{self.name}', expected a name without folders")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a study, the cheapest first.

    Attributes:
        base: the config that the runs were made from, with overrides.
        runs: the runs in starting order.
        device: the device on which the hours were measured, in words.
        how_timed: how the hours were estimated.
    """

    base: str
    runs: tuple[PlannedRun, ...]
    device: str = ""
    how_timed: str = ""

    @property
    def hours(self) -> float | None:
        """The hours of all runs one after the other, or None if they are not known."""
        known = [run.hours for run in self.runs]
        return None if None in known else float(sum(h for h in known if h is not None))

    def lines(self) -> Iterator[str]:
        """Yield the plan as a table in words."""
        width = max(len(run.name) for run in self.runs)
        head = f"{'run':<{width}} {'params':>9} {'of them emb.':>12} {'examples':>9} {'tokens D':>9} {'epochs':>7}"
        yield f"{head} {'steps':>7} {'6ND':>9} {'counted':>9} {'hours':>7}"
        for run in self.runs:
            hours = "-" if run.hours is None else f"{run.hours:.2g}"
            yield (
                f"{run.name:<{width}} {short(run.params):>9} {short(run.embedding_params):>12} {short(run.examples):>9} "
                f"{short(run.tokens):>9} {run.tokens / max(run.unique_tokens, 1):>7.2f} {run.steps:>7} "
                f"{run.flops_6nd:>9.2e} {run.flops_counted:>9.2e} {hours:>7}"
            )
        total, runs = sum(run.flops_counted for run in self.runs), f"{len(self.runs)} runs"
        time = "hours not measured" if self.hours is None else f"about {self.hours:.2g} hours one after the other"
        yield f"{runs}, {total:.2e} counted FLOPs, {time}" + (f" on {self.device}" if self.device else "")
        if self.how_timed:
            yield self.how_timed


def short(number: float | int) -> str:
    """Return a count in short form: 124.5k, 3.2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.4g}{letter}"
    return f"{number:g}"


def number(text: str, option: str) -> float:
    """Return the number written as "300k", "0.3M", "1e15" or "3000".

    Raises:
        ConfigError: if it is not a positive number.
    """
    match = re.fullmatch(r"\s*([\d.]+(?:[eE][+-]?\d+)?)\s*([kKmMgGbBtT]?)\s*", text)
    try:
        value = float(match[1]) * _UNITS[match[2].lower()] if match else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{option}: found '{text}', expected positive numbers with commas, such as 100k,0.3M,1e6")
    return value


def numbers(text: str, option: str) -> list[float]:
    """Return the numbers of a list with commas; see `number`."""
    return [number(part, option) for part in text.split(",")] if text else []


def write_plan(folder: Path, plan: Plan) -> None:
    """Write plan.json and plan.csv into a study's folder."""
    plain = {**asdict(plan), "hours": plan.hours, "runs": [asdict(run) for run in plan.runs]}
    write_json(folder / PLAN_FILE, plain)
    with written_whole(folder / "plan.csv") as growing, growing.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(PlannedRun)])
        writer.writeheader()
        writer.writerows(asdict(run) for run in plan.runs)


def read_plan(folder: Path) -> Plan:
    """Return the plan of a study's folder.

    Raises:
        ConfigError: if the folder is not a study, or its plan is empty.
        FormatError: if plan.json does not have the form that `write_plan` gives it.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: found no {PLAN_FILE}, expected a study; make one with: protlig scaling plan CONFIG")
    try:
        plain = read_json_object(path, "make it again with: protlig scaling plan CONFIG")
        runs = tuple(PlannedRun(**run) for run in plain["runs"])
        plan = Plan(base=plain["base"], runs=runs, device=plain["device"], how_timed=plain["how_timed"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a plan ({error}); make it again with: protlig scaling plan CONFIG") from error
    if not plan.runs:
        raise ConfigError(f"{path}: found no run; make the plan again with: protlig scaling plan CONFIG")
    return plan


def shard_of(plan: Plan, text: str) -> Sequence[PlannedRun]:
    """Return the runs of a shard "i/n": every n-th from the i-th, counted from 0.

    Raises:
        ConfigError: if the text is not a shard.
    """
    first, jobs = parse_shard(text)
    return plan.runs[first::jobs]


_LOCAL = """#!/usr/bin/env bash
# Trains the runs of this study one after the other; started again, it goes on. Extra words go to `protlig scaling run`.
set -euo pipefail
exec protlig scaling run "$(dirname "$0")" --device {device} "$@"
"""

_SLURM = """#!/usr/bin/env bash
# Trains the runs of this study as a SLURM array, one run a task: sbatch {script}
# PROTLIG_VENV names a virtual environment to activate; without it `protlig` has to be on the PATH.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --time={time}
#SBATCH --cpus-per-task={cpus}
{gpu}#SBATCH --output={folder}/slurm-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@300
set -euo pipefail
if [ -n "${{PROTLIG_VENV:-}}" ]; then
    . "$PROTLIG_VENV/bin/activate"
fi
export WANDB_MODE="${{WANDB_MODE:-offline}}" OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"

# Five minutes before the end SLURM sends USR1: the run saves and ends with 128 + 10; requeued, it goes on from there.
status=0
srun --ntasks=1 protlig scaling run {folder} --device {device} --shard "$SLURM_ARRAY_TASK_ID/{count}" "$@" || status=$?
if [ "$status" -eq 138 ]; then
    exec scontrol requeue "$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"
fi
exit "$status"
"""


def write_launcher(folder: Path, plan: Plan, *, device: str, slurm: bool) -> Path:
    """Write run.sh, or for SLURM run_slurm.sh, into a study's folder and return it.

    The array's time limit is twice the estimate of the longest run and at least an hour; a day if nothing was measured.
    """
    path = folder / ("run_slurm.sh" if slurm else "run.sh")
    if slurm:
        longest = max((run.hours or 0.0) for run in plan.runs)
        hours = max(1, math.ceil(2 * longest)) if plan.hours is not None else 24
        text = _SLURM.format(
            script=shlex.quote(str(path)),
            name=re.sub(r"\W+", "_", folder.resolve().name),
            last=len(plan.runs) - 1,
            count=len(plan.runs),
            time=f"{hours:02d}:00:00",
            cpus=1 if device == "cpu" else 8,
            gpu="" if device == "cpu" else "#SBATCH --gpus-per-task=1\n",
            folder=shlex.quote(str(folder.resolve())),
            device=device,
        )
    else:
        text = _LOCAL.format(device=device)
    write_text(path, text)
    path.chmod(0o755)
    return path
