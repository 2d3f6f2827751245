"""`protlig train` and `protlig check`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protlig_dd.config import read_config
from protlig_dd.report.reproduction import write_reproduction
from protlig_dd.runs.families.table import family_of
from protlig_dd.runs.spellings import native_overrides
from protlig_dd.training import distributed


def _values(options: Namespace) -> dict[str, Any]:
    name, overrides = options.config, list(options.overrides)
    if "=" in name:  # `protlig train train.steps=5`: the demo, changed
        name, overrides = "dual_track/demo", [name, *overrides]
    named, native = native_overrides(overrides)
    return read_config(named or name, native)


def train(options: Namespace) -> Iterator[str | int]:
    """Train, and afterwards evaluate and report if the config says so; the exit code is 128 + signal when stopped by one."""
    values = _values(options)
    family = family_of(values)
    config = family.read(values)
    if config.train.devices > 1 and "RANK" not in os.environ:
        yield _start_processes(config.train.devices)
        return
    folder = Path(options.out or f"runs/{config.name}")
    result = family.train(config, folder, device=options.device, resume=options.resume)
    if distributed.launched().rank != 0:
        return
    command = " ".join(["protlig train", options.config, *options.overrides])
    write_reproduction(folder, command=command, seed=config.seed)
    if result.stopped_by:
        yield result.exit_code
        return
    yield f"trained {result.steps} steps: {folder}"
    yield from family.finish(config, folder, result, device=options.device)


def _start_processes(number: int) -> int:
    """Run this command again in so many processes of this machine, and return their exit code."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    return subprocess.run([*launcher, "-m", "protlig_dd.cli", *sys.argv[1:]], check=False).returncode


def check(options: Namespace) -> Iterator[str]:
    """Validate a config and say what it will cost."""
    logging.getLogger().setLevel(logging.WARNING)
    values = _values(options)
    family = family_of(values)
    yield from family.check(family.read(values), device=options.device, devices=options.devices)
