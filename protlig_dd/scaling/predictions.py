"""Predictions of a fitted law: runs that it was not fitted to, and the best size and data for a compute budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from protlig_dd.scaling.fits import PARAMETERS, Law, LawFit, fit_law
from protlig_dd.scaling.runs import Runs
from protlig_dd.scaling.sums import interval_around

_HELD_OUT = 0.25  # part of the runs, the largest by compute


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """The largest runs as a law of the smaller ones predicts them.

    Attributes:
        runs: the held-out runs.
        fit: the law fitted to the smaller runs.
        predicted, low, high: losses, with the 95 % interval of the bootstrap fits (of the law, not of a single run's noise); empty if
            nothing could be fitted.
        null: the lowest loss among the smaller runs: the prediction that larger runs are not better.
    """

    runs: Runs
    fit: LawFit
    predicted: Float[np.ndarray, " r"]
    low: Float[np.ndarray, " r"]
    high: Float[np.ndarray, " r"]
    null: float

    @property
    def error(self) -> float:
        """Mean relative error of the prediction; NaN if there is none."""
        return float(np.abs(self.predicted / self.runs.losses - 1).mean()) if len(self.predicted) else np.nan

    @property
    def null_error(self) -> float:
        """Mean relative error of the null."""
        return float(np.abs(self.null / self.runs.losses - 1).mean())

    @property
    def verdict(self) -> str:
        """Whether the law predicts better than the null."""
        if not self.fit.is_fitted:
            return f"no prediction: {self.fit.verdict}"
        better = "better" if self.error < self.null_error else "no better"
        return f"relative error {self.error:.2g}, {better} than the null's {self.null_error:.2g}"


def hold_out(runs: Runs, *, seed: int = 0, num_resamples: int = 100) -> HeldOut:
    """Return the prediction of the largest quarter of the runs, by 6 N D, from a law fitted to the rest."""
    order = np.argsort(runs.compute, kind="stable")
    count = max(1, int(np.ceil(_HELD_OUT * len(runs))))
    others, largest = runs.select(order[:-count]) if count < len(runs) else runs, runs.select(order[-count:])
    fit = fit_law(others, seed=seed, num_resamples=num_resamples)
    nothing = np.zeros(0)
    predicted, low, high = nothing, nothing, nothing
    if fit.law is not None:
        predicted = fit.law.loss(largest.params, largest.tokens)
        each = np.stack([law.loss(largest.params, largest.tokens) for law in _laws(fit)])
        low, high = interval_around(predicted, each)
    return HeldOut(runs=largest, fit=fit, predicted=predicted, low=low, high=high, null=float(others.losses.min()))


def _laws(fit: LawFit) -> list[Law]:
    return [Law(**dict(zip(PARAMETERS, map(float, row), strict=True))) for row in fit.resampled]


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The size and the data that are best for a compute budget under a law.

    Attributes:
        compute: C.
        params, tokens: N_opt and D_opt as (value, low, high).
        loss: the loss that the law predicts there, likewise.
        reason: why it is not reliable; empty if it is.
    """

    compute: float
    params: tuple[float, float, float]
    tokens: tuple[float, float, float]
    loss: tuple[float, float, float]
    reason: str = ""


def best_split(law: Law, compute: float, flops_per_param_token: float = 6.0) -> tuple[float, float]:
    """Return (N, D) that minimise E + A/N^alpha + B/D^beta at a fixed compute C = k N D.

    With D = C/(k N) the law is E + A N^-alpha + B (k N / C)^beta. Its derivative by log N is
    -alpha A N^-alpha + beta B (k N / C)^beta, which is zero where alpha A / N^alpha = beta B / D^beta: at the optimum the two terms are
    in the ratio of 1/alpha to 1/beta. Solved for N, N^(alpha + beta) = (alpha A)/(beta B) (C / k)^beta, so that

        N_opt = G (C / k)^(beta / (alpha + beta)),   D_opt = (C / k)^(alpha / (alpha + beta)) / G,
        G = (alpha A / (beta B))^(1 / (alpha + beta)).

    Args:
        law: the law.
        compute: C in FLOPs, under the convention of k.
        flops_per_param_token: k; 6 for C = 6 N D, or the runs' counted FLOPs over N D.

    Source: Hoffmann et al. 2022, equation 4.
    """
    both = law.alpha + law.beta
    g = (law.alpha * law.A / (law.beta * law.B)) ** (1 / both)
    products = compute / flops_per_param_token
    return g * products ** (law.beta / both), products ** (law.alpha / both) / g


def optimum(fit: LawFit, compute: float, flops_per_param_token: float = 6.0) -> Optimum | None:
    """Return the best size and data for a budget with bootstrap intervals, or None if there is no law."""
    if fit.law is None:
        return None
    each = []
    for law in (fit.law, *_laws(fit)):
        params, tokens = best_split(law, compute, flops_per_param_token)
        each.append((params, tokens, law.loss(params, tokens)))
    table = np.array(each)
    triples = [(float(v), float(a), float(b)) for v, a, b in zip(table[0], *interval_around(table[0], table), strict=True)]
    unknown = [p.name for p in fit.parameters if p.name in ("alpha", "beta") and not p.is_identified]
    reason = f"{' and '.join(unknown)} not identifiable from these runs" if unknown else ""
    return Optimum(compute=compute, params=triples[0], tokens=triples[1], loss=triples[2], reason=reason)


def flops_constant(runs: Runs) -> float:
    """Return k of C = k N D: the geometric mean of the runs' counted FLOPs over N D; NaN if none is counted."""
    ratios = (runs.flops / (runs.params * runs.tokens))[np.isfinite(runs.flops)]
    return float(np.exp(np.log(ratios).mean())) if len(ratios) else np.nan
