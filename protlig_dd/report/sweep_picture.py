"""The picture of a sweep of learning rates, as PNG: the validation value by learning rate, a line for each batch size and round."""

from __future__ import annotations

from functools import partial
from typing import Any

from protlig_dd.errors import require
from protlig_dd.evaluation.sweep import Sweep
from protlig_dd.report.drawings import COLOURS
from protlig_dd.report.plot import plot_png


def require_drawing() -> None:
    """Check that the package that draws is there.

    Raises:
        MissingDependencyError: if matplotlib is absent.
    """
    require("matplotlib.figure", "drawing the sweep", extra="plot")


def draw_sweep(sweep: Sweep) -> bytes:
    """Return the picture. A cross at the top is a training that diverged.

    Raises:
        MissingDependencyError: if matplotlib is absent.
    """
    return plot_png(partial(_paint, sweep), "drawing the sweep")


def _paint(sweep: Sweep, axes: Any) -> None:
    for trials, style, name in ((sweep.first, "o--", "all"), (sweep.last, "o-", "longer")):
        for i, batch in enumerate(sweep.batches):
            found = sorted((t for t in trials if t.batch == batch and not t.diverged), key=lambda t: t.lr)
            if found:
                label = f"{batch:,} {sweep.unit}" + f", {name}" * bool(sweep.last)
                width = 1 if name == "all" and sweep.last else 2
                axes.plot([t.lr for t in found], [t.nll for t in found], style, color=COLOURS[i % len(COLOURS)], lw=width, label=label)
    value, name = sweep.null
    axes.axhline(value, color="#8a929c", linestyle=":", label=name)
    if sweep.best is not None:
        axes.plot([sweep.best.lr], [sweep.best.nll], "*", color="#444444", markersize=13, label="best")
    bad = [t.lr for t in (*sweep.first, *sweep.last) if t.diverged]
    if bad:
        axes.plot(bad, [0.98] * len(bad), "x", color="#d55e00", transform=axes.get_xaxis_transform(), label="diverged")
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation, nats per token")
