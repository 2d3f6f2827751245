"""A constant plus falling power laws, fitted to positive numbers in log space: y = E + sum_k A_k exp(-a_k x_k).

The x are logarithms of sizes, centred, so that A_k is the term's height in the middle of the runs. The meaning of the columns, intervals
and verdicts are in `fits.py` and `curves.py`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from protlig_dd.errors import require

Array = Float[np.ndarray, "..."]
DELTA = 1e-3
"""The log residual at which Huber's loss turns from quadratic to linear (Hoffmann et al. 2022)."""
EXPONENTS = (0.02, 3.0)
"""The range of exponents searched: below it, a term is a constant; above it, a step between the two smallest sizes."""
_STARTS = (0.1, 0.2, 0.35, 0.6, 1.0, 1.7)
_DEPTH = 7.0  # a constant or a term below e^-7 of the lowest value counts as 0


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerSum:
    """A fitted constant with its terms.

    Attributes:
        constant: E.
        heights: A_k, the height of each term at x_k = 0.
        exponents: a_k.
    """

    constant: float
    heights: Float[np.ndarray, " k"]
    exponents: Float[np.ndarray, " k"]

    def at(self, columns: Float[np.ndarray, "k r"]) -> Float[np.ndarray, " r"]:
        """Return y at x, given as a row for each term."""
        terms = self.heights[:, None] * np.exp(-self.exponents[:, None] * columns)
        return np.asarray(self.constant + terms.sum(0))

    @property
    def vector(self) -> Float[np.ndarray, " p"]:
        """log E, then log A and a of each term: the vector that is optimised."""
        pairs = np.stack([np.log(self.heights), self.exponents], axis=1).ravel()
        return np.concatenate([[np.log(self.constant)], pairs])

    @staticmethod
    def of(vector: Float[np.ndarray, " p"]) -> PowerSum:
        """Return the sum for a vector of the optimiser."""
        return PowerSum(constant=float(np.exp(vector[0])), heights=np.exp(vector[1::2]), exponents=np.asarray(vector[2::2]))


def bounds_of(values: Float[np.ndarray, " r"], num_terms: int) -> tuple[Array, Array]:
    """Return the lower and upper bounds of the vectors searched; a constant or term of e^-7 of the lowest value counts as 0."""
    low, high = float(np.log(values.min())), float(np.log(values.max()))
    lower = [low - _DEPTH, *([low - _DEPTH, EXPONENTS[0]] * num_terms)]
    upper = [high + 0.5, *([high + 4.0, EXPONENTS[1]] * num_terms)]
    return np.array(lower), np.array(upper)


def fit_sum(
    columns: Float[np.ndarray, "k r"],
    values: Float[np.ndarray, " r"],
    *,
    loss: Literal["huber", "linear"] = "huber",
    starts: Float[np.ndarray, "s p"] | None = None,
    num_starts: int = 4,
) -> PowerSum:
    """Return the sum whose logarithm is nearest to the logarithm of the values.

    log y is written as a log-sum-exp of log E and log A_k - a_k x_k (Hoffmann et al. 2022, section 3.3 and D.2) and minimised by scipy's
    bounded trust-region least squares with Huber's loss. Instead of their 4,500 starts, the heights for each exponent of a grid are found
    exactly as a non-negative linear problem, and the best of these starts are refined.

    Args:
        columns: centred logarithms of the sizes, a row for each term.
        values: positive numbers.
        loss: "huber" with delta 1e-3, or "linear" for least squares.
        starts: further vectors to start from.
        num_starts: number of the best starts that are refined.

    Raises:
        MissingDependencyError: if scipy is absent.
    """
    optimize = require("scipy.optimize", "fitting scaling laws", extra="scaling")
    lower, upper = bounds_of(values, len(columns))
    room = 1e-6 * (upper - lower)
    target = np.log(values)
    tries = list(_grid_starts(columns, values)[: num_starts + 1]) + ([] if starts is None else list(starts))
    tries.sort(key=lambda start: float(_huber(_residuals(start, columns, target)).sum()))
    best: Any = None
    for start in tries[:num_starts]:
        found = optimize.least_squares(
            _residuals,
            np.clip(start, lower + room, upper - room),
            jac=_jacobian,
            bounds=(lower, upper),
            loss=loss,
            f_scale=DELTA,
            x_scale="jac",
            max_nfev=200,
            args=(columns, target),
        )
        if best is None or found.cost < best.cost:
            best = found
    return PowerSum.of(best.x)


def _parts(vector: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """log of the constant and of each term, [k + 1, r]."""
    terms = vector[1::2, None] - vector[2::2, None] * columns
    return np.concatenate([np.full((1, columns.shape[1]), vector[0]), terms])


def _residuals(vector: np.ndarray, columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp.reduce(_parts(vector, columns), axis=0) - target)


def _huber(residuals: np.ndarray) -> np.ndarray:
    size = np.abs(residuals)
    return np.asarray(np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2)))


def _jacobian(vector: np.ndarray, columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    parts = _parts(vector, columns)
    shares = np.exp(parts - np.logaddexp.reduce(parts, axis=0))  # d log y / d log part
    rows = [shares[0]]
    for share, column in zip(shares[1:], columns, strict=True):
        rows += [share, -share * column]
    return np.stack(rows, axis=1)


def _grid_starts(columns: Array, values: Array) -> list[Array]:
    """Vectors from a grid of exponents, the best first; the heights of each by non-negative least squares on relative residuals."""
    lower, _ = bounds_of(values, len(columns))
    found = []
    for exponents in itertools.product(_STARTS, repeat=len(columns)):
        powers = np.array(exponents)
        heights, error = linear_heights(columns, values, powers)
        logs = np.log(np.maximum(heights, np.exp(lower[0])))
        pairs = np.stack([logs[1:], powers], axis=1).ravel()
        found.append((error, np.concatenate([logs[:1], pairs])))
    return [vector for _, vector in sorted(found, key=lambda one: one[0])]


def linear_heights(columns: Array, values: Array, exponents: Array) -> tuple[Array, float]:
    """Return E and the heights (0 or more) that fit best for given exponents, and the root of the sum of squared relative residuals."""
    optimize = require("scipy.optimize", "fitting scaling laws", extra="scaling")
    design = np.concatenate([np.ones((1, len(values))), np.exp(-exponents[:, None] * columns)])
    heights, error = optimize.nnls((design / values).T, np.ones(len(values)))
    return np.asarray(heights), float(error)


def squared_error(columns: Array, values: Array, start: PowerSum | None = None) -> float:
    """Return the least sum of squared log residuals that a sum with these columns reaches; without columns, that of a constant."""
    if not len(columns):
        return float(np.square(np.log(values) - np.log(values).mean()).sum())
    starts = None if start is None else start.vector[None]
    fitted = fit_sum(columns, values, loss="linear", starts=starts, num_starts=3)
    return float(np.square(np.log(fitted.at(columns)) - np.log(values)).sum())


def f_test(smaller: float, larger: float, *, added: int, left: int) -> float:
    """Return the p-value of an F-test: that `added` parameters without effect lower a sum of squares this much, with `left` residual degrees
    of freedom.

    Exact for linear models with normal errors; for exponents it is the usual approximation, which the tests measure on flat losses.

    Args:
        smaller: sum of squares of the smaller model.
        larger: sum of squares of the larger model.
        added: parameters that the larger model has more.
        left: runs less the parameters of the larger model.
    """
    stats = require("scipy.stats", "fitting scaling laws", extra="scaling")
    if left < 1:
        return 1.0
    if larger <= 0:
        return 0.0 if smaller > 0 else 1.0
    ratio = max(smaller - larger, 0.0) / added / (larger / left)
    return float(stats.f.sf(ratio, added, left))


def interval_around(value: Array, resampled: Array) -> tuple[Array, Array]:
    """Return the ends of the central 95 % of resampled rows, widened where they leave out the value."""
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return np.minimum(low, value), np.maximum(high, value)
