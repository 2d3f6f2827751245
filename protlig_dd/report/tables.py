"""Sections of an evaluation as HTML: scores with their intervals and nulls, tables, heat maps. Every text that comes in is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from protlig_dd.evaluation.intervals import Score
from protlig_dd.evaluation.sections import Cell, Section, Table
from protlig_dd.report.drawings import interval_strip


def cards_html(headlines: Sequence[tuple[str, str, str]]) -> str:
    """Return the (number, interval or null beside it, meaning) triples that open a report."""
    cards = "".join(
        f'<div class="card"><b>{escape(number)}</b><small>{escape(beside)}</small><span>{escape(text)}</span></div>'
        for number, beside, text in headlines
    )
    return f'<div class="cards">{cards}</div>' if cards else ""


def headline(score: Score) -> tuple[str, str, str]:
    """Return the card of a score: its value, its interval and null, its name."""
    number, _, interval = str(score.value).partition(" ")
    null = f"{score.null_name} {str(score.null).partition(' ')[0]}" if score.null is not None else ""
    return (
        number,
        ", ".join(part.replace(", ", " \u2013 ").strip("[]") for part in (interval, null) if part),
        score.name,
    )


def section_html(section: Section) -> str:
    """Return a section: title, caution, scores, tables, lines."""
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.caution:
        parts.append(f'<p class="caution">{escape(section.caution)}</p>')
    if section.scores:
        parts.append(scores_html(section.scores))
    parts += [table_html(table) for table in section.tables]
    if section.lines:
        parts.append(f"<pre>{escape(chr(10).join(section.lines))}</pre>")
    return "".join(parts)


def scores_html(scores: Sequence[Score]) -> str:
    """Return scores as a table; those between 0 and 1 get a strip with value, interval and null."""
    strips = [_strip(score) for score in scores]
    has = {
        "strip": any(strips),
        "null": any(score.null is not None for score in scores),
        "note": any(score.note for score in scores),
    }
    head = ["what", "value and 95 % interval", *(["0 to 1"] if has["strip"] else []), "samples"]
    head += [*(["null"] if has["null"] else []), *(["note"] if has["note"] else [])]
    rows = []
    for score, strip in zip(scores, strips, strict=True):
        cells = [f'<th scope="row">{escape(score.name)}</th>', f'<td class="value">{escape(str(score.value))}</td>']
        if has["strip"]:
            cells.append(f"<td>{strip}</td>")
        cells.append(f'<td class="number">{score.value.num:,}</td>')
        if has["null"]:
            null = (
                ""
                if score.null is None
                else f"{escape(str(score.null))} <span class='soft'>{escape(score.null_name)}</span>"
            )
            cells.append(f"<td>{null}</td>")
        if has["note"]:
            cells.append(f'<td class="soft">{escape(score.note)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    top = "".join(f"<th scope='col'>{text}</th>" for text in head)
    return f'<div class="scroll"><table class="scores"><thead><tr>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _strip(score: Score) -> str:
    value, low, high = score.value.value, score.value.low, score.value.high
    null = None if score.null is None else score.null.value
    known = [x for x in (value, low, high, null) if x is not None and not math.isnan(x)]
    if not score.value.has_interval or not all(0 <= x <= 1 for x in known):
        return ""
    return interval_strip(value, low, high, null if null is not None and not math.isnan(null) else None)


def table_html(table: Table) -> str:
    """Return a table; a heat map is shaded by each cell's share of its row."""
    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    top = "".join(f"<th scope='col'><span>{escape(column)}</span></th>" for column in table.columns)
    rows = []
    for i, (label, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        total = float(sum(c for c in cells if isinstance(c, int | float) and c > 0)) or 1.0
        drawn = "".join(_cell(cell, table, total, is_on=table.diagonal and i == j) for j, cell in enumerate(cells))
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{drawn}</tr>')
    kind = "heat" if table.heat else "plain"
    return f'{title}<div class="scroll"><table class="{kind}"><thead><tr><td></td>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _cell(cell: Cell, table: Table, total: float, *, is_on: bool) -> str:
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
    text = "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else f"{cell:,}" if is_number else str(cell)
    mark = " on" if is_on else ""
    if not (table.heat and is_number):
        return f'<td class="{"number" if is_number else "text"}{mark}">{escape(text)}</td>'
    assert isinstance(cell, int | float)
    share = max(0.0, min(1.0, cell / total))
    # White to Okabe-Ito blue (0, 114, 178); light cells keep dark text.
    red, green, blue = (round(255 + share * (end - 255)) for end in (0, 114, 178))
    ink = "#fff" if share > 0.55 else "#8a929c" if cell == 0 else "#1d2530"
    return f'<td class="number{mark}" style="background:rgb({red},{green},{blue});color:{ink}">{escape(text)}</td>'
