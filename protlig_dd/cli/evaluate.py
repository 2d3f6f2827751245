"""`protlig evaluate`, `protlig report` and `protlig runs`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from protlig_dd.checkpoints.run_folder import read_config_file
from protlig_dd.errors import ConfigError
from protlig_dd.kanzi.evaluate import assess_autoencoder
from protlig_dd.kanzi.experiment import is_autoencoder, open_autoencoder
from protlig_dd.report.page import write_report
from protlig_dd.report.tracked import track_evaluation
from protlig_dd.runs.evaluate import assess
from protlig_dd.runs.folding import assess_folding, assess_prostt5, open_held_out
from protlig_dd.runs.open import open_run
from protlig_dd.runs.run import Run

_SHOWN = ("train/loss", "validation/nll", "speed/tokens_per_second")


def evaluate(options: Namespace) -> Iterator[str]:
    """Evaluate a run on a part of its data, write evaluation.json, and print the scores beside their nulls."""
    if options.num < 0:
        raise ConfigError(f"--num {options.num}: expected 1 or more; 0 takes the config's number")
    folder, part = Path(options.run), {"split": options.split, "num": options.num}
    config = folder / "config.yaml"
    if config.is_file() and is_autoencoder(read_config_file(config)):
        autoencoder = open_autoencoder(folder, device=options.device, which=options.which)
        yield from assess_autoencoder(autoencoder, num=options.num)
        assert autoencoder.config is not None, "a run folder has a config"
        tracking = autoencoder.config.train.tracking
        track_evaluation(folder, tracking, step=autoencoder.step, with_traces=True)
        return
    if bool(options.coordinates) != bool(options.tokenizer):
        raise ConfigError(
            f"--coordinates '{options.coordinates}' --tokenizer '{options.tokenizer}': expected both, a Foldseek database with the true "
            "C-alphas and the autoencoder of the tokens, or neither"
        )
    run = open_run(options.run, device=options.device, which=options.which)
    names = {"coordinates": options.coordinates, "tokenizer": options.tokenizer}
    yield from evaluate_run(run, fold=options.fold, prostt5=options.prostt5, **names, **part)


def evaluate_run(
    run: Run, *, split: str, num: int = 0, fold: str = "", prostt5: str = "", coordinates: str = "", tokenizer: str = ""
) -> Iterator[str]:
    """Evaluate an opened run of tokens, in Angstrom too where the options or its config name the true chains; tell wandb."""
    in_angstrom = bool(coordinates or run.config.evaluation.coordinates)
    # What cannot be compared is refused before the hour that the rest may take.
    chains = open_held_out(run, coordinates, tokenizer, split=split, num=num) if in_angstrom else None
    yield from assess(run, split=split, num=num, fold=fold)
    if prostt5:
        yield from assess_prostt5(run, prostt5, split=split, num=num)
    if chains is not None:
        yield from assess_folding(run, chains, split=split, num=num)
    track_evaluation(run.folder, run.config.train.tracking, step=run.step, with_traces=in_angstrom)


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
