"""Laws of one variable: a * x^-b + c over sizes at fixed data (or over data at fixed size), and the best size of a fixed compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from protlig_dd.errors import require
from protlig_dd.scaling.fits import Parameter
from protlig_dd.scaling.runs import Runs, levels
from protlig_dd.scaling.sums import EXPONENTS, Array, f_test, linear_heights

_UNKNOWNS = 3
_SAME_COMPUTE = 0.05
_P_LAW = 0.05
_GRID, _MOST_ZOOMS = 61, 8
_ROUNDING = 1e-18  # of a sum of squared relative residuals
_WIDER = 0.05  # how far, relative to N, a minimum may be outside the sizes


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """y = a * x^-b + c over one variable, with the other one fixed.

    Attributes:
        over: the variable x: "params" or "tokens".
        level: the value of the other variable.
        x, y: the points, in order of x.
        parameters: a, b and c; empty if there are too few points.
        verdict: "identified", or why not.
    """

    over: str
    level: float
    x: Float[np.ndarray, " r"]
    y: Float[np.ndarray, " r"]
    parameters: tuple[Parameter, ...]
    verdict: str

    def at(self, x: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
        """Return the fitted y."""
        a, b, c = (p.value for p in self.parameters)
        return np.asarray(a * x**-b + c)


def fit_curves(runs: Runs, over: str) -> list[Curve]:
    """Return a curve for each level of the other variable that has two points or more.

    Least squares on relative residuals. Intervals are profiles: the exponents (and the a and c that are best with them) whose sum of
    squares is within the 95 % point of F(1, n - 3) of the minimum; a bootstrap over four points would draw the same one too often.

    Args:
        runs: see `runs.orient`.
        over: "params" (sizes at each data size) or "tokens" (data at each size).
    """
    x, other = (runs.params, runs.tokens) if over == "params" else (runs.tokens, runs.params)
    curves = []
    for rows in levels(other):
        rows = rows[np.argsort(x[rows])]
        if len(rows) >= 2:
            level = float(np.exp(np.log(other[rows]).mean()))
            curves.append(fit_curve(x[rows], runs.losses[rows], over=over, level=level))
    return curves


def fit_curve(x: Array, y: Array, *, over: str = "params", level: float = np.nan) -> Curve:
    """Return the curve through some points, in ascending order of x; see `fit_curves`."""

    def curve(parameters: tuple[Parameter, ...], reason: str) -> Curve:
        verdict = f"not identifiable from these runs: {reason}" if reason else "identified"
        return Curve(over=over, level=level, x=x, y=y, parameters=parameters, verdict=verdict)

    distinct = len(levels(x))
    if len(x) <= _UNKNOWNS or distinct < _UNKNOWNS:
        return curve((), f"{len(x)} runs at {distinct} places for {_UNKNOWNS} unknowns")
    if np.ptp(y) / y.min() < 1e-6:
        return curve((), "the values are flat")
    spare = len(x) - _UNKNOWNS
    exponents, squares, heights = _profile(x, y, 1 + _f_limit(spare) / spare)
    best = int(np.argmin(squares))
    kept = squares <= squares[best] * (1 + _f_limit(spare) / spare) + _ROUNDING
    flat = float(np.square(y / y.mean() - 1).sum())
    p_value = f_test(flat, float(squares[best]), added=2, left=spare)
    found = {"a": heights[:, 1], "b": exponents, "c": heights[:, 0]}
    reason = _reason(p_value, exponents[kept], heights[kept, 0], y)
    numbers = {n: (v[best], v[kept].min(), v[kept].max()) for n, v in found.items()}
    reasons = {"a": reason[0], "b": reason[0], "c": reason[0] or reason[1]}
    parameters = tuple(
        Parameter(name=n, value=float(v), low=float(a), high=float(b), reason=reasons[n]) for n, (v, a, b) in numbers.items()
    )
    return curve(parameters, "; ".join(dict.fromkeys(r for r in reason if r)))


def _profile(x: Array, y: Array, limit: float) -> tuple[Array, Array, Array]:
    """Exponents, the least squares with each, and their (c, a), on a grid that is narrowed until a quarter of it is within the limit."""
    centre = float(np.log(x).mean())
    column = (np.log(x) - centre)[None]
    low, high = EXPONENTS
    for _ in range(_MOST_ZOOMS):
        exponents = np.geomspace(low, high, _GRID)
        solved = [linear_heights(column, y, np.array([b])) for b in exponents]
        squares = np.square([error for _, error in solved])
        within = np.flatnonzero(squares <= squares.min() * limit + _ROUNDING)
        if len(within) >= _GRID // 4:
            break
        low, high = exponents[max(within[0] - 1, 0)], exponents[min(within[-1] + 1, _GRID - 1)]
    heights = np.array([[h[0], h[1] * np.exp(b * centre)] for (h, _), b in zip(solved, exponents, strict=True)])
    return exponents, squares, heights


def _f_limit(spare: int) -> float:
    return float(require("scipy.stats", "fitting scaling laws", extra="scaling").f.ppf(0.95, 1, spare))


def _reason(p_value: float, exponents: Array, floors: Array, y: Array) -> tuple[str, str]:
    """The reasons why the exponent and the floor are not determined; empty if they are."""
    if p_value >= _P_LAW:
        return f"no better than a constant (F-test, p = {p_value:.2g})", ""
    if exponents.min() <= EXPONENTS[0] * 1.01:
        return "b's interval reaches zero, where the power cannot be told from the floor", ""
    if exponents.max() >= EXPONENTS[1] * 0.99:
        return f"b's interval reaches {EXPONENTS[1]:g}, the bound of the search", ""
    if floors.min() <= 1e-3 * y.min():
        return "", "c's interval reaches zero: no floor is in sight"
    return "", ""


@dataclass(frozen=True, kw_only=True, eq=False)
class IsoFlop:
    """Runs of equal compute, and the best size for it.

    Attributes:
        compute: C = 6 N D of the group.
        params, losses: its points, in order of N.
        quadratic: coefficients of log L over log N, the highest power first.
        best_params: N at its minimum; NaN if not identified.
        verdict: "identified", or why not.
    """

    compute: float
    params: Float[np.ndarray, " r"]
    losses: Float[np.ndarray, " r"]
    quadratic: Float[np.ndarray, " q"]
    best_params: float
    verdict: str


def iso_flops(runs: Runs, *, tolerance: float = _SAME_COMPUTE) -> list[IsoFlop]:
    """Return, for each compute shared by three or more sizes, the parabola through the runs in log N and its minimum.

    Source: Hoffmann et al. 2022, approach 2.
    """
    found = []
    for rows in levels(runs.compute, tolerance):
        rows = rows[np.argsort(runs.params[rows])]
        if len(levels(runs.params[rows])) >= _UNKNOWNS:
            compute = float(np.exp(np.log(runs.compute[rows]).mean()))
            found.append(_parabola(compute, runs.params[rows], runs.losses[rows]))
    return found


def _parabola(compute: float, params: Array, losses: Array) -> IsoFlop:
    logs = np.log(params)
    centre = logs.mean()
    bend, slope, level = np.polyfit(logs - centre, np.log(losses), 2)
    quadratic = np.array([bend, slope - 2 * bend * centre, level - slope * centre + bend * centre**2])
    best, verdict = np.nan, "identified"
    if np.ptp(losses) / losses.min() < 1e-6:
        verdict = "not identifiable from these runs: the losses are flat"
    elif bend <= 0:
        verdict = "not identifiable from these runs: the parabola opens downwards, no size between the others is best"
    else:
        best = float(np.exp(centre - slope / (2 * bend)))
        if not params.min() * (1 - _WIDER) <= best <= params.max() * (1 + _WIDER):
            side = "above the largest" if best > params.max() else "below the smallest"
            verdict = f"not identifiable from these runs: the minimum, {best:.3g}, lies {side} size"
            best = np.nan
    return IsoFlop(compute=compute, params=params, losses=losses, quadratic=quadratic, best_params=best, verdict=verdict)


def frontier(groups: list[IsoFlop]) -> tuple[Parameter, ...]:
    """Return k and p of N_opt = k C^p over the minima of IsoFLOP groups; without intervals for two minima, and empty for fewer."""
    known = [(one.compute, one.best_params) for one in groups if np.isfinite(one.best_params)]
    if len(known) < 2:
        return ()
    x, y = np.log(np.array(known)).T
    power, level = np.polyfit(x, y, 1)
    spare, low, high = len(x) - 2, np.nan, np.nan
    reason = "two minima make a line without an error" if spare == 0 else ""
    if spare:
        stats = require("scipy.stats", "fitting scaling laws", extra="scaling")
        variance = float(np.square(y - power * x - level).sum()) / spare
        half = float(stats.t.ppf(0.975, spare)) * np.sqrt(variance / np.square(x - x.mean()).sum())
        low, high = power - half, power + half
        reason = "its interval holds zero" if low <= 0 <= high else ""
    return (
        Parameter(name="k", value=float(np.exp(level)), low=np.nan, high=np.nan, reason=reason),
        Parameter(name="p", value=float(power), low=float(low), high=float(high), reason=reason),
    )
