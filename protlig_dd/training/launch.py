"""Several processes of a training on this machine, started by `protlig train` itself."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from protlig_dd.errors import ProtligError
from protlig_dd.training.peers import LAUNCHED, how_to_go_on


def launch(number: int, arguments: Sequence[str], checkpoints: Path) -> int:
    """Run `protlig` in several processes on this machine, as torchrun does, and return its exit code.

    Args:
        number: processes.
        arguments: the words of the command.
        checkpoints: the folder of the run's checkpoints, for the message about a process that died.

    Raises:
        ProtligError: if a process was killed; one that ended by itself has said why.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[LAUNCHED] = "1"
    if os.getcwd() not in map(os.path.abspath, sys.path):  # the processes import from where this one does, not from the working folder
        os.environ["PYTHONSAFEPATH"] = "1"
    try:
        run(parse_args(["--standalone", "--nproc_per_node", str(number), "-m", "protlig_dd.cli", *arguments]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        hint = " (by the system, if its memory ran out)" if name == "SIGKILL" else ""
        raise ProtligError(
            f"rank {rank} of {number} (process {failure.pid}) was killed by {name}{hint}; {how_to_go_on(checkpoints)}"
        ) from error
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
