"""Affinities in tables: numbers as people write them, their unit, and limits such as ">10000".

All cells of the column are looked at before the first is read: whether a comma is a decimal mark, and which unit a column without one in its
name has, is decided by all of them, or not at all.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from protlig_dd.config import settings

MISSING = frozenset({"", "nan", "none", "na", "n/a", "null", "nd", "n.d.", "-"})
"""Cells, in lower case, that stand for no value."""

Unit = Literal["auto", "p", "M", "mM", "uM", "nM", "pM", "as_given"]

_EXPONENTS = {"M": 0, "mM": 3, "uM": 6, "nM": 9, "pM": 12}
_LEAST, _MOST = -2.0, 16.0  # -log10 M of 100 M and of 0.1 fM: no measured affinity lies outside
_WEAK = 2.0  # 10 mM; half of a column below it is no column of -log10 M
_CELL = re.compile(r"([<>=~≈≤≥]*)\s*([+-]?[\d.,]*\d[.,]?(?:e[+-]?\d+)?)\s*([pnuµμm]?M)?", re.IGNORECASE)
_GROUP = re.compile(r"(?<=\d)[ '’\u00a0\u202f](?=\d{3}(?!\d))")
_POINT = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d*)?(?:e[+-]?\d+)?", re.IGNORECASE)
_NAMED_UNIT = re.compile(r"(?:^|[^a-z])(pm|nm|um|mm|m|(?:pico|nano|micro|milli)?molar)$")
_WORDS = {"molar": "M", "millimolar": "mM", "micromolar": "uM", "nanomolar": "nM", "picomolar": "pM", **{u.lower(): u for u in _EXPONENTS}}
_MEASURES = {"kd", "ki", "ic50", "ec50"}
_INFINITE = "affinity that is not finite, left out"
_LIMIT = "affinity given as a limit (< or >)"


@settings
class AffinityPolicy:
    """How the affinity column of a table is read.

    Args:
        unit: "p" for -log10 of the molar value, "M", "mM", "uM", "nM" or "pM" for concentrations, which become -log10 M, or "as_given" for
            another scale, which is kept (docking scores). "auto" takes the unit from the column's name (`pKd`, `Kd (nM)`, `ki_um`); without
            one, values from 0 to 16 are -log10 M, and others are in doubt. A cell with a unit of its own ("5 nM") keeps that.
        limits: what a limit such as ">10000" counts as: "leave_out" is no affinity (the pair stays), "as_values" the number.
        decimal: the decimal mark, "point" or "comma"; "auto" finds it from all cells.
    """

    unit: Unit = "auto"
    limits: Literal["leave_out", "as_values"] = "leave_out"
    decimal: Literal["auto", "point", "comma"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How the cells of one column are read.

    Args:
        unit: as in `AffinityPolicy`, never "auto"; "" if it is in doubt.
        comma: whether the decimal mark is a comma.
        limits: as in `AffinityPolicy`.
        about: the unit in words, with the reason; or the doubt, with what to do.
    """

    unit: str
    comma: bool = False
    limits: str = "leave_out"
    about: str = ""

    @property
    def in_doubt(self) -> bool:
        """Whether no cell can be read."""
        return not self.unit

    def read(self, text: str) -> tuple[float | None, str]:
        """Return the affinity of a cell, None if there is none, and a remark for the report or "".

        Raises:
            ValueError: if the cell is no number.
        """
        if text.lower() in MISSING:
            return None, ""
        if text.lower().lstrip("+-") in ("inf", "infinity"):
            return None, _INFINITE
        relation, number, own = _parts(text)
        value = _number(number, comma=self.comma)
        if value is None:
            raise ValueError(text)
        if self.in_doubt:
            return None, f"affinity left out: {self.about}"
        is_limit = any(mark in relation for mark in "<>≤≥")
        if is_limit and self.limits == "leave_out":
            return None, f"{_LIMIT}, left out"
        unit = _WORDS.get(own.replace("µ", "u").replace("μ", "u").lower(), self.unit) if own else self.unit
        if unit in _EXPONENTS:
            value = _EXPONENTS[unit] - math.log10(value) if value > 0 else math.nan
        if unit == "as_given" and not math.isfinite(value):
            return None, _INFINITE
        if unit != "as_given" and not _LEAST <= value <= _MOST:
            return None, f"affinity out of range, left out (expected -log10 M from {_LEAST:g} to {_MOST:g})"
        return value, f"{_LIMIT}, taken as the value" if is_limit else ""


def _parts(text: str) -> tuple[str, str, str]:
    found = _CELL.fullmatch(_GROUP.sub("", text))
    if found is None:
        raise ValueError(text)
    return found[1], found[2], found[3] or ""


def _number(text: str, *, comma: bool) -> float | None:
    """The number, or None if its marks do not stand where the decimal mark puts them."""
    plain = text.translate(str.maketrans(".,", ",.")) if comma else text
    return float(plain.replace(",", "")) if _POINT.fullmatch(plain) and any(c.isdigit() for c in plain) else None


def _decimal_mark(number: str) -> str:
    """The mark that can only be the decimal one in a number, "?" for a comma that may be either, "" if the number has neither."""
    whole = number.lower().partition("e")[0].lstrip("+-")
    commas, points = whole.count(","), whole.count(".")
    if commas and points:
        return max(",.", key=whole.rfind)
    if commas + points == 0:
        return ""
    mark, other = (",", ".") if commas else (".", ",")
    if commas + points > 1:
        return other
    before, after = whole.split(mark)
    decides = len(after) != 3 or not before or len(before) > 3 or before.startswith("0")
    return mark if decides else "?" if commas else ""


@dataclass(kw_only=True)
class _Range:
    """The range of the numbers of a column, and how many are too small for -log10 M."""

    count: int = 0
    weak: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        self.weak += value < _WEAK
        self.low, self.high = min(self.low, value), max(self.high, value)


class Survey:
    """What all cells of a column look like: an example of each decimal mark, and their range under either."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}
        self._ranges = {".": _Range(), ",": _Range()}

    def add(self, cell: str) -> None:
        """Take in a cell; one that is no number is ignored, and refused by `Scale.read`, with its line."""
        try:
            _, number, own = _parts(cell)
        except ValueError:
            return
        mark = _decimal_mark(number)
        self._marks.setdefault(mark, number)
        for either in (mark,) if mark in self._ranges else self._ranges:
            value = None if own else _number(number, comma=either == ",")
            if value is not None and math.isfinite(value):
                self._ranges[either].add(value)

    def scale(self, column: str, policy: AffinityPolicy) -> Scale:
        """Return how the column of this name is read."""
        marks, mark = self._marks, {"point": ".", "comma": ","}.get(policy.decimal, "")
        if not mark and "," in marks and "." in marks:
            return Scale(unit="", about=f"'{marks[',']}' and '{marks['.']}' have different decimal marks; set data.affinity.decimal")
        if not mark and "?" in marks and not {",", "."} & set(marks):
            return Scale(unit="", about=f"'{marks['?']}' may be thousands or decimals; set data.affinity.decimal=point or comma")
        mark = mark or ("," if "," in marks else ".")
        unit, about = _unit(column, self._ranges[mark], policy)
        return Scale(unit=unit, comma=mark == ",", limits=policy.limits, about=about)


def _unit(column: str, seen: _Range, policy: AffinityPolicy) -> tuple[str, str]:
    """The unit and its description; "" and the doubt."""
    unit, reason = (policy.unit, "as data.affinity.unit says") if policy.unit != "auto" else (unit_of(column), "by the column's name")
    advice = "set data.affinity.unit, for example to nM, p (-log10 M) or as_given"
    found = f"the values of '{column}' from {seen.low:.4g} to {seen.high:.4g}"
    if not unit:
        if not seen.count:
            return "p", "-log10 M"
        if base_of(column) in _MEASURES:
            return "", f"{found} have no unit; {advice}"
        if seen.low < 0 or seen.high > _MOST:
            hint = "; they look like concentrations, such as nM" if seen.low >= 0 else ""
            return "", f"{found} are not -log10 M{hint}; {advice}"
        if seen.weak * 2 > seen.count:
            return "", f"{found} are too small for -log10 M, half of them below {_WEAK:g}; {advice}"
        unit, reason = "p", "by their range"
    words = {"p": "-log10 M", "as_given": "as given"}.get(unit, f"-log10 M from {unit}")
    return unit, f"{words}, {reason}"


def unit_of(column: str) -> str:
    """Return the unit that a column's name says, "" for none.

    >>> [unit_of(name) for name in ("pKd", "Kd (nM)", "ki_um", "affinity", "Kd [µM]", "kiba_score", "-log10(Ki)")]
    ['p', 'nM', 'uM', '', 'uM', 'as_given', 'p']
    """
    name = _simple(column)
    if re.match(r"p_?(k[adi]?|[ie]c50|affinity|chembl)", name) or re.search(r"(neg|minus|-)_?log", name):
        return "p"
    if "kiba" in name:
        return "as_given"
    found = _NAMED_UNIT.search(name)
    return _WORDS[found[1]] if found else ""


def base_of(column: str) -> str:
    """Return a column's name without its unit, in lower case with underscores: "kd" for "Kd (nM)"."""
    return re.sub(r"[^0-9a-z]+", "_", _NAMED_UNIT.sub("", _simple(column))).strip("_")


def _simple(column: str) -> str:
    return re.sub(r"[^0-9a-z-]+", "_", column.replace("µ", "u").replace("μ", "u").lower()).strip("_")
