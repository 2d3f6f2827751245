"""One update without the trainer: micro-batches add up, a bad loss changes nothing, and timing can leave the weights alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from protlig_dd.training.guard import FiniteGuard, NonFiniteLossError
from protlig_dd.training.strategies import Single
from protlig_dd.training.update import seconds_per_update, update
from tests.support.toy import CPU, NUM_SYMBOLS, Poisoned, ToyBatch, ToyModel, ToyObjective


def batch_of(first: int, last: int) -> ToyBatch:
    ids = torch.arange(2 * first, 2 * last)
    return ToyBatch(tokens=ids * 7 % NUM_SYMBOLS, example_ids=ids)


def wrapped() -> Single:
    strategy = Single(CPU)
    strategy.wrap(ToyModel(), lambda model: torch.optim.SGD(model.parameters(), lr=1.0), clip_norm=0.0, accumulation=1)
    return strategy


def weights(strategy: Single) -> Tensor:
    return torch.cat([p.detach().flatten() for p in strategy.module.parameters()])


def test_unequal_micro_batches_make_the_update_of_their_whole() -> None:
    whole, parts = wrapped(), wrapped()
    update(whole, ToyObjective(), [batch_of(0, 12)], step=0, lr=0.5)
    update(parts, ToyObjective(), [batch_of(0, 8), batch_of(8, 12)], step=0, lr=0.5)
    assert torch.allclose(weights(whole), weights(parts), atol=1e-6) and not torch.equal(weights(whole), weights(wrapped()))


def test_a_bad_loss_stops_before_the_update() -> None:
    strategy = wrapped()
    guard = FiniteGuard(strategy, lambda step: "a test")
    try:
        update(strategy, Poisoned(poison=0), [batch_of(0, 3)], step=0, lr=0.5, guard=guard)
    except NonFiniteLossError:
        assert torch.equal(weights(strategy), weights(wrapped()))
    else:
        raise AssertionError("the loss is NaN")


class Loader:
    """The same batch in every step; counts them."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def micro_batches(self, step: int) -> list[ToyBatch]:
        self.steps.append(step)
        return [batch_of(0, 3)]

    def prefetch(self, first_step: int, last_step: int) -> Iterator[list[ToyBatch]]:
        return map(self.micro_batches, range(first_step, last_step))


def test_updates_are_timed_after_a_first_one_and_a_rate_of_zero_changes_nothing() -> None:
    strategy, loader = wrapped(), Loader()
    assert seconds_per_update(strategy, ToyObjective(), loader, steps=3, lr=0.0) > 0
    assert loader.steps == [0, 1, 2, 3] and torch.equal(weights(strategy), weights(wrapped()))
