"""Pictures of predicted C-alpha traces over the true ones: SVG that turns in a page, and one PNG for print and documents.

The points of the SVG are animated through a full turn about the vertical axis; a viewer that does not animate shows the first view.
`viewer.py` has the view that is turned by hand.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from protlig_dd.errors import require
from protlig_dd.evaluation.trace_pairs import Coords, TracePair, best_median_worst, superposed

TRUE, PREDICTED = "#8a8f98", "#d1495b"
"""The colours of the two chains."""

_SIZE, _MARGIN = 260, 10  # pixels
_FRAMES, _SECONDS = 36, 12  # of a turn
_VIEWS = {"front": (0, 1), "side": (2, 1)}  # the axes of a turned trace in the picture's plane
_BAR = 10.0  # Angstrom


def upright(trace: TracePair) -> tuple[Coords, Coords]:
    """Return the truth and the superposed prediction, turned so that the truth's longest axis is vertical (y) and its shortest is depth (z)."""
    predicted, true = superposed(trace)
    axes = np.linalg.svd(true, full_matrices=False)[2] if len(true) > 2 else np.eye(3)
    turn = axes[[1, 0, 2]]
    turn[2] *= np.sign(np.linalg.det(turn))  # a proper rotation, so the picture is not mirrored
    return np.asarray(true @ turn.T), np.asarray(predicted @ turn.T)


def trace_svg(trace: TracePair) -> str:
    """Return the turning picture of one trace: the prediction over the truth."""
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


def traces_png(traces: Sequence[TracePair]) -> bytes:
    """Return a picture of the best, median and worst of some traces, each from the front and from the side, with a bar of 10 Angstrom.

    Raises:
        MissingDependencyError: if matplotlib is absent.
        ValueError: without any trace.
    """
    if not traces:
        raise ValueError("traces_png: found no trace, expected one at least")
    figures = require("matplotlib.figure", "drawing traces", extra="plot")
    chosen = best_median_worst(traces)
    figure = figures.Figure(figsize=(3.0 * len(chosen), 6.2), dpi=80, layout="constrained")
    grid = figure.subplots(2, len(chosen), squeeze=False)
    for column, (word, trace) in enumerate(chosen):
        chains = upright(trace)
        reach = 1.05 * max(float(np.abs(points).max()) for points in chains) + 1.0
        for axes, (view, plane) in zip(grid[:, column], _VIEWS.items(), strict=True):
            _draw(axes, chains, plane, reach)
            axes.set_xlabel(view, fontsize=8)
        title = f"{word}: {trace.name[:24]}\nRMSD {trace.rmsd:.2f} \u00c5, {len(trace.true)} residues"
        grid[0, column].set_title(title, fontsize=9, parse_math=False)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Any, chains: tuple[np.ndarray, np.ndarray], plane: tuple[int, int], reach: float) -> None:
    """One view, as wide as the chain is long; a dot is the first residue."""
    for points, colour, label in zip(chains, (TRUE, PREDICTED), ("true", "predicted"), strict=True):
        x, y = points[:, plane[0]], points[:, plane[1]]
        axes.plot(x, y, color=colour, label=label, linewidth=1.6, alpha=0.85, solid_joinstyle="round")
        axes.plot(x[:1], y[:1], color=colour, marker="o", markersize=3.5)
    axes.plot([-reach, -reach + _BAR], [-reach, -reach], color="#1d2530", linewidth=2)
    axes.annotate(f"{_BAR:g} \u00c5", (-reach, -0.93 * reach), fontsize=7, va="bottom")
    limits = (-1.03 * reach, 1.03 * reach)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
