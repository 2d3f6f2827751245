"""The law of size and data, L(N, D) = E + A / N^alpha + B / D^beta: its parameters, their intervals, and whether the runs determine them.

Source: Hoffmann et al. 2022, approach 3. A parameter that the runs do not determine is reported with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from protlig_dd import rng
from protlig_dd.scaling.runs import Runs, levels
from protlig_dd.scaling.sums import EXPONENTS, Array, PowerSum, bounds_of, f_test, fit_sum, interval_around, squared_error

PARAMETERS = ("E", "A", "alpha", "B", "beta")
_FEWEST_RUNS = len(PARAMETERS) + 2
_FEWEST_LEVELS = 3
_P_LAW, _P_TERM = 0.01, 0.05
_FLAT = 1e-6  # a spread below this part of the value is rounding


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A fitted number with its 95 % interval, and the reason if the runs do not determine it.

    Attributes:
        name: E, A, alpha, B or beta, or another number of a law.
        value, low, high: the estimate and its interval; NaN if nothing was fitted.
        reason: why the runs do not determine it; empty if they do.
    """

    name: str
    value: float
    low: float
    high: float
    reason: str = ""

    @property
    def is_identified(self) -> bool:
        """Whether the runs determine it."""
        return not self.reason

    def __str__(self) -> str:
        """Return for example "alpha 0.35 [0.31, 0.41]", followed by the reason if it is not identified."""
        text = f"{self.name} {self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"
        return text if self.is_identified else f"{text}: not identifiable from these runs: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta with its five numbers."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, params: Any, tokens: Any) -> Any:
        """Return L at sizes and tokens, numbers or arrays."""
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    @property
    def vector(self) -> Float[np.ndarray, " p"]:
        """The five numbers in the order of PARAMETERS."""
        return np.array([getattr(self, name) for name in PARAMETERS])


@dataclass(frozen=True, kw_only=True, eq=False)
class LawFit:
    """A law fitted to runs, or the reason why there is none.

    Attributes:
        num_runs: number of runs fitted.
        law: None if nothing can be fitted.
        parameters: the five, each with interval and verdict; empty if nothing can be fitted.
        verdict: "identified", or what the runs do not determine and why.
        residual: root mean square of the log residuals, about the relative error.
        cross_validated: the same for each run predicted by a law fitted to all other runs.
        constant: the same for each run predicted by the mean of all other runs.
        p_value: probability that terms without effect improve on a constant as much as the law does (F-test).
        resampled: the parameters of bootstrap fits, a row each.
    """

    num_runs: int
    law: Law | None
    parameters: tuple[Parameter, ...] = ()
    verdict: str
    residual: float = np.nan
    cross_validated: float = np.nan
    constant: float = np.nan
    p_value: float = np.nan
    resampled: Float[np.ndarray, "b p"]

    @property
    def is_fitted(self) -> bool:
        """Whether there is a law at all."""
        return self.law is not None

    @property
    def is_identified(self) -> bool:
        """Whether every parameter is determined."""
        return self.is_fitted and all(p.is_identified for p in self.parameters)

    def parameter(self, name: str) -> Parameter:
        """Return a parameter by its name."""
        return next(p for p in self.parameters if p.name == name)


def fit_law(runs: Runs, *, seed: int = 0, num_resamples: int = 200) -> LawFit:
    """Return L(N, D) fitted to runs by Huber's loss on log L, with bootstrap intervals over runs and a verdict for each parameter.

    The bootstrap draws runs with replacement, and draws again if fewer than three sizes or data sizes, or fewer distinct runs than
    parameters, are left. Nothing is identifiable with fewer than 7 runs, 3 sizes or 3 data sizes, if the values are flat, or if the law is
    not better than a constant (F-test at 0.01, and leave-one-out error). A term is not identifiable if the law without it is as good (F-test
    at 0.05), and a number is not if its interval reaches zero or the bounds of the search.

    Args:
        runs: see `runs.orient` for a metric that rises.
        seed: seed of the bootstrap.
        num_resamples: number of bootstrap fits.
    """
    nothing = _too_little(runs)
    if nothing:
        return _none(runs, nothing)
    columns, centres = _columns(runs)
    values = runs.losses
    fitted = fit_sum(columns, values)
    spare = len(runs) - len(PARAMETERS)
    error, flat_error = squared_error(columns, values, fitted), squared_error(columns[:0], values)
    p_value = f_test(flat_error, error, added=len(PARAMETERS) - 1, left=spare)
    predicted, constant = _leave_one_out(columns, values, fitted)
    if p_value >= _P_LAW or predicted >= constant:
        return _none(
            runs,
            f"the law is no better than a constant: idle terms do as well with p = {p_value:.2g} (F-test), and a run is predicted from "
            f"the others with a relative error of {predicted:.2g}, by their mean with {constant:.2g}",
            p_value,
            predicted,
            constant,
        )
    terms = [f_test(squared_error(np.delete(columns, k, 0), values), error, added=2, left=spare) for k in range(len(columns))]
    resampled = _bootstrap(columns, values, fitted, seed, num_resamples)
    parameters = _parameters(fitted, resampled, values, terms, centres)
    return LawFit(
        num_runs=len(runs),
        law=Law(**{p.name: p.value for p in parameters}),
        parameters=parameters,
        verdict=_verdict(parameters),
        residual=float(np.sqrt(np.square(np.log(fitted.at(columns) / values)).mean())),
        cross_validated=predicted,
        constant=constant,
        p_value=p_value,
        resampled=np.stack([_numbers(one, centres) for one in resampled]),
    )


def _too_little(runs: Runs) -> str:
    """The reason why no law can be fitted; empty if one can."""
    for what, column in (("model sizes", runs.params), ("data sizes", runs.tokens)):
        found = len(levels(column))
        if found < _FEWEST_LEVELS:
            return f"found {found} {what}, a term of the law needs {_FEWEST_LEVELS} or more"
    if len(runs) < _FEWEST_RUNS:
        return f"found {len(runs)} runs, {len(PARAMETERS)} parameters need {_FEWEST_RUNS} or more"
    spread = float(np.ptp(runs.losses) / runs.losses.min())
    if spread < _FLAT:
        return f"the {runs.metric} is flat: all runs agree to {spread:.1g}"
    return ""


def _none(runs: Runs, reason: str, *numbers: float) -> LawFit:
    p_value, predicted, constant = numbers or (np.nan, np.nan, np.nan)
    return LawFit(
        num_runs=len(runs),
        law=None,
        verdict=f"not identifiable from these runs: {reason}",
        cross_validated=predicted,
        constant=constant,
        p_value=p_value,
        resampled=np.zeros((0, len(PARAMETERS))),
    )


def _columns(runs: Runs) -> tuple[Array, Array]:
    logs = np.log(np.stack([runs.params, runs.tokens]))
    centres = logs.mean(1)
    return logs - centres[:, None], centres


def _leave_one_out(columns: Array, values: Array, fitted: PowerSum) -> tuple[float, float]:
    """Root mean square log error of leave-one-out predictions: by the law, and by the mean of the remaining runs."""
    law, constant = [], []
    for i in range(len(values)):
        others = np.arange(len(values)) != i
        found = fit_sum(columns[:, others], values[others], starts=fitted.vector[None], num_starts=1)
        law.append(np.log(found.at(columns[:, [i]])[0] / values[i]))
        constant.append(np.log(values[others]).mean() - np.log(values[i]))
    return float(np.sqrt(np.square(law).mean())), float(np.sqrt(np.square(constant).mean()))


def _bootstrap(columns: Array, values: Array, fitted: PowerSum, seed: int, count: int) -> list[PowerSum]:
    draws = np.random.default_rng(rng.key(seed, "scaling", "bootstrap"))
    found: list[PowerSum] = []
    while len(found) < count:
        rows = draws.integers(len(values), size=len(values))
        sizes = [len(levels(np.exp(column[rows]))) for column in columns]
        if min(sizes) < _FEWEST_LEVELS or len(np.unique(rows)) <= len(PARAMETERS):
            continue
        found.append(fit_sum(columns[:, rows], values[rows], starts=fitted.vector[None], num_starts=1))
    return found


def _numbers(fitted: PowerSum, centres: Array) -> Array:
    """E, A, alpha, B, beta of centred columns: A_k exp(-a (log N - m)) = A_k exp(a m) N^-a."""
    heights = fitted.heights * np.exp(fitted.exponents * centres)
    return np.array([fitted.constant, heights[0], fitted.exponents[0], heights[1], fitted.exponents[1]])


def _parameters(fitted: PowerSum, resampled: list[PowerSum], values: Array, terms: list[float], centres: Array) -> tuple[Parameter, ...]:
    numbers = _numbers(fitted, centres)
    low, high = interval_around(numbers, np.array([_numbers(one, centres) for one in resampled]))
    second = [letter for k, letter in enumerate("ND") if terms[k] < _P_TERM and _reaches_zero(low[2 + 2 * k])]
    reasons = [_reason_of_floor(low[0], high[0], values, second)]
    for k, letter in enumerate("ND"):
        reason = _reason_of_term(letter, terms[k], low[2 + 2 * k], high[2 + 2 * k])
        reasons += [reason, reason]
    columns = zip(PARAMETERS, numbers, low, high, reasons, strict=True)
    return tuple(Parameter(name=n, value=float(v), low=float(a), high=float(b), reason=r) for n, v, a, b, r in columns)


def _reaches_zero(exponent: float) -> bool:
    return bool(exponent <= EXPONENTS[0] * 1.01)


def _reason_of_floor(low: float, high: float, values: Array, second: list[str]) -> str:
    """Why E is not identified; `second` are the terms whose exponent may be zero, so that they may be a part of E."""
    lowest = float(values.min())
    if second:
        return f"the exponent's interval of the term in {second[0]} reaches zero, where the term is a part of E"
    nothing = float(np.exp(bounds_of(values, 1)[0][0]))
    if low <= 2 * nothing:
        return f"its interval reaches zero: the values, down to {lowest:.4g}, still fall too steeply to show a floor"
    if high - low > lowest / 2:
        return f"its interval is wider than half the lowest value, {lowest:.4g}"
    return ""


def _reason_of_term(letter: str, p_value: float, low: float, high: float) -> str:
    what = "size" if letter == "N" else "data"
    if p_value >= _P_TERM:
        return f"without the term in {letter} the law fits as well (p = {p_value:.2g}): no effect of {what} in these runs"
    if _reaches_zero(low):
        sizes = "sizes" if letter == "N" else "data sizes"
        return f"the exponent's interval reaches zero, where the term cannot be told from E: the {sizes} span too little"
    if high >= EXPONENTS[1] * 0.99:
        return f"the exponent's interval reaches {EXPONENTS[1]:g}, the bound of the search: only the smallest {what} differs from the rest"
    return ""


def _verdict(parameters: tuple[Parameter, ...]) -> str:
    open_ones = [p for p in parameters if not p.is_identified]
    if not open_ones:
        return "identified"
    reasons: dict[str, list[str]] = {}
    for p in open_ones:
        reasons.setdefault(p.reason, []).append(p.name)
    text = "; ".join(f"{' and '.join(names)}: {reason}" for reason, names in reasons.items())
    return f"not identifiable from these runs: {text}"
