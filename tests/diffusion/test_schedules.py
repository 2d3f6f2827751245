"""Schedules over the whole union: ends, monotony, derivative, inverse; and the curriculum on noise."""

from __future__ import annotations

import math
import typing

import pytest
import torch
from torch import Tensor

from protlig_dd.config import build
from protlig_dd.diffusion.schedules import (
    Cosine,
    Geometric,
    Linear,
    LogLinear,
    NoiseSchedule,
    Ramp,
    Scaled,
    SigmaCurriculum,
    ramp_up,
    require_noise_at_end,
)
from protlig_dd.errors import ConfigError

UNION = typing.get_args(NoiseSchedule)
OTHERS = [
    LogLinear(eps=0.0),
    LogLinear(eps=0.1),
    Linear(sigma_min=0.01, sigma_max=20.0),
    Geometric(sigma_min=1e-5, sigma_max=20.0),
    Cosine(sigma_min=0.01, sigma_max=0.95),
    Scaled(base=Geometric(), factor=0.3),
    Scaled(base=LogLinear(), factor=2.5),
]
SCHEDULES = [*(cls() for cls in UNION), *OTHERS]
ENDS = {  # alpha(0), alpha(1), as the table of the module says
    LogLinear(): (1.0, 1e-3),
    LogLinear(eps=0.1): (1.0, 0.1),
    Linear(): (math.exp(-1e-4), math.exp(-8)),
    Geometric(): (math.exp(-1e-4), math.exp(-20)),
    Cosine(): (math.exp(-1e-4), math.exp(-8)),
    Cosine(sigma_min=0.01, sigma_max=0.95): (math.exp(-0.01), math.exp(-0.95)),
    Scaled(base=Geometric(), factor=0.3): (math.exp(-3e-5), math.exp(-6)),
    Scaled(base=LogLinear(), factor=2.5): (1.0, 1e-3**2.5),
}


def times(num: int = 201, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.linspace(low, high, num, dtype=torch.float64)


@pytest.mark.parametrize(("schedule", "ends"), ENDS.items(), ids=str)
def test_ends_are_the_ones_in_the_table(schedule: NoiseSchedule, ends: tuple[float, float]) -> None:
    assert schedule.alpha(times(2)).tolist() == pytest.approx(ends, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_alpha_falls_strictly_and_stays_a_probability(schedule: NoiseSchedule) -> None:
    alpha = schedule.alpha(times())
    assert bool((alpha.diff() < 0).all())
    assert 0 <= float(alpha.min()) <= float(alpha.max()) <= 1


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_alpha_prime_is_the_derivative(schedule: NoiseSchedule) -> None:
    """Against central differences of step 1e-5 in float64, whose own error is about 1e-9."""
    t, h = times(97, 0.005, 0.995), 1e-5
    numeric = (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h)
    torch.testing.assert_close(schedule.alpha_prime(t), numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_time_of_is_the_inverse(schedule: NoiseSchedule) -> None:
    t = times(99, 0.01, 0.99)
    torch.testing.assert_close(schedule.time_of(schedule.alpha(t)), t, rtol=0, atol=1e-8)
    alpha = torch.linspace(*schedule.alpha(times(2)).tolist(), 50, dtype=torch.float64)[1:-1]
    torch.testing.assert_close(schedule.alpha(schedule.time_of(alpha)), alpha, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_an_alpha_beyond_the_ends_gives_the_end(schedule: NoiseSchedule) -> None:
    beyond = torch.tensor([1.0, 1e-300], dtype=torch.float64)
    assert schedule.time_of(beyond).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert bool((schedule.time_of(beyond) <= 1).all())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_float32_stays_float32_and_close(schedule: NoiseSchedule) -> None:
    t = times(50, 1e-3, 0.999)
    for method in (schedule.alpha, schedule.alpha_prime):
        single = method(t.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), method(t), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_samplers_refuse_a_schedule_that_leaves_data(schedule: NoiseSchedule) -> None:
    left = float(schedule.alpha(times(2))[1])
    if left <= 1e-2:
        require_noise_at_end(schedule)
        return
    with pytest.raises(ConfigError) as caught:
        require_noise_at_end(schedule)
    message = str(caught.value)
    assert message.startswith(f"diffusion.schedule: {schedule.kind} leaves alpha(1) = {left:.3g}")
    assert "expected at most 0.01" in message and "sigma_max >= 4.7" in message


def test_the_limit_of_the_sampler_is_inclusive() -> None:
    require_noise_at_end(LogLinear(eps=0.01))
    with pytest.raises(ConfigError):
        require_noise_at_end(LogLinear(eps=0.0101))
    require_noise_at_end(Linear(sigma_max=4.7))


@pytest.mark.parametrize("cls", UNION)
def test_each_schedule_is_built_by_its_kind(cls: type) -> None:
    assert build(NoiseSchedule, {"kind": cls.kind}) == cls()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "log_linear", "eps": 1.0}, "eps: found 1.0, expected 0 <= eps < 1"),
        ({"kind": "log_linear", "eps": float("nan")}, "eps: found nan"),
        ({"kind": "geometric", "sigma_min": 0.0}, "sigma_min: found 0.0 with sigma_max 20.0, expected 0 < sigma_min < sigma_max"),
        ({"kind": "linear", "sigma_max": 1e-5}, "sigma_min: found 0.0001 with sigma_max 1e-05"),
        ({"kind": "cosine", "sigma_min": 9.0}, "sigma_min: found 9.0"),
        ({"kind": "scaled", "factor": 0.0}, "factor: found 0.0, expected a positive number"),
        ({"kind": "scaled", "base": {"kind": "scaled"}}, "base.kind: found 'scaled', expected one of"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(NoiseSchedule, values, "diffusion.schedule")
    assert words in str(caught.value)


RAMPS = typing.get_args(Ramp)


@pytest.mark.parametrize("ramp", RAMPS)
def test_ramps_rise_from_exactly_zero_to_exactly_one(ramp: Ramp) -> None:
    values = [ramp_up(ramp, i / 100) for i in range(131)]
    assert values[0] == 0 and all(v == 1 for v in values[100:])
    assert all(b > a for a, b in zip(values[:100], values[1:101], strict=True))


def test_ramps_have_their_formulas() -> None:
    assert ramp_up("linear", 0.3) == 0.3
    assert ramp_up("cosine", 0.5) == pytest.approx(0.5, abs=1e-15)
    assert ramp_up("cosine", 0.25) == pytest.approx((1 - math.sqrt(0.5)) / 2, abs=1e-15)
    assert ramp_up("exponential", 0.5) == pytest.approx((1 - math.exp(-1.5)) / (1 - math.exp(-3)), abs=1e-15)


@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("base", [LogLinear(), Geometric(), Cosine()], ids=lambda s: s.kind)
def test_a_scaled_schedule_has_one_sigma_in_all_its_answers(ramp: Ramp, base: NoiseSchedule) -> None:
    """alpha, its derivative and its inverse all speak of factor * sigma(t)."""
    t = times(50, 0.01, 0.99)
    for step in (0, 300, 999):
        schedule = SigmaCurriculum(ramp=ramp, steps=1000, start=0.1).at(step, base)
        factor = 0.1 + 0.9 * ramp_up(ramp, step / 1000)
        sigma = -torch.log(base.alpha(t)) * factor
        torch.testing.assert_close(-torch.log(schedule.alpha(t)), sigma, rtol=1e-12, atol=1e-14)
        rate = -base.alpha_prime(t) / base.alpha(t) * factor
        torch.testing.assert_close(-schedule.alpha_prime(t) / schedule.alpha(t), rate, rtol=1e-12, atol=0)
        torch.testing.assert_close(schedule.time_of(torch.exp(-sigma)), t, rtol=0, atol=1e-8)


def test_a_curriculum_ends_in_the_schedule_itself() -> None:
    base = Geometric()
    curriculum = SigmaCurriculum(steps=100)
    assert curriculum.at(100, base) is base
    assert curriculum.at(99, base) != base
    assert SigmaCurriculum(start=1.0).at(0, base) is base


def test_a_curriculum_scales_a_scaled_schedule_further() -> None:
    base = Scaled(base=Geometric(), factor=0.5)
    assert SigmaCurriculum(ramp="linear", steps=10, start=0.2).at(0, base) == Scaled(base=Geometric(), factor=0.1)
    assert SigmaCurriculum(ramp="linear", steps=10, start=0.2).at(10, base) == base


@pytest.mark.parametrize("values", [{"start": 0.0}, {"start": 1.1}, {"steps": 0}])
def test_impossible_curricula_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"start: found .*, expected 0 < start <= 1 and steps >= 1"):
        build(SigmaCurriculum, values)
