"""What Kanzi is trained on: the velocity of randomly turned chains between noise and data, given their own codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protlig_dd.kanzi.batches import TraceBatch
from protlig_dd.kanzi.flow import centred_noise, random_rotations, training_times
from protlig_dd.objective import LossTerms
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import Layout


@dataclass(frozen=True, kw_only=True)
class PreparedTraces:
    """A batch before the network: data and noised points, times, and the velocity that is asked for.

    Args:
        data: turned chains.
        points: on the way from noise to data.
        velocity: data less noise.
        time: of each chain.
        given: chains whose codes are shown.
        layout: of the chains.
    """

    data: Float[Tensor, "n 3"]
    points: Float[Tensor, "n 3"]
    velocity: Float[Tensor, "n 3"]
    time: Float[Tensor, " b"]
    given: Bool[Tensor, " b"] | None
    layout: Layout

    @property
    def num_tokens(self) -> int:
        """Residues: the denominator of the loss."""
        return self.layout.num_tokens

    def describe(self) -> str:
        """Return the batch in words, for messages."""
        lengths = self.layout.lengths
        return f"{len(lengths)} chains of {min(lengths)} to {max(lengths)} residues"


def turned(points: Float[Tensor, "n 3"], layout: Layout, draws: Draws) -> Float[Tensor, "n 3"]:
    """Return each chain turned by a rotation of its own, drawn from its key."""
    rotations = random_rotations(draws)
    return torch.einsum("nij,nj->ni", rotations.index_select(0, layout.segment), points)


@dataclass(frozen=True, kw_only=True)
class KanziObjective:
    """Flow matching: the mean over axes of the squared error of the velocity, summed over residues (square nanometres).

    Rotation, noise and time of an example are a pure function of (seed, step, example).

    Args:
        seed: the root of the draws.
        device: where the network is.
        rotate: turn each example at random.
        condition_dropout: how often the codes of an example are hidden, so that guidance is possible.
    """

    seed: int
    device: torch.device
    rotate: bool = True
    condition_dropout: float = 0.0

    def prepare(self, batch: TraceBatch, step: int) -> PreparedTraces:
        """Return everything before the network, made on the host. A pure function of batch and step."""
        draws = Draws.root(self.seed, "kanzi", step).fold_in(batch.example_ids)
        layout = batch.layout
        data = turned(batch.points, layout, draws.fold("rotation")) if self.rotate else batch.points
        noise, time = centred_noise(draws.fold("noise"), layout), training_times(draws.fold("times"))
        at = time.index_select(0, layout.segment)[:, None]
        given = draws.fold("given").uniform() >= self.condition_dropout if self.condition_dropout else None
        tensors = (data, at * data + (1 - at) * noise, data - noise, time)
        data, points, velocity, time = (t.to(self.device, non_blocking=True) for t in tensors)
        return PreparedTraces(
            data=data,
            points=points,
            velocity=velocity,
            time=time,
            given=None if given is None else given.to(self.device),
            layout=layout.to(self.device),
        )

    def loss(self, model: nn.Module, prepared: PreparedTraces) -> LossTerms:
        """Return the loss of a prepared batch, with one call of the model."""
        found = model(prepared.data, prepared.points, prepared.time, prepared.layout, prepared.given)
        errors = (found.velocity - prepared.velocity).square().mean(-1)
        total = errors.sum()
        return LossTerms(
            total=total, sums={"velocity_error": total.detach()}, counts={"velocity_error": prepared.num_tokens}
        )
