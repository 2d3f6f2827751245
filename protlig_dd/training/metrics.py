"""Metrics of a run between two log lines: mean losses, speed, FLOPs, memory. Values are read from the device only then."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from protlig_dd.device import peak_flops, peak_memory
from protlig_dd.training.strategies import Single

FlopsPerToken = Callable[[Any], float]


class Meter:
    """Collects sums and counts over steps, and returns means over tokens, steps and processes.

    Args:
        strategy: gathers the values of all processes.
        flops_per_token: training FLOPs (forward and backward) per token of a batch, or None.
    """

    def __init__(self, strategy: Single, flops_per_token: FlopsPerToken | None = None) -> None:
        self._strategy, self._flops_per_token = strategy, flops_per_token
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, list[Tensor]] = defaultdict(list)
        self._counts: dict[str, float] = defaultdict(float)
        self._tokens = self._seconds = self._steps = 0.0
        self._batch: Any = None
        self._start = time.perf_counter()

    def add(self, name: str, total: Tensor, count: float | int) -> None:
        """Add a detached sum over `count` items."""
        self._sums[name].append(total)
        self._counts[name] += count

    def add_step(self, batch: Any, num_tokens: float) -> None:
        """Count a step: one of its batches, and the number of tokens in all of its batches on all processes."""
        self._tokens += num_tokens
        self._steps += 1
        self._batch = batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock in the block, for work that is not training."""
        started = time.perf_counter()
        yield
        self._start += time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """Return the metrics since the last call, over all processes, and reset. All processes must call it."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        own = {
            "sums": {name: float(torch.stack(values).sum()) for name, values in self._sums.items()},
            "counts": dict(self._counts),
            "peak": peak_memory(self._strategy.device),
        }
        everyone = self._strategy.gather(own)
        sums, counts = _add_up([e["sums"] for e in everyone]), _add_up([e["counts"] for e in everyone])
        found = {f"train/{name}": sums[name] / counts[name] for name in sums if counts[name]}
        found["speed/tokens_per_second"] = self._tokens / seconds
        found["speed/steps_per_second"] = self._steps / seconds
        found["speed/peak_memory_gib"] = max(e["peak"] for e in everyone) / 2**30
        found.update(self._flops(self._tokens / seconds))
        self._clear()
        return found

    def _flops(self, tokens_per_second: float) -> dict[str, float]:
        if self._flops_per_token is None or self._batch is None:
            return {}
        flops = self._flops_per_token(self._batch) * tokens_per_second
        peak = peak_flops(self._strategy.device, self._strategy.choice.dtype)
        utilisation = {"speed/mfu": flops / (peak * self._strategy.world)} if peak else {}
        return {"speed/tflops_per_second": flops / 1e12, **utilisation}


def _add_up(mappings: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for mapping in mappings:
        for name, value in mapping.items():
            total[name] += value
    return dict(total)
