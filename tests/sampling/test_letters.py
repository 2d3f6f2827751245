"""The nucleus: one rule for every way of sampling."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protlig_dd.causal.decoding import CausalDecoding
from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.rng import Draws
from protlig_dd.sampling import Guidance
from protlig_dd.sampling.guidance import keep_top_p
from tests.support.enumerable import ExactDenoiser, World
from tests.support.networks import diffusion_of


def nucleus(counts: list[int], top_p: float) -> list[int]:
    """Return the smallest set of likeliest letters that has at least top_p of the counts, in plain Python."""
    kept: list[int] = []
    for letter in sorted(range(len(counts)), key=lambda i: (-counts[i], i)):
        if sum(counts[i] for i in kept) >= top_p * sum(counts):
            break
        kept.append(letter)
    return sorted(kept)


def kept(logits: Tensor, top_p: float) -> list[int]:
    return keep_top_p(logits[None], top_p)[0].isfinite().nonzero().flatten().tolist()


@pytest.mark.parametrize(("top_p", "expected"), [(0.25, [0]), (0.26, [0, 1]), (0.5, [0, 1]), (0.75, [0, 1, 2])])
def test_letters_behind_the_one_that_reaches_top_p_are_dropped(top_p: float, expected: list[int]) -> None:
    """Four equal letters have exactly a quarter each; the likelier half has exactly one half."""
    assert kept(torch.zeros(4), top_p) == expected


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(counts: list[int], top_p: float) -> None:
    near = [abs(sum(sorted(counts, reverse=True)[:n]) / sum(counts) - top_p) for n in range(len(counts) + 1)]
    if min(near) > 1e-5:  # float64 sums of logarithms do not decide exact equality
        assert kept(torch.tensor(counts, dtype=torch.float64).log(), top_p) == nucleus(counts, top_p)


def test_kept_logits_are_unchanged_and_top_p_1_keeps_all() -> None:
    logits = torch.tensor([[1.0, -math.inf, 3.0, 2.0]])
    assert keep_top_p(logits, 1.0) is logits
    assert keep_top_p(logits, 0.7).tolist() == [[-math.inf, -math.inf, 3.0, 2.0]]


def test_guidance_and_causal_decoding_keep_the_letters_that_dplm_keeps(world: World) -> None:
    """Half of the probability is reached exactly by the first half of equally likely letters."""
    ids = list(world.tracks["a"].vocabulary.emittable_ids)
    exact = ExactDenoiser(world, world.parameterizations("subs"))
    denoising = Denoising(exact, diffusion_of(world, "subs"), world.tracks)
    reshaped = Guidance(top_p=1 / len(ids)).apply(denoising, generate=("a",)).denoiser
    logits = torch.zeros(1, world.tracks["a"].vocabulary.num_rows)
    assert reshaped._reshape(logits, "a")[0].isfinite().nonzero().flatten().tolist() == ids[:1]  # type: ignore[attr-defined]
    rows = torch.zeros(4000, 4)
    draws = Draws.root(0, "columns").fold_in(torch.arange(4000))
    for top_p in (0.25, 0.5, 0.75):
        drawn = CausalDecoding(temperature=1.0, top_p=top_p).draw(rows, draws)
        assert sorted(set(drawn.tolist())) == kept(rows[0], top_p)
