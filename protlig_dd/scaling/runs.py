"""The runs that a law is fitted to, as columns: parameters, tokens, and one metric; and their CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from protlig_dd.errors import ConfigError, FormatError, nearest
from protlig_dd.evaluation.fitness import spearman

_COLUMNS = ("params", "tokens", "values", "flops")
SAME_LEVEL = 0.02
"""Sizes, or tokens, within 2 % are one level: tokens seen differ by a batch."""

Direction = Literal["auto", "falling", "rising"]
ALIASES = {
    "params": ("params", "n", "parameters", "num_params", "num_parameters", "model_size", "size"),
    "tokens": ("tokens", "d", "train_tokens", "training_tokens", "num_tokens", "data", "data_size"),
    "value": ("value", "loss", "nll", "val_loss", "validation_loss", "validation/nll", "val/loss"),
    "flops": ("flops", "c", "compute", "training_flops"),
    "name": ("name", "run", "run_name"),
}
"""The names that the columns of a CSV may have, in any case; the first of these that is present is used."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Finished runs as columns of equal length.

    Attributes:
        names: the name of each run.
        params: N, the number of parameters.
        tokens: D, the number of training tokens.
        values: the metric, as measured.
        flops: training FLOPs counted over the layers, NaN if unknown.
        metric: the name of the metric.
        ceiling: None for a metric that falls as models grow; for one that rises, its upper limit: `ceiling - values` is fitted.
    """

    names: tuple[str, ...]
    params: Float[np.ndarray, " r"]
    tokens: Float[np.ndarray, " r"]
    values: Float[np.ndarray, " r"]
    flops: Float[np.ndarray, " r"]
    metric: str = "loss"
    ceiling: float | None = None

    def __post_init__(self) -> None:
        """Check once that every number can be fitted.

        Raises:
            ConfigError: naming the run whose number is not positive or not finite, or if there is no run.
        """
        if not self.names:
            raise ConfigError("no finished run: found 0, expected run folders with a validation, or a CSV with rows")
        for what, column in (("parameters", self.params), ("tokens", self.tokens), (self.metric, self.losses)):
            is_distance = what == self.metric and self.ceiling is not None
            hint = "raise --ceiling above every value" if is_distance else "correct or remove the run"
            fitted = " (ceiling - value)" if is_distance else ""
            for name, number in zip(self.names, column, strict=True):
                if not (math.isfinite(number) and number > 0):
                    raise ConfigError(f"run '{name}': found {what}{fitted} {number:g}, expected a positive number; {hint}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def losses(self) -> Float[np.ndarray, " r"]:
        """The fitted numbers: the values, or their distance from the ceiling. They fall as runs get better."""
        return self.values if self.ceiling is None else self.ceiling - self.values

    @property
    def compute(self) -> Float[np.ndarray, " r"]:
        """C = 6 N D (Kaplan et al. 2020): 2 operations forward and 4 backward for each parameter and token, attention not counted."""
        return np.asarray(6 * self.params * self.tokens)

    def select(self, rows: np.ndarray) -> Runs:
        """Return some of the runs: indices (which may repeat) or a mask."""
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return replace(self, names=tuple(np.array(self.names, dtype=object)[rows]), **columns)

    def to_measured(self, losses: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
        """Return fitted losses as values of the metric."""
        return losses if self.ceiling is None else self.ceiling - losses


def orient(runs: Runs, direction: Direction = "auto", ceiling: float | None = None) -> Runs:
    """Return runs whose `losses` fall: a rising metric is turned into its distance from a ceiling.

    Args:
        runs: runs of a metric that may rise or fall.
        direction: "auto" decides by the rank correlation of the metric with N D.
        ceiling: upper limit of a rising metric; 1 for fractions, and required for any other metric.

    Raises:
        ConfigError: if a rising metric has no known ceiling.
    """
    # with a rank correlation of one half or less there is no clear trend
    seems_to_rise = ceiling is not None or (len(runs) > 2 and spearman(runs.compute, runs.values) > 0.5)
    rises = direction == "rising" or (direction == "auto" and seems_to_rise)
    if not rises:
        return runs
    if ceiling is None and not bool(((runs.values >= 0) & (runs.values < 1)).all()):
        raise ConfigError(
            f"--metric {runs.metric}: it rises with size and data, and its values, up to {runs.values.max():g}, are no fractions below 1; "
            f"give what it cannot exceed with --ceiling, or say --direction falling"
        )
    return replace(runs, ceiling=1.0 if ceiling is None else ceiling)


def levels(column: Float[np.ndarray, " r"], tolerance: float = SAME_LEVEL) -> list[Int[np.ndarray, " _"]]:
    """Return the rows of each run of neighbouring values, in ascending order; a relative gap above the tolerance starts a new one."""
    order = np.argsort(column, kind="stable")
    cuts = np.flatnonzero(np.diff(np.log(column[order])) > tolerance) + 1
    return np.split(order, cuts)


def read_csv(path: Path, columns: Mapping[str, str] | None = None, metric: str = "") -> Runs:
    """Return the runs of a CSV with columns for N, D and a metric.

    Args:
        path: the file; its first line names the columns.
        columns: from our name (params, tokens, value, flops, name) to the file's, for columns with another name.
        metric: the column to fit; empty for `value` or one of its other names.

    Raises:
        FormatError: with file and line, for a missing column or a cell that is not a finite number.
        ConfigError: as `Runs`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: not readable as CSV ({error}); expected columns N, D, loss") from error
    if not rows:
        raise FormatError(f"{path}: found no row, expected a line of column names and a line for each run")
    present = [name for name in rows[0] if isinstance(name, str)]
    chosen = {**(columns or {}), **({"value": metric} if metric else {})}
    found = {role: _column(path, present, role, chosen.get(role, "")) for role in ALIASES}
    roles = {"params": "params", "tokens": "tokens", "values": "value", "flops": "flops"}
    numbers: dict[str, Any] = {
        column: np.array([_number(path, i, row, found[role]) for i, row in enumerate(rows, 2)]) for column, role in roles.items()
    }
    name = found["name"]
    names = tuple(str(row[name]) if name else f"row {i}" for i, row in enumerate(rows, 2))
    return Runs(names=names, metric=found["value"], **numbers)


def _column(path: Path, present: Sequence[str], role: str, wanted: str) -> str:
    """The name of a column in the file; empty if an optional one is absent."""
    by_lower = {name.strip().lower(): name for name in reversed(present)}
    for alias in (wanted,) if wanted else ALIASES[role]:
        if alias.strip().lower() in by_lower:
            return by_lower[alias.strip().lower()]
    if role in ("flops", "name") and not wanted:
        return ""
    looked = f"'{wanted}'" if wanted else f"one of {', '.join(ALIASES[role])}"
    guess = nearest(wanted or role, present)
    raise FormatError(
        f"{path}:1: found the columns {', '.join(present)}, expected {looked} for {role}{guess}; name it with --columns {role}=COLUMN"
    )


def _number(path: Path, line: int, row: Mapping[str, str | None], column: str) -> float:
    if not column:
        return math.nan
    text = row[column]
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FormatError(f"{path}:{line}: {column}: found '{text}', expected a finite number; remove the row")
    return number


def join(parts: Sequence[Runs]) -> Runs:
    """Return the runs of several sources as one; at least one source."""
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    return Runs(names=tuple(name for part in parts for name in part.names), metric=parts[0].metric, **columns)
