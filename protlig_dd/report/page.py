"""A run as one self-contained HTML page: what it reached, its curves, tables, molecules, settings, and how to make it again.

The page is a function of the files in the run folder, any of which may be absent:

    config.yaml          the settings (or config.json); shown as they stand
    metrics.jsonl        one JSON object a line: {"step": int, "seconds": number, "<name>": number | null ...}; names drawn are
                         train/nll/<task>/<track>, validation/nll/<task>/<track>, train/loss, validation/nll, train/lr, train/grad_norm,
                         speed/tokens_per_second, and of structures drawn on the way samples/rmsd_* and samples/*token_accuracy
    evaluation.json      sections; the form stands in `sections.py`
    samples.csv          generated samples in the order to show them: columns "ligand" (or "smiles"), "protein", "structure", any of them, and
                         optionally "matched" (1/0, true/false, yes/no); other short columns are shown as they are
    traces.json          predicted C-alpha traces beside the true ones (`traces.py`)
    traces.png           a picture of them, which `write_report` makes
    data.txt             what was read, line by line
    reproduction.json    {"command": str, "seed": int, "versions": {package: version}, ...}, made by `write_reproduction`

It refers to nothing on a network; a content policy in its head keeps browsers from fetching anything. It holds no script, unless 3Dmol.js is
given (`viewer.py`). Everything that comes from a file is escaped.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from protlig_dd.errors import FormatError, MissingDependencyError
from protlig_dd.evaluation.sections import Section, Table, read_evaluation, write_evaluation
from protlig_dd.evaluation.traces import read_traces
from protlig_dd.report.drawings import COLOURS, Curve, line_chart, molecule
from protlig_dd.report.reproduction import reproduction_html, write_reproduction
from protlig_dd.report.tables import cards_html, headline, section_html
from protlig_dd.report.trace_pictures import traces_png
from protlig_dd.report.traces import PREDICTED, TRUE, traces_html
from protlig_dd.report.viewer import Viewer

__all__ = ["Section", "Table", "render", "write_evaluation", "write_report", "write_reproduction"]

log = logging.getLogger(__name__)
NUM_SHOWN = 12
_SMALL_CHARTS = {
    "loss": ("train/loss", "validation/nll"),
    "learning rate": ("train/lr",),
    "gradient norm": ("train/grad_norm",),
    "tokens per second": ("speed/tokens_per_second",),
    "structures drawn on the way, error in angstrom": (
        "samples/rmsd_mean",
        "samples/rmsd_median",
        "samples/rmsd_floor",
    ),
    "structures drawn on the way, token accuracy": ("samples/token_accuracy", "samples/null_token_accuracy"),
}
_CAUTION = (
    "These are numbers computed by and about a statistical model. Nothing here is a drug, and no sample was synthesised, measured or "
    "checked for safety. A likelihood is not an affinity."
)
_SYNTHETIC = "The data of this run are a synthetic world made up after textbooks; nothing here is a drug, or says anything about one. "


def write_report(run_folder: Path, path: Path | None = None, *, viewer: Path | None = None) -> Path:
    """Write the page, by default as `report.html` in the run folder, and return where it is; a run with traces also gets `traces.png`.

    Args:
        run_folder: of the run.
        path: of the page.
        viewer: a local 3Dmol.js, with which structures can be turned by hand; without it they turn by themselves.

    Raises:
        FormatError: if the folder is none, or one of its files or the viewer is not of the form that it should have.
    """
    loaded = Viewer.read(viewer) if viewer is not None else None
    traces = run_folder / "traces.json"
    if traces.is_file() and (found := read_traces(traces)):
        try:
            (run_folder / "traces.png").write_bytes(traces_png(found))
        except MissingDependencyError as error:
            log.info("traces.png: not drawn; %s", error)
    path = path or run_folder / "report.html"
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(render(run_folder, loaded), encoding="utf-8")
    os.replace(temporary, path)
    return path


def render(run_folder: Path, viewer: Viewer | None = None) -> str:
    """Return the page of a run, its structures in a viewer if one is given.

    Raises:
        FormatError: as `write_report`.
    """
    if not run_folder.is_dir():
        raise FormatError(f"{run_folder}: found no folder, expected the folder of a run; list yours with: protlig runs")
    config_text, config = _read_config(run_folder)
    name = str(config.get("name") or run_folder.resolve().name)
    metrics = read_metrics(run_folder / "metrics.jsonl")
    evaluation = run_folder / "evaluation.json"
    sections = read_evaluation(evaluation) if evaluation.is_file() else []
    is_synthetic = isinstance(config.get("data"), Mapping) and config["data"].get("kind") == "demo"
    caution = (_SYNTHETIC if is_synthetic else "") + _CAUTION
    body = [
        f"<h1>{escape(name)}</h1>",
        '<p class="soft">protlig report</p>',
        f'<p class="caution"><strong>Read with care.</strong> {escape(caution)}</p>',
        cards_html(_headlines(metrics, sections)),
        *(section_html(section) for section in sections),
        _curves_html(metrics),
        _traces_html(run_folder, is_interactive=viewer is not None),
        _samples_html(run_folder / "samples.csv"),
        _settings_html(run_folder, config_text),
        reproduction_html(run_folder, config, config_text),
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    elements = ""
    if viewer is not None and "data-trace" in "".join(body):
        elements, scripts = viewer.html(true_colour=TRUE, predicted_colour=PREDICTED)
        policy += f"; {scripts}"
    body += [
        f"<footer>One file, {'' if elements else 'no scripts, '}no network. Made by protlig report.</footer>",
        elements,
    ]
    css = resources.files("protlig_dd.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)} \u2013 protlig report</title><style>{css}</style>"
    )
    joined = "\n".join(part for part in body if part)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{joined}\n</main></body></html>\n'


def read_metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return (step, value) of each metric in a metrics.jsonl; a last line cut off by a stop is passed over.

    Raises:
        FormatError: for any other line that is not a JSON object with a step.
    """
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            step = float(values["step"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise FormatError(
                f"{path}:{number}: found {line[:60]!r}, expected a JSON object with a step; remove the line"
            ) from error
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append((step, float(value)))
    return found


def _read_config(run_folder: Path) -> tuple[str, dict[str, Any]]:
    for name in ("config.yaml", "config.json"):
        path = run_folder / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            try:
                config = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise FormatError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
            return text, config if isinstance(config, dict) else {}
    return "", {}


def _headlines(
    metrics: Mapping[str, list[tuple[float, float]]], sections: Sequence[Section]
) -> list[tuple[str, str, str]]:
    """The numbers to see first: the first scores of the first section that has any, then what the run was."""
    first = next((section.scores for section in sections if section.scores), ())
    told = [headline(score) for score in first[:4]]
    bound = metrics.get("validation/nll")
    if bound:
        step, best = min(bound, key=lambda point: point[1])
        told.append((f"{best:.3f}", f"at step {int(step):,}", "best validation bound, nats per token"))
    steps = max((points[-1][0] for points in metrics.values()), default=None)
    if steps is not None:
        told.append((f"{int(steps):,}", "", "training steps"))
    return told


def _curves_html(metrics: Mapping[str, list[tuple[float, float]]]) -> str:
    tasks: dict[str, dict[str, None]] = {}
    for name in metrics:
        parts = name.split("/")
        if len(parts) == 4 and parts[0] in ("train", "validation") and parts[1] == "nll":
            tasks.setdefault(parts[3], {})[parts[2]] = None
    charts = []
    for track, names in sorted(tasks.items()):
        curves = []
        for colour, task in zip(_cycle(len(names)), names, strict=True):
            curves.append(_curve(metrics, f"train/nll/{task}/{track}", f"{task}, training", colour, False))
            curves.append(_curve(metrics, f"validation/nll/{task}/{track}", f"{task}, validation", colour, True))
        charts.append(line_chart(f"Bound on {track}", curves, y_label="nats per token"))
    for title, names_ in _SMALL_CHARTS.items():
        curves = [
            _curve(metrics, name, name, COLOURS[i], name.startswith("validation")) for i, name in enumerate(names_)
        ]
        charts.append(line_chart(title.capitalize(), curves))
    drawn = "".join(charts)
    if not drawn:
        return ""
    note = "Validation is the bound itself. Training values are means over the noise levels met, which a curriculum shifts."
    return f'<h2>Training</h2><p class="note">{note}</p><div class="charts">{drawn}</div>'


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _curve(
    metrics: Mapping[str, list[tuple[float, float]]], key: str, name: str, colour: str, is_strong: bool
) -> Curve:
    return Curve(name=name, points=tuple(metrics.get(key, ())), colour=colour, is_strong=is_strong)


def _traces_html(run_folder: Path, *, is_interactive: bool) -> str:
    path, picture = run_folder / "traces.json", run_folder / "traces.png"
    traces = read_traces(path) if path.is_file() else []
    return traces_html(traces, png=picture.read_bytes() if picture.is_file() else b"", is_interactive=is_interactive)


def _samples_html(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(newline="", encoding="utf-8") as file:
        try:
            rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: not readable as CSV: {error}") from error
    if not rows:
        return "<h2>Samples</h2><p>The file of samples is empty.</p>"
    figures, reason = [], ""
    for row in rows[:NUM_SHOWN]:
        row = {key: value for key, value in row.items() if isinstance(key, str) and isinstance(value, str)}
        smiles = row.pop("ligand", None) or row.pop("smiles", None) or ""
        drawing = ""
        if smiles:
            try:
                drawing = molecule(smiles) or '<div class="none">not a molecule</div>'
            except MissingDependencyError as error:
                reason = str(error)
        figures.append(f'<figure class="molecule">{drawing}{_facts_html(row, smiles)}</figure>')
    note = f"The first {len(figures)} of {len(rows):,} samples in the order of the file, invalid ones included."
    drawn = f'<p class="note">Not drawn: {escape(reason)}</p>' if reason else ""
    return f'<h2>Samples</h2><p class="note">{note}</p>{drawn}<div class="molecules">{"".join(figures)}</div>'


def _facts_html(row: Mapping[str, str], smiles: str) -> str:
    badge = ""
    if row.get("matched", "") != "":
        is_match = row["matched"].strip().lower() in ("1", "1.0", "true", "yes")
        badge = (
            f'<span class="badge {"yes" if is_match else "no"}">{"matches" if is_match else "does not match"}</span>'
        )
    facts = [("ligand", f"<code>{escape(smiles)}</code>")] if smiles else []
    texts = [track for track in ("protein", "structure") if row.get(track)]
    facts += [(track, f"<code>{escape(_shortened(row[track]))}</code>") for track in texts]
    facts += [(k, escape(v)) for k, v in row.items() if k not in ("matched", "id", *texts) and v and len(v) <= 40]
    return badge + "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in facts) + "</dl>"


def _shortened(sequence: str, limit: int = 90) -> str:
    return sequence if len(sequence) <= limit else f"{sequence[:40]} \u2026 {sequence[-40:]} ({len(sequence)})"


def _settings_html(run_folder: Path, config_text: str) -> str:
    parts = []
    data = run_folder / "data.txt"
    if data.is_file():
        parts.append(f"<h3>Data</h3><pre>{escape(data.read_text(encoding='utf-8', errors='replace').rstrip())}</pre>")
    if config_text:
        parts.append(
            f"<details open><summary>All settings of the run</summary><pre>{escape(config_text.rstrip())}</pre></details>"
        )
    return "<h2>Data and settings</h2>" + "".join(parts) if parts else ""
