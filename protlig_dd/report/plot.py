"""A plot in the style of all of ours, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from protlig_dd.errors import require


def plot_png(paint: Callable[[Any], None], purpose: str) -> bytes:
    """Return a picture of 6.4 x 4.2 inches; it is drawn without pyplot, which would keep it in memory and need a display.

    Args:
        paint: draws on matplotlib axes; labels become the legend.
        purpose: what needs matplotlib, for the error.

    Raises:
        MissingDependencyError: if matplotlib is absent.
    """
    figures = require("matplotlib.figure", purpose, extra="plot")
    figure = figures.Figure(figsize=(6.4, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    paint(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
