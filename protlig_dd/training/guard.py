"""Guards of a run: a check for non-finite losses, signals that stop the run, and a watchdog for hung processes."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from protlig_dd.documents import json_or_none
from protlig_dd.errors import ProtligError
from protlig_dd.files import write_json
from protlig_dd.objective import Loader, Objective
from protlig_dd.training.strategies import Single

log = logging.getLogger(__name__)
PHASES = ("data", "prepare", "exchange", "forward and backward", "update", "validation", "hooks", "checkpoint")
_STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


class NonFiniteLossError(ProtligError):
    """The loss or its gradient became NaN or infinite; the weights are those of the step before."""


class FiniteGuard:
    """Stops a run before an update with a loss that is not finite.

    On a CPU the values are checked immediately. On an accelerator that would make the host wait in every step, so the check stays on the
    device: it disables this and all later updates (see `Single.step`), and `settle`, called occasionally, raises.

    Args:
        strategy: the strategy whose losses are checked.
        describe: returns a description of a step's batch, given the step from 0.
        deferred: check on the device; by default on accelerators, if the strategy can skip an update.
    """

    def __init__(self, strategy: Single, describe: Callable[[int], str], *, deferred: bool | None = None) -> None:
        self._strategy, self._describe = strategy, describe
        self._deferred = strategy.can_skip and strategy.device.type != "cpu" if deferred is None else deferred
        self._bad = torch.zeros((), device=strategy.device)
        self._first = torch.full((), -1, dtype=torch.int64, device=strategy.device)
        # with a loss scaler gradients may overflow; the scaler handles it
        self._scaled = strategy.choice.needs_scaler

    def check(self, step: int, loss: Tensor, norm: Tensor | None) -> Tensor | None:
        """Check the loss of a step (from 0) on this process, and the gradient's norm; return what `Single.step` takes as `skip`.

        Raises:
            NonFiniteLossError: naming rank, step, task and track, if the check is not deferred.
        """
        if self._deferred:
            bad = ~torch.isfinite(loss)
            if norm is not None and not self._scaled:
                bad = bad | ~torch.isfinite(norm)
            self._first = torch.where(bad & (self._first < 0), step, self._first)
            self._bad = torch.maximum(self._bad, bad.float())
            return self._bad
        own = float(loss)
        if norm is None:  # the strategy has no norm yet, through which all processes would learn of it
            if sum(self._strategy.sum_over_ranks([float(not math.isfinite(own))])):
                raise NonFiniteLossError(self._explain(step, own))
        elif not math.isfinite(own) or not (self._scaled or math.isfinite(float(norm))):
            raise NonFiniteLossError(self._explain(step, own, float(norm)))
        return None

    def settle(self) -> None:
        """Read the result of a deferred check from the device.

        Raises:
            NonFiniteLossError: as `check`.
        """
        if self._deferred and float(self._bad):
            raise NonFiniteLossError(self._explain(int(self._first), math.nan))

    def _explain(self, step: int, loss: float, norm: float | None = None) -> str:
        rank, where = self._strategy.rank, f"rank {self._strategy.rank}, step {step + 1}"
        if math.isfinite(loss):
            cause = f"the gradient is not finite (norm {norm}) though the loss of rank {rank} is ({loss:.6g})"
        else:
            cause = f"the loss is {loss}"
        return (
            f"{where}: {cause}; batch: {self._describe(step)}; stopped before the update, the last checkpoint is good; "
            f"lower optim.lr or optim.clip_norm, or use precision=fp32, then start again"
        )


def describe_batch(objective: Objective, loader: Loader, step: int) -> str:
    """Return a description of a step's batch on this process; recomputed, since loader and objective are pure functions of the step."""
    prepared = [objective.prepare(batch, step) for batch in loader.micro_batches(step)]
    words = [one.describe() for one in prepared if hasattr(one, "describe")]
    return "; ".join(dict.fromkeys(words)) or f"{len(prepared)} micro-batches"


@dataclass
class StopRequest:
    """The signal that asked the run to stop; 0 for none."""

    signal: int = 0

    @property
    def name(self) -> str:
        """The signal's name, such as SIGTERM."""
        return signal.Signals(self.signal).name


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a request to stop after the step; a second SIGINT or SIGTERM ends the process at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread can handle signals
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number
        for other in _STOPPING[:2]:
            signal.signal(other, before[other])

    before: dict[int, Any] = {number: signal.getsignal(number) for number in _STOPPING}
    for number in _STOPPING:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watchdog:
    """Reports the process that a run waits for.

    Each process records its step and phase (`beat`, which is cheap); a thread writes them to a file every few seconds. If there is no beat
    for `seconds`, the thread reads the files of all processes and logs which ranks are behind, and this process's stack if it is the one.

    Args:
        folder: folder of the heartbeat files, on a file system that all processes share.
        rank: rank of this process.
        world: number of processes.
        seconds: longest duration of a phase; 0 turns the watchdog off.
        died: returns a message about processes that have died, "" if there are none or it was said.
    """

    def __init__(self, folder: Path, *, rank: int, world: int, seconds: float, died: Callable[[], str] = str) -> None:
        self._folder, self._rank, self._world, self._seconds = folder, rank, world, seconds
        self._died = died
        self._at = (0, PHASES[0], time.monotonic())
        self._reported = 0.0
        self._stop = threading.Event()
        self._main = threading.get_ident()
        self._thread: threading.Thread | None = None

    def beat(self, step: int, phase: str) -> None:
        """Record that this process enters a phase (one of `PHASES`) of a step."""
        self._at = (step, phase, time.monotonic())

    def __enter__(self) -> Watchdog:
        if self._seconds:
            self._thread = threading.Thread(target=self._run, name="protlig-watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(min(10.0, self._seconds / 4)):
            self._look()

    def _look(self) -> None:
        step, phase, since = self._at
        stalled = time.monotonic() - since
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            beat = {"step": step, "phase": phase, "time": time.time()}
            write_json(self._folder / f"rank_{self._rank:05d}.json", beat, indent=None)
            if message := self._died():  # where the main thread waits for a device, it cannot say so
                log.error("%s", message)
            if stalled > self._seconds and since != self._reported:
                self._reported = since
                log.error("%s", self.explain())
                if self._behind() == [self._rank]:
                    stack = traceback.format_stack(sys._current_frames().get(self._main))
                    log.error("rank %d stands here:\n%s", self._rank, "".join(stack[-8:]).rstrip())
        except OSError as error:
            log.warning("heartbeats cannot be written (%s); a hung process will not be named", error)
            self._stop.set()

    def _places(self) -> dict[int, tuple[int, int, float]]:
        """Return for each rank its step, the index of its phase, and the time of its heartbeat; (-1, 0, 0) if it has none."""
        places = {}
        for rank in range(self._world):
            path = self._folder / f"rank_{rank:05d}.json"
            beat = json_or_none(path.read_text(encoding="utf-8")) if path.is_file() else None
            places[rank] = (beat["step"], PHASES.index(beat["phase"]), beat["time"]) if beat else (-1, 0, 0.0)
        return places

    def _behind(self) -> list[int]:
        places = self._places()
        slowest = min(place[:2] for place in places.values())
        return [rank for rank, place in places.items() if place[:2] == slowest]

    def explain(self) -> str:
        """Return a message that names the ranks that are behind, and their step and phase."""
        places, behind = self._places(), self._behind()
        step, phase, _ = places[behind[0]]
        who = f"rank{'s' if len(behind) > 1 else ''} {', '.join(map(str, behind))}"
        silent = [str(r) for r, place in places.items() if time.time() - place[2] > self._seconds]
        dead = f"; no heartbeat at all from rank {', '.join(silent)}: its process has died or is frozen" if silent else ""
        others = "" if len(behind) == self._world else f"; the other {self._world - len(behind)} wait for it"
        place = f"at step {step}, {PHASES[phase]}" if step >= 0 else "before its first step"
        return f"no progress for {self._seconds:g} s: {who} hangs {place}{others}{dead}"
