"""The denoiser: the callable that objectives train and samplers query, for any parameterization. A `model` is the module behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from protlig_dd.diffusion.parameterizations import Parameterization
from protlig_dd.diffusion.schedules import NoiseSchedule
from protlig_dd.tokens.tracks import TrackBatch, TrackSet


@runtime_checkable
class Denoiser(Protocol):
    """Logits for each track from noisy tokens and their noise levels."""

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return logits [a, k] for each track.

        Args:
            batch: noisy tokens of every track; a track of length 0 is absent from that example.
            sigma: the total noise of each example in each track [b]; 0 means that the track is clean.
            at: for each track the packed positions [a] whose logits are wanted; all of them when None.
        """


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """The meaning of a denoiser's logits in each track, and the noise schedule: what turns logits into steps and losses."""

    parameterizations: Mapping[str, Parameterization]
    schedule: NoiseSchedule


@dataclass(frozen=True)
class Denoising:
    """A denoiser with what every use of it needs.

    Args:
        denoiser: a model in evaluation mode, or a guided one from `sampling`.
        diffusion: the meaning of its logits, and the noise schedule.
        tracks: the tracks that it takes, by name.
        device: where its weights are; batches on the host are moved there.
    """

    denoiser: Denoiser
    diffusion: Diffusion
    tracks: TrackSet
    device: torch.device | str = "cpu"


def total_noise(alpha: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return sigma = -log alpha, the network's input; finite (27.6) even if no token survives."""
    return -torch.log(alpha.clamp(min=1e-12))
