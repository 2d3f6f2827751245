"""A run as one self-contained HTML page: its scores, curves, tables, molecules, settings, and how to reproduce it.

The page is a function of the files in the run folder, any of which may be absent:

    config.yaml          the settings (or config.json), shown unchanged
    metrics.jsonl        one JSON object a line: {"step": int, "seconds": number, "<name>": number | null ...}; names drawn are
                         train/nll/<task>/<track>, validation/nll/<task>/<track>, validation/unigram_null[/<track>], train/loss, validation/nll, train/lr,
                         train/grad_norm, speed/tokens_per_second, and of structures drawn on the way samples/rmsd_* and samples/*token_accuracy
    evaluation.json      sections, in the form that `evaluation/sections.py` describes
    samples.csv          generated samples: columns "ligand" (or "smiles"), "protein", "structure", any of them; optionally "name", by which
                         they are grouped, "matched" (1/0, true/false, yes/no), and "nearest_active" (SMILES) with "similarity"; other
                         short columns are shown unchanged (`gallery.py`)
    traces.json          predicted C-alpha traces and the true ones (`evaluation/trace_pairs.py`)
    traces.png           a picture of them, which `write_report` makes
    data.txt             what was read, line by line
    reproduction.json    {"command": str, "seed": int, "versions": {package: version}, ...}, made by `write_reproduction`

It refers to nothing on a network; a content policy in its head keeps browsers from fetching anything. It has no script, unless 3Dmol.js is
given (`viewer.py`). Everything that comes from a file is escaped. The markup is in `templates/run.html`.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protlig_dd.documents import json_or_none, read_yaml
from protlig_dd.errors import FormatError, MissingDependencyError
from protlig_dd.evaluation.sections import Section, read_evaluation
from protlig_dd.evaluation.trace_pairs import TracePair, best_median_worst, read_traces, trace_pdb
from protlig_dd.files import write_text
from protlig_dd.report.drawings import COLOURS, Curve, line_chart
from protlig_dd.report.gallery import read_gallery
from protlig_dd.report.html import headline, render_template
from protlig_dd.report.reproduction import reproduction_facts
from protlig_dd.report.trace_pictures import PREDICTED, TRUE, traces_png
from protlig_dd.report.viewer import Viewer, structures_html

log = logging.getLogger(__name__)
Metrics = Mapping[str, list[tuple[float, float]]]
"""(step, value) of each metric by name."""

_LEADING = ("condition gap", "specificity", "validity")
"""The beginnings of the names of scores that come first."""
_NUM_CARDS = 4
_SMALL_CHARTS = {
    "loss": ("train/loss", "validation/nll"),
    "learning rate": ("train/lr",),
    "gradient norm": ("train/grad_norm",),
    "tokens per second": ("speed/tokens_per_second",),
    "structures drawn on the way, error in angstrom": tuple(f"samples/rmsd_{n}" for n in ("mean", "median", "floor")),
    "structures drawn on the way, token accuracy": ("samples/token_accuracy", "samples/null_token_accuracy"),
}
_CAUTION = (
    "These are numbers computed by and about a statistical model. Nothing here is a drug, and no sample was synthesised, measured or "
    "checked for safety. A likelihood is not an affinity."
)
_SYNTHETIC = "The data of this run are a synthetic world made up after textbooks; nothing here is a drug, or says anything about one. "


def write_report(run_folder: Path, path: Path | None = None, *, viewer: Path | None = None) -> Path:
    """Write the page, by default as `report.html` in the run folder, and return its path; a run with traces also gets `traces.png`.

    Args:
        run_folder: the run folder.
        path: the file to write.
        viewer: a local 3Dmol.js, with which structures can be turned by hand; without it they are animated.

    Raises:
        FormatError: if there is no such folder, or one of its files or the viewer does not have the expected form.
    """
    loaded = Viewer.read(viewer) if viewer is not None else None
    if traces := _traces(run_folder):
        try:
            (run_folder / "traces.png").write_bytes(traces_png(traces))
        except MissingDependencyError as error:
            log.info("traces.png: not drawn; %s", error)
    path = path or run_folder / "report.html"
    write_text(path, render(run_folder, loaded))
    return path


def render(run_folder: Path, viewer: Viewer | None = None) -> str:
    """Return the page of a run, its structures in a viewer if one is given.

    Raises:
        FormatError: as `write_report`.
    """
    if not run_folder.is_dir():
        raise FormatError(f"{run_folder}: found no folder, expected the folder of a run; list yours with: protlig runs")
    config_text, config = _read_config(run_folder)
    metrics = read_metrics(run_folder / "metrics.jsonl")
    evaluation, picture, data = (run_folder / name for name in ("evaluation.json", "traces.png", "data.txt"))
    sections = read_evaluation(evaluation) if evaluation.is_file() else []
    is_synthetic = isinstance(config.get("data"), Mapping) and config["data"].get("kind") == "demo"
    traces = _traces(run_folder)
    return render_template(
        "run.html",
        name=str(config.get("name") or run_folder.resolve().name),
        caution=(_SYNTHETIC if is_synthetic else "") + _CAUTION,
        headlines=_headlines(metrics, sections),
        sections=sections,
        charts=_charts(metrics),
        traces=traces,
        picture=base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else "",
        scripts=_scripts(viewer, traces) if viewer is not None and traces else None,
        samples=read_gallery(run_folder / "samples.csv"),
        data=data.read_text(encoding="utf-8", errors="replace").rstrip() if data.is_file() else "",
        settings=config_text.rstrip(),
        reproduction=reproduction_facts(run_folder, config, config_text),
    )


def read_metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return (step, value) of each metric in a metrics.jsonl; a truncated last line, left by an interrupted run, is skipped.

    Raises:
        FormatError: for any other line that is not a JSON object with a step.
    """
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        values = json_or_none(line)
        step = values.get("step") if isinstance(values, dict) else None
        if not isinstance(step, int | float):
            if number == len(lines):
                break
            raise FormatError(f"{path}:{number}: found {line[:60]!r}, expected a JSON object with a step; remove the line")
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append((float(step), float(value)))
    return found


def _read_config(run_folder: Path) -> tuple[str, dict[str, Any]]:
    for name in ("config.yaml", "config.json"):
        path = run_folder / name
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace"), read_yaml(path)
    return "", {}


def _traces(run_folder: Path) -> list[TracePair]:
    path = run_folder / "traces.json"
    return read_traces(path) if path.is_file() else []


def _scripts(viewer: Viewer, traces: Sequence[TracePair]) -> dict[str, str]:
    """The script elements of the viewer, the content policy that allows them, and the structures that they show."""
    elements, policy = viewer.html(true_colour=TRUE, predicted_colour=PREDICTED)
    data = structures_html([trace_pdb(trace) for _, trace in best_median_worst(traces)])
    return {"elements": elements, "policy": policy, "data": data}


def _headlines(metrics: Metrics, sections: Sequence[Section]) -> list[tuple[str, str, str]]:
    """The most important numbers: what says most about samples, the first scores of the first section, the best validation bound, the steps."""
    every = [score for section in sections for score in section.scores]
    leading = [next((score for score in every if score.name.startswith(start)), None) for start in _LEADING]
    first = next((section.scores for section in sections if section.scores), ())
    chosen = [score for score in leading if score is not None]
    chosen += [score for score in first if score not in chosen][: max(_NUM_CARDS - len(chosen), 0)]
    cards = [headline(score) for score in chosen]
    bound = metrics.get("validation/nll")
    if bound:
        step, best = min(bound, key=lambda point: point[1])
        cards.append((f"{best:.3f}", f"at step {int(step):,}", "best validation bound, nats per token"))
    steps = max((points[-1][0] for points in metrics.values()), default=None)
    if steps is not None:
        cards.append((f"{int(steps):,}", "", "training steps"))
    return cards


def _charts(metrics: Metrics) -> str:
    """The training curves as SVG: the bound on each track by task, then the small charts."""

    def curve(key: str, name: str, colour: str, is_strong: bool) -> Curve:
        return Curve(name=name, points=tuple(metrics.get(key, ())), colour=colour, is_strong=is_strong)

    tasks: dict[str, dict[str, None]] = {}
    for name in metrics:
        parts = name.split("/")
        if len(parts) == 4 and parts[0] in ("train", "validation") and parts[1] == "nll":
            tasks.setdefault(parts[3], {})[parts[2]] = None
    charts = []
    for track, names in sorted(tasks.items()):
        curves = []
        for i, task in enumerate(names):
            colour = COLOURS[i % len(COLOURS)]
            curves.append(curve(f"train/nll/{task}/{track}", f"{task}, training", colour, False))
            curves.append(curve(f"validation/nll/{task}/{track}", f"{task}, validation", colour, True))
        curves += _null_line(metrics, track, [x for one in curves for x, _ in one.points])
        charts.append(line_chart(f"Bound on {track}", curves, y_label="nats per token"))
    for title, keys in _SMALL_CHARTS.items():
        curves = [curve(key, key, COLOURS[i], key.startswith("validation")) for i, key in enumerate(keys)]
        charts.append(line_chart(title.capitalize(), curves))
    return "".join(charts)


def _null_line(metrics: Metrics, track: str, steps: Sequence[float]) -> list[Curve]:
    """The unigram null of a track as a dashed line across all steps; nothing where the run does not know it."""
    name = next((n for n in (f"validation/unigram_null/{track}", "validation/unigram_null") if n in metrics), "")
    if not name or not steps:
        return []
    null = metrics[name][-1][1]
    return [Curve(name="unigram null", points=((min(steps), null), (max(steps), null)), colour="#444444", is_dashed=True)]
