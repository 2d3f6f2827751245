"""Kanzi's parts against exact answers: codes and indices, attention to neighbours, the flow and its sampler."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.kanzi.batches import centred_nm, pack_traces
from protlig_dd.kanzi.flow import FlowSampler, centred_noise, random_rotations, standard_normal, training_times
from protlig_dd.kanzi.fsq import FSQ, LEVELS, codes_of, index_of, quantise
from protlig_dd.kanzi.windowed import tiles_of, windowed_attention
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import Layout


def test_every_index_is_one_code_and_every_code_one_index() -> None:
    index = torch.arange(1000)
    codes = codes_of(index)
    assert torch.equal(index_of(codes), index)
    assert len(torch.unique(codes, dim=0)) == 1000
    assert codes.min() == -1.0 and codes.max() == 1.0
    assert index_of(torch.tensor([[-0.75, -1.0, -1.0, -1.0], [-1.0, -1.0, -1.0, -0.5]])).tolist() == [1, 200]


def test_quantised_numbers_are_codes_and_a_code_stands_where_its_number_was() -> None:
    z = torch.randn(8000, 4, generator=torch.Generator().manual_seed(0)) * 1.2
    codes = quantise(z)
    assert torch.allclose(codes_of(index_of(codes)), codes, atol=1e-6)
    assert len(torch.unique(index_of(codes))) > 900
    # the middle of an odd number of levels is 0; of an even one the shift puts 0 on a level and not between two
    assert quantise(torch.zeros(1, 4)).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert quantise(torch.full((1, 4), 50.0)).tolist() == [[0.75, 1.0, 1.0, 1.0]]
    assert quantise(torch.full((1, 4), -50.0)).tolist() == [[-1.0, -1.0, -1.0, -1.0]]


def test_the_gradient_passes_the_rounding_as_if_it_were_not_there() -> None:
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float32, requires_grad=True)
    (given,) = torch.autograd.grad(quantise(z).sum(), z)
    half = torch.tensor([(n - 1) * (1 - 1e-3) / 2 for n in LEVELS])
    offset = torch.tensor([0.5, 0.0, 0.0, 0.0])
    expected = (1 - torch.tanh(z + torch.tan(offset / half)) ** 2) * half / torch.tensor([4.0, 2.0, 2.0, 2.0])
    assert torch.allclose(given, expected, atol=1e-5)


def test_the_vectors_of_an_index_are_those_that_quantising_gives() -> None:
    fsq = FSQ(6, 5)
    vectors, index = fsq(torch.randn(30, 6) * 4)
    assert fsq.num_codes == 1000 and torch.allclose(fsq.embed(index), vectors, atol=1e-6)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, reach: int, bias: Tensor) -> Tensor:
    """One example, [l, l], in the plainest form; `bias` by offset."""
    place = torch.arange(len(q))
    gap = place[None] - place[:, None]
    logits = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1]) + bias[gap.clamp(-reach, reach) + reach]
    weights = logits.masked_fill(gap.abs() > reach, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


@pytest.mark.parametrize("reach", [1, 3, 16])
def test_attention_to_neighbours_equals_dense_attention_under_a_band(reach: int) -> None:
    layout = Layout((1, 7, 33, 16, 2 * reach, 50))
    q, k, v = torch.randn(3, layout.num_tokens, 2, 4).unbind(0)
    by_offset = torch.randn(2 * reach + 1)
    tiles = tiles_of(layout, reach)
    found = windowed_attention(q, k, v, tiles, by_offset[tiles.offset + reach].expand(tiles.visible.shape))
    at = layout.offsets
    for a, b in zip(at[:-1], at[1:], strict=True):
        expected = dense_attention(q[a:b], k[a:b], v[a:b], reach, by_offset)
        assert torch.allclose(found[a:b], expected, atol=1e-5)


def test_normal_numbers_are_normal_and_rotations_are_proper() -> None:
    x = standard_normal(Draws.root(0, "x").fold_in(torch.arange(100_000))).double()
    assert abs(float(x.mean())) < 4 / math.sqrt(1e5) and abs(float(x.var()) - 1) < 4 * math.sqrt(2 / 1e5)
    assert abs(float((x.abs() > 3).double().mean()) - 0.0027) < 4 * math.sqrt(0.0027 / 1e5)
    turns = random_rotations(Draws.root(0, "r").fold_in(torch.arange(5000)))
    eye = torch.eye(3).expand(5000, 3, 3)
    assert torch.allclose(turns @ turns.mT, eye, atol=1e-5) and torch.allclose(turns.det(), torch.ones(5000), atol=1e-4)
    assert float(turns.mean(0).abs().max()) < 4 / math.sqrt(3 * 5000)
    cosine = (turns.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2  # uniform rotations have a mean angle of 126.5 degrees
    assert abs(float(torch.rad2deg(cosine.clamp(-1, 1).arccos()).mean()) - 126.48) < 2


def test_times_follow_their_law() -> None:
    t = training_times(Draws.root(3, "t").fold_in(torch.arange(50_000))).double()
    for point in (0.1, 0.5, 0.9):  # the distribution function: 0.98 t^1.9 + 0.02 t
        expected = 0.98 * point**1.9 + 0.02 * point
        assert abs(float((t < point).double().mean()) - expected) < 4 * math.sqrt(expected * (1 - expected) / 5e4)


def test_noise_has_no_mean_and_depends_on_the_chain_alone() -> None:
    draws = Draws.root(0, "noise").fold_in(torch.tensor([5, 9]))
    both = centred_noise(draws, Layout((30, 7)))
    alone = centred_noise(draws[torch.tensor([1])], Layout((7,)))
    assert torch.equal(both[30:], alone)
    assert float(both[:30].mean(0).abs().max()) < 1e-6


def normals(draws: Draws) -> Tensor:
    """Points whose three coordinates are one normal number."""
    return standard_normal(draws).double()[:, None].expand(-1, 3)


def law(centre: float, deviation: float):  # type: ignore[no-untyped-def]
    """The exact velocity of data that are normal: E[x_1 | x_t] by Bayes, less what is left of x."""

    def velocity(x: Tensor, t: float) -> Tensor:
        gain = t * deviation**2 / (t**2 * deviation**2 + (1 - t) ** 2)
        return (centre + gain * (x - t * centre) - x) / (1 - t)

    return velocity


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.45, 1.0), (1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_the_flow_to_a_point_ends_on_it_exactly(num_steps: int, weights: tuple[float, float]) -> None:
    """With one possible structure every step is exact, so the last must land on it: no step is missing, and none too many."""
    target = torch.randn(40, 3, dtype=torch.float64)
    sampler = FlowSampler(num_steps=num_steps, noise_weight=weights[0], score_weight=weights[1])
    times: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        times.append(t)
        return (target - x) / (1 - t)

    start = torch.randn(40, 3, dtype=torch.float64)
    found = sampler.integrate(velocity, start, lambda step: torch.randn(40, 3, dtype=torch.float64))
    assert torch.allclose(found, target, atol=1e-12)
    assert times == [k / num_steps for k in range(num_steps)]


def test_the_plain_flow_of_a_normal_law_is_the_known_map_and_its_error_falls_as_one_over_the_steps() -> None:
    """Optimal transport between normals along straight lines of means: x_1 = centre + deviation x_0."""
    start = torch.linspace(-2, 2, 30, dtype=torch.float64).view(10, 3)
    errors = []
    for num_steps in (50, 100, 200):
        sampler = FlowSampler(num_steps=num_steps, noise_weight=0.0, score_weight=0.0)
        found = sampler.integrate(law(0.7, 0.4), start, lambda step: start)
        errors.append(float((found - (0.7 + 0.4 * start)).abs().max()))
    assert errors[-1] < 0.02
    assert [a / b for a, b in zip(errors[:-1], errors[1:], strict=True)] == pytest.approx([2, 2], abs=0.15)


@pytest.mark.parametrize("noise_weight", [0.0, 0.45])
def test_both_methods_sample_the_same_law_when_steps_are_short(noise_weight: float) -> None:
    """At 400 steps; that the original's last step goes past the data shifts its samples by a step's length at most."""
    start = normals(Draws.root(0, "law").fold_in(torch.arange(2000)))
    draws = Draws.root(1, "law").fold_in(torch.arange(2000))
    velocity = law(0.7, 0.4)
    exact, euler = (
        FlowSampler(method=method, num_steps=400, noise_weight=noise_weight).integrate(  # type: ignore[arg-type]
            lambda x, t: velocity(x, min(t, 1 - 1e-6)), start, lambda step: normals(draws.fold("step", step))
        )
        for method in ("exact", "euler")
    )
    assert float(euler.mean()) == pytest.approx(float(exact.mean()), abs=0.02)
    assert float(euler.std()) == pytest.approx(float(exact.std()), rel=0.05, abs=0.005)


def test_sampling_with_full_noise_keeps_the_law() -> None:
    """At noise weight 1 pull and noise balance: mean and spread are the data's, as the plain flow gives them."""
    draws = Draws.root(0, "law").fold_in(torch.arange(4_000))
    start = normals(draws.fold("start"))
    found = FlowSampler(num_steps=100, noise_weight=1.0).integrate(law(0.7, 0.4), start, lambda step: normals(draws.fold("step", step)))
    sample = found[:, 0]
    assert abs(float(sample.mean()) - 0.7) < 4 * 0.4 / math.sqrt(4e3) + 0.01
    assert float(sample.std()) == pytest.approx(0.4, rel=0.06)


def test_less_noise_concentrates() -> None:
    draws = Draws.root(0, "law").fold_in(torch.arange(2000))
    start = normals(draws)
    found = FlowSampler(num_steps=100, noise_weight=0.45).integrate(law(0.0, 0.4), start, lambda step: normals(draws.fold("step", step)))
    assert 0.4 * math.sqrt(0.45) * 0.9 < float(found[:, 0].std()) < 0.4 * 0.9


def test_impossible_samplers_are_refused() -> None:
    for wrong, words in (
        ({"num_steps": 0}, "num_steps: found 0, expected 1 or more"),
        ({"noise_weight": -1.0}, "noise_weight: found -1.0, expected 0 or more"),
        ({"num_steps": 1, "method": "euler"}, "num_steps: found 1 with method euler, expected 2 or more"),
        ({"score_weight": 0.0}, "noise_weight: found 0.45 with score_weight 0"),
    ):
        with pytest.raises(ValueError, match=words):
            FlowSampler(**wrong)  # type: ignore[arg-type]


def test_traces_are_centred_and_a_translation_changes_no_bit() -> None:
    chain = np.random.default_rng(0).integers(-40_000, 40_000, (37, 3)).astype(np.float32) / 1024
    moved = chain + np.float32([64, -128, 32.5])
    assert np.array_equal(centred_nm(chain), centred_nm(moved))
    assert np.abs(centred_nm(chain).mean(0)).max() < 1e-6
    assert np.allclose(np.diff(centred_nm(chain), axis=0) * 10, np.diff(chain, axis=0), atol=1e-5)


def test_chains_without_coordinates_are_refused_with_their_place() -> None:
    chain = np.zeros((5, 3), np.float32)
    chain[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"chain 2: residue 4 has no C-alpha .*nan"):
        pack_traces([np.zeros((5, 3), np.float32), chain])
    with pytest.raises(ValueError, match=r"chain 1: found coordinates of shape \(0, 3\)"):
        pack_traces([np.zeros((0, 3), np.float32)])
