"""Out-of-memory handling: an error with advice, and the search for an accumulation that fits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from protlig_dd.device import is_out_of_memory, memory_bytes, peak_memory
from protlig_dd.errors import DeviceError
from protlig_dd.training.strategies import Single

log = logging.getLogger(__name__)


@contextmanager
def explained(strategy: Single, step: int, batches: list[Any]) -> Iterator[None]:
    """Turn an out-of-memory error in the block into one line of advice.

    Args:
        strategy: the strategy of this process, for its rank and device.
        step: the step, from 0.
        batches: the step's micro-batches on this process.

    Raises:
        DeviceError: if memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(_advice(strategy, step, batches)) from error


def _advice(strategy: Single, step: int, batches: list[Any]) -> str:
    total = memory_bytes(strategy.device)
    of_all = f" of {total / 2**30:.1f}" if total else ""
    largest = max(int(batch.num_tokens) for batch in batches)
    sharded = "" if strategy.name in ("fsdp", "zero3") else ", train.distributed=fsdp over several devices"
    return (
        f"rank {strategy.rank}, step {step + 1}: out of memory on {strategy.device} (peak {peak_memory(strategy.device) / 2**30:.1f}{of_all} GiB) "
        f"with a micro-batch of {largest} tokens; use train.accumulation={2 * len(batches)} (same batch, smaller pieces), "
        f"train.tokens_per_batch=auto, model.activation_checkpointing=true{sharded}, or a shorter max_length"
    )


def smallest_accumulation(attempt: Callable[[int], None], strategy: Single, *, largest: int = 64) -> int:
    """Return the smallest power of two of micro-batches per step for which the largest micro-batch fits in memory on every process.

    Args:
        attempt: runs forward and backward of the largest micro-batch for an accumulation, and frees the memory.
        strategy: combines the results of all processes.
        largest: the largest accumulation that is tried.

    Raises:
        DeviceError: if not even `largest` fits.
    """
    accumulation = 1
    while accumulation <= largest:
        failed = False
        try:
            attempt(accumulation)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        if not sum(strategy.sum_over_ranks([float(failed)])):
            log.info("train.tokens_per_batch=auto: %d micro-batches a step fit", accumulation)
            return accumulation
        accumulation *= 2
    raise DeviceError(
        f"train.tokens_per_batch=auto: not even {largest} micro-batches a step fit on {strategy.device}; "
        f"use model.activation_checkpointing=true, a smaller model, or a shorter max_length"
    )
