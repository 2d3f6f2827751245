"""A study as one self-contained HTML page: the law with its verdicts, the pictures, the curves, the budgets and the runs."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protlig_dd.evaluation.sections import Cell, Section, Table
from protlig_dd.report.html import render_template
from protlig_dd.scaling.analysis import CONVENTION, Analysis
from protlig_dd.scaling.fits import Parameter

_CAPTIONS = {
    "loss_vs_size": "Points are runs, lines the fitted law at each amount of data.",
    "isoflop": "Runs of one compute; a star is the minimum of the parabola.",
    "predicted": "Squares were held out: a law of the smaller runs predicts them, with its 95 % interval.",
}
_CAUTION = (
    "A law is a summary of the runs below it and holds where they are; it says nothing about models that were trained otherwise. "
    "Intervals are of the fit, over resampled runs, not of a single run's noise."
)


def render(
    title: str, analysis: Analysis, *, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes], notes: Sequence[str] = ()
) -> str:
    """Return the page; its markup is in `report/templates/study.html`.

    Args:
        title: title of the page.
        analysis: the fitted law and everything derived from it.
        rows: a table row for each run, all with the same keys, "name" among them.
        pictures: PNG by name.
        notes: lines shown with the law, such as the true floor.
    """
    drawn = [(n, base64.b64encode(png).decode(), _CAPTIONS.get(n, n)) for n, png in pictures.items()]
    return render_template(
        "study.html",
        title=title,
        caution=_CAUTION,
        cards=_cards(analysis),
        law=_law(analysis, notes),
        pictures=drawn,
        sections=[*_others(analysis), _runs(rows)],
    )


def _cards(analysis: Analysis) -> list[tuple[str, str, str]]:
    law = analysis.law
    if not law.is_fitted:
        return [("none", "", "law of size and data: not identifiable from these runs"), (str(len(analysis.runs)), "", "runs")]
    cards = []
    for name, what in (("alpha", "exponent of size"), ("beta", "exponent of data"), ("E", "floor")):
        p = law.parameter(name)
        interval = f"{p.low:.3g} \u2013 {p.high:.3g}" if p.is_identified else "not identifiable"
        cards.append((f"{p.value:.3g}", interval, f"{name}, {what}"))
    held = analysis.held_out
    if held is not None and not math.isnan(held.error):
        cards.append((f"{held.error:.2%}", f"null {held.null_error:.2%}", "error on held-out larger runs"))
    return cards


def _law(analysis: Analysis, notes: Sequence[str]) -> Section:
    law = analysis.law
    tables = (_parameters("", law.parameters),) if law.parameters else ()
    lines = [*notes, f"verdict: {law.verdict}"]
    if not math.isnan(law.p_value):
        lines.append(f"against a constant: p = {law.p_value:.2g} (F-test)")
        lines.append(f"a run predicted from the others: relative error {law.cross_validated:.2g}, by their mean {law.constant:.2g}")
    return Section(title="L(N, D) = E + A / N^alpha + B / D^beta", tables=tables, lines=tuple(lines))


def _parameters(title: str, parameters: Sequence[Parameter]) -> Table:
    return Table(
        title=title,
        rows=tuple(p.name for p in parameters),
        columns=("value", "95 % from", "to", "verdict"),
        cells=tuple((p.value, _cell(p.low), _cell(p.high), p.reason or "identified") for p in parameters),
    )


def _cell(value: float) -> Cell:
    return None if math.isnan(value) else value


def _others(analysis: Analysis) -> list[Section]:
    sections = []
    held = analysis.held_out
    if held is not None:
        predicted = held.predicted if len(held.predicted) else np.full(len(held.runs), np.nan)
        cells = tuple((float(loss), _cell(float(p)), held.null) for loss, p in zip(held.runs.losses, predicted, strict=True))
        table = Table(rows=held.runs.names, columns=("observed", "predicted", "null"), cells=cells)
        sections.append(Section(title="The largest runs, held out", tables=(table,), lines=(held.verdict,)))
    curves = [*analysis.over_params, *analysis.over_tokens]
    if curves:
        names = tuple(f"{'N' if c.over == 'params' else 'D'} at {'D' if c.over == 'params' else 'N'} = {c.level:.3g}" for c in curves)
        triples: list[list[Cell]] = [[_between((p.value, p.low, p.high)) for p in c.parameters] or [None] * 3 for c in curves]
        cells_ = tuple((*triple, c.verdict) for triple, c in zip(triples, curves, strict=True))
        table = Table(rows=names, columns=("a", "b", "c", "verdict"), cells=cells_)
        sections.append(Section(title="One variable: a * x^-b + c", tables=(table,)))
    if analysis.iso_flops:
        minima = tuple((_cell(one.best_params), one.verdict) for one in analysis.iso_flops)
        rows = tuple(f"C = {one.compute:.3g}" for one in analysis.iso_flops)
        tables = [Table(rows=rows, columns=("best N", "verdict"), cells=minima)]
        if analysis.frontier:
            tables.append(_parameters("N_opt = k C^p", analysis.frontier))
        sections.append(Section(title="IsoFLOP minima", tables=tuple(tables), lines=(CONVENTION,)))
    if analysis.optima:
        best = tuple((_between(one.params), _between(one.tokens), _between(one.loss), one.reason) for one in analysis.optima)
        rows = tuple(f"C = {one.compute:.3g}" for one in analysis.optima)
        table = Table(rows=rows, columns=("N_opt", "D_opt", "L", "why not to trust it"), cells=best)
        counted = analysis.flops_constant
        notes = (CONVENTION, f"these runs count {counted:.3g} N D") if not math.isnan(counted) else (CONVENTION,)
        sections.append(Section(title="Best size and data for a compute", tables=(table,), lines=notes))
    return sections


def _between(triple: tuple[float, float, float]) -> str:
    return "{:.3g} [{:.3g}, {:.3g}]".format(*triple)


def _runs(rows: Sequence[Mapping[str, Any]]) -> Section:
    columns = tuple(key for key in rows[0] if key != "name")
    cells = tuple(tuple(row[key] for key in columns) for row in rows)
    table = Table(rows=tuple(str(row["name"]) for row in rows), columns=columns, cells=cells)
    return Section(title="Runs", tables=(table,))
