"""`protlig foldseek build`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from protlig_dd.data.foldseek.build import build_database
from protlig_dd.errors import ConfigError


def build(options: Namespace) -> Iterator[str]:
    """Make a database of a folder of structures."""
    check_workers(options.workers)
    report = build_database(
        Path(options.folder),
        Path(options.out),
        workers=options.workers,
        mask_bfactor_threshold=options.mask_bfactor_threshold,
        coord_store="float" if options.coord_store_mode == 1 else "differences",
    )
    yield from report.lines()


def check_workers(workers: int) -> None:
    """Refuse a number of processes that is none.

    Raises:
        ConfigError: below 0.
    """
    if workers < 0:
        raise ConfigError(f"--workers {workers}: expected 0 (one for each core) or more")
