"""`protlig evaluate`, `protlig report` and `protlig runs`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from protlig_dd.checkpoints.run_folder import read_config_file
from protlig_dd.errors import ConfigError
from protlig_dd.report.page import write_report
from protlig_dd.runs.families.table import family_of_run

_SHOWN = ("train/loss", "validation/nll", "speed/tokens_per_second")


def evaluate(options: Namespace) -> Iterator[str]:
    """Evaluate a run on a part of its data, write evaluation.json, and print the scores beside their nulls."""
    if options.num < 0:
        raise ConfigError(f"--num {options.num}: expected 1 or more; 0 takes the config's number")
    folder = Path(options.run)
    yield from family_of_run(folder).evaluate(
        folder,
        device=options.device,
        which=options.which,
        split=options.split,
        num=options.num,
        fold=options.fold,
        prostt5=options.prostt5,
        coordinates=options.coordinates,
        tokenizer=options.tokenizer,
    )


def report(options: Namespace) -> Iterator[str]:
    """Write the HTML page of a run."""
    read_config_file(Path(options.run) / "config.yaml")
    out, viewer = (Path(given) if given else None for given in (options.out, options.viewer))
    yield f"report: {write_report(Path(options.run), out, viewer=viewer)}"


def runs(options: Namespace) -> Iterator[str]:
    """List runs with their last metrics, one line each."""
    folders = [Path(f) for f in options.folders] or sorted(p.parent for p in Path("runs").glob("*/config.yaml"))
    if not folders:
        raise ConfigError("runs/: found no run; train one with: protlig train")
    width = max(len(str(f)) for f in folders)
    yield f"{'run':<{width}}  {'model':<11} {'step':>8}  " + "  ".join(f"{name:>23}" for name in _SHOWN)
    for folder in folders:
        config = read_config_file(folder / "config.yaml")
        last = _last_metrics(folder / "metrics.jsonl")
        cells = "  ".join(f"{last[name]:>23.4f}" if name in last else f"{'-':>23}" for name in _SHOWN)
        yield f"{folder!s:<{width}}  {config['model']['kind']:<11} {int(last.get('step', 0)):>8}  {cells}"


def _last_metrics(path: Path) -> dict[str, float]:
    """The last value of each metric of a run."""
    last: dict[str, float] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                last |= {k: float(v) for k, v in json.loads(line).items() if isinstance(v, int | float)}
            except json.JSONDecodeError:
                continue  # the last line of a killed run may be cut off
    return last
