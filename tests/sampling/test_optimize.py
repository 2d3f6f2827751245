"""Lead optimisation on the enumerable world, where the best answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.errors import ConfigError
from protlig_dd.sampling import Ancestral, FirstHitting, sample
from protlig_dd.sampling import optimize as optimization
from protlig_dd.sampling.optimize import OptimizeResult, optimize
from protlig_dd.tokens.tracks import TrackBatch, TrackTokens, pack
from tests.support.enumerable import World
from tests.support.networks import diffusion_of, small_network


def count_q(texts: list[str]) -> np.ndarray:
    """Score by the number of q; a text that begins with r is invalid."""
    return np.array([math.nan if text.startswith("r") else float(text.count("q")) for text in texts])


def lead(world: World, text: str = "pppppppp") -> TrackBatch:
    return pack([{"a": world.tracks["a"].encode(text), "b": world.tracks["b"].encode("klmnk")}], world.tracks)


def improve(world: World, batch: TrackBatch | None = None, **changes) -> OptimizeResult:  # type: ignore[no-untyped-def]
    arguments = {"track": "a", "objective": count_q, "rounds": 6, "population": 12, "seed": 1, "sampler": FirstHitting(), **changes}
    batch = lead(world) if batch is None else batch
    return optimize(Denoising(small_network(world), diffusion_of(world, "subs"), world.tracks), batch, **arguments)


@pytest.fixture(scope="module")
def result(world: World) -> OptimizeResult:
    """Return one optimisation, for the tests that only look at it."""
    return improve(world)


def test_selection_improves_a_lead_beyond_the_null(result: OptimizeResult) -> None:
    assert result.lead.text == "pppppppp"
    assert result.lead.score == 0
    assert result.best[0].score == result.history[-1].best > result.null[-1].best > 0
    assert np.mean([c.score for c in result.best]) > np.mean([c.score for c in result.null_best])


def test_the_null_draws_as_many_samples_at_the_same_times(result: OptimizeResult) -> None:
    assert [(r.num_samples, r.t) for r in result.history] == [(r.num_samples, r.t) for r in result.null]
    assert all(0.3 <= r.t <= 0.7 for r in result.history)
    assert len({r.t for r in result.history}) == 6


def test_the_best_are_distinct_ranked_and_never_lost(world: World, result: OptimizeResult) -> None:
    for found, history in ((result.best, result.history), (result.null_best, result.null)):
        assert len({c.text for c in found}) == len(found) == 12
        assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
        best = [r.best for r in history]
        assert best == sorted(best)
    for candidate in result.best:
        assert candidate.text == world.tracks["a"].decode(candidate.ids)
        assert candidate.score == count_q([candidate.text])[0]


def test_each_text_is_scored_once_and_counted(world: World) -> None:
    seen: list[str] = []

    def objective(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return count_q(texts)

    result = improve(world, objective=objective, rounds=3)
    null = sum(r.num_evaluations for r in result.null)
    assert result.num_evaluations + null == len(seen)
    assert len(set(seen[: result.num_evaluations])) == result.num_evaluations


def test_invalid_texts_are_never_kept(result: OptimizeResult) -> None:
    assert not any(c.text.startswith("r") for c in (*result.best, *result.null_best))
    assert any(r.num_admissible < r.num_samples for r in result.history)


def test_the_constraint_holds_for_all_that_is_kept(world: World) -> None:
    asked: list[str] = []

    def objective(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return count_q(texts)

    result = improve(world, objective=objective, constraint=lambda text: text.endswith("pp"), rounds=3)
    assert all(c.text.endswith("pp") for c in (*result.best, *result.null_best, result.lead))
    assert all(text.endswith("pp") for text in asked), "the objective is not asked about texts that cannot be kept"


def test_kept_positions_and_the_condition_stay(world: World) -> None:
    batch = lead(world)
    kept = torch.tensor([False, False, True, True, True, True, True, True])
    track = batch.tracks["a"]
    frozen = TrackTokens(tokens=track.tokens, maskable=kept, layout=track.layout)
    batch = TrackBatch(tracks={**batch.tracks, "a": frozen}, example_ids=batch.example_ids, slots=batch.slots, global_size=1)
    result = improve(world, batch, rounds=3)
    assert all(c.text.startswith("pp") for c in (*result.best, *result.null_best))
    assert result.best[0].score > 0


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_batch_size_changes_no_variation(
    world: World, result: OptimizeResult, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    monkeypatch.setattr(optimization, "sample", lambda *args, **how: sizes.append(how["batch"].num_examples) or sample(*args, **how))
    assert improve(world, batch_size=batch_size) == result
    assert max(sizes) == batch_size
    with pytest.raises(ConfigError, match="batch_size: found 0, expected 1 or more"):
        improve(world, batch_size=0)


def test_a_seed_decides_everything(world: World) -> None:
    first, again, other = (improve(world, rounds=2, seed=seed) for seed in (1, 1, 2))
    assert repr(first) == repr(again)
    assert [c.text for c in first.best] != [c.text for c in other.best]


def test_a_small_time_stays_close_to_the_lead(world: World) -> None:
    def changes(t: float) -> float:
        found = improve(world, t_range=(t, t), rounds=1, sampler=Ancestral(num_steps=4)).null_best
        return float(np.mean([sum(x != "p" for x in c.text) for c in found]))

    assert changes(0.15) + 1 < changes(0.9)


def test_no_admissible_variation_leaves_the_lead(world: World) -> None:
    result = improve(world, constraint=lambda text: text == "pppppppp", rounds=2)
    assert [c.text for c in result.best] == ["pppppppp"]
    assert math.isnan(result.history[0].mean) or result.history[0].mean == 0


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"constraint": lambda text: "q" in text}, "the lead 'pppppppp' has no score or fails the constraint"),
        ({"track": "ligand"}, "optimize.track: found 'ligand', expected one of a, b"),
        ({"rounds": 0}, "found rounds 0 and population 12"),
        ({"t_range": (0.0, 0.5)}, r"optimize.t_range: found \[0.0, 0.5\], expected 0 < first"),
        ({"t_range": (0.6, 0.5)}, r"optimize.t_range: found \[0.6, 0.5\]"),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        improve(world, **changes)


def test_several_leads_and_scores_of_the_wrong_shape_are_refused(world: World) -> None:
    both = pack([{"a": world.tracks["a"].encode("pp")}] * 2, world.tracks)
    with pytest.raises(ConfigError, match="found 2 examples, expected one lead"):
        improve(world, both)
    with pytest.raises(ValueError, match=r"objective: found scores of shape \(2,\) for 1 texts"):
        improve(world, objective=lambda texts: np.zeros(2))
