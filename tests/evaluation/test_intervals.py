"""Intervals against textbook values and against their own coverage; the printed form of estimates and scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.evaluation.intervals import (
    Estimate,
    Score,
    bootstrap_mean,
    cluster_bootstrap_mean,
    format_scores,
    jackknife,
    pair_mean,
    percentile_interval,
    wilson,
    z_value,
)


@pytest.mark.parametrize(
    ("num_true", "num", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Stat. Med. 17, 857, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_newcombes(num_true: int, num: int, low: float, high: float) -> None:
    estimate = wilson(num_true, num)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)
    assert estimate.value == num_true / num
    assert estimate.num == num


def test_wilson_ends_are_where_the_score_test_rejects() -> None:
    estimate = wilson(7, 31, level=0.9)
    for end in (estimate.low, estimate.high):
        assert abs(7 / 31 - end) / math.sqrt(end * (1 - end) / 31) == pytest.approx(z_value(0.9))


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_value_and_stays_a_fraction(case: tuple[int, int]) -> None:
    estimate = wilson(*case)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high


def test_wilson_of_nothing_is_missing_and_of_too_many_is_refused() -> None:
    assert wilson(0, 0).num == 0
    with pytest.raises(ValueError, match="found 5 of 3, expected a count between 0 and 3"):
        wilson(5, 3)
    with pytest.raises(ValueError, match="level: found 95.0, expected a number between 0 and 1"):
        wilson(1, 3, level=95.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(0, 5))
def test_a_bootstrap_holds_its_mean_and_lies_between_the_extremes(values: list[float], seed: int) -> None:
    estimate = bootstrap_mean(values, seed=seed, num_resamples=50)
    assert estimate.value == pytest.approx(np.mean(values), rel=1e-12, abs=1e-6)
    assert estimate.num == len(values)
    if len(values) > 1:
        assert min(values) - 1e-6 <= estimate.low <= estimate.value <= estimate.high <= max(values) + 1e-6
    else:
        assert not estimate.has_interval


def test_the_bootstrap_repeats_with_its_seed_and_not_with_another() -> None:
    values = np.arange(30.0)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_the_bootstrap_interval_has_the_normal_width() -> None:
    values = np.random.default_rng(0).normal(size=400)
    estimate = bootstrap_mean(values)
    width = 2 * z_value(0.95) * values.std() / 20
    assert estimate.high - estimate.low == pytest.approx(width, rel=0.08)  # quantiles of 2,000 resamples: about 2.5 % each


def test_an_interval_of_resampled_values_is_widened_to_contain_the_value() -> None:
    drawn = np.arange(1001.0)
    inside = percentile_interval(500.0, drawn, 7, level=0.9)
    assert (inside.low, inside.value, inside.high, inside.num) == (pytest.approx(50), 500, pytest.approx(950), 7)
    assert percentile_interval(-3.0, drawn, 7).low == -3 and percentile_interval(2000.0, drawn, 7).high == 2000


def test_many_values_get_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=20_001)
    estimate = bootstrap_mean(values)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.959964 * values.std(ddof=1) / math.sqrt(20_001))


def test_values_that_are_not_finite_are_refused_by_place() -> None:
    with pytest.raises(ValueError, match=r"values\[2\]: found nan, expected a finite number; leave out and count"):
        bootstrap_mean([1.0, 2.0, math.nan])


def test_copies_within_clusters_widen_the_cluster_interval_only() -> None:
    values = np.random.default_rng(0).normal(size=30)
    copied, labels = np.repeat(values, 10), np.repeat(np.arange(30), 10)
    single, naive = bootstrap_mean(values), bootstrap_mean(copied)
    clustered = cluster_bootstrap_mean(copied, [f"family {c}" for c in labels])
    assert clustered.num == 300
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.1)
    assert naive.high - naive.low == pytest.approx((single.high - single.low) / math.sqrt(10), rel=0.15)


def test_clusters_of_unequal_size_weigh_by_their_values() -> None:
    assert cluster_bootstrap_mean([0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"]).value == 0.25


def test_one_cluster_has_no_interval_and_labels_must_match() -> None:
    assert not cluster_bootstrap_mean([1.0, 2.0], ["a", "a"]).has_interval
    with pytest.raises(ValueError, match="clusters: found 1 labels, expected one for each of the 2 values"):
        cluster_bootstrap_mean([1.0, 2.0], ["a"])


def test_the_cluster_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(3)
    labels = np.repeat(np.arange(40), 3)
    covered = 0
    for trial in range(300):
        values = draws.normal(size=40)[labels] + draws.normal(size=120)
        estimate = cluster_bootstrap_mean(values, labels.tolist(), seed=trial, num_resamples=300)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.94 - 4 * math.sqrt(0.94 * 0.06 / 300) <= covered / 300  # 40 clusters give about 0.94


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=25)
    estimate = jackknife(float(values.mean()), (values.sum() - values) / 24)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * values.std(ddof=1) / 5, rel=1e-6)
    assert jackknife(0.1, np.array([0.0, 0.4, 0.2]), minimum=0.0).low == 0


def test_a_mean_over_pairs_leaves_the_diagonal_out() -> None:
    table = np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 3.0], [2.0, 3.0, 9.0]])
    assert pair_mean(table).value == pytest.approx(2.0)
    assert pair_mean(np.zeros((1, 1))).num == 0


def test_the_interval_over_pairs_has_the_spread_of_repeated_draws() -> None:
    draws = np.random.default_rng(5)
    estimates = []
    for _ in range(300):
        points = draws.random(50)
        estimates.append(pair_mean(np.abs(points[:, None] - points[None])))
    spread = np.std([e.value for e in estimates], ddof=1)
    stated = np.mean([e.high - e.value for e in estimates]) / z_value(0.95)
    tolerance = 4 / math.sqrt(600) + 0.03  # 4 standard errors, and 3 % for the limit of large n
    assert stated == pytest.approx(spread, rel=tolerance)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(value=0.812, low=0.779, high=0.844, num=500), "0.81 [0.78, 0.84]"),
        (Estimate(value=0.8123, low=0.8101, high=0.8144, num=9), "0.812 [0.810, 0.814]"),
        (Estimate(value=332.14, low=329.8, high=334.46, num=9), "332.1 [329.8, 334.5]"),
        (Estimate(value=1.0, low=1.0, high=1.0, num=9), "1.00 [1.00, 1.00]"),
        (Estimate.plain(471, 500), "471"),
        (Estimate.missing(), "none"),
    ],
)
def test_estimates_print_the_digits_they_have(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text


def test_an_interval_must_hold_its_value() -> None:
    with pytest.raises(ValueError, match=r"0.5 lies outside its own interval \[0.6, 0.7\]"):
        Estimate(value=0.5, low=0.6, high=0.7, num=3)
    with pytest.raises(ValueError, match="expected two numbers or two NaN"):
        Estimate(value=0.5, low=math.nan, high=0.7, num=3)
    with pytest.raises(ValueError, match="found -1, expected a count"):
        Estimate(value=0.5, low=0.4, high=0.7, num=-1)


def test_scores_print_in_columns_with_their_null() -> None:
    validity = Score(name="validity", value=wilson(97, 100), null=wilson(3, 100), null_name="unigrams", note="3 of 100 left out: 3 syntax")
    count = Score(name="scaffolds", value=Estimate.plain(40, 90))
    assert str(validity) == "validity  0.97 [0.92, 0.99]  n=100  null 0.03 [0.01, 0.08] (unigrams)  3 of 100 left out: 3 syntax"
    assert format_scores([validity, count]).splitlines() == [
        "validity   0.97 [0.92, 0.99]  n=100  null 0.03 [0.01, 0.08] (unigrams)  3 of 100 left out: 3 syntax",
        "scaffolds  40                 n=90",
    ]
    assert format_scores([]) == ""
