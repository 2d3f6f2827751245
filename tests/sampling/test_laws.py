"""Every process x parameterization x exact sampler against the joint of the enumerable world: total variation, exactly where it can be."""

from __future__ import annotations

import typing
from collections.abc import Callable

import pytest

from protlig_dd.diffusion.schedules import Cosine, Geometric, Linear, LogLinear, NoiseSchedule, Scaled
from protlig_dd.sampling import Ancestral, ConfidenceUnmasking, DPLMUnmasking, Euler, FirstHitting, Remasking, SamplerSettings
from tests.support.enumerable import World
from tests.support.laws import ABSORBING, KINDS, SCENES, draw, exact_law, misfit, total_variation

EXACT = tuple(sampler for sampler in typing.get_args(SamplerSettings) if sampler.exact)
STEPWISE = tuple(sampler for sampler in EXACT if sampler is not FirstHitting)
Record = Callable[[str, object], None]


def run_of(world: World, kind: str, scene: str, sampler: type, steps: tuple[int, ...], schedule: NoiseSchedule) -> list[float]:
    """Return the exact total variation for each number of steps."""
    truth = SCENES[scene].truth(world)
    return [total_variation(exact_law(world, kind, SCENES[scene], sampler(num_steps=n), schedule=schedule), truth) for n in steps]


def test_the_exact_samplers_are_the_ones_meant() -> None:
    assert (Ancestral, Euler, FirstHitting) == EXACT
    assert {s for s in typing.get_args(SamplerSettings) if not s.exact} == {ConfidenceUnmasking, DPLMUnmasking, Remasking}


@pytest.mark.parametrize("sampler", STEPWISE)
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_the_joint_halves_when_the_number_of_steps_doubles(
    world: World, kind: str, sampler: type, record_property: Record
) -> None:
    series = run_of(world, kind, "joint", sampler, (2, 4, 8, 16), LogLinear())
    record_property("total_variation", series)
    print(f"{kind}, {sampler.kind}: total variation at 2, 4, 8, 16 steps: {[round(x, 4) for x in series]}")
    ratios = [a / b for a, b in zip(series, series[1:], strict=False)]
    assert all(1.8 < ratio < 2.3 for ratio in ratios), ratios
    assert series[-1] < 0.046
    assert series[0] > 0.25, "two steps are too few for this joint: an error of the test if they do well"


@pytest.mark.parametrize("scene", ["a given b", "b given a", "a alone"])
@pytest.mark.parametrize("sampler", STEPWISE)
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_halves_for_conditionals_and_a_single_track(world: World, kind: str, sampler: type, scene: str) -> None:
    series = run_of(world, kind, scene, sampler, (4, 8), LogLinear())
    ratios = [a / b for a, b in zip(series, series[1:], strict=False)]
    assert all(1.85 < ratio < 2.2 for ratio in ratios), ratios
    assert series[-1] < 0.06


@pytest.mark.parametrize("sampler", STEPWISE)
@pytest.mark.parametrize("kind", ABSORBING)
def test_infilling_is_exact_under_absorbing_noise(world: World, kind: str, sampler: type) -> None:
    series = run_of(world, kind, "infill", sampler, (4, 8), LogLinear())
    assert all(1.9 < a / b < 2.1 for a, b in zip(series, series[1:], strict=False)), series
    assert series[-1] < 0.04


def test_infilling_under_uniform_noise_is_approximate(world: World, record_property: Record) -> None:
    """A track has one noise level, so frozen letters are taken for noisy ones; the module docstring of the loop says so."""
    series = run_of(world, "uniform", "infill", Ancestral, (4, 8, 16), LogLinear())
    record_property("total_variation", series)
    print(f"infilling under uniform noise: total variation at 4, 8, 16 steps: {[round(x, 4) for x in series]}")
    assert 0.1 < series[-1] < 0.2


@pytest.mark.parametrize("schedule", [Linear(), Geometric(), Cosine(), Scaled(factor=0.8)], ids=lambda s: s.kind)
@pytest.mark.parametrize("sampler", STEPWISE)
@pytest.mark.parametrize("kind", ["subs", "uniform"])
def test_every_schedule_converges(world: World, kind: str, sampler: type, schedule: NoiseSchedule) -> None:
    coarse, fine = run_of(world, kind, "joint", sampler, (16, 32), schedule)
    assert 1.7 < coarse / fine < 3
    assert fine < 0.17


@pytest.mark.parametrize("kind", [*ABSORBING, "uniform"])
@pytest.mark.parametrize("sampler", STEPWISE)
def test_noise_may_reach_alpha_zero(world: World, kind: str, sampler: type) -> None:
    """With eps = 0 scores are 0 and rates infinite at t = 1: the step must give numbers, and the same ones as with a tiny eps."""
    at_zero, near_zero = (exact_law(world, kind, SCENES["joint"], sampler(num_steps=4), schedule=LogLinear(eps=eps)) for eps in (0.0, 1e-7))
    assert total_variation(at_zero, near_zero) < 1e-4


@pytest.mark.parametrize("scene", ["joint", "a given b", "a alone"])
@pytest.mark.parametrize("kind", KINDS)
def test_joint_samples_noised_in_part_and_reversed_are_joint_samples(world: World, kind: str, scene: str) -> None:
    truth = SCENES[scene].truth(world)
    series = [total_variation(exact_law(world, kind, SCENES[scene], Ancestral(num_steps=n), t_start=0.6), truth) for n in (8, 16)]
    assert 1.8 < series[0] / series[1] < 2.2
    assert series[1] < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_euler_from_a_later_start_takes_steps_of_the_right_size(world: World, kind: str) -> None:
    truth = SCENES["joint"].truth(world)
    series = [
        total_variation(exact_law(world, kind, SCENES["joint"], Euler(num_steps=n), schedule=Cosine(), t_start=0.5), truth)
        for n in (16, 32)
    ]
    assert 1.8 < series[0] / series[1] < 2.6
    assert series[1] < 0.03


NUM = 4000


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("kind,sampler", [(k, s) for k in KINDS for s in EXACT if s is not FirstHitting or k in ABSORBING])
def test_samples_follow_the_law_of_their_steps(world: World, kind: str, sampler: type, scene: str) -> None:
    """Few steps, so that the law is far from the joint where it is not exact: the draws themselves are on trial."""
    if sampler is FirstHitting:
        stepper, expected = FirstHitting(), SCENES[scene].truth(world)
    else:
        stepper = sampler(num_steps=3)
        expected = exact_law(world, kind, SCENES[scene], stepper, schedule=Cosine())
    found = draw(world, kind, SCENES[scene], stepper, NUM, seed=1, schedule=Cosine())
    assert abs(misfit(found, expected, NUM)) < 4


@pytest.mark.parametrize("kind", ABSORBING)
def test_first_hitting_is_exact_up_to_monte_carlo_error(world: World, kind: str, record_property: Record) -> None:
    num, truth = 12_000, world.probs
    found = draw(world, kind, SCENES["joint"], FirstHitting(), num, seed=3)
    error, expected = total_variation(found, truth), float((truth * (1 - truth) / num).sqrt().sum() * 0.3989)
    record_property("total_variation", error)
    print(f"{kind}, first_hitting: total variation {error:.4f}, Monte-Carlo error alone {expected:.4f}")
    assert error < 1.15 * expected
    assert abs(misfit(found, truth, num)) < 4


@pytest.mark.parametrize("stepper", [FirstHitting(), Ancestral(num_steps=3)], ids=["first_hitting", "ancestral"])
def test_draws_from_a_partial_noise_follow_their_law(world: World, stepper: SamplerSettings) -> None:
    expected = world.probs
    if isinstance(stepper, Ancestral):
        expected = exact_law(world, "subs", SCENES["joint"], stepper, t_start=0.7)
    found = draw(world, "subs", SCENES["joint"], stepper, NUM, seed=4, t_start=0.7)
    assert abs(misfit(found, expected, NUM)) < 4


@pytest.mark.parametrize(
    "stepper",
    [ConfidenceUnmasking(num_steps=5), ConfidenceUnmasking(num_steps=5, randomness=4.0), Remasking(num_steps=16, eta=0.3)],
    ids=["confidence", "confidence with noise", "remasking"],
)
def test_samplers_that_are_not_exact_print_their_total_variation(world: World, stepper: SamplerSettings, record_property: Record) -> None:
    found = draw(world, "subs", SCENES["joint"], stepper, NUM)
    floor = float((world.probs * (1 - world.probs) / NUM).sqrt().sum() * 0.3989)
    error = total_variation(found, world.probs)
    record_property("total_variation", error)
    print(f"{stepper}: total variation {error:.3f} (Monte-Carlo error alone: {floor:.3f})")
    assert floor / 2 < error < 0.7
