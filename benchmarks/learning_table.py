"""The figures of `learning.py` from its curves, and their table: when a curve reaches a value, and what it has at a step or a second.

A run is a mapping with set, side, lr, seed and `points`: step, CPU seconds so far and validation value of each evaluation. Runs of one set
have the same steps, so curves are averaged over seeds step by step.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

SIDES = ("stock", "ours")
Run = Mapping[str, Any]
HEADERS = (
    "set", "letters alone", "target", "CPU s, stock", "CPU s, ours", "ratio", "equal steps, stock", "equal steps, ours", "equal CPU s",
    "stock at that", "ours at that", "lr, stock", "lr, ours",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Validation values by CPU seconds; `seconds` rise."""

    seconds: tuple[float, ...]
    values: tuple[float, ...]

    @staticmethod
    def of(run: Run, *, keep_best: bool) -> Curve:
        """Return the curve of a run; with `keep_best` its values are the lowest so far, as where the best checkpoint is kept."""
        values = [point[2] if math.isfinite(point[2]) else math.inf for point in run["points"]]
        return Curve(tuple(point[1] for point in run["points"]), tuple(accumulate(values, min) if keep_best else values))

    @staticmethod
    def mean(curves: Sequence[Curve]) -> Curve:
        """Return the mean of curves over the same steps, in seconds and in values."""
        seconds = zip(*(curve.seconds for curve in curves), strict=True)
        values = zip(*(curve.values for curve in curves), strict=True)
        return Curve(tuple(map(statistics.fmean, seconds)), tuple(map(statistics.fmean, values)))

    def at(self, seconds: float) -> float:
        """Return the value after some seconds, on a line between evaluations; the first or last value outside of them."""
        if seconds <= self.seconds[0]:
            return self.values[0]
        for (s, v), (later, after) in pairwise(zip(self.seconds, self.values, strict=True)):
            if seconds <= later:
                return v + (after - v) * (seconds - s) / (later - s)
        return self.values[-1]

    def reaches(self, target: float) -> Time:
        """Return when the curve first is at the target or below, on a line between evaluations."""
        if self.values[0] <= target:
            return Time(self.seconds[0], "<")
        for (s, v), (later, after) in pairwise(zip(self.seconds, self.values, strict=True)):
            if after <= target:
                return Time(s + (later - s) * (v - target) / (v - after) if math.isfinite(v) else later)
        return Time(self.seconds[-1], ">")


@dataclass(frozen=True)
class Time:
    """CPU seconds; `bound` is "<" where a curve begins at the target, and ">" where it ends before it."""

    seconds: float
    bound: str = ""

    def __str__(self) -> str:
        return f"{self.bound}{self.seconds:.3g}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The figures of one data set.

    Attributes:
        set: its name.
        letters: the value of the training frequencies of the letters alone.
        target: the final value of the stock loop at its best learning rate, the mean over seeds.
        times: CPU seconds until the target by side, of the mean curve.
        spread: the same of ours for each seed.
        final: the values at the last step by side, for each seed.
        seconds: CPU seconds that both sides have spent at the end of the faster one.
        values: the values then by side, for each seed.
        rates: the best learning rate by side.
    """

    set: str
    letters: float
    target: float
    times: Mapping[str, Time]
    spread: Sequence[Time]
    final: Mapping[str, Sequence[float]]
    seconds: float
    values: Mapping[str, Sequence[float]]
    rates: Mapping[str, str]

    def cells(self) -> list[str]:
        """Return the figures as text, in the order of `HEADERS`; intervals are the range over seeds."""
        first, last = (str(pick(self.spread, key=lambda time: (time.seconds, time.bound == ">"))) for pick in (min, max))
        ours = str(self.times["ours"]) + (f" [{first}, {last}]" if len(self.spread) > 1 else "")
        finals, values = ([_spread(of[side]) for side in SIDES] for of in (self.final, self.values))
        rates = [self.rates[side] for side in SIDES]
        head = [self.set, f"{self.letters:.3f}", f"{self.target:.3f}", str(self.times["stock"]), ours, self.ratio()]
        return [*head, *finals, f"{self.seconds:.3g}", *values, *rates]

    def ratio(self) -> str:
        """Return the stock loop's seconds over ours, with a sign where ours is a bound."""
        sign = {"<": ">", ">": "<"}.get(self.times["ours"].bound, "")
        return f"{sign}{self.times['stock'].seconds / self.times['ours'].seconds:.3g}x"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else mean


def best_rate(runs: Sequence[Run], *, keep_best: bool) -> float:
    """Return the learning rate of the run with the lowest final value."""
    best = min(runs, key=lambda run: (Curve.of(run, keep_best=keep_best).values[-1], run["lr"]))
    return float(best["lr"])


def outcome(name: str, runs: Sequence[Run], *, grid: Sequence[float], letters: float, keep_best: bool) -> Outcome:
    """Return the figures of a data set from the runs of both sides at their best learning rates, one for each seed."""
    sides = {side: [Curve.of(run, keep_best=keep_best) for run in runs if run["side"] == side] for side in SIDES}
    means = {side: Curve.mean(curves) for side, curves in sides.items()}
    target = means["stock"].values[-1]
    seconds = min(mean.seconds[-1] for mean in means.values())
    rates = {run["side"]: float(run["lr"]) for run in runs}
    edges = {min(grid), max(grid)} if len(grid) > 1 else set()
    return Outcome(
        set=name,
        letters=letters,
        target=target,
        times={side: mean.reaches(target) for side, mean in means.items()},
        spread=[curve.reaches(target) for curve in sides["ours"]],
        final={side: [curve.values[-1] for curve in curves] for side, curves in sides.items()},
        seconds=seconds,
        values={side: [curve.at(seconds) for curve in curves] for side, curves in sides.items()},
        rates={side: f"{rate:g}" + "*" * (rate in edges) for side, rate in rates.items()},
    )


def plain(outcomes: Sequence[Outcome]) -> str:
    """Return the figures as aligned text: a line for each figure, a column for each data set."""
    columns = [HEADERS, *(one.cells() for one in outcomes)]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return the figures as a Markdown table, a row for each data set."""
    rows = [HEADERS, ["---"] * len(HEADERS), *(one.cells() for one in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
