"""One variable at a time, and the best size of a compute."""

from __future__ import annotations

import numpy as np
import pytest

from protlig_dd.scaling.curves import fit_curve, fit_curves, frontier, iso_flops
from protlig_dd.scaling.fits import fit_law
from protlig_dd.scaling.predictions import best_split, hold_out, optimum
from tests.support.known import LAW, grid_runs, runs_of


def iso_runs(noise: float = 0.0, computes: int = 3):
    params = np.tile(np.geomspace(1e5, 1e7, 9), computes)
    tokens = np.repeat(np.geomspace(1e13, 1e15, computes), 9) / 6 / params
    return runs_of(params, tokens, LAW.loss(params, tokens), noise=noise)


def test_a_curve_gives_its_three_numbers_back_within_their_intervals() -> None:
    x = np.geomspace(1e5, 1e8, 7)
    for seed in range(6):
        noise = np.exp(1e-3 * np.random.default_rng(seed).standard_normal(7))
        curve = fit_curve(x, (30 * x**-0.3 + 1.5) * noise)
        assert curve.verdict == "identified"
        for p, true in zip(curve.parameters, (30, 0.3, 1.5), strict=True):
            assert p.low <= true <= p.high, p
        assert curve.at(x) == pytest.approx(curve.y, rel=5e-3)


def test_a_flat_curve_and_three_points_say_nothing() -> None:
    x, draw = np.geomspace(1e5, 1e8, 7), np.random.default_rng(0)
    assert "values are flat" in fit_curve(x, np.full(7, 2.0)).verdict
    assert "no better than a constant" in fit_curve(x, 2 * np.exp(1e-2 * draw.standard_normal(7))).verdict
    assert "3 runs at 3 places for 3 unknowns" in fit_curve(x[:3], 30 * x[:3] ** -0.3 + 1.5).verdict


def test_there_is_a_curve_for_each_level_of_the_other_variable() -> None:
    runs = grid_runs(sizes=5, data=4)
    over_params, over_tokens = fit_curves(runs, "params"), fit_curves(runs, "tokens")
    assert len(over_params) == 4 and len(over_tokens) == 5
    for curve in over_params:
        floor = LAW.E + LAW.B / curve.level**LAW.beta
        assert curve.parameters[1].value == pytest.approx(LAW.alpha, abs=0.02)
        assert curve.parameters[2].value == pytest.approx(floor, rel=0.02)


def test_tokens_that_differ_by_a_batch_are_one_level() -> None:
    runs = grid_runs(sizes=5, data=2)
    jitter = 1 + 0.004 * np.random.default_rng(0).random(len(runs))
    assert len(fit_curves(runs_of(runs.params, runs.tokens * jitter, runs.values), "params")) == 2


def test_the_split_of_a_compute_is_that_of_a_search() -> None:
    for compute, k in ((1e14, 6.0), (3e17, 4.5)):
        params, tokens = best_split(LAW, compute, k)
        assert k * params * tokens == pytest.approx(compute)
        tried = params * np.geomspace(0.3, 3, 4001)
        best = tried[np.argmin(LAW.loss(tried, compute / k / tried))]
        assert best == pytest.approx(params, rel=1e-3)


def test_isoflop_minima_lie_where_the_law_has_them() -> None:
    groups = iso_flops(iso_runs())
    assert len(groups) == 3
    for one in groups:
        assert one.best_params == pytest.approx(best_split(LAW, one.compute)[0], rel=0.15)
    power = frontier(groups)[1]
    assert power.low <= LAW.beta / (LAW.alpha + LAW.beta) <= power.high


def test_isoflop_minima_outside_the_sizes_are_not_claimed() -> None:
    runs = iso_runs()
    small = runs.select((runs.params < 4e5) & (runs.compute > 5e13))
    verdicts = [one.verdict for one in iso_flops(small)]
    assert all(np.isnan(one.best_params) for one in iso_flops(small))
    arched = runs_of(runs.params, runs.tokens, 20 - runs.values)
    assert all("opens downwards" in one.verdict and np.isnan(one.best_params) for one in iso_flops(arched))
    assert len(verdicts) == 2 and all("lies above the largest size" in v or "opens downwards" in v for v in verdicts)
    assert iso_flops(grid_runs(sizes=2, data=2)) == []


def test_the_largest_runs_are_predicted_better_than_by_the_best_smaller_run() -> None:
    held = hold_out(grid_runs(noise=1e-3), num_resamples=40)
    assert len(held.runs) == 5 and held.runs.compute.min() > 1e13
    assert held.error < 5e-3 < held.null_error
    assert held.verdict.endswith(f"better than the null's {held.null_error:.2g}")
    assert (held.low <= held.predicted).all() and (held.predicted <= held.high).all()


def test_no_prediction_is_made_without_a_law() -> None:
    held = hold_out(grid_runs(sizes=3, data=3), num_resamples=5)
    assert held.verdict.startswith("no prediction: not identifiable from these runs") and not len(held.predicted)


def test_the_optimum_of_a_budget_holds_the_truth() -> None:
    fit = fit_law(grid_runs(noise=1e-3), num_resamples=60)
    best = optimum(fit, 1e16)
    assert best is not None and not best.reason
    for (value, low, high), true in zip((best.params, best.tokens), best_split(LAW, 1e16), strict=True):
        assert low <= true <= high and low <= value <= high
    assert optimum(fit_law(grid_runs(sizes=2)), 1e16) is None
