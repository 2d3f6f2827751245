"""Tests of questions to a denoiser and of likelihoods computed from the answers: exact against enumeration on a small world."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from protlig_dd.diffusion.denoiser import Denoising, Diffusion
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.any_order import chain_rule_nll, pseudo_log_likelihood, stratified_bound
from protlig_dd.evaluation.likelihood import bound
from protlig_dd.evaluation.questions import ask, places
from protlig_dd.tokens.tracks import TrackBatch
from tests.support.enumerable import AXES, ExactDenoiser
from tests.support.tempered import SCHEDULE, WORLD, model, tempered_log_prob

CHOSEN = [0, 77, 200, 431]


def enumerated_bound(state: list[int]) -> float:
    """sum_k 1/k mean over sets of k of the nats of the hidden, every set of every size."""
    places_all = range(len(AXES))
    total = 0.0
    for k in range(1, len(AXES) + 1):
        sets = list(itertools.combinations(places_all, k))
        total += sum(-tempered_log_prob(state, i, s) for s in sets for i in s) / k / len(sets)
    return total


def chosen_batch() -> TrackBatch:
    return replace(WORLD.batch(WORLD.states[CHOSEN]), example_ids=torch.tensor(CHOSEN))


@pytest.mark.parametrize("kind", ["subs", "score_unscaled"])
def test_an_exact_denoiser_has_minus_log_p_as_its_any_order_bound(kind: str) -> None:
    """With as many draws as there are sets, every set is held once: no error is left."""
    parameterizations = WORLD.parameterizations(kind)
    diffusion = Diffusion(parameterizations=parameterizations, schedule=SCHEDULE)
    exact = Denoising(ExactDenoiser(WORLD, parameterizations), diffusion, WORLD.tracks)
    found = stratified_bound(exact, chosen_batch(), "joint", num_draws=10)
    np.testing.assert_allclose(found.bounds.total, -WORLD.probs[CHOSEN].log().numpy(), atol=1e-6)
    assert (found.standard_errors == 0).all()
    orders = chain_rule_nll(exact, chosen_batch(), "joint")
    np.testing.assert_allclose(orders.total, found.bounds.total, atol=1e-6)


def test_the_stratified_bound_is_the_enumerated_one() -> None:
    denoising = model()
    truth = [enumerated_bound(state) for state in WORLD.states[CHOSEN].tolist()]
    found = stratified_bound(denoising, chosen_batch(), "joint", num_draws=10)
    np.testing.assert_allclose(found.bounds.total, truth, atol=1e-6)
    assert set(found.bounds.nats) == {"a", "b"}
    assert found.interval(1).value == pytest.approx(truth[1])
    # the same estimand as the bound over times, which draws its times
    copies = 300
    times = bound(denoising, WORLD.batch(WORLD.states[CHOSEN[1:2] * copies]), "joint", num_times=6).total
    assert abs(times.mean() - truth[1]) < 4 * times.std(ddof=1) / math.sqrt(copies)


@pytest.mark.parametrize(("num_strata", "num_draws"), [(5, 2), (2, 3), (1, 2)])
def test_drawn_sets_are_unbiased_and_their_standard_error_is_right(num_strata: int, num_draws: int) -> None:
    """Many copies with ids of their own: the mean within 4 standard errors, the spread as stated within 20 %."""
    denoising = model()
    copies, row = 400, CHOSEN[2]
    batch = WORLD.batch(WORLD.states[[row] * copies])
    found = stratified_bound(denoising, batch, "joint", num_strata=num_strata, num_draws=num_draws, seed=5)
    total = found.bounds.total
    truth = enumerated_bound(WORLD.states[row].tolist())
    spread = total.std(ddof=1)
    assert spread > 0
    assert abs(total.mean() - truth) < 4 * spread / math.sqrt(copies)
    assert math.sqrt((found.standard_errors**2).mean()) == pytest.approx(spread, rel=0.2)


def test_more_strata_leave_less_error() -> None:
    denoising = model()
    batch = WORLD.batch(WORLD.states[[CHOSEN[2]] * 150])
    spreads = [stratified_bound(denoising, batch, "joint", num_strata=s, num_draws=d).bounds.total.std() for s, d in ((1, 10), (5, 2))]
    assert spreads[1] < 0.8 * spreads[0]


def test_an_example_has_the_same_draws_in_any_batch_and_equal_ids_share_them() -> None:
    denoising = model()
    whole = stratified_bound(denoising, chosen_batch(), "joint", seed=3, tokens_per_call=11)
    assert max(denoising.denoiser.sizes) <= 11
    alone = stratified_bound(denoising, chosen_batch().select([2]), "joint", seed=3)
    assert alone.bounds.total[0] == pytest.approx(whole.bounds.total[2], abs=1e-9)
    same = replace(WORLD.batch(WORLD.states[[77, 77]]), example_ids=torch.tensor([5, 5]))
    first, second = stratified_bound(denoising, same, "joint").bounds.total
    assert first == second


def test_a_condition_is_shown_clean_and_not_modelled() -> None:
    denoising = model()
    found = stratified_bound(denoising, chosen_batch(), "b_given_a", num_draws=10)
    truth = []
    for state in WORLD.states[CHOSEN].tolist():
        sets = [(3,), (4,), (3, 4)]
        weights = [0.5, 0.5, 0.5]
        truth.append(sum(-w * tempered_log_prob(state, i, s) for w, s in zip(weights, sets, strict=True) for i in s))
    np.testing.assert_allclose(found.bounds.total, truth, atol=1e-6)
    assert found.bounds.num_tokens["b"].tolist() == [2] * 4


def test_the_pseudo_log_likelihood_hides_one_token_at_a_time() -> None:
    denoising = model()
    found = pseudo_log_likelihood(denoising, chosen_batch(), "joint", tokens_per_call=17)
    truth = [-sum(tempered_log_prob(s, i, (i,)) for i in range(5)) for s in WORLD.states[CHOSEN].tolist()]
    np.testing.assert_allclose(found.total, truth, atol=1e-6)


def test_answers_come_for_wanted_places_whether_hidden_or_not() -> None:
    denoising = model()
    batch = chosen_batch()
    assert places(batch, ("b", "a"))["a"].tolist() == [2, 3, 4] * 4
    hidden = torch.tensor([[True, False, False, False, True]])
    wanted = torch.tensor([[True, True, False, False, False]])
    (first, second) = ask(denoising, batch, ("a", "b"), [1], hidden, wanted=wanted)
    assert (first.track, first.place.tolist(), second.place.tolist()) == ("a", [0, 1], [])
    state = WORLD.states[CHOSEN[1]].tolist()
    assert float(first.of_token()[0]) == pytest.approx(tempered_log_prob(state, 0, (0, 4)), abs=1e-6)


def test_tasks_and_noise_without_an_any_order_bound_are_refused() -> None:
    denoising = model()
    with pytest.raises(ConfigError, match="task 'independent': found tracks with times of their own"):
        stratified_bound(denoising, chosen_batch(), "independent")
    with pytest.raises(ValueError, match="expected at least 1 and 2"):
        stratified_bound(denoising, chosen_batch(), "joint", num_draws=1)
    diffusion = Diffusion(parameterizations=WORLD.parameterizations("uniform"), schedule=SCHEDULE)
    with pytest.raises(ConfigError, match="track 'a': found uniform noise, expected absorbing noise; use the bound"):
        pseudo_log_likelihood(replace(denoising, diffusion=diffusion), chosen_batch(), "joint")
