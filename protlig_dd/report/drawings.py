"""Pictures for a report, each a self-contained string of SVG: curves, intervals, molecules.

RDKit draws the molecules; the rest is written here. Every text that is passed in is escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from protlig_dd.errors import require

# Okabe and Ito's colours for the colour-blind, without yellow, which fades on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444")
Place = Callable[[float | int, float | int], tuple[float, float]]
_MAX_POINTS = 300
_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 40


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: the name in the legend.
        points: (x, y) in order of x; points that are not finite are left out.
        colour: colour of the line, as in CSS.
        is_strong: whether the line is thick with a dot at each point, or thin.
        is_dashed: whether the line is dashed.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str
    is_strong: bool = False
    is_dashed: bool = False


def line_chart(title: str, curves: Sequence[Curve], *, x_label: str = "step", y_label: str = "") -> str:
    """Return a chart with axes and a legend, empty without points; long curves are averaged over equal stretches."""
    shown = [(curve, _thinned(curve.points)) for curve in curves]
    shown = [(curve, points) for curve, points in shown if points]
    if not shown:
        return ""
    xs = [x for _, points in shown for x, _ in points]
    ys = [y for _, points in shown for _, y in points]
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    (x_low, x_high), (y_low, y_high) = _ends(xs + x_ticks), _ends(ys + y_ticks)

    def place(x: float | int, y: float | int) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [*_axes(x_ticks, y_ticks, place, x_label, y_label)]
    for curve, points in shown:
        places = [place(x, y) for x, y in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        width, opacity = (2.2, 1) if curve.is_strong else (1.3, 0.65)
        stroke = f'fill="none" stroke="{escape(curve.colour)}" stroke-width="{width}" stroke-opacity="{opacity}"'
        dashes = ' stroke-dasharray="5 4"' if curve.is_dashed else ""
        parts.append(f'<polyline points="{line}" {stroke}{dashes} stroke-linejoin="round"/>')
        if curve.is_strong or len(places) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8" fill="{escape(curve.colour)}"/>' for x, y in places]
    legend = "".join(
        f'<span class="key"><i style="background:{escape(c.colour)};height:{4 if c.is_strong else 2}px"></i>{escape(c.name)}</span>'
        for c, _ in shown
    )
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{svg}<div class="legend">{legend}</div></figure>'


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The range of some values, widened if they are all equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axes(x_ticks: list[float], y_ticks: list[float], place: Place, x_label: str, y_label: str) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in y_ticks:
        _, y = place(0, tick)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e6ea"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_text(tick)}</text>')
    for tick in x_ticks:
        x, _ = place(tick, 0)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}" stroke="#8a929c"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{tick_text(tick)}</text>')
    parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#8a929c"/>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})">{escape(y_label)}</text>')
    return parts


def nice_ticks(low: float | int, high: float | int, count: int = 5) -> list[float]:
    """Return about `count` round numbers between low and high, or a single number if they are equal."""
    if not high > low:
        return [float(low)]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(float(i * step), 12) for i in range(first, last + 1)] or [float(low)]


def tick_text(value: float | int) -> str:
    """Return a number as an axis shows it: 1500 as "1.5k", 0.001 as "0.001", 2e-05 as "2e-05"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.4g}"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    kept = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(kept) <= _MAX_POINTS:
        return kept
    stretches = np.array_split(np.array(kept), _MAX_POINTS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in stretches]


def interval_strip(value: float, low: float, high: float, null: float | None) -> str:
    """Return a strip from 0 to 1 with the value as a dot, its interval as a bar and the null as a hollow mark."""
    width = 120

    def at(x: float | int) -> float:
        return round(6 + x * (width - 12), 1)

    bar = ""
    if not math.isnan(low):
        thickness = max(at(high) - at(low), 1.5)
        style = 'height="6" rx="2" fill="#0072b2" fill-opacity="0.45"'
        bar = f'<rect x="{at(low)}" y="6" width="{thickness:.1f}" {style}/>'
    mark = ""
    if null is not None:
        mark = f'<circle cx="{at(null)}" cy="9" r="3.4" fill="#fff" stroke="#8a929c" stroke-width="1.4"/>'
    axis = f'<line x1="6" x2="{width - 6}" y1="9" y2="9" stroke="#d5dae0"/>'
    dot = f'<circle cx="{at(value)}" cy="9" r="2.6" fill="#0072b2"/>'
    return f'<svg class="strip" viewBox="0 0 {width} 18" width="{width}" height="18" aria-hidden="true">{axis}{bar}{mark}{dot}</svg>'


def molecule(smiles: str, *, width: int = 260, height: int = 170) -> str | None:
    """Return the drawing of a molecule, or None if the string is not a molecule.

    Raises:
        MissingDependencyError: if RDKit is absent.
    """
    chem = require("rdkit.Chem", "drawing molecules", extra="ligand")
    draw = require("rdkit.Chem.Draw.rdMolDraw2D", "drawing molecules", extra="ligand")
    with require("rdkit.rdBase", "drawing molecules", extra="ligand").BlockLogs():
        mol = chem.MolFromSmiles(smiles)
        if mol is None or not mol.GetNumAtoms():
            return None
        canvas = draw.MolDraw2DSVG(width, height)
        options = canvas.drawOptions()
        options.clearBackground = False
        options.bondLineWidth = 1.5
        options.fixedBondLength = 24.0  # small molecules are not enlarged to fill the frame
        draw.PrepareAndDrawMolecule(canvas, mol)
    canvas.FinishDrawing()
    svg = str(canvas.GetDrawingText())
    svg = re.sub(r"<\?xml[^>]*\?>|<!--.*?-->|\sxmlns(:\w+)?='[^']*'|\sclass='[^']*'", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(smiles)}" ', 1).strip()
