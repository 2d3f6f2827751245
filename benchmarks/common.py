"""Shared by the benchmarks: example lengths, interleaved rounds of two variants, a description of the machine, JSON output."""

from __future__ import annotations

import gzip
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from protlig_dd.errors import FormatError


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Wall-clock and CPU seconds of one call."""

    wall: float
    cpu: float


def read_lengths(path: Path, *, cap: int) -> list[int]:
    """Return the lengths of the sequences of a FASTA file (plain or gzip), truncated at `cap`.

    Raises:
        FormatError: if it has no sequence.
    """
    lengths: list[int] = []
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            if line.startswith(">"):
                lengths.append(0)
            elif lengths:
                lengths[-1] += len(line.strip())
    if not any(lengths):
        raise FormatError(f"{path}: found no sequence, expected FASTA; leave the option out to draw lengths")
    return [min(n, cap) for n in lengths if n]


def drawn_lengths(*, count: int, cap: int, seed: int) -> list[int]:
    """Return log-normal lengths similar to those of proteins: median 300, a factor of 1.8 for one standard deviation."""
    source = random.Random(seed)
    return [min(cap, max(16, int(source.lognormvariate(5.7, 0.6)))) for _ in range(count)]


def batches_of(lengths: Sequence[int], *, size: int, count: int, seed: int) -> list[list[int]]:
    """Return `count` batches of `size` lengths, drawn with replacement."""
    source = random.Random(seed)
    return [source.choices(lengths, k=size) for _ in range(count)]


def timed(call: Callable[[], object], device: torch.device) -> Seconds:
    """Return the time of one call, with the device synchronised before and after."""
    _wait(device)
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    _wait(device)
    return Seconds(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def interleaved(
    variants: Mapping[str, Callable[[int], object]], *, rounds: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[Seconds]]:
    """Time every variant once per round, in reversed order every other round; each is called with the number of the round."""
    times: dict[str, list[Seconds]] = {name: [] for name in variants}
    for i in range(-warm_up, rounds):
        for name in list(variants) if i % 2 else reversed(list(variants)):
            seconds = timed(lambda name=name, i=i: variants[name](max(i, 0)), device)  # type: ignore[misc]
            if i >= 0:
                times[name].append(seconds)
    return times


def paired_ratio(slow: Sequence[Seconds], fast: Sequence[Seconds]) -> dict[str, float]:
    """Return the speed-up of the second over the first: medians over rounds of the paired ratios of wall and CPU time."""
    return {
        clock: round(statistics.median(getattr(a, clock) / getattr(b, clock) for a, b in zip(slow, fast, strict=True)), 3)
        for clock in ("wall", "cpu")
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return processor, threads, load and versions, to record where a figure was measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": load,
        "torch": torch.__version__,
        "bf16_native": has_native_bf16(device),
    }


def has_native_bf16(device: torch.device) -> bool:
    """Return whether the hardware has bfloat16 products faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        info = Path("/proc/cpuinfo")
        return info.is_file() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))
    return True


def report(result: dict[str, Any]) -> None:
    """Print the result as JSON."""
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")
