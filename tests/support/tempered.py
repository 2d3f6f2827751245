"""A denoiser whose probabilities are known in closed form."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from protlig_dd.diffusion.denoiser import Denoising, Diffusion
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.tokens.tracks import TrackBatch
from tests.support.enumerable import AXES, ExactDenoiser, World


def model(kind: str = "subs") -> Denoising:
    parameterizations = WORLD.parameterizations(kind)
    diffusion = Diffusion(parameterizations=parameterizations, schedule=SCHEDULE)
    return Denoising(Tempered(ExactDenoiser(WORLD, parameterizations)), diffusion, WORLD.tracks)


def tempered_log_prob(state: list[int], axis: int, hidden: tuple[int, ...]) -> float:
    """log of p(letter | what is not hidden)^(1/2), normalised, by summing the joint."""
    law = WORLD.joint[tuple(slice(None) if i in hidden else state[i] for i in range(len(AXES)))]
    others = tuple(i for i, place in enumerate(hidden) if place != axis)
    letters = law.sum(others) if others else law
    return float((letters.log() / 2).log_softmax(0)[state[axis]])


WORLD = World.load()

SCHEDULE = LogLinear(eps=1e-6)


class Tempered:
    """The exact denoiser with its logits halved: its answers are no conditionals of one law, so no two views of it agree by chance."""

    def __init__(self, exact: ExactDenoiser) -> None:
        self.exact = exact
        self.sizes: list[int] = []

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        self.sizes.append(batch.num_tokens)
        return {name: logits / 2 for name, logits in self.exact(batch, sigma, at=at).items()}
