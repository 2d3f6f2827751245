"""What a sweep of learning rates says: the best, what cannot be told from it, edges of the grid, and nothing where nothing was learned."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from protlig_dd.evaluation.likelihood import per_token
from protlig_dd.evaluation.sweep import Sweep, Trial

COUNTS = np.full(40, 30.0)
NOISE = np.random.default_rng(0).normal(0, 20, 40)  # nats of an example that all trials share: the noise of masks and of examples


def trial(lr: float, nll: float, *, batch: int = 8, own_noise: float = 0.0, **more: Any) -> Trial:
    """A trial of a mean value; `own_noise` is what it does not share with the others."""
    own = np.random.default_rng(round(lr * 1e6) + batch).normal(0, own_noise, 40) if own_noise else np.zeros(40)
    nats = COUNTS * nll + (NOISE - NOISE.mean()) + (own - own.mean())
    estimate, _ = per_token(nats, COUNTS)
    values = {"nll": estimate.value, "nll_low": estimate.low, "nll_high": estimate.high}
    return Trial(lr=lr, batch=batch, steps=10, tokens=2400, values=values, nats=nats, counts=COUNTS, **more)


def diverged(lr: float, batch: int = 8) -> Trial:
    return Trial(lr=lr, batch=batch, steps=3, tokens=720, values={}, nats=np.zeros(0), counts=np.zeros(0))


def sweep(first: list[Trial], last: tuple[Trial, ...] = (), *, null: float | None = 3.5, length: float = 20.0) -> Sweep:
    untrained = {"nll": 4.0} | ({} if null is None else {"unigram_null": null})
    axes = {"lrs": tuple(sorted({t.lr for t in first})), "batches": tuple(sorted({t.batch for t in first}))}
    return Sweep(unit="examples", untrained=untrained, first=tuple(first), last=last, length=length, **axes)


def said(one: Sweep) -> str:
    return "\n".join(one.remarks())


def test_a_difference_is_paired_over_the_examples() -> None:
    """The interval of each value is 0.2 nats to both sides; the same noise in both leaves a difference of 0.05 clear."""
    found = sweep([trial(1e-4, 2.1), trial(1e-3, 2.0), trial(1e-2, 2.05)])
    assert found.best is found.first[1] and found.tied == []
    assert found.first[1].values["nll_high"] > found.first[2].values["nll_low"] + 0.1
    difference = found.difference(found.first[2])
    assert difference.low == pytest.approx(0.05) == difference.value
    assert "better than the next, lr 0.01, batch 8, by 0.05" in said(found)


def test_what_is_within_the_noise_is_not_told_apart_and_the_lowest_rate_is_the_safest() -> None:
    found = sweep([trial(1e-4, 2.004, own_noise=10), trial(1e-3, 2.0, own_noise=10), trial(1e-2, 2.4, own_noise=10)])
    assert found.tied == [found.first[0]]
    words = said(found)
    assert "not told apart from the best on 40 validation examples: lr 0.0001, batch 8 (+0.00" in words
    assert "0.0001 is the lowest learning rate of them, and the safest for a long run" in words and "better than" not in words


def test_one_example_tells_nothing_apart() -> None:
    def single(lr: float, nll: float) -> Trial:
        nats, counts = np.array([30 * nll]), np.array([30.0])
        return Trial(lr=lr, batch=8, steps=1, tokens=1, values={"nll": nll}, nats=nats, counts=counts)

    found = sweep([single(1e-3, 2.0), single(1e-2, 3.0)])
    assert found.tied == [found.first[1]]


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (1e-4, "at the lower edge of the grid; widen it: --lrs 1e-05..0.0003"),
        (1e-2, "at the upper edge of the grid; widen it: --lrs 0.003..0.1"),
        (1e-3, ""),
    ],
)
def test_the_edge_of_the_grid_is_said(best: float, words: str) -> None:
    found = said(sweep([trial(lr, 2.0 + abs(np.log10(lr / best)) / 10) for lr in (1e-4, 1e-3, 1e-2)]))
    assert words in found and ("edge of the grid" in found) == bool(words)


def test_a_rate_below_one_that_diverged_is_no_edge() -> None:
    found = sweep([trial(1e-3, 2.1), trial(1e-2, 2.0), diverged(1e-1)])
    assert found.best is found.first[1] and "edge" not in said(found)


def test_the_edge_of_the_batch_sizes_is_said_and_one_of_each_is_none() -> None:
    found = said(sweep([trial(lr, 2.0 + batch / 100, batch=batch) for lr in (1e-4, 1e-3, 1e-2) for batch in (8, 16)]))
    assert "the best batch size is the smallest of the grid; to widen it: --batches 4,8" in found
    assert "edge" not in said(sweep([trial(1e-3, 2.0)])) and "of the grid" not in said(sweep([trial(1e-3, 2.0)]))


@pytest.mark.parametrize("null", [2.0, None])
def test_where_nothing_was_learned_nothing_is_recommended(null: float | None) -> None:
    values = (2.01, 2.2) if null else (4.01, 4.2)
    found = sweep([trial(1e-3, values[0]), trial(1e-2, values[1])], null=null)
    name = "the unigram null (2.0000" if null else "the weights before training (4.0000"
    assert not found.has_learned
    assert said(found).startswith(f"no recommendation: no candidate is below {name}") and "\n" not in said(found)


def test_a_value_whose_interval_reaches_the_null_says_so() -> None:
    assert "cannot be told from the unigram null, 2.1000" in said(sweep([trial(1e-3, 2.0)], null=2.1))
    assert "cannot be told from" not in said(sweep([trial(1e-3, 2.0)], null=2.5))


def test_where_all_diverged_lower_rates_are_named() -> None:
    found = sweep([diverged(1.0), diverged(10.0)])
    assert found.best is None and not found.has_learned
    assert said(found) == "no recommendation: every candidate diverged; try lower ones: --lrs 0.01..0.3"
    assert sum("diverged" in line for line in found.table()) == 2


def test_the_longer_round_decides_and_a_rate_that_fell_is_told() -> None:
    first = [trial(1e-4, 2.3), trial(1e-3, 2.2), trial(1e-2, 2.1)]
    found = sweep(first, (trial(1e-3, 1.8, is_last=True), trial(1e-2, 1.9, is_last=True)))
    assert found.best is found.last[0]
    words = said(found)
    assert "the best learning rate fell from 0.01 to 0.001 as the runs became longer" in words
    assert "upper estimate for long ones" in words and "20 times as long as the longest of these" in words
    assert "times as long" not in said(sweep(first, length=0.5))


def test_the_table_has_every_trial_with_a_bar_that_is_the_longer_the_better() -> None:
    found = sweep([trial(1e-4, 3.0), trial(1e-3, 2.0), trial(1e-2, 2.5), trial(1e-1, 9.0), diverged(1.0), trial(1e-3, 2.9, batch=16)])
    lines = list(found.table())
    bars = {tuple(line.split()[:2]): line.count("#") for line in lines[2:]}
    assert bars == {("0.001", "16"): 13, ("0.0001", "8"): 12, ("0.001", "8"): 24, ("0.01", "8"): 18, ("0.1", "8"): 0, ("1", "8"): 0}
    (marked,) = (line for line in lines if line.endswith("best"))
    assert marked.split()[:2] == ["0.001", "8"]
    alone = list(sweep([trial(1e-3, 2.0), diverged(1.0)]).table())
    assert alone[2].endswith("#" * 24 + "  best"), "a single value is measured from the weights before training"


def test_the_numbers_are_strict_json() -> None:
    first = [trial(1e-3, 2.0), diverged(1.0)]
    text = json.dumps(sweep(first).to_json(), allow_nan=False)
    assert json.loads(text)["best"] == {"lr": 1e-3, "batch": 8, "nll": pytest.approx(2.0)}
    alone = Trial(lr=1.0, batch=8, steps=1, tokens=1, values={"nll": 2.0, "nll_low": np.nan}, nats=np.ones(1), counts=np.ones(1))
    json.dumps(sweep([alone]).to_json(), allow_nan=False)
