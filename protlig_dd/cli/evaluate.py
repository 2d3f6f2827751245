"""`protlig evaluate`, `protlig report` and `protlig runs`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from protlig_dd.cli.common import Commands, add_command, add_device
from protlig_dd.documents import json_or_none
from protlig_dd.errors import ConfigError

_SHOWN = ("train/loss", "validation/nll", "speed/tokens_per_second")
_EVALUATE = """The printed scores are also written to RUN/evaluation.json, from which `protlig report RUN` draws its page. Use --split validation for
a run without test data.
  protlig evaluate runs/dual_track_demo --num 100
  protlig evaluate runs/structure_3di_tiny --split validation --prostt5 Rostlab/ProstT5
  protlig evaluate runs/structure_kanzi_tiny --split validation --coordinates db --tokenizer runs/kanzi_tiny"""
_REPORT = """The page shows the scores of the last `protlig evaluate RUN`, the training curves and samples. It loads nothing from the network.
  protlig report runs/structure_3di_tiny --out page.html
  protlig report runs/structure_kanzi_tiny --viewer viewer/3Dmol-min.js"""
_RUNS = """Nothing is written.
  protlig runs
  protlig runs runs/demo_smoke runs/dual_track_demo"""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `protlig evaluate`."""

    run: str
    split: Literal["train", "validation", "test"] = "test"
    num: int = 0
    which: Literal["last", "best"] = "last"
    fold: str = ""
    coordinates: str = ""
    tokenizer: str = ""
    prostt5: str = ""
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `protlig report`."""

    run: str
    out: str = ""
    viewer: str = ""


@dataclass(frozen=True, kw_only=True)
class RunsOptions:
    """Options of `protlig runs`: run folders; those under runs/ if there are none."""

    folders: tuple[str, ...] = ()


def add_evaluation(commands: Commands) -> None:
    """Add `evaluate`, `report` and `runs`."""
    text = "measure likelihood bounds, sample quality and condition dependence, each with its null"
    sub = add_command(commands, "evaluate", evaluate, EvaluateOptions, text, _EVALUATE)
    sub.add_argument("run", help="the run folder")
    sub.add_argument("--split", choices=["train", "validation", "test"], help="the part of the data (%(default)s)")
    sub.add_argument("--num", type=int, help="at most this number of samples and of examples (default: the config's)")
    sub.add_argument("--which", choices=["last", "best"], help="the checkpoint (%(default)s)")
    sub.add_argument("--fold", help="fold generated proteins with this ESMFold: a folder, or facebook/esmfold_v1")
    text = "compare decoded structures with the C-alphas of this Foldseek database (default: evaluation.coordinates of the run)"
    sub.add_argument("--coordinates", metavar="DB", help=text)
    text = "for --coordinates: the autoencoder of Kanzi's tokens (default: evaluation.tokenizer of the run)"
    sub.add_argument("--tokenizer", metavar="RUN_OR_FILE", help=text)
    text = "for a 3Di run: also score the predictions of ProstT5, from a folder or Rostlab/ProstT5"
    sub.add_argument("--prostt5", metavar="SOURCE", help=text)
    add_device(sub)
    text = "write one self-contained HTML page about a run"
    sub = add_command(commands, "report", report, ReportOptions, text, _REPORT)
    sub.add_argument("run", help="the run folder")
    sub.add_argument("--out", help="the page (default: RUN/report.html)")
    text = "a local 3Dmol.js ('protlig download 3dmol') to include in the page, so that structures can be rotated"
    sub.add_argument("--viewer", metavar="3Dmol-min.js", help=text)
    text = "list runs with their last metrics"
    sub = add_command(commands, "runs", runs, RunsOptions, text, _RUNS)
    sub.add_argument("folders", nargs="*", help="run folders (default: those under runs/)")


def evaluate(options: EvaluateOptions) -> Iterator[str]:
    """Evaluate a run on a part of its data, write evaluation.json, and print the scores with their nulls."""
    from protlig_dd.runs.families.table import family_of_run

    if options.num < 0:
        raise ConfigError(f"--num {options.num}: expected 1 or more; 0 takes the config's number")
    how = {name: value for name, value in asdict(options).items() if name != "run"}
    yield from family_of_run(Path(options.run)).evaluate(Path(options.run), **how)


def report(options: ReportOptions) -> Iterator[str]:
    """Write the HTML page of a run."""
    from protlig_dd.checkpoints.run_folder import read_config_file
    from protlig_dd.report.page import write_report

    read_config_file(Path(options.run) / "config.yaml")
    out, viewer = (Path(given) if given else None for given in (options.out, options.viewer))
    yield f"report: {write_report(Path(options.run), out, viewer=viewer)}"


def runs(options: RunsOptions) -> Iterator[str]:
    """List runs with their last metrics, one line each."""
    from protlig_dd.checkpoints.run_folder import kind_of, read_config_file

    folders = [Path(f) for f in options.folders] or sorted(p.parent for p in Path("runs").glob("*/config.yaml"))
    if not folders:
        raise ConfigError("runs/: found no run; train one with: protlig train")
    width = max(len(str(f)) for f in folders)
    yield f"{'run':<{width}}  {'model':<11} {'step':>8}  " + "  ".join(f"{name:>23}" for name in _SHOWN)
    for folder in folders:
        config = read_config_file(folder / "config.yaml")
        last = _last_metrics(folder / "metrics.jsonl")
        cells = "  ".join(f"{last[name]:>23.4f}" if name in last else f"{'-':>23}" for name in _SHOWN)
        yield f"{folder!s:<{width}}  {kind_of(config):<11} {int(last.get('step', 0)):>8}  {cells}"


def _last_metrics(path: Path) -> dict[str, float]:
    """The last value of each metric of a run."""
    last: dict[str, float] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            values = json_or_none(line)  # the last line of a killed run may be cut off
            last |= {k: float(v) for k, v in values.items() if isinstance(v, int | float)} if isinstance(values, dict) else {}
    return last
