"""The three pictures of a study, as PNG: loss against size by data, loss at fixed compute, and predicted against observed loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from protlig_dd.report.drawings import COLOURS
from protlig_dd.report.plot import plot_png
from protlig_dd.scaling.analysis import Analysis
from protlig_dd.scaling.runs import levels


def draw(analysis: Analysis) -> dict[str, bytes]:
    """Return PNG pictures by name: "loss_vs_size", "isoflop" (if runs share a compute) and "predicted" (if a law was fitted).

    Raises:
        MissingDependencyError: if matplotlib is absent.
    """
    pictures = {"loss_vs_size": _png(analysis, _loss_vs_size)}
    if analysis.iso_flops:
        pictures["isoflop"] = _png(analysis, _isoflop)
    if analysis.law.is_fitted:
        pictures["predicted"] = _png(analysis, _predicted)
    return pictures


def write(folder: Path, pictures: dict[str, bytes]) -> None:
    """Write each picture as NAME.png."""
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(picture)


def _png(analysis: Analysis, paint: Any) -> bytes:
    return plot_png(lambda axes: paint(axes, analysis), "drawing scaling plots")


def _label(analysis: Analysis) -> str:
    runs = analysis.runs
    return runs.metric if runs.ceiling is None else f"{runs.ceiling:g} - {runs.metric}"


def _loss_vs_size(axes: Any, analysis: Analysis) -> None:
    runs, law = analysis.runs, analysis.law.law
    sizes = np.geomspace(runs.params.min(), runs.params.max(), 100)
    for i, rows in enumerate(levels(runs.tokens)):
        colour = COLOURS[i % len(COLOURS)]
        tokens = float(np.exp(np.log(runs.tokens[rows]).mean()))
        axes.plot(runs.params[rows], runs.losses[rows], "o", color=colour, label=f"D = {tokens:.3g} tokens")
        if law is not None:
            axes.plot(sizes, law.loss(sizes, tokens), "-", color=colour, linewidth=1)
    if law is not None and analysis.law.parameter("E").is_identified:
        axes.axhline(law.E, color="#8a929c", linestyle="--", linewidth=1, label=f"fitted E = {law.E:.4g}")
    axes.set(xscale="log", yscale="log", xlabel="N, parameters", ylabel=_label(analysis))
    axes.set_title("Loss against size" + ("" if law is not None else ": no law could be fitted"), fontsize=10)


def _isoflop(axes: Any, analysis: Analysis) -> None:
    for i, one in enumerate(analysis.iso_flops):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(one.params, one.losses, "o", color=colour, label=f"C = {one.compute:.3g}")
        sizes = np.geomspace(one.params.min(), one.params.max(), 100)
        axes.plot(sizes, np.exp(np.polyval(one.quadratic, np.log(sizes))), "-", color=colour, linewidth=1)
        if np.isfinite(one.best_params):
            height = float(np.exp(np.polyval(one.quadratic, np.log(one.best_params))))
            axes.plot([one.best_params], [height], "*", color=colour, markersize=11)
    axes.set(xscale="log", yscale="log", xlabel="N, parameters", ylabel=_label(analysis))
    axes.set_title("Loss at fixed compute (C = 6ND); stars are minima", fontsize=10)


def _predicted(axes: Any, analysis: Analysis) -> None:
    runs, law, held = analysis.runs, analysis.law.law, analysis.held_out
    assert law is not None
    ends = np.array([runs.losses.min(), runs.losses.max()])
    axes.plot(ends, ends, "-", color="#8a929c", linewidth=1, label="equal")
    axes.plot(runs.losses, law.loss(runs.params, runs.tokens), "o", color=COLOURS[0], label="fitted to all runs")
    if held is not None and len(held.predicted):
        error = np.stack([held.predicted - held.low, held.high - held.predicted])
        axes.errorbar(held.runs.losses, held.predicted, yerr=error, fmt="s", color=COLOURS[1], label="held out, largest runs")
    axes.set(xlabel=f"observed {_label(analysis)}", ylabel="predicted")
    axes.set_title("Predicted against observed", fontsize=10)
