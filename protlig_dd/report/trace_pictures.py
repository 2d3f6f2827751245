"""Predicted traces over true ones as one PNG picture that moves nowhere: for print, for documents, and for who opens no page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from protlig_dd.errors import require
from protlig_dd.evaluation.traces import Trace, best_median_worst
from protlig_dd.report.traces import PREDICTED, TRUE, upright

_VIEWS = {"front": (0, 1), "side": (2, 1)}  # the axes of a turned trace that lie in the picture's plane
_BAR = 10.0  # Angstrom


def traces_png(traces: Sequence[Trace]) -> bytes:
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
        grid[0, column].set_title(
            f"{word}: {trace.name[:24]}\nRMSD {trace.rmsd:.2f} \u00c5, {len(trace.true)} residues",
            fontsize=9,
            parse_math=False,
        )
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
    axes.set(
        xlim=(-1.03 * reach, 1.03 * reach), ylim=(-1.03 * reach, 1.03 * reach), aspect="equal", xticks=[], yticks=[]
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
