"""Estimates with their intervals, and scores with their nulls: every number of an evaluation is one of these.

The intervals are Wilson's for a fraction, the percentile bootstrap for a mean (over single values or whole clusters), Hoeffding's for a
mean over pairs, and the jackknife for any other smooth statistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from protlig_dd import rng

_NUM_RESAMPLES = 2000
_MAX_BOOTSTRAP = 20_000  # values; above it the bootstrap and the normal interval agree to far below the printed digits
_CHUNK = 1 << 20  # resampled indices held at once


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number, its interval, and the number of values behind it.

    Attributes:
        value: the estimate; NaN if there were no values.
        low: lower end of the interval; NaN if it is not known (one value, one cluster, a plain count).
        high: upper end of the interval; NaN with `low`.
        num: number of values (not of clusters) behind the estimate.
    """

    value: float
    low: float
    high: float
    num: int

    def __post_init__(self) -> None:
        """Check once that the interval contains the value.

        Raises:
            ValueError: if it does not, or if `num` is negative.
        """
        if self.num < 0:
            raise ValueError(f"Estimate.num: found {self.num}, expected a count of at least 0")
        if math.isnan(self.low) != math.isnan(self.high):
            raise ValueError(f"Estimate: found the ends {self.low} and {self.high}, expected two numbers or two NaN")
        if self.has_interval and not self.low <= self.value <= self.high:
            raise ValueError(f"Estimate: {self.value} lies outside its own interval [{self.low}, {self.high}]")

    @staticmethod
    def missing() -> Estimate:
        """Return the estimate of an empty list of values."""
        return Estimate(value=math.nan, low=math.nan, high=math.nan, num=0)

    @staticmethod
    def plain(value: float | int, num: int) -> Estimate:
        """Return a number without an interval, such as a count of distinct items."""
        return Estimate(value=float(value), low=math.nan, high=math.nan, num=num)

    @property
    def has_interval(self) -> bool:
        """Whether an interval is known."""
        return not math.isnan(self.low)

    def __str__(self) -> str:
        """Return for example "0.81 [0.78, 0.84]": with as many digits as the interval's half-width justifies."""
        if self.num == 0 or math.isnan(self.value):
            return "none"
        if not self.has_interval:
            return f"{self.value:.4g}"
        largest = max(abs(self.low), abs(self.high))
        decimals = 2 if largest < 10 else 1 if largest < 1000 else 0
        half_width = (self.high - self.low) / 2
        if half_width > 0:
            decimals = min(6, max(decimals, -math.floor(math.log10(half_width))))
        return f"{self.value:.{decimals}f} [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A measured number with its null: the same measure where nothing was learned, or on real data.

    Attributes:
        name: the name of the measure, as a report prints it.
        value: the estimate on the samples.
        null: the same measure on the null; None if there is no meaningful one.
        null_name: what the null is, such as "training sample".
        note: a remark needed to read the number, such as how many samples were left out.
    """

    name: str
    value: Estimate
    null: Estimate | None = None
    null_name: str = ""
    note: str = ""

    def __str__(self) -> str:
        """Return one line: name, value, number of values, null, note."""
        return "  ".join(cell for cell in self.cells() if cell)

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the columns of a table: name, value, number of values, null, note."""
        null = f"null {self.null} ({self.null_name})" if self.null is not None else ""
        return self.name, str(self.value), f"n={self.value.num}", null, self.note


def format_scores(scores: Sequence[Score]) -> str:
    """Return scores as aligned lines of text, one for each score."""
    rows = [score.cells() for score in scores]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(5)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True) if w).rstrip() for row in rows)


def z_value(level: float) -> float:
    """Return the half-width, in standard deviations, of the central normal interval: 1.95996 at 0.95.

    Raises:
        ValueError: if the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}, expected a number between 0 and 1 such as 0.95")
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(num_true: int, num: int, *, level: float = 0.95) -> Estimate:
    """Return a fraction and its Wilson score interval, which stays inside [0, 1] and is valid for 0 of n too.

    Raises:
        ValueError: unless 0 <= num_true <= num.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209 (without continuity correction).
    """
    if not 0 <= num_true <= num:
        raise ValueError(f"wilson: found {num_true} of {num}, expected a count between 0 and {num}")
    z = z_value(level)
    if num == 0:
        return Estimate.missing()
    p = num_true / num
    # (p + z^2/2n  +-  z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    centre = (p + z * z / (2 * num)) / (1 + z * z / num)
    half = z * math.sqrt(p * (1 - p) / num + z * z / (4 * num * num)) / (1 + z * z / num)
    return Estimate(value=p, low=max(0.0, min(p, centre - half)), high=min(1.0, max(p, centre + half)), num=num)


def bootstrap_mean(
    values: Sequence[float | int] | Float[np.ndarray, " n"], *, seed: int = 0, num_resamples: int = _NUM_RESAMPLES, level: float = 0.95
) -> Estimate:
    """Return a mean and its percentile bootstrap interval.

    Above 20,000 values it returns the normal interval, to which the bootstrap converges.

    Raises:
        ValueError: if a value is not finite; missing values must be left out and counted, not averaged.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    array = _finite(values)
    if len(array) > _MAX_BOOTSTRAP:
        return normal_interval(float(array.mean()), float(array.std(ddof=1)) / math.sqrt(len(array)), len(array), level=level)
    return ratio_bootstrap(array, np.ones(len(array)), seed=seed, num_resamples=num_resamples, level=level)


def cluster_bootstrap_mean(
    values: Sequence[float | int] | Float[np.ndarray, " n"],
    clusters: Sequence[Any],
    *,
    seed: int = 0,
    num_resamples: int = _NUM_RESAMPLES,
    level: float = 0.95,
) -> Estimate:
    """Return a mean over all values and its interval when whole clusters (protein families, scaffolds) are resampled.

    Values of one cluster are not independent; resampling them individually gives intervals that are too narrow. A single cluster has no
    interval.

    Args:
        values: the measured numbers.
        clusters: the cluster of each value, as any hashable label.
        seed: seed of the resampling.
        num_resamples: number of resampled sets of clusters.
        level: coverage of the interval.

    Raises:
        ValueError: if a value is not finite, or if there is not one label for each value.

    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8.
    """
    array = _finite(values)
    if len(clusters) != len(array):
        raise ValueError(f"clusters: found {len(clusters)} labels, expected one for each of the {len(array)} values")
    numbers: dict[Any, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in clusters], dtype=np.int64)
    sums = np.bincount(codes, weights=array, minlength=len(numbers)).astype(np.float64)  # whole numbers for none
    counts = np.bincount(codes, minlength=len(numbers)).astype(np.float64)
    return ratio_bootstrap(sums, counts, seed=seed, num_resamples=num_resamples, level=level)


def _finite(values: Any) -> Float[np.ndarray, " n"]:
    array = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"values[{bad[0]}]: found {array[bad[0]]}, expected a finite number; leave out and count what is missing")
    return array


def ratio_bootstrap(
    sums: Float[np.ndarray, " c"],
    counts: Float[np.ndarray, " c"],
    *,
    seed: int = 0,
    num_resamples: int = _NUM_RESAMPLES,
    level: float = 0.95,
) -> Estimate:
    """Return sum(sums) / sum(counts) with its interval over resampled rows, such as the correct residues and the residues of each chain.

    Args:
        sums, counts: numerator and denominator of each row.
        seed: seed of the resampling.
        num_resamples: number of resampled sets of rows.
        level: coverage of the interval.
    """
    z_value(level)  # refuses a level outside (0, 1)
    num = int(counts.sum())
    if num == 0:
        return Estimate.missing()
    value = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        return Estimate.plain(value, num)
    draws = np.random.default_rng(rng.key(seed, "bootstrap"))
    means = np.empty(num_resamples)
    chunk = max(1, _CHUNK // len(sums))
    for start in range(0, num_resamples, chunk):
        rows: Int[np.ndarray, "r c"] = draws.integers(len(sums), size=(min(chunk, num_resamples - start), len(sums)))
        means[start : start + len(rows)] = sums[rows].sum(1) / counts[rows].sum(1)
    return percentile_interval(value, means, num, level=level)


def percentile_interval(value: float, drawn: Float[np.ndarray, " r"], num: int, *, level: float = 0.95) -> Estimate:
    """Return a value with the central percentiles of its resampled values, widened where they leave it out."""
    tail = 50 * (1 - level)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), num=num)


def normal_interval(value: float, standard_error: float, num: int, *, level: float = 0.95) -> Estimate:
    """Return a value with the symmetric interval of its standard error."""
    half = z_value(level) * standard_error
    return Estimate(value=value, low=value - half, high=value + half, num=num)


def jackknife(value: float, left_out: Float[np.ndarray, " n"], *, minimum: float = -math.inf, level: float = 0.95) -> Estimate:
    """Return a smooth statistic with the interval of its jackknife standard error.

    Args:
        value: the statistic on all n values.
        left_out: the statistic with each one of the n values left out in turn; fewer than two give no interval.
        minimum: a lower bound of the statistic; the interval ends there.
        level: coverage of the interval.

    Source: Efron and Tibshirani 1993, chapter 11.
    """
    num = len(left_out)
    if num < 2:
        return Estimate.plain(value, num) if num else Estimate.missing()
    # se^2 = (n-1)/n sum_i (theta_(i) - mean)^2
    standard_error = math.sqrt((num - 1) * float(left_out.var()))
    half = z_value(level) * standard_error
    return Estimate(value=value, low=max(value - half, minimum), high=value + half, num=num)


def pair_mean(distances: Float[np.ndarray, "n n"], *, level: float = 0.95) -> Estimate:
    """Return the mean over all pairs of different items, with the interval that counts items, not pairs.

    Args:
        distances: symmetric; the diagonal is ignored.
        level: coverage of the interval.

    Source: Hoeffding 1948, Ann. Math. Stat. 19, 293: the variance of a U-statistic of order two tends to 4/n var(h_1).
    """
    num = len(distances)
    if num < 2:
        return Estimate.missing()
    row_means = (distances.sum(1) - np.diag(distances)) / (num - 1)
    return normal_interval(float(row_means.mean()), 2 * float(row_means.std(ddof=1)) / math.sqrt(num), num, level=level)
