"""The result of an evaluation: sections of scores, tables and lines, and their JSON form.

`evaluation.json` is a list of sections:

    [{"title": str, "caution": str,
      "scores": [{"name": str, "value": number | null, "low": number | null, "high": number | null, "num": int,
                  "null": number | null, "null_low": number | null, "null_high": number | null, "null_num": int,
                  "null_name": str, "note": str}],
      "tables": [{"title": str, "rows": [str], "columns": [str], "cells": [[str | number | null]], "heat": bool, "diagonal": bool}],
      "lines": [str]}]

All keys but "title" (of sections), "name" and "value" (of scores), "rows", "columns" and "cells" (of tables) may be absent. `null` means
unknown: the value of an empty list, the interval of a single value, the null of a score without one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protlig_dd.documents import read_json
from protlig_dd.errors import FormatError
from protlig_dd.evaluation.intervals import Estimate, Score
from protlig_dd.files import write_text

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts and numbers.

    Attributes:
        title: the heading of the table.
        rows: the label of each row.
        columns: the label of each column of cells.
        cells: a row of cells for each label in `rows`.
        heat: whether cells are shaded by their share of the row's sum.
        diagonal: whether the cells on the diagonal, where the counts should be, are framed.
    """

    title: str = ""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    heat: bool = False
    diagonal: bool = False

    def __post_init__(self) -> None:
        """Check once that the cells fit the labels.

        Raises:
            ValueError: if they do not.
        """
        widths = {len(row) for row in self.cells}
        if len(self.cells) != len(self.rows) or widths - {len(self.columns)}:
            raise ValueError(
                f"table '{self.title}': found {len(self.cells)} rows of {sorted(widths)} cells, "
                f"expected {len(self.rows)} of {len(self.columns)}"
            )

    def lines(self) -> list[str]:
        """Return the table as aligned lines of text, under its title."""
        texts = [
            ("", *self.columns),
            *((row, *("" if c is None else str(c) for c in cells)) for row, cells in zip(self.rows, self.cells, strict=True)),
        ]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        return [self.title, *("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in texts)]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of an evaluation with its own title.

    Attributes:
        title: what was evaluated.
        caution: what the numbers do not say, in plain words; shown above them.
        scores: numbers with intervals and nulls.
        tables: tables.
        lines: further lines of text.
    """

    title: str
    caution: str = ""
    scores: tuple[Score, ...] = ()
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()


def write_evaluation(path: Path, sections: Sequence[Section]) -> None:
    """Write sections as JSON, whole or not at all."""
    plain = [
        {
            "title": section.title,
            "caution": section.caution,
            "scores": [_score_to_json(score) for score in section.scores],
            "tables": [asdict(table) | {"cells": [list(map(_cell_to_json, r)) for r in table.cells]} for table in section.tables],
            "lines": list(section.lines),
        }
        for section in sections
    ]
    write_text(path, json.dumps(plain, indent=1, allow_nan=False) + "\n")


def read_evaluation(path: Path) -> list[Section]:
    """Return the sections of a file made by `write_evaluation`.

    Raises:
        FormatError: if it is not JSON of that form, naming the section.
    """
    plain = read_json(path, "make it again with: protlig evaluate RUN")
    if not isinstance(plain, list):
        raise FormatError(f"{path}: found {type(plain).__name__}, expected a list of sections; make it again with: protlig evaluate RUN")
    sections = []
    for number, item in enumerate(plain, 1):
        try:
            sections.append(_section_from_json(item))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise FormatError(
                f"{path}: section {number}: {type(error).__name__} {error}; make the file again with: protlig evaluate RUN"
            ) from error
    return sections


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON takes it: None if it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None


def _cell_to_json(cell: Cell) -> Cell:
    return finite_or_none(cell) if isinstance(cell, float) else cell


def _score_to_json(score: Score) -> dict[str, Any]:
    return {
        "name": score.name,
        **_estimate_to_json(score.value, "value", ""),
        **_estimate_to_json(score.null or Estimate.missing(), "null", "null_"),
        "null_name": score.null_name,
        "note": score.note,
    }


def _estimate_to_json(estimate: Estimate, name: str, prefix: str) -> dict[str, Any]:
    ends = {f"{prefix}{end}": finite_or_none(getattr(estimate, end)) for end in ("low", "high")}
    return {name: finite_or_none(estimate.value), **ends, f"{prefix}num": estimate.num}


def _section_from_json(item: Mapping[str, Any]) -> Section:
    return Section(
        title=str(item["title"]),
        caution=str(item.get("caution", "")),
        scores=tuple(_score_from_json(score) for score in item.get("scores", ())),
        tables=tuple(
            Table(
                title=str(table.get("title", "")),
                rows=tuple(map(str, table["rows"])),
                columns=tuple(map(str, table["columns"])),
                cells=tuple(tuple(row) for row in table["cells"]),
                heat=bool(table.get("heat", False)),
                diagonal=bool(table.get("diagonal", False)),
            )
            for table in item.get("tables", ())
        ),
        lines=tuple(map(str, item.get("lines", ()))),
    )


def _score_from_json(item: Mapping[str, Any]) -> Score:
    value = _estimate_from_json(item["value"], item.get("low"), item.get("high"), item.get("num", 1))
    null = _estimate_from_json(item.get("null"), item.get("null_low"), item.get("null_high"), item.get("null_num", 1))
    return Score(
        name=str(item["name"]),
        value=value,
        null=None if math.isnan(null.value) else null,
        null_name=str(item.get("null_name", "")),
        note=str(item.get("note", "")),
    )


def _estimate_from_json(value: float | None, low: float | None, high: float | None, num: int) -> Estimate:
    if value is None:
        return Estimate.missing()
    if low is None or high is None:
        return Estimate.plain(value, int(num))
    return Estimate(value=float(value), low=float(low), high=float(high), num=int(num))
