"""A run as one self-contained HTML page: what it reached, its curves, tables, molecules, settings, and how to make it again.

The page is a function of the files in the run folder, any of which may be absent:

    config.yaml          the settings (or config.json); shown as they stand
    metrics.jsonl        one JSON object a line: {"step": int, "seconds": number, "<name>": number | null ...}; names drawn are
                         train/nll/<task>/<track>, validation/nll/<task>/<track>, train/loss, validation/nll, train/lr, train/grad_norm,
                         speed/tokens_per_second
    evaluation.json      sections; the form stands in `sections.py`
    samples.csv          generated samples in the order to show them: columns "ligand" (or "smiles"), "protein", any of them, and
                         optionally "matched" (1/0, true/false, yes/no); other short columns are shown as they are
    traces.json          predicted C-alpha traces beside the true ones (`traces.py`)
    data.txt             what was read, line by line
    reproduction.json    {"command": str, "seed": int, "versions": {package: version}, ...}, made by `write_reproduction`

It holds no script and refers to nothing on a network; a content policy in its head keeps browsers from fetching anything. Everything that
comes from a file is escaped.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from protlig_dd import __version__
from protlig_dd.errors import FormatError, MissingDependencyError
from protlig_dd.evaluation.drawings import COLOURS, Curve, line_chart, molecule
from protlig_dd.evaluation.sections import Section, Table, read_evaluation, write_evaluation
from protlig_dd.evaluation.tables import cards_html, headline, section_html
from protlig_dd.evaluation.traces import traces_html

__all__ = ["Section", "Table", "render", "write_evaluation", "write_report", "write_reproduction"]

NUM_SHOWN = 12
_PACKAGES = ("torch", "numpy", "rdkit")
_SMALL_CHARTS = {
    "loss": ("train/loss", "validation/nll"),
    "learning rate": ("train/lr",),
    "gradient norm": ("train/grad_norm",),
    "tokens per second": ("speed/tokens_per_second",),
}
_CAUTION = (
    "These are numbers computed by and about a statistical model. Nothing here is a drug, and no sample was synthesised, measured or "
    "checked for safety. A likelihood is not an affinity."
)
_SYNTHETIC = "The data of this run are a synthetic world made up after textbooks; nothing here is a drug, or says anything about one. "


def write_report(run_folder: Path, path: Path | None = None) -> Path:
    """Write the page, by default as `report.html` in the run folder, and return where it is.

    Raises:
        FormatError: if the folder is none, or one of its files is not of the form that the module's docstring gives.
    """
    path = path or run_folder / "report.html"
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(render(run_folder), encoding="utf-8")
    os.replace(temporary, path)
    return path


def write_reproduction(run_folder: Path, *, command: str, seed: int, **more: str | int | float) -> None:
    """Write `reproduction.json`: the command, the seed, the versions of what computed it, and anything else worth a line."""
    card = {"command": command, "seed": seed, "versions": _versions(), **more}
    (run_folder / "reproduction.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def render(run_folder: Path) -> str:
    """Return the page of a run.

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
        '<p class="soft">protlig report: protein\u2013ligand discrete diffusion</p>',
        f'<p class="caution"><strong>Read with care.</strong> {escape(caution)}</p>',
        cards_html(_headlines(metrics, sections)),
        *(section_html(section) for section in sections),
        _curves_html(metrics),
        traces_html(run_folder / "traces.json"),
        _samples_html(run_folder / "samples.csv"),
        _settings_html(run_folder, config_text),
        _reproduction_html(run_folder, config, config_text),
        "<footer>One file, no scripts, no network. Made by protlig report.</footer>",
    ]
    css = resources.files("protlig_dd.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
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
    if row.get("protein"):
        facts.append(("protein", f"<code>{escape(_shortened(row['protein']))}</code>"))
    facts += [(k, escape(v)) for k, v in row.items() if k not in ("matched", "protein", "id") and v and len(v) <= 40]
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


def _reproduction_html(run_folder: Path, config: Mapping[str, Any], config_text: str) -> str:
    path, card = run_folder / "reproduction.json", {}
    if path.is_file():
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FormatError(f"{path}: not JSON ({error}); remove it") from error
        if not isinstance(card, dict):
            raise FormatError(
                f"{path}: found {type(card).__name__}, expected an object with command and seed; remove it"
            )
    facts: dict[str, Any] = {"command": "not recorded", "seed": config.get("seed", "not recorded"), **card}
    versions = facts.pop("versions", None)
    label = "versions" if versions else "versions, of this report"
    facts[label] = ", ".join(f"{k} {v}" for k, v in _items(versions or _versions()))
    if config_text:
        facts["settings, SHA-256"] = hashlib.sha256(config_text.encode()).hexdigest()
    rows = "".join(f"<dt>{escape(str(k))}</dt><dd><code>{escape(str(v))}</code></dd>" for k, v in facts.items())
    return f'<h2>To make it again</h2><dl class="facts">{rows}</dl>'


def _items(versions: Any) -> Iterable[tuple[str, Any]]:
    return versions.items() if isinstance(versions, Mapping) else [("", versions)]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "protlig_dd": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
