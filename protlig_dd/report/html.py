"""HTML from the templates in `templates/`, rendered by jinja2 with escaping on, and the filters that these use.

Only what a template marks `safe` is not escaped: our own SVG and the scripts of `viewer.py`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jinja2

from protlig_dd.evaluation.intervals import Score
from protlig_dd.evaluation.sections import Cell
from protlig_dd.evaluation.trace_pairs import best_median_worst
from protlig_dd.report.drawings import interval_strip
from protlig_dd.report.trace_pictures import trace_svg


def render_template(template: str, **values: Any) -> str:
    """Return a page: a template of `templates/` with these values, every text in them escaped."""
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("protlig_dd.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"strip": _strip, "shade": _shade, "text": cell_text, "chosen": best_median_worst, "svg": trace_svg}
    return environment


def headline(score: Score) -> tuple[str, str, str]:
    """Return the card of a score: its value, its interval and null, its name."""
    number, _, interval = str(score.value).partition(" ")
    null = f"{score.null_name} {str(score.null).partition(' ')[0]}" if score.null is not None else ""
    parts = (part.replace(", ", " \u2013 ").strip("[]") for part in (interval, null) if part)
    return number, ", ".join(parts), score.name


def cell_text(cell: Cell) -> str:
    """Return a cell of a table as text: four digits of a float, thousands of an int separated, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def _strip(score: Score) -> str:
    """The strip from 0 to 1 of a score; empty unless its value, interval and null are all in that range."""
    value, low, high = score.value.value, score.value.low, score.value.high
    null = None if score.null is None or math.isnan(score.null.value) else score.null.value
    known = [x for x in (value, low, high, null) if x is not None and not math.isnan(x)]
    if not score.value.has_interval or not all(0 <= x <= 1 for x in known):
        return ""
    return interval_strip(value, low, high, null)


def _shade(cell: int | float, row: tuple[Cell, ...]) -> str:
    """The style of a number in a heat map, shaded by its share of the sum of its row."""
    total = float(sum(c for c in row if isinstance(c, int | float) and c > 0)) or 1.0
    share = max(0.0, min(1.0, cell / total))
    # White to Okabe-Ito blue (0, 114, 178); light cells keep dark text.
    red, green, blue = (round(255 + share * (end - 255)) for end in (0, 114, 178))
    ink = "#fff" if share > 0.55 else "#8a929c" if cell == 0 else "#1d2530"
    return f"background:rgb({red},{green},{blue});color:{ink}"
