"""Kanzi's training objective: the velocity of randomly rotated chains between noise and data, given their own codes."""

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
    """A batch before the network: data and noised points, times, and the target velocity.

    Args:
        data: rotated chains, in nanometres.
        points: points between noise and data.
        velocity: data minus noise.
        time: time of each chain, 0 (noise) to 1 (data).
        given: chains whose codes are given; None for all.
        layout: layout of the chains.
    """

    data: Float[Tensor, "n 3"]
    points: Float[Tensor, "n 3"]
    velocity: Float[Tensor, "n 3"]
    time: Float[Tensor, " b"]
    given: Bool[Tensor, " b"] | None
    layout: Layout

    @property
    def num_tokens(self) -> int:
        """Number of residues, the denominator of the loss."""
        return self.layout.num_tokens

    def describe(self) -> str:
        """Return a text with the batch's size, for messages."""
        lengths = self.layout.lengths
        return f"{len(lengths)} chains of {min(lengths)} to {max(lengths)} residues"


def turned(points: Float[Tensor, "n 3"], layout: Layout, draws: Draws) -> Float[Tensor, "n 3"]:
    """Return each chain rotated by its own rotation, drawn from its key."""
    rotations = random_rotations(draws)
    return torch.einsum("nij,nj->ni", rotations.index_select(0, layout.segment), points)


@dataclass(frozen=True, kw_only=True)
class KanziObjective:
    """Flow matching: the mean over axes of the squared error of the velocity, summed over residues (square nanometres).

    Rotation, noise and time of an example are a pure function of (seed, step, example).

    Args:
        seed: seed of the random draws.
        device: the network's device.
        rotate: whether each example is rotated at random.
        condition_dropout: probability of hiding the codes of an example, for guidance.
    """

    seed: int
    device: torch.device
    rotate: bool = True
    condition_dropout: float = 0.0

    def prepare(self, batch: TraceBatch, step: int) -> PreparedTraces:
        """Return a prepared batch, computed on the host and moved to the device. A pure function of batch and step."""
        draws = Draws.root(self.seed, "kanzi", step).fold_in(batch.example_ids)
        layout = batch.layout
        data = turned(batch.points, layout, draws.fold("rotation")) if self.rotate else batch.points
        noise, time = centred_noise(draws.fold("noise"), layout), training_times(draws.fold("times"))
        at = time.index_select(0, layout.segment)[:, None]
        given = draws.fold("given").uniform() >= self.condition_dropout if self.condition_dropout else None
        tensors = (data, at * data + (1 - at) * noise, data - noise, time)
        data, points, velocity, time = (t.to(self.device, non_blocking=True) for t in tensors)
        given = None if given is None else given.to(self.device)
        return PreparedTraces(data=data, points=points, velocity=velocity, time=time, given=given, layout=layout.to(self.device))

    def loss(self, model: nn.Module, prepared: PreparedTraces) -> LossTerms:
        """Return the loss of a prepared batch, with one call of the model."""
        found = model(prepared.data, prepared.points, prepared.time, prepared.layout, prepared.given)
        errors = (found.velocity - prepared.velocity).square().mean(-1)
        total = errors.sum()
        return LossTerms(total=total, sums={"velocity_error": total.detach()}, counts={"velocity_error": prepared.num_tokens})
