"""Property guidance on the enumerable world: the tilted law, by counting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.errors import ConfigError
from protlig_dd.rng import Draws
from protlig_dd.sampling import Ancestral, ConfidenceUnmasking, DPLMUnmasking, Euler, FirstHitting, Remasking, sample
from protlig_dd.sampling.loop import Stepper
from protlig_dd.sampling.smc import effective_size, systematic
from protlig_dd.sampling.tilting import Property, Tilted, Tilting, guided
from protlig_dd.sampling.towards import TiltedSamples, sample_tilted
from tests.support.enumerable import AXES, ExactDenoiser, World
from tests.support.laws import EVERYWHERE, SCENES, Propagation, Scene, exact_law, misfit, total_variation
from tests.support.networks import Counting, choose, diffusion_of, odd_batch, small_network

JOINT = SCENES["joint"]
VALUES = {"p": -0.5, "q": 1.0, "r": 0.0}


def best_of_law(log_probs: Tensor, values: Tensor, num: int, *, weight: float = 1.0) -> Tensor:
    """Return the law of the best of `num` independent draws from p(x), the largest value (for a negative weight the smallest).

    With F the distribution function of the value: P(x) = p(x) (F(v)^n - F(v-)^n) / P(value = v), v the value of x; texts of equal value keep
    their proportions.

    Args:
        log_probs: log p(x) of every text.
        values: the property of every text.
        num: n, the number of draws.
        weight: only its sign counts.
    """
    order = (values * math.copysign(1.0, weight)).double()
    levels, level = torch.unique(order, return_inverse=True)
    probs = log_probs.double().softmax(0)
    at = torch.zeros_like(levels).index_add(0, level, probs)
    upto = at.cumsum(0)
    return probs / at[level] * (upto**num - (upto - at).clamp(min=0) ** num)[level]


def additive(texts: list[str]) -> np.ndarray:
    return np.array([sum(VALUES[letter] for letter in text) for text in texts])


def pattern(texts: list[str]) -> np.ndarray:
    """Score what no sum over letters can: equal neighbours, and ends that differ."""
    assert not any("_" in text for text in texts), "a property is asked about finished texts only"
    return np.array([sum(x == y for x, y in zip(t, t[1:], strict=False)) - 1.5 * (t[0] == t[-1]) for t in texts], float)


SUM = Property(name="sum", track="a", function=additive, letters=VALUES)
BLACK_BOX = replace(SUM, letters=None)
PATTERN = Property(name="pattern", track="a", function=pattern)


@pytest.fixture(scope="module")
def product(world: World) -> World:
    """Return a world with the same letters at each place, all independent."""
    joint = torch.ones((), dtype=torch.float64)
    for axis in range(len(AXES)):
        joint = joint[..., None] * world.joint.sum([i for i in range(len(AXES)) if i != axis])
    return World(joint)


def values_of(world: World, prop: Property, scene: Scene = JOINT) -> Tensor:
    """Return the property of each state over the axes of a scene."""
    states = torch.cartesian_prod(*(torch.arange(world.joint.shape[axis]) for axis in scene.axes))
    texts = ["".join("pqr"[i] for i in row[:3]) for row in states.tolist()]
    return torch.from_numpy(prop.function(texts))


def tilted_law(world: World, prop: Property, weight: float, law: Tensor | None = None) -> tuple[Tensor, float]:
    """Return p(x) exp(weight * property(x)) / Z and log Z, by enumeration."""
    mass = (world.probs if law is None else law) * (weight * values_of(world, prop)).exp()
    return mass / mass.sum(), math.log(float(mass.sum()))


def draw(
    world: World, prop: Property, tilting: Tilting, num: int, *, sampler: Stepper | None = None, kind: str = "subs", scene: Scene = JOINT
) -> TiltedSamples:
    return sample_tilted(
        Denoising(ExactDenoiser(world, world.parameterizations(kind)), diffusion_of(world, kind), world.tracks),
        scene.batch(world, num),
        prop=prop,
        tilting=tilting,
        generate=tuple(scene.open),
        sampler=sampler or FirstHitting(),
        seed=2,
    )


def floor(law: Tensor, num: int) -> float:
    """Return the mean total variation of as many exact draws, to first order."""
    return float((law * (1 - law) / num).sqrt().sum() * 0.3989)


def smc(weight: float = 1.0, **changes) -> Tilting:  # type: ignore[no-untyped-def]
    return Tilting(name="x", weight=weight, **{"particles": 32, **changes})


def classifier(weight: float = 1.0, **changes) -> Tilting:  # type: ignore[no-untyped-def]
    return Tilting(name="x", weight=weight, method="classifier", **changes)


METHODS = [smc(1.5, particles=4), classifier(1.5), Tilting(name="x", weight=1.5, method="best_of", particles=4)]
SAMPLERS = [
    FirstHitting(),
    Ancestral(num_steps=4),
    Ancestral(num_steps=3, corrector_steps=1),
    Euler(num_steps=4),
    ConfidenceUnmasking(num_steps=3, randomness=1.0),
    Remasking(num_steps=4, eta=0.5),
    DPLMUnmasking(num_steps=4),
]


def ids_of(batch) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]
    return {name: track.tokens.tolist() for name, track in batch.tracks.items()}


def test_the_law_of_many_particles_is_the_tilted_one(world: World, record_property: Callable[[str, object], None]) -> None:
    """A property that is no sum over letters: near the floor of as many exact draws with 48 particles, visibly off with 2."""
    num = 1200
    target, _ = tilted_law(world, PATTERN, 1.5)
    errors = {}
    for particles in (2, 48):
        found = JOINT.law(world, draw(world, PATTERN, smc(1.5, particles=particles, threshold=0.9), num).batch)
        errors[particles] = total_variation(found, target)
    plain, least = total_variation(world.probs, target), floor(target, num)
    record_property("total_variation", errors)
    print(f"pattern: total variation {errors}, exact draws {least:.4f}, unguided {plain:.4f}")
    assert abs(misfit(found, target, num)) < 4
    assert errors[48] < 1.15 * least < errors[2] < plain


@pytest.mark.parametrize("sampler", [Ancestral(num_steps=3), Euler(num_steps=3)], ids=["ancestral", "euler"])
@pytest.mark.parametrize("prop", [SUM, PATTERN], ids=["twisted", "guess"])
def test_the_law_of_any_sampler_is_tilted_not_only_the_true_one(world: World, prop: Property, sampler: Stepper) -> None:
    """Three steps are far from the joint; what is tilted is their own law."""
    num = 1000
    own = exact_law(world, "subs", JOINT, sampler)
    target, _ = tilted_law(world, prop, 1.0, own)
    drawn = draw(world, prop, smc(1.0, threshold=1.0), num, sampler=sampler)
    assert drawn.num_resamplings is not None and (drawn.num_resamplings >= 1).all()
    found = JOINT.law(world, drawn.batch)
    assert abs(misfit(found, target, num)) < 4
    assert misfit(found, tilted_law(world, prop, 1.0)[0], num) > 10


@pytest.mark.parametrize("prop", [SUM, BLACK_BOX, PATTERN], ids=["twisted", "guess of a sum", "guess of a pattern"])
@pytest.mark.parametrize("guess", ["argmax", "sampled"])
@pytest.mark.parametrize("weight", [1.2, -0.8])
def test_the_estimate_of_z_is_unbiased_at_any_number_of_particles(world: World, prop: Property, guess: str, weight: float) -> None:
    num = 800
    _, log_z = tilted_law(world, prop, weight)
    drawn = draw(world, prop, smc(weight, particles=4, threshold=0.8, guess=guess), num)
    assert drawn.log_z is not None and drawn.num_resamplings is not None
    assert drawn.num_resamplings.sum() > 20
    estimates = np.exp(drawn.log_z)
    assert abs(estimates.mean() - math.exp(log_z)) < 4 * estimates.std() / math.sqrt(num)


@pytest.mark.parametrize("prop", [SUM, PATTERN], ids=["twisted", "guess"])
def test_z_is_unbiased_when_every_step_resamples(world: World, prop: Property) -> None:
    """Few particles, drawn anew at each of four ancestral steps: everything a particle has must go with it."""
    num, sampler = 3000, Ancestral(num_steps=4)
    _, log_z = tilted_law(world, prop, 2.0, exact_law(world, "subs", JOINT, sampler))
    drawn = draw(world, prop, smc(2.0, particles=3, threshold=1.0), num, sampler=sampler)
    estimates = np.exp(drawn.log_z)  # type: ignore[arg-type]
    assert abs(estimates.mean() - math.exp(log_z)) < 4 * estimates.std() / math.sqrt(num)


def test_no_step_draws_what_another_step_has_drawn(world: World) -> None:
    """First hitting draws each position once and does not name the step: a particle drawn anew may open a position again."""
    seen: list[Tensor] = []

    class Watched(FirstHitting):
        def step(self, problem, state, index):  # type: ignore[no-untyped-def]
            seen.append(problem.draws["a"].keys)
            return super().step(problem, state, index)

    draw(world, SUM, smc(1.0, particles=4), 3, sampler=Watched())
    keys = torch.cat(seen)
    assert len(seen) == 5 and len(keys.unique()) == len(keys)


@pytest.mark.parametrize("kind", ["subs", "score", "score_unscaled"])
@pytest.mark.parametrize("sampler", [FirstHitting(), Ancestral(num_steps=3), Euler(num_steps=3)], ids=lambda s: s.kind)
def test_independent_letters_have_equal_weights_and_a_known_z(product: World, kind: str, sampler: Stepper) -> None:
    """The twist is then the exact expectation, and the guided draws are the tilted ones: nothing is left to weigh."""
    drawn = draw(product, SUM, smc(1.5, particles=8), 40, sampler=sampler, kind=kind)
    assert drawn.ess is not None and drawn.ess_steps is not None and drawn.log_z is not None
    np.testing.assert_allclose(drawn.ess, 8, rtol=1e-4)
    np.testing.assert_allclose(drawn.ess_steps, 8, rtol=1e-4)
    np.testing.assert_allclose(drawn.log_z, tilted_law(product, SUM, 1.5)[1], atol=1e-4)


def test_a_mean_over_letters_is_divided_by_their_number(product: World) -> None:
    mean = replace(SUM, function=lambda texts: additive(texts) / 3, is_mean=True)
    drawn = draw(product, mean, smc(3.0, particles=4), 10)
    np.testing.assert_allclose(drawn.log_z, tilted_law(product, mean, 3.0)[1], atol=1e-4)  # type: ignore[arg-type]


def test_given_letters_and_tracks_stay_and_the_conditional_law_is_tilted(world: World) -> None:
    """Each b has a conditional of its own; averaged over given ones the law is p(b) p(a | b) exp(w f(a)) / Z(b)."""
    num, scene = 1500, SCENES["a given b"]
    drawn = draw(world, SUM, smc(1.5), num, scene=scene).batch
    assert torch.equal(drawn.tracks["b"].tokens, scene.batch(world, num).tracks["b"].tokens)
    mass = world.joint * (1.5 * values_of(world, SUM)).exp().reshape(world.joint.shape)
    target = mass / mass.sum((0, 1, 2), keepdim=True) * world.joint.sum((0, 1, 2), keepdim=True)
    assert abs(misfit(scene.law(world, drawn), target.flatten(), num)) < 4


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.kind)
@pytest.mark.parametrize("prop", [SUM, PATTERN], ids=["sum", "pattern"])
def test_every_sampler_of_masks_is_drawn_towards_the_property(world: World, prop: Property, sampler: Stepper) -> None:
    drawn = draw(world, prop, smc(2.0, particles=8), 100, sampler=sampler)
    plain = draw(world, prop, smc(0.0), 100, sampler=sampler)
    np.testing.assert_array_equal(drawn.values, prop(texts(world, drawn)))
    assert drawn.values.mean() > plain.values.mean() + 0.4
    assert drawn.ess is not None and (drawn.ess >= 1).all() and (drawn.ess <= 8.0001).all()


def texts(world: World, drawn: TiltedSamples) -> list[str]:
    return [world.tracks["a"].decode(row) for row in drawn.batch.tracks["a"].split()]


@pytest.mark.parametrize("tilting", METHODS, ids=lambda t: t.method)
@pytest.mark.parametrize("prop", [SUM, PATTERN], ids=["sum", "pattern"])
def test_sample_i_depends_on_its_id_only(world: World, prop: Property, tilting: Tilting) -> None:
    """Other examples, and their number, change nothing; the same property of another seed does."""
    network, diffusion, batch = small_network(world), diffusion_of(world, "subs"), odd_batch(world, 12)
    full = replace(prop, function=lambda texts: np.array([pattern([t])[0] if t else 0.0 for t in texts]))
    full = full if prop is PATTERN else SUM

    def run(chosen: list[int], seed: int = 3) -> list[tuple]:  # type: ignore[type-arg]
        some = choose(batch, world, chosen)
        drawn = sample_tilted(
            Denoising(network, diffusion, world.tracks),
            some,
            prop=full,
            tilting=tilting,
            generate=("a", "b"),
            sampler=FirstHitting(),
            seed=seed,
        )
        assert drawn.batch.example_ids.tolist() == some.example_ids.tolist()
        rows = zip(drawn.batch.tracks["a"].split(), drawn.batch.tracks["b"].split(), drawn.values, strict=True)
        return list(rows)

    whole = run(list(range(12)))
    assert run([7, 2]) == [whole[7], whole[2]]
    assert run([11]) == [whole[11]]
    assert run(list(range(12)), seed=4) != whole


@pytest.mark.parametrize("tilting", METHODS, ids=lambda t: t.method)
@pytest.mark.parametrize("sampler", [FirstHitting(), Ancestral(num_steps=3)], ids=lambda s: s.kind)
def test_weight_zero_is_no_guidance_bit_for_bit(world: World, tilting: Tilting, sampler: Stepper) -> None:
    batch, network, diffusion = odd_batch(world, 9), small_network(world), diffusion_of(world, "subs")
    denoising = Denoising(network, diffusion, world.tracks)
    plain = sample(network, diffusion, batch, generate=("a", "b"), sampler=sampler, seed=3)
    none = sample_tilted(denoising, batch, prop=SUM, tilting=replace(tilting, weight=0.0), generate=("a", "b"), sampler=sampler, seed=3)
    assert ids_of(none.batch) == ids_of(plain.batch)
    assert none.num_calls == plain.num_calls
    assert guided(denoising, prop=SUM, tilting=classifier(0.0), generate=("a",), seed=0).denoiser is network


@pytest.mark.parametrize("sampler,calls", [(Ancestral(num_steps=4), 4), (FirstHitting(), 10), (DPLMUnmasking(num_steps=4), 4)])
def test_calls_are_counted_and_the_guess_costs_none_of_its_own(world: World, sampler: Stepper, calls: int) -> None:
    """First hitting asks at another noise level than that of the state, so that it pays twice."""
    counting = Counting(ExactDenoiser(world, world.parameterizations("subs")))
    drawn = sample_tilted(
        Denoising(counting, diffusion_of(world, "subs"), world.tracks),
        JOINT.batch(world, 3),
        prop=PATTERN,
        tilting=smc(1.0, particles=5, threshold=1.0),
        generate=("a", "b"),
        sampler=replace(sampler, resample_ratio=0.0) if isinstance(sampler, DPLMUnmasking) else sampler,
        seed=0,
    )
    assert drawn.num_calls == counting.calls == calls
    assert max(counting.tokens) == 3 * 5 * 5
    assert drawn.ess_steps is not None and drawn.ess_steps.shape == (3, len(drawn.ess_steps[0]))


def test_excluded_texts_never_come_whatever_the_weight(world: World) -> None:
    barred = replace(PATTERN, function=lambda ts: np.array([-math.inf if t[1] == "q" else x for t, x in zip(ts, pattern(ts), strict=True)]))
    for weight in (1.0, -1.0):
        drawn = draw(world, barred, smc(weight, particles=24), 400)
        law = world.probs * (weight * values_of(world, PATTERN)).exp() * (world.states[:, 1] != 1)
        assert not any(text[1] == "q" for text in texts(world, drawn))
        assert abs(misfit(JOINT.law(world, drawn.batch), law / law.sum(), 400)) < 4
    nothing = replace(PATTERN, function=lambda ts: np.full(len(ts), -math.inf))
    drawn = draw(world, nothing, smc(1.0, particles=4), 5)
    assert (drawn.values == -math.inf).all() and (drawn.ess == 0).all()


def guided_law(world: World, prop: Property, weight: float, steps: int) -> Tensor:
    """Return the exact law of ancestral samples under classifier guidance."""
    run = Propagation(world, "subs", Scene(open=EVERYWHERE), schedule=LogLinear())
    tilted = Tilted(denoiser=run.problem.denoiser, prop=prop, track=world.tracks["a"], weight=weight)
    run.problem = replace(run.problem, denoiser=tilted)
    for index in range(steps):
        run.step(Ancestral(num_steps=steps), index)
    return run.finished()


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("prop", [SUM, BLACK_BOX], ids=["exact", "estimated"])
def test_classifier_guidance_of_a_sum_is_exact_where_letters_are_independent(product: World, prop: Property, steps: int) -> None:
    """With any number of steps, and with one completion: letters of a sum do not care about each other."""
    target, _ = tilted_law(product, SUM, 1.5)
    assert total_variation(guided_law(product, prop, 1.5, steps), target) < 1e-5


def test_classifier_guidance_is_approximate_where_letters_depend_on_each_other(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    """Exactly measured, without draws: it goes most of the way, and what is left does not go away with steps."""
    target, _ = tilted_law(world, SUM, 1.5)
    errors = {steps: total_variation(guided_law(world, SUM, 1.5, steps), target) for steps in (4, 16)}
    floor_of_steps = total_variation(exact_law(world, "subs", JOINT, Ancestral(num_steps=16)), world.probs)
    plain = total_variation(world.probs, target)
    record_property("total_variation", errors)
    print(f"classifier guidance of a sum: total variation {errors}; unguided {plain:.4f}; steps alone {floor_of_steps:.4f}")
    assert floor_of_steps < errors[16] < 0.5 * plain


def test_classifier_guidance_of_a_pattern_moves_towards_it(world: World) -> None:
    plain, drawn = (draw(world, PATTERN, classifier(w, completions=4), 400) for w in (0.0, 1.5))
    target, _ = tilted_law(world, PATTERN, 1.5)
    wanted = float((target * values_of(world, PATTERN)).sum())
    assert plain.values.mean() + 0.5 * (wanted - plain.values.mean()) < drawn.values.mean() < wanted + 0.5


@pytest.mark.parametrize("prop", [SUM, PATTERN], ids=["exact", "estimated"])
@pytest.mark.parametrize("kind", ["subs", "score"])
def test_only_rows_of_masks_change_and_keep_their_mass(world: World, prop: Property, kind: str) -> None:
    exact = ExactDenoiser(world, world.parameterizations(kind))
    batch = world.batch(torch.tensor([[-1, 2, -1, 0, -1], [1, 2, 0, -1, 3]]))
    sigma = {name: torch.full((2,), 0.5) for name in ("a", "b")}
    tilted = Tilted(denoiser=exact, prop=prop, track=world.tracks["a"], weight=2.0)
    before, after = exact(batch, sigma), tilted(batch, sigma)
    ids = [1, 2, 3]
    is_mask = batch.tracks["a"].tokens == world.tracks["a"].vocabulary.mask_id
    assert torch.equal(before["a"][~is_mask], after["a"][~is_mask])
    assert torch.equal(before["b"], after["b"])
    assert float((before["a"] - after["a"])[is_mask][:, ids].abs().min(-1).values.max()) > 0.1
    masses = [x["a"][is_mask][:, ids].logsumexp(-1) for x in (before, after)]
    torch.testing.assert_close(masses[0], masses[1])
    at = {"a": torch.tensor([4, 0, 2]), "b": torch.tensor([1])}
    some = tilted(batch, sigma, at=at)
    torch.testing.assert_close(some["a"], after["a"][at["a"]], rtol=1e-4, atol=1e-4)


def test_the_best_of_n_has_the_law_of_order_statistics(world: World) -> None:
    num = 1500
    for weight in (2.0, -2.0):
        tilting = Tilting(name="x", weight=weight, method="best_of", particles=4)
        drawn = draw(world, PATTERN, tilting, num)
        expected = best_of_law(world.probs.log(), values_of(world, PATTERN), 4, weight=weight)
        assert float(expected.sum()) == pytest.approx(1)
        assert abs(misfit(JOINT.law(world, drawn.batch), expected, num)) < 4
        assert drawn.ess is None


def test_systematic_resampling_continues_each_particle_as_its_weight_says() -> None:
    weights = torch.tensor([0.05, 0.4, 0.0, 0.3, 0.25], dtype=torch.float64)
    streams = Draws.root(0, "test").fold_in(torch.arange(4000))
    chosen = systematic(weights.log().expand(4000, -1), streams)
    counts = torch.stack([(chosen == i).sum(-1) for i in range(5)], dim=-1).double()
    assert bool(((counts - 5 * weights).abs() < 1).all())
    torch.testing.assert_close(counts.mean(0), 5 * weights, atol=4 * 0.5 / 4000**0.5, rtol=0)


def test_the_effective_size_of_known_weights() -> None:
    rows = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [2, 2, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0]]).double().log()
    torch.testing.assert_close(effective_size(rows + 7), torch.tensor([4, 1, 2, 1.6, 0]).double())


@pytest.mark.parametrize(
    "function,message",
    [
        (lambda ts: [math.nan] * len(ts), "property 'sum': found nan for '[pqr]{3}', expected a number"),
        (lambda ts: [math.inf] * len(ts), "found inf for '[pqr]{3}'"),
        (lambda ts: [0.0], r"found values of shape \(1,\) for .* texts, expected one for each"),
        (lambda ts: ["high"] * len(ts), "property 'sum': could not convert string to float"),
    ],
)
def test_values_that_are_no_numbers_are_refused(world: World, function: Callable, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=message):
        draw(world, replace(BLACK_BOX, function=function), smc(1.0, particles=4), 8)


def test_probabilities_tilt_by_their_logarithm(world: World) -> None:
    """Weight 1 is Bayes' rule: the law given the class."""
    chance = Property(name="class", track="a", function=lambda ts: [0.9 if t[0] == t[1] else 0.1 for t in ts], is_probability=True)  # type: ignore[arg-type,return-value]
    drawn = draw(world, chance, smc(1.0), 1000)
    same = world.states[:, 0] == world.states[:, 1]
    law = world.probs * torch.where(same, 0.9, 0.1)
    assert abs(misfit(JOINT.law(world, drawn.batch), law / law.sum(), 1000)) < 4
    with pytest.raises(ConfigError, match="found 1.5 for 'pq', expected a probability"):
        replace(chance, function=lambda ts: np.full(len(ts), 1.5))(["pq"])


@pytest.mark.parametrize("method", ["classifier", "smc"])
def test_uniform_noise_and_tracks_that_are_given_are_refused(world: World, method: str) -> None:
    tilting = Tilting(name="x", method=method)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="track 'a' has uniform noise; .* use --property-method best_of"):
        draw(world, SUM, tilting, 2, kind="uniform", sampler=Ancestral(num_steps=2))
    with pytest.raises(ConfigError, match="property 'sum': is one of the track 'a', and b is generated"):
        draw(world, SUM, tilting, 2, scene=SCENES["b given a"])


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"weight": math.nan}, "weight: found nan, expected a finite number"),
        ({"particles": 0}, "particles: found 0"),
        ({"threshold": 2.0}, "threshold: found 2.0, expected 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        Tilting(name="charge", **changes)
