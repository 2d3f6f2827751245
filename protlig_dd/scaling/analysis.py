"""The whole analysis of a set of runs as one value: the law, the curves, the IsoFLOP minima, the held-out runs, the budgets."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protlig_dd.evaluation.sections import finite_or_none
from protlig_dd.files import written_whole
from protlig_dd.scaling.curves import Curve, IsoFlop, fit_curves, frontier, iso_flops
from protlig_dd.scaling.fits import LawFit, Parameter, fit_law
from protlig_dd.scaling.predictions import HeldOut, Optimum, flops_constant, hold_out, optimum
from protlig_dd.scaling.runs import Runs

CONVENTION = (
    "C = 6 N D: 2 operations a parameter and token forward, 4 backward (Kaplan et al. 2020); attention's products are not in it. "
    "Counted FLOPs, where known, are matrix products of all layers and of attention over real pairs, three times the forward pass."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """The analysis of a set of runs in size, data and compute.

    Attributes:
        runs: the runs.
        law: L(N, D).
        over_params, over_tokens: a * x^-b + c at each level of the other variable.
        iso_flops: parabolas at fixed compute; empty if no three runs share one.
        frontier: k and p of N_opt = k C^p over their minima.
        held_out: the largest runs predicted from the smaller ones; None if there are too few runs.
        optima: best N and D for each budget.
        flops_constant: counted FLOPs over N D, to compare with the 6 of the convention.
        seed: seed of the bootstraps.
    """

    runs: Runs
    law: LawFit
    over_params: tuple[Curve, ...]
    over_tokens: tuple[Curve, ...]
    iso_flops: tuple[IsoFlop, ...]
    frontier: tuple[Parameter, ...]
    held_out: HeldOut | None
    optima: tuple[Optimum, ...]
    flops_constant: float
    seed: int

    def lines(self) -> Iterator[str]:
        """Yield the analysis in words."""
        runs = self.runs
        fitted = runs.metric if runs.ceiling is None else f"{runs.ceiling:g} - {runs.metric} (it rises)"
        yield f"{len(runs)} runs, N {runs.params.min():.3g} to {runs.params.max():.3g}, D {runs.tokens.min():.3g} to {runs.tokens.max():.3g}; fitted: {fitted}"
        yield "L(N, D) = E + A / N^alpha + B / D^beta"
        for parameter in self.law.parameters:
            yield f"  {parameter}"
        if self.law.is_fitted:
            yield (
                f"  relative error {self.law.residual:.2g} in the fit, {self.law.cross_validated:.2g} cross-validated, "
                f"{self.law.constant:.2g} of a constant"
            )
        yield f"  {self.law.verdict}" if not self.law.is_fitted else f"  verdict: {_short(self.law)}"
        for curve in (*self.over_params, *self.over_tokens):
            x, at = ("N", "D") if curve.over == "params" else ("D", "N")
            text = ", ".join(str(p).split(":")[0] for p in curve.parameters)
            yield f"L({x}) at {at} = {curve.level:.3g}: {text}{'; ' if text else ''}{curve.verdict}"
        for one in self.iso_flops:
            best = "" if math.isnan(one.best_params) else f"best N {one.best_params:.3g}, "
            yield f"IsoFLOP {one.compute:.3g}: {best}{one.verdict}"
        if self.frontier:
            yield "N_opt = k C^p: " + ", ".join(map(str, self.frontier))
        if self.held_out is not None:
            yield f"the {len(self.held_out.runs)} largest runs, held out: {self.held_out.verdict}"
        for budget in self.optima:
            yield f"C = {budget.compute:.3g}: " + _optimum_words(budget)

    def to_json(self) -> dict[str, Any]:
        """Return the analysis as plain values, NaN as null."""
        plain: dict[str, Any] = _plain(self)
        plain["convention"] = CONVENTION
        plain["law"] |= {"is_identified": self.law.is_identified}
        if self.held_out is not None:
            held: dict[str, Any] = plain["held_out"]
            plain["held_out"] = held | {
                "verdict": self.held_out.verdict,
                "error": finite_or_none(self.held_out.error),
                "null_error": finite_or_none(self.held_out.null_error),
            }
        return plain


def _short(law: LawFit) -> str:
    if law.is_identified:
        return "every parameter is identified"
    known = [p.name for p in law.parameters if p.is_identified]
    if not known:
        return "no parameter is identifiable from these runs"
    return f"identified: {', '.join(known)}; the others are not identifiable from these runs"


def _optimum_words(best: Optimum) -> str:
    numbers = (("N", best.params), ("D", best.tokens), ("L", best.loss))
    text = ", ".join(f"{n}_opt {v:.3g} [{low:.3g}, {high:.3g}]" for n, (v, low, high) in numbers)
    return text + (f"; not to be trusted: {best.reason}" if best.reason else "")


def analyse(runs: Runs, *, budgets: Sequence[float] = (), seed: int = 0, num_resamples: int = 200) -> Analysis:
    """Return the analysis of some runs.

    Args:
        runs: see `runs.orient` for a metric that rises.
        budgets: computes C = 6 N D to find the best N and D for; empty takes the largest run's and ten times that.
        seed: seed of the bootstraps.
        num_resamples: number of bootstrap fits of the law.
    """
    law = fit_law(runs, seed=seed, num_resamples=num_resamples)
    groups = tuple(iso_flops(runs))
    largest = float(runs.compute.max())
    found = [optimum(law, c) for c in (budgets or (largest, 10 * largest))]
    return Analysis(
        runs=runs,
        law=law,
        over_params=tuple(fit_curves(runs, "params")),
        over_tokens=tuple(fit_curves(runs, "tokens")),
        iso_flops=groups,
        frontier=frontier(list(groups)),
        held_out=hold_out(runs, seed=seed, num_resamples=max(20, num_resamples // 2)) if len(runs) > 2 else None,
        optima=tuple(one for one in found if one is not None),
        flops_constant=flops_constant(runs),
        seed=seed,
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (f.name for f in dataclasses.fields(value) if f.name != "resampled")
        return {name: _plain(getattr(value, name)) for name in fields}
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return finite_or_none(float(value)) if isinstance(value, float | np.floating) else value


def write_runs(path: Path, analysis: Analysis) -> None:
    """Write the runs with the fitted value of each as a CSV that `runs.read_csv` reads, whole or not at all."""
    runs, law = analysis.runs, analysis.law.law
    header = ["name", "params", "tokens", "value", "flops", "compute_6nd", "fitted", "metric"]
    fitted = np.full(len(runs), np.nan) if law is None else runs.to_measured(law.loss(runs.params, runs.tokens))
    columns = (runs.names, runs.params, runs.tokens, runs.values, runs.flops, runs.compute, fitted)
    with written_whole(path) as growing, growing.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(h for h in header if h != "flops" or np.isfinite(runs.flops).all())
        for row in zip(*columns, strict=True):
            name, params, tokens, value, flops, compute, at = row
            counted = [f"{flops:.6g}"] if np.isfinite(runs.flops).all() else []
            close = f"{at:.6g}" if np.isfinite(at) else ""
            writer.writerow([name, f"{params:.0f}", f"{tokens:.0f}", f"{value:.8g}", *counted, f"{compute:.6g}", close, runs.metric])
