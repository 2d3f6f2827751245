"""Tests of condition dependence: exact on an enumerable world, zero where the condition is ignored, deranged across clusters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from protlig_dd.data.table import TokenTable
from protlig_dd.diffusion.denoiser import Denoiser, Denoising, Diffusion
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.evaluation.conditioning import condition_dependence, shuffle_across
from protlig_dd.models.dual_track import DualTrack, DualTrackSettings
from protlig_dd.tokens.tracks import TrackBatch
from tests.support.enumerable import NAMES, ExactDenoiser, World
from tests.support.tables import token_table

WORLD = World.load()


def denoising(denoiser: Denoiser) -> Denoising:
    diffusion = Diffusion(parameterizations=WORLD.parameterizations("subs"), schedule=LogLinear(eps=1e-6))
    return Denoising(denoiser, diffusion, WORLD.tracks)


def table_of(batch: TrackBatch) -> TokenTable:
    rows = {name: batch.tracks[name].split() for name in NAMES}
    return token_table([{name: rows[name][i] for name in NAMES} for i in range(batch.num_examples)], list(NAMES))


def untrained() -> DualTrack:
    settings = DualTrackSettings(hidden_size=16, num_heads=2, num_blocks=1, conditioning_size=8, mlp_ratio=2.0)
    return settings.build(WORLD.tracks, "reference").eval()  # type: ignore[arg-type]


def test_the_gap_of_an_exact_model_is_what_the_law_says() -> None:
    denoiser = ExactDenoiser(WORLD, WORLD.parameterizations("subs"))
    table = table_of(WORLD.sample(300, seed=5))
    found = condition_dependence(denoising(denoiser), table, "b_given_a", num_times=3)
    joint = WORLD.joint.reshape(27, 16)
    of_a, conditional = joint.sum(1), joint / joint.sum(1, keepdim=True)
    # Shuffled: a' is any other condition, as likely as it is in the data: sum over a, a' != a of p(a) p(a') / (1 - p(a)) H(b|a, b|a').
    cross = -(conditional @ conditional.log().T)
    weights = of_a[:, None] * of_a / (1 - of_a[:, None])
    weights.fill_diagonal_(0.0)
    expected = float((weights * cross).sum() / weights.sum() - (of_a * cross.diagonal()).sum()) / 2
    error = (found.gap.high - found.gap.low) / 2 / 1.96
    assert abs(found.gap.value - expected) < 4 * error and error < expected / 4
    assert found.is_shown and found.is_permutation
    assert (found.num_pairs, found.num_clusters, found.num_left_out) == (
        300,
        len(set(table.tracks["a"].gather(np.arange(300)).reshape(-1, 3).dot([1, 9, 81]))),
        0,
    )
    assert found.gap.value == pytest.approx(found.shuffled.value - found.true.value)
    assert "better with the right condition" in found.lines()[-1]
    assert [score.name for score in found.scores()][0] == "condition gap, b_given_a"


def test_a_model_that_ignores_its_condition_has_a_gap_of_exactly_zero() -> None:
    """A fresh dual-track model: cross-attention starts at zero, so not one bit may differ; conditions have several lengths."""
    table = token_table([{"a": [1 + i % 3] * (1 + i % 4), "b": [(0, 1, 3, 4)[i % 4]] * (1 + i % 5)} for i in range(20)], list(NAMES))
    model = untrained()
    for parameter in model.parameters():  # heads start at zero too; initialise them, but not the cross-attention
        if parameter.dim() == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    for block in (b for stack in model.stacks.values() for b in stack.blocks):  # type: ignore[union-attr]
        for name, parameter in block.named_parameters():
            if "cross" in name:
                parameter.data.zero_()
    found = condition_dependence(denoising(model), table, "b_given_a", num_times=3, batch_size=7)
    assert found.true.value > 0.5
    assert (found.gap.value, found.gap.low, found.gap.high) == (0.0, 0.0, 0.0)
    assert not found.is_shown and "holds 0" in found.lines()[-1]
    plain = condition_dependence(denoising(untrained()), table, "b_given_a", num_times=2)
    assert (plain.gap.low, plain.gap.value, plain.gap.high) == (0.0, 0.0, 0.0)


class Hashed:
    """A denoiser whose logits depend erratically on the condition, and not on the data."""

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        assert at is not None
        seen = torch.tensor([sum(17**i * t for i, t in enumerate(ids)) for ids in batch.tracks["a"].split()])
        logits = {n: torch.zeros(len(at[n]), t.vocabulary.num_rows) for n, t in WORLD.tracks.items()}
        own = seen[batch.tracks["b"].layout.segment[at["b"]]]
        logits["b"] = torch.sin(own[:, None] * torch.arange(1.0, 8.0) * 12.9898)
        return logits


def test_the_interval_of_an_untrained_model_that_reads_its_condition_covers_zero() -> None:
    draws = np.random.default_rng(0)
    covered = 0
    for seed in range(8):
        letters = torch.from_numpy(draws.integers([3, 3, 3, 4, 4], size=(60, 5)))
        table = table_of(WORLD.batch(letters))
        found = condition_dependence(denoising(Hashed()), table, "b_given_a", num_times=1, seed=seed)
        assert found.gap.value != 0
        covered += found.gap.low <= 0 <= found.gap.high
    assert covered >= 6


def test_noise_is_common_to_true_and_shuffled_pairs() -> None:
    seen: list[tuple[Tensor, ...]] = []
    exact = ExactDenoiser(WORLD, WORLD.parameterizations("subs"))

    def watch(batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen.append((batch.tracks["b"].tokens, sigma["b"], at["b"], batch.tracks["a"].tokens))
        return exact(batch, sigma, at=at)

    table = table_of(WORLD.sample(30, seed=1))
    condition_dependence(denoising(watch), table, "b_given_a", num_times=3, batch_size=30)
    assert len(seen) == 6
    for true, shuffled in zip(seen[:3], seen[3:], strict=True):
        assert all(torch.equal(true[i], shuffled[i]) for i in range(3))
        own, other = true[3].reshape(-1, 3), shuffled[3].reshape(-1, 3)
        assert not bool((own == other).all(1).any())  # no row keeps its condition, nor an equal one
        assert sorted(own.tolist()) == sorted(other.tolist())


def test_given_clusters_are_crossed_and_resampled_and_merged_when_they_share_a_condition() -> None:
    exact = ExactDenoiser(WORLD, WORLD.parameterizations("subs"))
    table = table_of(WORLD.batch(WORLD.states[[0, 16, 32, 48, 64, 80, 0, 96]]))
    family = ["x", "x", "y", "y", "z", "z", "z", "w"]  # row 6 has the condition of row 0, so x and z are one
    found = condition_dependence(denoising(exact), table, "b_given_a", clusters=family, num_times=1)
    assert (found.num_clusters, found.is_permutation) == (3, False)  # 5 of 8 rows in one cluster
    assert "more than half" in found.lines()[-1]
    with pytest.raises(ValueError, match="clusters: found 2 labels, expected one for each of the 8 rows"):
        condition_dependence(denoising(exact), table, "b_given_a", clusters=["x", "y"])


def test_rows_without_a_partner_track_are_left_out_and_counted() -> None:
    exact = ExactDenoiser(WORLD, WORLD.parameterizations("subs"))
    rows = [{"a": [1, 2, 3], "b": [0, 1]}, {"a": [1, 2, 3]}, {"a": [3, 3, 3], "b": [4, 4]}, {"b": [0, 0]}]
    table = token_table(rows, list(NAMES))
    found = condition_dependence(denoising(exact), table, "b_given_a", num_times=1)
    assert (found.num_pairs, found.num_left_out) == (2, 2)
    assert "2 rows without all tracks" in found.lines()[-1]


@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=9), seed=st.integers(0, 99))
def test_shuffling_is_a_derangement_across_clusters_whenever_there_is_one(sizes: list[int], seed: int) -> None:
    clusters = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    clusters = np.random.default_rng(seed).permutation(clusters)
    partner, is_permutation = shuffle_across(clusters, seed=seed)
    assert (clusters[partner] != clusters).all()
    assert is_permutation == (2 * max(sizes) <= len(clusters))
    if is_permutation:
        assert sorted(partner) == list(range(len(clusters)))
    np.testing.assert_array_equal(partner, shuffle_across(clusters, seed=seed)[0])


@pytest.mark.parametrize("num", [1, 4])
def test_fewer_than_two_conditions_are_refused_in_words(num: int) -> None:
    exact = ExactDenoiser(WORLD, WORLD.parameterizations("subs"))
    table = table_of(WORLD.batch(WORLD.states[[3] * num]))
    with pytest.raises(ValueError, match=f"found 1 different one among {num} pairs, expected at least 2"):
        condition_dependence(denoising(exact), table, "b_given_a")
    with pytest.raises(ValueError, match="found 0 different ones among 0 pairs"):
        condition_dependence(denoising(exact), table.select([]), "b_given_a")
    with pytest.raises(ValueError, match="task 'joint': found no clean track"):
        condition_dependence(denoising(exact), table, "joint")
