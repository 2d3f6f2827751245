"""Run folders as points of a scaling law: N counted from the config, D and the metric read from the run's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from protlig_dd.checkpoints.matching import require_trained
from protlig_dd.checkpoints.run_folder import newest_state, read_config_file
from protlig_dd.config import to_mapping
from protlig_dd.errors import ConfigError, nearest
from protlig_dd.evaluation.sections import read_evaluation
from protlig_dd.report.page import read_metrics
from protlig_dd.runs.experiment import Experiment, completed_experiment, experiment_from
from protlig_dd.scaling.plan import PLAN_FILE
from protlig_dd.scaling.runs import Runs
from protlig_dd.scaling.sizes import count

DEFAULT_METRIC = "validation/nll"
_BUDGET_REACHED = 0.95  # a budget in tokens becomes steps by an estimate of their size
Count = Literal["total", "non-embedding"]
Data = Literal["seen", "unique"]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts in a run folder.

    Attributes:
        folder: the run folder.
        config: its experiment.
        params, embedding_params: number of all parameters, and of those in embedding tables.
        tokens: training tokens seen.
        unique_tokens: distinct training tokens; NaN if data.txt does not have them.
        flops: counted training FLOPs; NaN if the run did not log its speed.
        steps: steps done.
        is_finished: whether its budget is spent.
        numbers: every number of its metrics (last values) and of its evaluation by name.
    """

    folder: Path
    config: Experiment
    params: int
    embedding_params: int
    tokens: float
    unique_tokens: float
    flops: float
    steps: int
    is_finished: bool
    numbers: Mapping[str, float]


def find_runs(folder: Path) -> list[Path]:
    """Return the run folders of a folder: the folder itself, the runs of a study, or the runs directly inside it.

    Raises:
        ConfigError: if there is no run.
    """
    if (folder / "config.yaml").is_file():
        return [folder]
    inside = folder / "runs" if (folder / PLAN_FILE).is_file() else folder
    found = sorted(path.parent for path in inside.glob("*/config.yaml"))
    if not found:
        is_study = inside != folder
        hint = f"start it with: protlig scaling run {folder}" if is_study else "expected a study, a run folder, or a CSV"
        raise ConfigError(f"{folder}: found no run; {hint}")
    return found


def read_run(folder: Path) -> RunFacts:
    """Return the facts of a run folder; its weights are not read.

    Raises:
        ConfigError: if its config is missing or does not fit this version.
        FormatError: if a file is damaged.
    """
    values = read_config_file(folder / "config.yaml")
    config = experiment_from(values)
    require_trained(folder, to_mapping(config), newest_state(folder), completed_experiment)
    params, tables = count(values)
    metrics = read_metrics(folder / "metrics.jsonl")
    numbers = {name: points[-1][1] for name, points in metrics.items()}
    evaluation = folder / "evaluation.json"
    if evaluation.is_file():
        numbers |= _scores(evaluation)
    steps = int(max((points[-1][0] for points in metrics.values()), default=0))
    tokens = numbers.get("train/tokens", 0.0)
    budget = config.train.steps
    is_finished = steps >= budget if budget else tokens >= _BUDGET_REACHED * config.train.tokens
    speed, rate = numbers.get("speed/tflops_per_second"), numbers.get("speed/tokens_per_second")
    return RunFacts(
        folder=folder,
        config=config,
        params=params,
        embedding_params=tables,
        tokens=tokens,
        unique_tokens=_unique_tokens(folder / "data.txt"),
        flops=speed * 1e12 / rate * tokens if speed and rate else np.nan,
        steps=steps,
        is_finished=is_finished and steps > 0,
        numbers=numbers,
    )


def _scores(path: Path) -> dict[str, float]:
    """Scores by "section: name", and by name alone for the first section that has it."""
    found: dict[str, float] = {}
    for section in read_evaluation(path):
        for score in section.scores:
            found[f"{section.title}: {score.name}"] = score.value.value
            found.setdefault(score.name, score.value.value)
    return found


def _unique_tokens(path: Path) -> float:
    if not path.is_file():
        return np.nan
    match = re.search(r"^training tokens: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return float(sum(int(n) for n in re.findall(r"(\d+) \w+", match[1]))) if match else np.nan


def to_runs(facts: list[RunFacts], *, metric: str, counted: Count = "total", data: Data = "seen") -> Runs:
    """Return runs as columns.

    Args:
        facts: finished runs.
        metric: the name of a number that each of them has: a metric of metrics.jsonl (its last value) or a score of evaluation.json.
        counted: whether N is all parameters, or those outside embedding tables.
        data: whether D is training tokens seen, or distinct ones.

    Raises:
        ConfigError: if there is no run, or one lacks the metric; the message lists its metrics.
    """
    for one in facts:
        if metric not in one.numbers:
            names = sorted(n for n in one.numbers if n != "seconds")
            near = nearest(metric, names)
            raise ConfigError(f"--metric '{metric}': {one.folder} has no such number{near}; it has: {', '.join(names) or 'none'}")
    params = [one.params - (one.embedding_params if counted == "non-embedding" else 0) for one in facts]
    tokens = [one.tokens if data == "seen" else min(one.unique_tokens, one.tokens) for one in facts]
    return Runs(
        names=tuple(one.folder.name for one in facts),
        params=np.array(params, dtype=float),
        tokens=np.array(tokens, dtype=float),
        values=np.array([one.numbers[metric] for one in facts], dtype=float),
        flops=np.array([one.flops for one in facts], dtype=float),
        metric=metric,
    )


def table_rows(facts: list[RunFacts], metric: str) -> list[dict[str, Any]]:
    """Return a row for each run with both counts of N and of D, for tables."""
    return [
        {
            "name": one.folder.name,
            "params": one.params,
            "non-embedding": one.params - one.embedding_params,
            "tokens seen": int(one.tokens),
            "unique tokens": None if np.isnan(one.unique_tokens) else int(one.unique_tokens),
            "6ND": 6.0 * one.params * one.tokens,
            "counted FLOPs": None if np.isnan(one.flops) else one.flops,
            metric: one.numbers.get(metric),
        }
        for one in facts
    ]
