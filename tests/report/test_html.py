"""Tests of the templates: what they ask for is there, and what they are given stays text."""

from __future__ import annotations

import math
from pathlib import Path

import jinja2
import pytest

import protlig_dd.report
from protlig_dd.evaluation.intervals import Estimate, Score
from protlig_dd.evaluation.sections import Section, Table
from protlig_dd.report.html import cell_text, render_template

HOSTILE = "<b>\"x\" & 'y'</b>"
ESCAPED = "&lt;b&gt;&#34;x&#34; &amp; &#39;y&#39;&lt;/b&gt;"
TEMPLATES = Path(protlig_dd.report.__file__).parent / "templates"


def study(**changes: object) -> str:
    values = {"title": "t", "caution": "", "cards": [], "law": Section(title="L"), "pictures": [], "sections": []}
    return render_template("study.html", **(values | changes))


def test_everything_a_study_is_given_stays_text() -> None:
    score = Score(name=HOSTILE, value=Estimate.plain(2, 1), null=Estimate.plain(1, 1), null_name=HOSTILE, note=HOSTILE)
    table = Table(title=HOSTILE, rows=(HOSTILE,), columns=(HOSTILE,), cells=((HOSTILE,),))
    law = Section(title=HOSTILE, caution=HOSTILE, scores=(score,), tables=(table,), lines=(HOSTILE, HOSTILE))
    page = study(title=HOSTILE, caution=HOSTILE, cards=[(HOSTILE,) * 3], law=law, pictures=[(HOSTILE, "", HOSTILE)])
    assert HOSTILE not in page and page.count(ESCAPED) == 19


def test_a_value_that_a_template_asks_for_and_does_not_get_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'one' is undefined|'law' is undefined"):
        render_template("study.html", title="t", caution="", cards=[], pictures=[], sections=[])


def test_lines_of_a_section_keep_their_breaks_and_blanks() -> None:
    assert "<pre>a\n  b</pre>" in study(law=Section(title="t", lines=("a", "  b")))


def test_cells_are_written_by_their_kind() -> None:
    cells = (0.123456, 12345, True, None, "a", math.inf)
    assert [cell_text(cell) for cell in cells] == ["0.1235", "12,345", "True", "", "a", "inf"]


def test_only_our_own_drawings_and_scripts_are_marked_safe() -> None:
    found = [line for path in sorted(TEMPLATES.glob("*.html")) for line in path.read_text().split("{{") if "|safe" in line]
    named = {line.partition("|safe")[0].strip() for line in found}
    assert named == {
        "score|strip", "charts", "trace|svg", "sample.drawing", "sample.nearest", "scripts.policy", "scripts.data", "scripts.elements",
    }  # fmt: skip
