"""The interface between the trainer and a family of models: objective, loss terms, loader, validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The loss of a batch.

    Attributes:
        total: the sum over tokens to be minimised, float32, with gradient.
        sums: detached sums by name, for the log.
        counts: the number of tokens in each of `sums`.
        examples: for each track the nats and the tokens of each example [b], of an objective that is a likelihood, computed without gradient.
    """

    total: Float[Tensor, ""]
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Mapping[str, float | int] = field(default_factory=dict)
    examples: Mapping[str, tuple[Float[Tensor, " b"], Float[Tensor, " b"]]] = field(default_factory=dict)


@runtime_checkable
class Prepared(Protocol):
    """A batch after all work that needs no network; may have `describe() -> str` for messages."""

    @property
    def num_tokens(self) -> int:
        """The number of tokens of the loss, its denominator; known on the host."""


@runtime_checkable
class Objective(Protocol):
    """The loss of a model on a batch."""

    def prepare(self, batch: Any, step: int) -> Any:
        """Return a `Prepared` on the model's device. A pure function of batch and step (from 0)."""

    def loss(self, model: Any, prepared: Any) -> LossTerms:
        """Return the loss of a prepared batch, with one or more calls of the model."""


@runtime_checkable
class Loader(Protocol):
    """Batches as a pure function of the step."""

    def micro_batches(self, step: int) -> list[Any]:
        """Return this process's micro-batches of a step (from 0); each has `num_tokens`."""

    def prefetch(self, first_step: int, last_step: int) -> Iterator[list[Any]]:
        """Iterate over the micro-batches of steps first_step .. last_step - 1."""


Validate = Callable[[nn.Module], Mapping[str, float | int]]
"""Returns metrics of a model by name. All processes call it; rank 0's result is used."""
