"""Tests of mutation effects: each method against an enumeration on a small world, the correlation against hand-made answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.data.readers.mutants import Mutants, Mutation, parse_mutant
from protlig_dd.diffusion.denoiser import Denoising, Diffusion
from protlig_dd.diffusion.parameterizations import Subs
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.fitness import Scorer, agreement, ranks, spearman
from protlig_dd.evaluation.likelihood import bound
from protlig_dd.tokens.settings import ProteinTrack
from protlig_dd.tokens.tracks import TrackBatch
from tests.support.enumerable import ExactDenoiser, World
from tests.support.tempered import model, tempered_log_prob

WORLD = World.load()
LETTERS = "pqr"
B_IDS = [3, 0]  # the letters 2 and 0 of track b
B_CODES = [2, 0]
WILD = "qpr"
CODES = {letter: i for i, letter in enumerate(LETTERS)}
MUTANTS = Mutants(
    wild_type=WILD,
    names=("single", "double", "triple", "wild type"),
    mutations=(
        (Mutation(position=1, wild="p", mutant="r"),),
        (Mutation(position=0, wild="q", mutant="p"), Mutation(position=1, wild="p", mutant="q")),
        tuple(Mutation(position=i, wild=w, mutant=m) for i, (w, m) in enumerate(zip(WILD, "prq", strict=True))),
        (),
    ),
)


def scorer() -> Scorer:
    return Scorer(denoising=model(), track="a", given={"b": B_IDS})


def state(sequence: str) -> list[int]:
    return [*(CODES[letter] for letter in sequence), *B_CODES]


def log_ratio(mutation: Mutation, hidden: tuple[int, ...]) -> float:
    """log p(mutant) - log p(wild) at one place, the hidden ones of the wild type hidden."""
    mutant = state(WILD)
    mutant[mutation.position] = CODES[mutation.mutant]
    here = mutation.position
    return tempered_log_prob(mutant, here, hidden) - tempered_log_prob(state(WILD), here, hidden)


def test_the_masked_marginal_hides_all_mutated_positions_at_once() -> None:
    truth = []
    for mutations in MUTANTS.mutations:
        hidden = tuple(m.position for m in mutations)
        truth.append(sum(log_ratio(m, hidden) for m in mutations))
    np.testing.assert_allclose(scorer().effects(MUTANTS), truth, atol=1e-6)


def test_the_additive_one_hides_them_one_by_one_and_agrees_on_singles() -> None:
    truth = [sum(log_ratio(m, (m.position,)) for m in mutations) for mutations in MUTANTS.mutations]
    found = scorer().effects(MUTANTS, "masked-marginal-additive")
    np.testing.assert_allclose(found, truth, atol=1e-6)
    jointly = scorer().effects(MUTANTS)
    assert found[0] == pytest.approx(jointly[0], abs=1e-9)
    assert abs(found[1] - jointly[1]) > 0.01


def enumerated_bound(sequence: str) -> float:
    """The any-order bound of track a given track b."""
    total, codes = 0.0, state(sequence)
    for k in (1, 2, 3):
        sets = list(itertools.combinations(range(3), k))
        total += sum(-tempered_log_prob(codes, i, s) for s in sets for i in s) / k / len(sets)
    return total


def test_the_bound_difference_is_the_enumerated_one_when_every_set_is_held() -> None:
    found = scorer().effects(MUTANTS, "bound", num_draws=3)
    truth = [enumerated_bound(WILD) - enumerated_bound(MUTANTS.sequence(i)) for i in range(len(MUTANTS))]
    np.testing.assert_allclose(found, truth, atol=1e-6)


def test_drawn_bounds_share_their_sets_so_that_the_wild_type_has_no_effect() -> None:
    found = scorer().effects(MUTANTS, "bound", num_strata=1, num_draws=2, seed=4)
    assert found[3] == 0
    assert found[0] != 0


def test_uniform_noise_has_bounds_but_no_masked_marginals() -> None:
    diffusion = Diffusion(parameterizations=WORLD.parameterizations("uniform"), schedule=LogLinear(eps=1e-4))
    exact = Denoising(ExactDenoiser(WORLD, WORLD.parameterizations("uniform")), diffusion, WORLD.tracks)
    uniform = Scorer(denoising=exact, track="a", given={"b": B_IDS})
    found = uniform.effects(MUTANTS, "bound", num_strata=20, seed=3)
    rows = torch.tensor([state(s) for s in (WILD, *(MUTANTS.sequence(i) for i in range(len(MUTANTS))))])
    batch = replace(WORLD.batch(rows), example_ids=torch.zeros(5, dtype=torch.int64))
    nats = bound(exact, batch, "a_given_b", num_times=20, seed=3).total
    np.testing.assert_allclose(found, nats[0] - nats[1:], atol=1e-6)
    assert found[3] == 0
    with pytest.raises(ConfigError, match="track 'a': found uniform noise"):
        uniform.effects(MUTANTS)


class ByPlace:
    """Logits that depend on the place and on all visible tokens: token id t at packed place i gets sin(i + t + sum of visible ids)."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        (track,) = batch.tracks.values()
        self.seen += track.split()
        total = torch.zeros(batch.num_examples).index_add(0, track.layout.segment, track.tokens.float())
        place = track.layout.position + total[track.layout.segment]
        logits = torch.sin(place[:, None] + torch.arange(33))
        return {"protein": logits if at is None else logits[at["protein"]]}


def test_wt_marginal_is_one_call_on_the_shown_wild_type_and_counts_behind_the_begin_token() -> None:
    """The X of the wild type cannot be hidden, yet positions keep their numbers."""
    track = ProteinTrack(unknown="X").build("protein")
    denoiser = ByPlace()
    diffusion = Diffusion(parameterizations={"protein": Subs(process=Absorbing.of(track.vocabulary))}, schedule=LogLinear())
    subject = Scorer(denoising=Denoising(denoiser, diffusion, {"protein": track}))
    names = ("A4C", "K8R:T3G", "A4C:A7C")
    mutants = Mutants(wild_type="MXTAYIAK", names=names, mutations=tuple(parse_mutant(name, "MXTAYIAK") for name in names))
    found = subject.effects(mutants, "wt-marginal")
    ids = track.encode("MXTAYIAK")
    assert denoiser.seen == [ids]
    v = track.vocabulary.encode

    def difference(row: int, new: str, old: str) -> float:
        shift = row + sum(ids)
        return math.sin(shift + v([new])[0]) - math.sin(shift + v([old])[0])

    truth = [difference(4, "C", "A"), difference(8, "R", "K") + difference(3, "G", "T")]
    np.testing.assert_allclose(found[:2], truth, atol=2e-5)
    denoiser.seen.clear()
    subject.effects(mutants, "masked-marginal")
    hidden = sorted(tuple(i for i, token in enumerate(seen) if token == 32) for seen in denoiser.seen)
    assert hidden == [(3, 8), (4,), (4, 7)]


@pytest.mark.parametrize("method", ["masked-marginal", "masked-marginal-additive", "wt-marginal"])
def test_small_calls_change_nothing(method: str) -> None:
    small = Scorer(denoising=model(), track="a", tokens_per_call=4, given={"b": B_IDS})
    np.testing.assert_allclose(small.effects(MUTANTS, method), scorer().effects(MUTANTS, method), atol=1e-9)
    assert max(small.denoising.denoiser.sizes) <= 5


def test_unknown_methods_and_tracks_are_named() -> None:
    with pytest.raises(ConfigError, match=r"found 'masked_marginal' \(did you mean 'masked-marginal'\?\)"):
        scorer().effects(MUTANTS, "masked_marginal")
    with pytest.raises(ConfigError, match="track: found 'protein', expected one of a, b"):
        Scorer(denoising=model()).effects(MUTANTS)


def test_ranks_share_ties_and_spearman_has_known_values() -> None:
    assert ranks(np.array([10.0, 30, 20, 20])).tolist() == [0, 3, 1.5, 1.5]
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 100, 1000, 1001])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])) == pytest.approx(-1)
    # 1 - 6 sum d^2 / (n (n^2 - 1)) with d = (0, 1, 1, 0, 0)
    assert spearman(np.arange(5.0), np.array([0.0, 2, 1, 3, 4])) == pytest.approx(1 - 6 * 2 / 120)
    # with ties, by hand: ranks (0, 1.5, 1.5, 3) and (0, 1, 2, 3) give 4.5 / sqrt(4.5 * 5)
    assert spearman(np.array([1.0, 2, 2, 3]), np.arange(4.0)) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(spearman(np.ones(3), np.arange(3.0)))


def test_agreement_has_an_interval_and_a_null_that_a_permutation_gives() -> None:
    draws = np.random.default_rng(0)
    truth = draws.normal(size=80)
    good = agreement(truth + draws.normal(size=80), truth, num_resamples=300)
    assert good.value.low < good.value.value < good.value.high
    assert good.null is not None
    assert good.null.low < 0 < good.null.high < good.value.low
    assert "p = 0.0033" in good.note
    noise = agreement(draws.normal(size=80), truth, num_resamples=300)
    assert noise.null is not None
    assert noise.null.low < noise.value.value < noise.null.high
    # the null's spread is 1 / sqrt(n - 1) for any continuous measurement
    assert (noise.null.high - noise.null.low) / 3.92 == pytest.approx(1 / math.sqrt(79), rel=0.15)
    assert agreement(np.ones(5), np.arange(5.0)).value.num == 0
    with pytest.raises(ValueError, match="expected at least 3 pairs of finite numbers"):
        agreement(np.array([1.0, np.nan, 2]), np.arange(3.0))
