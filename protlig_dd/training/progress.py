"""Progress of a run: a bar on a terminal, plain lines in the log otherwise; on rank 0 only."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)


class Progress:
    """A progress bar if standard error is a terminal, lines in the log otherwise.

    Args:
        first: number of steps done before.
        total: total number of steps.
        rank: rank of this process; only rank 0 shows progress.
    """

    def __init__(self, first: int, total: int, *, rank: int) -> None:
        self._first, self._total, self._rank = first, total, rank
        self._bar: Any = None
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        if self._rank == 0 and sys.stderr.isatty():
            self._bar = tqdm(total=self._total, initial=self._first, unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """Count one step."""
        if self._bar is not None:
            self._bar.update()

    def show(self, step: int, metrics: Mapping[str, float | int]) -> None:
        """Show the metrics of a step: after the bar, or as a line with the remaining time."""
        words = _in_words(metrics)
        if self._bar is not None:
            self._bar.set_postfix_str(words)
        elif self._rank == 0:
            done = max(step - self._first, 1)
            left = (time.monotonic() - self._start) / done * (self._total - step)
            log.info("step %d/%d  %s  %s left", step, self._total, words, tqdm.format_interval(left))


def _in_words(metrics: Mapping[str, float | int]) -> str:
    shown = {name.removeprefix("train/"): value for name, value in metrics.items() if name in _SHOWN}
    words = [f"{name} {value:.4g}" for name, value in shown.items()]
    speed = metrics.get("speed/tokens_per_second")
    return "  ".join([*words, f"{speed:,.0f} tokens/s"] if speed else words)


_SHOWN = ("train/loss", "train/lr", "train/grad_norm")
