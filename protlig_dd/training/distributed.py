"""Start of distributed training: torchrun's environment, the process group, and the strategy.

The strategies, with one interface, are in `strategies.py` (one process, DDP), `sharded.py` (FSDP2) and `zero3.py`.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist

from protlig_dd.device import DeviceChoice, use_device
from protlig_dd.errors import ConfigError, DeviceError
from protlig_dd.training.peers import Peers, own_place
from protlig_dd.training.sharded import Fsdp
from protlig_dd.training.strategies import Ddp, Processes, Single
from protlig_dd.training.zero3 import Zero3

DistributedName = Literal["auto", "none", "ddp", "fsdp", "zero3"]
BACKENDS = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl"}


def launched() -> Processes:
    """Return rank, world and local rank from RANK, WORLD_SIZE and LOCAL_RANK, as set by torchrun or `accelerate launch`; 0, 1, 0 by default."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return Processes(rank=rank, world=world, local_rank=int(os.environ.get("LOCAL_RANK", rank)))


def start(kind: str, choice: DeviceChoice, *, timeout_seconds: float = 1800.0, overrides: Mapping[str, Any] | None = None) -> Single:
    """Join the process group of the run and return the strategy.

    Args:
        kind: "none", "ddp", "fsdp" or "zero3"; "auto" is none for one process and ddp for several.
        choice: this process's device and precision.
        timeout_seconds: how long a collective operation waits for other processes.
        overrides: keys of DeepSpeed's configuration, for zero3.

    Raises:
        ConfigError: for several processes without a strategy, which would train independently.
        DeviceError: if the device has no collective operations.
    """
    processes = launched()
    if kind == "auto":
        kind = "ddp" if processes.world > 1 else "none"
    if kind == "none" and processes.world > 1:
        raise ConfigError(
            f"train.distributed: found 'none' in a run of {processes.world} processes, each would train alone; use ddp, fsdp or zero3"
        )
    use_device(choice.device)
    if kind == "none":
        return Single(choice, processes)
    if choice.device.type not in BACKENDS:
        raise DeviceError(f"train.distributed: '{kind}' does not run on {choice.device.type}; use distributed=none")
    _join(BACKENDS[choice.device.type], processes, timeout_seconds)
    several: Mapping[str, Callable[..., Single]] = {"ddp": Ddp, "fsdp": Fsdp, "zero3": partial(Zero3, overrides=overrides)}
    made = several[kind](choice, processes)
    made.peers = Peers(made.gather(own_place()), made.rank)
    return made


def largest_over_ranks(number: int, *, device: torch.device) -> int:
    """Return the maximum of a number over all processes, or the number itself without a process group. All processes must call it."""
    if not dist.is_initialized():
        return number
    value = torch.tensor([number], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value)


def _join(backend: str, processes: Processes, timeout_seconds: float) -> None:
    timeout = datetime.timedelta(seconds=timeout_seconds)
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)  # type: ignore[attr-defined]
