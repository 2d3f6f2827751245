"""Traces as pictures: predicted C-alphas over the true ones, as SVG that turns, or beside the interactive viewer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from protlig_dd.evaluation.traces import Coords, Trace, best_median_worst, superposed, trace_pdb
from protlig_dd.report.viewer import structures_html

_SIZE, _MARGIN = 260, 10  # pixels


_FRAMES, _SECONDS = 36, 12


TRUE, PREDICTED = "#8a8f98", "#d1495b"


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
