"""Predicted C-alpha traces over the true ones: kept beside a run, written as PDB text, drawn turning in the report without a network.

The picture is SVG whose points are animated through a full turn about the vertical axis; where a viewer does not animate, it shows the
first view. Predictions are superposed on the truth first (proper rotations). Views for the mouse stand in `viewer.py`, pictures that
stand still in `trace_pictures.py`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float

from protlig_dd.errors import FormatError
from protlig_dd.evaluation.viewer import structures_html
from protlig_dd.geometry.superpose import rmsd, superpose

_SIZE, _MARGIN = 260, 10  # pixels
_FRAMES, _SECONDS = 36, 12
TRUE, PREDICTED = "#8a8f98", "#d1495b"
Coords = Float[np.ndarray, "l 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """A predicted chain and the true one, residue by residue, in Angstrom.

    Args:
        name: what the chain is called.
        predicted, true: C-alphas [l, 3]; finite.
    """

    name: str
    predicted: Coords
    true: Coords

    @property
    def rmsd(self) -> float:
        """Between the two after superposition, in Angstrom."""
        return rmsd(self.predicted, self.true)


def best_median_worst(traces: Sequence[Trace]) -> list[tuple[str, Trace]]:
    """Return the traces of least, middle and greatest RMSD, with these words; fewer where there are fewer."""
    ordered = sorted(traces, key=lambda trace: trace.rmsd)
    places = {"best": 0, "median": len(ordered) // 2, "worst": len(ordered) - 1}
    chosen = {place: word for word, place in reversed(places.items()) if 0 <= place < len(ordered)}
    return [(word, ordered[place]) for place, word in sorted(chosen.items())]


def write_traces(path: Path, traces: Sequence[Trace]) -> None:
    """Write traces as JSON, coordinates to a thousandth of an Angstrom."""
    rows = [
        {"name": one.name, "predicted": np.round(one.predicted, 3).tolist(), "true": np.round(one.true, 3).tolist()}
        for one in traces
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")


def read_traces(path: Path) -> list[Trace]:
    """Return the traces of a file that `write_traces` made.

    Raises:
        FormatError: if it holds anything else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = [
            Trace(
                name=str(row["name"]),
                predicted=np.asarray(row["predicted"], dtype=np.float64).reshape(-1, 3),
                true=np.asarray(row["true"], dtype=np.float64).reshape(-1, 3),
            )
            for row in rows
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"{path}: not readable as traces ({error}); evaluate the run again") from error
    for one in found:
        if len(one.predicted) != len(one.true) or not len(one.true) or not np.isfinite(one.predicted).all():
            raise FormatError(
                f"{path}: '{one.name}' has {len(one.predicted)} predicted and {len(one.true)} true places, expected as many, all finite"
            )
    return found


def superposed(trace: Trace) -> tuple[Coords, Coords]:
    """Return the prediction and the truth of a trace, the prediction moved onto the truth and both about the truth's centre."""
    centre = trace.true.mean(0)
    moved = superpose(trace.predicted, trace.true).apply(trace.predicted)
    return np.asarray(moved - centre), np.asarray(trace.true - centre)


def trace_pdb(trace: Trace) -> str:
    """Return a trace as the text of a PDB file: C-alphas only, the prediction (chain P) superposed on the truth (chain T).

    Residues are numbered from 1 and called UNK: a trace does not know them.
    """
    title = " ".join(trace.name.encode("ascii", "replace").decode().split())
    lines = [f"TITLE     {title[:44]}: P PREDICTED, T TRUE"]
    serial = 0
    for chain, points in zip("PT", superposed(trace), strict=True):
        for number, (x, y, z) in enumerate(points.tolist(), 1):
            serial += 1
            lines.append(
                f"ATOM  {serial % 100_000:5d}  CA  UNK {chain}{number % 10_000:4d}    {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{0:6.2f}          {'C':>2}"
            )
        serial += 1
        lines.append(f"TER   {serial % 100_000:5d}      UNK {chain}{number % 10_000:4d}")
    return "\n".join([*lines, "END", ""])


def upright(trace: Trace) -> tuple[Coords, Coords]:
    """Return the truth and the superposed prediction, turned so that the truth's longest axis stands (y) and its shortest is depth (z)."""
    predicted, true = superposed(trace)
    axes = np.linalg.svd(true, full_matrices=False)[2] if len(true) > 2 else np.eye(3)
    turn = axes[[1, 0, 2]]
    turn[2] *= np.sign(np.linalg.det(turn))  # a rotation: what is shown is no mirror image
    return np.asarray(true @ turn.T), np.asarray(predicted @ turn.T)


def trace_svg(trace: Trace) -> str:
    """Return the picture of one trace: the prediction over the truth, turning."""
    chains = upright(trace)
    radius = max(float(np.linalg.norm(points, axis=1).max()) for points in chains) or 1.0
    scale = (_SIZE / 2 - _MARGIN) / radius
    lines = "".join(_line(points * scale, colour) for points, colour in zip(chains, (TRUE, PREDICTED), strict=True))
    title = f"<title>{escape(trace.name)}: predicted (red) over true (grey)</title>"
    half = _SIZE / 2
    return f'<svg viewBox="{-half:g} {-half:g} {_SIZE} {_SIZE}" width="{_SIZE}" height="{_SIZE}" role="img">{title}{lines}</svg>'


def _line(points: Coords, colour: str) -> str:
    angles = np.arange(_FRAMES + 1) * 2 * np.pi / _FRAMES
    frames = [_flat(np.cos(a) * points[:, 0] + np.sin(a) * points[:, 2], points[:, 1]) for a in angles]
    turn = f'<animate attributeName="points" dur="{_SECONDS}s" repeatCount="indefinite" values="{";".join(frames)}"/>'
    return (
        f'<polyline points="{frames[0]}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" '
        f'stroke-opacity="0.85">{turn}</polyline>'
    )


def _flat(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.0f},{-b:.0f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def traces_html(traces: Sequence[Trace], *, png: bytes = b"", is_interactive: bool = False) -> str:
    """Return the report's part about traces: best, median and worst; "" where there are none.

    Args:
        traces: see `read_traces`.
        png: a picture of the same, to be shown below.
        is_interactive: leave places for `viewer.Viewer`, with the turning pictures for a browser that does not run it.
    """
    if not traces:
        return ""
    chosen = best_median_worst(traces)
    figures = [
        f'<figure class="molecule">{_view(i, trace) if is_interactive else trace_svg(trace)}<dl><dt>{word}</dt>'
        f"<dd>{escape(trace.name)}</dd><dt>RMSD</dt><dd>{trace.rmsd:.2f} \u00c5, {len(trace.true)} residues</dd></dl></figure>"
        for i, (word, trace) in enumerate(chosen)
    ]
    note = f"Predicted (red) over true (grey) C-alphas after superposition; best, median and worst of {len(traces)} by RMSD."
    if is_interactive:
        note += " Drag to turn, scroll to come nearer. Drawn by 3Dmol.js (BSD-3-Clause, 3dmol.org)."
    data = structures_html([trace_pdb(trace) for _, trace in chosen]) if is_interactive else ""
    return f'<h2>Structures</h2><p class="note">{note}</p><div class="molecules">{"".join(figures)}</div>{_still(png)}{data}'


def _view(number: int, trace: Trace) -> str:
    return f'<div class="viewer" data-trace="{number}"></div><noscript>{trace_svg(trace)}</noscript>'


def _still(png: bytes) -> str:
    if not png:
        return ""
    picture = f'<img alt="best, median and worst, from the front and the side" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    return f"<details><summary>As a picture (traces.png)</summary>{picture}</details>"
