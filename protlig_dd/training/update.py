"""One update of the weights on one process, without checkpoints, metrics and watchdog: for short trainings that are thrown away.

The trainer's own step, which does all of that on any number of processes, is in `trainer.py`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from protlig_dd.device import synchronize
from protlig_dd.objective import Loader, Objective
from protlig_dd.training.guard import FiniteGuard
from protlig_dd.training.out_of_memory import explained
from protlig_dd.training.strategies import Single


def update(
    strategy: Single, objective: Objective, batches: Sequence[Any], *, step: int, lr: float, guard: FiniteGuard | None = None
) -> None:
    """Make one update from the micro-batches of a step, as the trainer does.

    Args:
        strategy: after `wrap`.
        objective: the loss.
        batches: the micro-batches of the step.
        step: the step, from 0.
        lr: the learning rate of this update.
        guard: checks loss and gradient before the update; without one nothing is checked.

    Raises:
        NonFiniteLossError: from the guard.
        DeviceError: if memory runs out.
    """
    with explained(strategy, step, list(batches)):
        prepared = [objective.prepare(batch, step) for batch in batches]
        tokens = max(sum(one.num_tokens for one in prepared), 1)
        losses = []
        for one in prepared:
            with strategy.autocast():
                loss = objective.loss(strategy.model, one).total
            strategy.backward(loss / tokens)
            losses.append(loss.detach())
        norm = strategy.clip()
        skip = guard.check(step, torch.stack(losses).sum(), norm) if guard is not None else None
        strategy.step(lr, skip)


def seconds_per_update(strategy: Single, objective: Objective, loader: Loader, *, steps: int, lr: float) -> float:
    """Return the mean duration of a few updates (data, noise, forward, backward, optimiser), after a first one that is not timed.

    Args:
        strategy: after `wrap`.
        objective, loader: the loss and the batches.
        steps: number of updates that are timed.
        lr: the learning rate; 0 leaves the weights as they are.
    """
    started = 0.0
    for step in range(steps + 1):
        if step == 1:
            synchronize(strategy.device)
            started = time.perf_counter()
        update(strategy, objective, loader.micro_batches(step), step=step, lr=lr)
    synchronize(strategy.device)
    return (time.perf_counter() - started) / steps
