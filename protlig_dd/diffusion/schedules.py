"""Noise schedules: alpha(t), the probability that a token has survived to time t. t = 0 is data, t = 1 is noise.

| schedule  | alpha(t)                                                 | alpha(0)         | alpha(1)         |
|-----------|----------------------------------------------------------|------------------|------------------|
| LogLinear | 1 - (1 - eps) t                                          | 1                | eps              |
| Linear    | exp(-(sigma_min + (sigma_max - sigma_min) t))            | exp(-sigma_min)  | exp(-sigma_max)  |
| Geometric | exp(-sigma_min^(1-t) sigma_max^t)                        | exp(-sigma_min)  | exp(-sigma_max)  |
| Cosine    | exp(-(sigma_max + (sigma_min - sigma_max)(1 + cos pi t)/2)) | exp(-sigma_min) | exp(-sigma_max) |
| Scaled    | alpha_base(t)^factor: the curriculum on noise            | alpha_base(0)^factor | alpha_base(1)^factor |

sigma = -log alpha is SEDD's "total noise", its derivative SEDD's "rate noise". Adding a schedule: a class here, its name in the union.
Sources: LogLinear and Geometric: Lou, Meng and Ermon 2024, section 5.1; Linear: Sahoo et al. 2024 (MDLM), appendix E; Cosine: the
sigma-cosine of protein SEDD models, here with a `sigma_max` that reaches noise.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.errors import ConfigError

SAMPLER_ALPHA_LIMIT = 1e-2
"""A sampler starts from pure noise, so it refuses a schedule with a larger alpha(1)."""


@settings
class LogLinear:
    """alpha falls linearly: each token is masked at a uniform time (also DPLM's t/T and MDLM's default).

    Args:
        eps: alpha(1), 0 to below 1.

    >>> [round(a, 4) for a in LogLinear(eps=0.01).alpha(torch.tensor([0.0, 0.5, 1.0])).tolist()]
    [1.0, 0.505, 0.01]
    """

    kind: Literal["log_linear"] = "log_linear"
    eps: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.eps < 1:
            raise ValueError(f"eps: found {self.eps}, expected 0 <= eps < 1")

    def alpha(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the survival probability at t."""
        return 1 - (1 - self.eps) * t

    def alpha_prime(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return d alpha / dt."""
        return torch.full_like(t, -(1 - self.eps))

    def time_of(self, alpha: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the t in [0, 1] with this alpha; an alpha beyond the ends gives the end."""
        return ((1 - alpha) / (1 - self.eps)).clamp(0, 1)


class _FromSigma:
    """A schedule given by sigma(t): alpha = exp(-sigma), alpha' = -sigma' alpha."""

    def sigma(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def sigma_prime(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def _time_of_sigma(self, sigma: Tensor) -> Tensor:
        raise NotImplementedError

    def alpha(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the survival probability at t."""
        return torch.exp(-self.sigma(t))

    def alpha_prime(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return d alpha / dt."""
        return -self.sigma_prime(t) * torch.exp(-self.sigma(t))

    def time_of(self, alpha: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the t in [0, 1] with this alpha; an alpha beyond the ends gives the end."""
        return self._time_of_sigma(-torch.log(alpha)).clamp(0, 1)


@settings
class _Between(_FromSigma):
    """A schedule whose sigma rises from sigma_min to sigma_max."""

    kind: str = ""
    sigma_min: float = 1e-4
    sigma_max: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min: found {self.sigma_min} with sigma_max {self.sigma_max}, expected 0 < sigma_min < sigma_max")


@settings
class Linear(_Between):
    """sigma rises linearly.

    Args:
        sigma_min: sigma(0), the total noise at t = 0, above 0.
        sigma_max: sigma(1), the total noise at t = 1, above sigma_min; samplers need 4.7 or more.
    """

    kind: Literal["linear"] = "linear"

    def sigma(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the total noise at t."""
        return self.sigma_min + (self.sigma_max - self.sigma_min) * t

    def sigma_prime(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return d sigma / dt."""
        return torch.full_like(t, self.sigma_max - self.sigma_min)

    def _time_of_sigma(self, sigma: Tensor) -> Tensor:
        return (sigma - self.sigma_min) / (self.sigma_max - self.sigma_min)


@settings
class Geometric(_Between):
    """sigma rises by equal factors in equal times.

    Args:
        sigma_min: sigma(0), the total noise at t = 0, above 0.
        sigma_max: sigma(1), the total noise at t = 1, above sigma_min; samplers need 4.7 or more.
    """

    kind: Literal["geometric"] = "geometric"
    sigma_max: float = 20.0

    def sigma(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the total noise at t."""
        return self.sigma_min ** (1 - t) * self.sigma_max**t

    def sigma_prime(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return d sigma / dt."""
        return self.sigma(t) * math.log(self.sigma_max / self.sigma_min)

    def _time_of_sigma(self, sigma: Tensor) -> Tensor:
        return torch.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


@settings
class Cosine(_Between):
    """sigma rises slowly at both ends. With sigma_max below 4.6 data survives at t = 1 and samplers refuse the schedule.

    Args:
        sigma_min: sigma(0), the total noise at t = 0, above 0.
        sigma_max: sigma(1), the total noise at t = 1, above sigma_min; samplers need 4.7 or more.
    """

    kind: Literal["cosine"] = "cosine"

    def sigma(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the total noise at t."""
        return self.sigma_max + (self.sigma_min - self.sigma_max) * (1 + torch.cos(math.pi * t)) / 2

    def sigma_prime(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return d sigma / dt."""
        return math.pi / 2 * (self.sigma_max - self.sigma_min) * torch.sin(math.pi * t)

    def _time_of_sigma(self, sigma: Tensor) -> Tensor:
        cosine = 2 * (sigma - self.sigma_max) / (self.sigma_min - self.sigma_max) - 1
        return torch.arccos(cosine.clamp(-1, 1)) / math.pi


BaseSchedule = LogLinear | Linear | Geometric | Cosine


@settings
class Scaled(_FromSigma):
    """Another schedule with its sigma multiplied by a factor: corruption, network input and loss all use the scaled sigma.

    Args:
        base: the schedule that is scaled.
        factor: the factor of its sigma, above 0.
    """

    kind: Literal["scaled"] = "scaled"
    base: BaseSchedule = LogLinear()
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"factor: found {self.factor}, expected a positive number")

    def sigma(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the total noise at t."""
        return -torch.log(self.base.alpha(t)) * self.factor

    def sigma_prime(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return d sigma / dt."""
        return -self.base.alpha_prime(t) / self.base.alpha(t) * self.factor

    def _time_of_sigma(self, sigma: Tensor) -> Tensor:
        return self.base.time_of(torch.exp(-sigma / self.factor))


NoiseSchedule = BaseSchedule | Scaled

Ramp = Literal["exponential", "cosine", "linear"]


def ramp_up(ramp: Ramp, progress: float) -> float:
    """Return the position of a curriculum: 0 at progress 0, exactly 1 from progress 1 on.

    exponential: (1 - e^(-3p)) / (1 - e^-3); cosine: (1 - cos pi p) / 2; linear: p. The predecessor's exponential stops at 0.95.
    """
    if progress >= 1:
        return 1.0
    if ramp == "exponential":
        return math.expm1(-3 * progress) / math.expm1(-3)
    return (1 - math.cos(math.pi * progress)) / 2 if ramp == "cosine" else progress


@settings
class SigmaCurriculum:
    """A curriculum on noise: sigma is scaled by `start` at step 0 and by 1 from `steps` on. A pure function of the step.

    Args:
        ramp: the shape of the ramp between the two, see `ramp_up`.
        steps: the step from which the schedule is unscaled, 1 or more.
        start: the factor of sigma at step 0, above 0 and at most 1.
    """

    ramp: Ramp = "exponential"
    steps: int = 5000
    start: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.start <= 1 or self.steps < 1:
            raise ValueError(f"start: found {self.start} (steps {self.steps}), expected 0 < start <= 1 and steps >= 1")

    def at(self, step: int, schedule: NoiseSchedule) -> NoiseSchedule:
        """Return the schedule at a step."""
        factor = self.start + (1 - self.start) * ramp_up(self.ramp, step / self.steps)
        if factor == 1:
            return schedule
        if isinstance(schedule, Scaled):
            return Scaled(base=schedule.base, factor=schedule.factor * factor)
        return Scaled(base=schedule, factor=factor)


def require_noise_at_end(schedule: NoiseSchedule) -> None:
    """Refuse a schedule that leaves data at t = 1, where a sampler starts from pure noise.

    Raises:
        ConfigError: with alpha(1) and the settings to change.
    """
    left = float(schedule.alpha(torch.ones((), dtype=torch.float64)))
    if left > SAMPLER_ALPHA_LIMIT * (1 + 1e-9):  # 1 - (1 - 0.01) is a little more than 0.01
        raise ConfigError(
            f"diffusion.schedule: {schedule.kind} leaves alpha(1) = {left:.3g} of the tokens unnoised, so a sampler that starts from "
            f"noise would start where training never was; expected at most {SAMPLER_ALPHA_LIMIT}: "
            f"set eps <= {SAMPLER_ALPHA_LIMIT} (log_linear) or sigma_max >= 4.7, and train with it"
        )
