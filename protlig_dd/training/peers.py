"""Death of a process of a training: one message of the living, instead of a traceback from each of them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from protlig_dd.checkpoints.pointers import list_checkpoints
from protlig_dd.errors import ProtligError, said_by

LAUNCHED = "PROTLIG_LAUNCHED"
"""Environment variable of processes whose launcher, `protlig train` itself, reports which of them died."""

_PATIENCE_SECONDS = 5.0  # a broken connection is noticed before the process is gone
Place = tuple[str, int]


class RankDiedError(ProtligError):
    """Another process of the training has died."""


def own_place() -> Place:
    """Return this process's host and process id."""
    return socket.gethostname(), os.getpid()


class Peers:
    """The processes of a training.

    Args:
        places: host and process id of each rank, in their order; empty for a single process.
        rank: this process.
    """

    def __init__(self, places: Sequence[Place] = (), rank: int = 0) -> None:
        self._places, self._rank, self._is_told = tuple(places), rank, False

    def dead(self) -> list[int]:
        """Return the ranks on this host whose processes are gone."""
        here = socket.gethostname()
        return [rank for rank, (host, pid) in enumerate(self._places) if host == here and not _is_alive(pid)]

    def report(self, checkpoints: Path) -> str:
        """Return a message about ranks that have died, to be shown; "" without any, or if another process or an earlier call says it.

        Args:
            checkpoints: the folder of the run's checkpoints.
        """
        dead = self.dead()
        speaker = min((rank for rank in range(len(self._places)) if rank not in dead), default=-1)
        if not dead or self._is_told or speaker != self._rank or LAUNCHED in os.environ:
            return ""
        self._is_told = True
        who = ", ".join(f"rank {rank} (process {self._places[rank][1]} on {self._places[rank][0]})" for rank in dead)
        return f"{who} of {len(self._places)} has died; {how_to_go_on(checkpoints)}"

    @contextmanager
    def mourned(self, checkpoints: Path) -> Iterator[None]:
        """Turn the error that a dead process causes in this one into one message, or into a silent end where another one says it.

        Raises:
            RankDiedError: with the message.
        """
        try:
            yield
        except RuntimeError as error:  # of torch.distributed; errors of ours are no RuntimeErrors
            until = time.monotonic() + _PATIENCE_SECONDS
            while len(self._places) > 1 and not self.dead() and time.monotonic() < until:
                time.sleep(0.05)
            if not self.dead():
                raise
            if hasattr(signal, "pthread_sigmask"):  # the launcher ends the living too; this one ends by itself, after its message
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            message = self.report(checkpoints)
            if not message:
                raise SystemExit(1) from error
            is_broken = any(word in str(error).lower() for word in ("gloo", "nccl", "connection", "store"))
            raise RankDiedError(message if is_broken else f"{message} (here: {said_by(error)})") from error


def how_to_go_on(checkpoints: Path) -> str:
    """Return the last checkpoint of a run that ended, and what to do, in words."""
    found = list_checkpoints(checkpoints)
    last = f"the last checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
    return f"{last}; start the same command again to go on"


def _is_alive(pid: int) -> bool:
    """Whether a process of this host runs; one that has ended and that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or a system without /proc
        return True
