"""Tests of likelihood bounds: exact on an enumerable world, paired by example id, and a null counted by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from protlig_dd.data.table import TokenTable
from protlig_dd.diffusion.denoiser import Denoising, Diffusion
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.diffusion.times import Task
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.any_order import chain_rule_nll
from protlig_dd.evaluation.likelihood import ExampleBounds, Unigrams, bound, summarise, table_batches
from protlig_dd.tokens.tracks import TrackBatch
from tests.support.enumerable import ExactDenoiser, World
from tests.support.tables import token_table

WORLD = World.load()
SCHEDULE = LogLinear(eps=1e-6)


def exact(kind: str) -> Denoising:
    parameterizations = WORLD.parameterizations(kind)
    diffusion = Diffusion(parameterizations=parameterizations, schedule=SCHEDULE)
    return Denoising(ExactDenoiser(WORLD, parameterizations), diffusion, WORLD.tracks)


def all_states() -> TrackBatch:
    return WORLD.batch(WORLD.states)


def rows_of(batch: TrackBatch, rows: list[int]) -> TrackBatch:
    """Return some examples of an enumerable batch, with their ids."""
    return replace(WORLD.batch(WORLD.states[rows]), example_ids=torch.tensor(rows), slots=torch.arange(len(rows)))


@pytest.mark.parametrize("kind", ["subs", "score_unscaled"])
def test_the_bound_of_an_exact_denoiser_is_minus_log_p_of_each_example(kind: str) -> None:
    """Under absorbing noise each example's own bound is tight, not only their mean."""
    denoising = exact(kind)
    chosen, copies = [0, 77, 200, 431], 200
    batch = WORLD.batch(WORLD.states[chosen].repeat_interleave(copies, dim=0))
    runs = bound(denoising, batch, "joint", num_times=6).total.reshape(len(chosen), copies)
    truth = -WORLD.probs[chosen].log().numpy()
    assert np.ptp(truth) > 1
    errors = runs.std(1, ddof=1) / math.sqrt(copies)
    assert (np.abs(runs.mean(1) - truth) < 4 * errors).all()
    assert (errors < 0.45).all()


@pytest.mark.parametrize(("kind", "weighting"), [("subs", "constant"), ("score", "linear"), ("uniform", "elbo")])
def test_the_mean_bound_is_the_entropy_whatever_the_training_weights(kind: str, weighting: str) -> None:
    denoising = exact(kind)
    own = denoising.diffusion
    weighted = {n: replace(p, weighting=weighting) for n, p in own.parameterizations.items()}  # type: ignore[type-var]
    denoising = replace(denoising, diffusion=replace(own, parameterizations=weighted))
    batch = WORLD.sample(300, seed=3)
    found = bound(denoising, batch, "joint", num_times=4)
    (estimate,) = summarise(replace(found, nats={"both": found.total}, num_tokens={"both": found.total_tokens}))
    assert abs(estimate.nats_per_token.value - WORLD.entropy("a", "b") / 5) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.1


def test_a_conditional_task_gives_the_conditional_entropy_and_leaves_the_condition_unmodelled() -> None:
    denoising = exact("subs")
    found = bound(denoising, WORLD.sample(400, seed=4), "b_given_a", num_times=4)
    (summary,) = summarise(found)
    truth = (WORLD.entropy("a", "b") - WORLD.entropy("a")) / 2
    assert (summary.task, summary.track, summary.num_tokens) == ("b_given_a", "b", 800)
    assert abs(summary.nats_per_token.value - truth) < 4 * summary.standard_error
    assert summary.perplexity.value == pytest.approx(math.exp(summary.nats_per_token.value))


def test_an_example_has_the_same_noise_in_any_batch_and_with_any_partner() -> None:
    denoising = exact("subs")
    whole = bound(denoising, rows_of(all_states(), list(range(201))), "joint", num_times=2, seed=7)
    parts = bound(denoising, [rows_of(all_states(), [200, 5]), rows_of(all_states(), [31])], "joint", num_times=2, seed=7)
    np.testing.assert_array_equal(parts.example_ids, [200, 5, 31])
    np.testing.assert_allclose(parts.total, whole.total[[200, 5, 31]], rtol=1e-6)

    seen: list[Tensor] = []

    def watch(batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen.append(torch.cat([batch.tracks["b"].tokens.float(), sigma["b"], at["b"].float()]))
        return denoising.denoiser(batch, sigma, at=at)

    for state in (0, 300):  # equal b, another a
        assert torch.equal(WORLD.states[0, 3:], WORLD.states[16 * (300 // 16), 3:])
        batch = replace(WORLD.batch(WORLD.states[[16 * (state // 16)]]), example_ids=torch.tensor([9]))
        bound(replace(denoising, denoiser=watch), batch, "b_given_a", num_times=4, seed=1)
    assert all(torch.equal(first, second) for first, second in zip(seen[:4], seen[4:], strict=True))


def test_each_call_has_its_own_stratum_of_times_and_each_example_its_own_time_in_it() -> None:
    denoising = exact("subs")
    times: list[Tensor] = []

    def watch(batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        times.append(1 - torch.exp(-sigma["b"].double()))  # LogLinear: alpha = 1 - t
        assert torch.equal(sigma["a"], torch.zeros_like(sigma["a"]))
        return denoising.denoiser(batch, sigma, at=at)

    bound(replace(denoising, denoiser=watch), WORLD.sample(50), "b_given_a", num_times=5, seed=2)
    found = torch.stack(times)
    assert found.shape == (5, 50)
    assert torch.equal((found * 5).long(), torch.arange(5)[:, None].expand(5, 50))
    assert len(found.unique()) == 250
    assert 0.45 < float((found * 5 % 1).mean()) < 0.55


@pytest.mark.parametrize("kind", ["subs", "score"])
def test_the_chain_rule_of_an_exact_denoiser_is_exactly_minus_log_p(kind: str) -> None:
    denoising = exact(kind)
    for seed in (0, 1):
        found = chain_rule_nll(denoising, all_states(), "joint", seed=seed)
        np.testing.assert_allclose(found.total, -WORLD.probs.log().numpy(), rtol=1e-5)
    given = chain_rule_nll(denoising, all_states(), "b_given_a")
    marginal = WORLD.joint.sum((3, 4), keepdim=True).expand_as(WORLD.joint).flatten()
    np.testing.assert_allclose(given.total, (marginal.log() - WORLD.probs.log()).numpy(), rtol=1e-5, atol=1e-6)
    assert denoising.denoiser.calls == 5 + 5 + 2


def test_the_chain_rule_refuses_uniform_noise() -> None:
    denoising = exact("mixed")
    with pytest.raises(ConfigError, match="track 'b' has uniform noise, expected absorbing noise; use the bound"):
        chain_rule_nll(denoising, all_states(), "joint")
    assert set(chain_rule_nll(denoising, all_states(), "a_given_b").nats) == {"a"}


def toy_table() -> TokenTable:
    return token_table([{"a": [1, 1, 2], "b": [0, 1]}, {"a": [1, 3, 3], "b": [4, 4]}, {"a": [2, 2, 2], "b": [0, 0]}], ["a", "b"])


def test_the_null_is_the_cross_entropy_under_smoothed_training_counts() -> None:
    unigrams = Unigrams.of(toy_table(), WORLD.tracks)
    expected = {1: 4 / 12, 2: 5 / 12, 3: 3 / 12}  # counts 3, 4, 2 and one each
    for letter, probability in expected.items():
        assert unigrams.log_probs["a"][letter] == pytest.approx(math.log(probability))
    assert np.isneginf(unigrams.log_probs["a"][[0, 4, 5]]).all()
    assert unigrams.log_probs["b"][3] == pytest.approx(math.log(1 / 10))  # never seen
    denoising = exact("subs")
    batch = WORLD.batch(torch.tensor([[0, 0, 1, 3, 3], [2, 1, 1, 0, 1]]))  # a: 1 1 2 and 3 2 2
    summary = summarise(bound(denoising, batch, "a_only", num_times=1), unigrams)[0]
    by_hand = -(2 * math.log(4 / 12) + 3 * math.log(5 / 12) + math.log(3 / 12)) / 6
    assert summary.null is not None and summary.null.value == pytest.approx(by_hand)
    texts = [str(score) for score in summary.scores()]
    assert texts[0].startswith("nats per token, a in a_only") and "training unigrams" in texts[0]
    assert summary.scores()[1].null.value == pytest.approx(math.exp(by_hand))  # type: ignore[union-attr]


def test_special_tokens_are_neither_noised_nor_counted() -> None:
    denoising = exact("subs")

    def flat(batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: torch.zeros(len(at[n]), t.vocabulary.num_rows) for n, t in WORLD.tracks.items()}

    table = token_table([{"a": [0, 1, 2, 3, 0], "b": [2, 3]}], ["a", "b"])
    found = bound(replace(denoising, denoiser=flat), table_batches(table, WORLD.tracks, batch_size=8), "joint", num_times=40)
    assert (found.num_tokens["a"].tolist(), found.num_tokens["b"].tolist()) == ([3], [1])
    assert found.nats["a"][0] == pytest.approx(3 * math.log(3), rel=0.25)
    assert chain_rule_nll(replace(denoising, denoiser=flat), table_batches(table, WORLD.tracks, batch_size=8), "joint").total[
        0
    ] == pytest.approx(3 * math.log(3) + math.log(4), rel=1e-5)
    assert denoising.denoiser.calls == 0


def test_a_table_is_read_in_its_order_in_any_batch_size() -> None:
    for size in (1, 2, 3, 50):
        ids = [int(i) for batch in table_batches(toy_table(), WORLD.tracks, batch_size=size) for i in batch.example_ids]
        assert ids == [0, 1, 2]


def test_unusable_input_is_refused_in_words() -> None:
    denoising = exact("subs")
    with pytest.raises(ValueError, match="found no examples, expected at least one"):
        bound(denoising, [], "joint")
    with pytest.raises(ValueError, match="num_times: found 0"):
        bound(denoising, all_states(), "joint", num_times=0)
    lacking = replace(WORLD.batch(WORLD.states[:1], ("a",)), example_ids=torch.tensor([41]))
    for measure in (bound, chain_rule_nll):
        with pytest.raises(ValueError, match="example 41: found no 'b', which the task 'a_given_b' needs"):
            measure(denoising, lacking, "a_given_b")
    with pytest.raises(ConfigError, match="unknown task"):
        bound(denoising, all_states(), "c_only")
    with pytest.raises(ValueError, match="training mode"):
        bound(replace(denoising, denoiser=nn.Linear(1, 1)), all_states(), "joint")  # type: ignore[arg-type]
    bad = ExampleBounds(
        task="t", example_ids=np.array([8]), nats={"a": np.array([np.nan])}, tokens={"a": np.array([1])}, num_tokens={"a": np.array([1])}
    )
    with pytest.raises(ValueError, match="t/a: example 8 has the bound nan"):
        summarise(bad)


def test_a_custom_task_is_named_after_its_tracks() -> None:
    denoising = exact("subs")
    found = bound(denoising, all_states(), Task(noised=(("a",), ("b",))), num_times=1)
    assert found.task == "a+b" and set(found.nats) == {"a", "b"}


def test_one_example_has_a_value_and_no_interval() -> None:
    denoising = exact("subs")
    (summary,) = summarise(bound(denoising, rows_of(all_states(), [5]), "a_only", num_times=2))
    assert not summary.nats_per_token.has_interval and math.isnan(summary.standard_error)
    assert not summary.perplexity.has_interval
