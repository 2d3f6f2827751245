"""Tests of the report: every part of it, hostile text in every file, no network, and its display in a browser."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from protlig_dd.errors import FormatError
from protlig_dd.evaluation.intervals import Estimate, Score, wilson
from protlig_dd.evaluation.sections import Section, Table, read_evaluation, write_evaluation
from protlig_dd.report.drawings import Curve, line_chart, molecule, nice_ticks, tick_text
from protlig_dd.report.page import render, write_report
from protlig_dd.report.reproduction import write_reproduction

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>&\""
CONFIG = "name: demo run\nseed: 7\ndata: {kind: demo}\nnote: " + json.dumps(HOSTILE) + "\n"


def sections() -> list[Section]:
    heat = Table(
        title="Motif by group",
        rows=("zinc", "kinase"),
        columns=("hydroxamate", "pyrimidine", "invalid"),
        cells=((40, 3, 2), (0, 38, 1)),
        heat=True,
        diagonal=True,
    )
    plain = Table(rows=(HOSTILE,), columns=("text", "number", "none"), cells=((HOSTILE, 0.123456, None),))
    scores = (
        Score(name="matched", value=wilson(78, 84), null=wilson(7, 84), null_name="shuffled proteins", note="n" + HOSTILE),
        Score(name="nats per token", value=Estimate(value=1.5, low=1.4, high=1.6, num=84)),
        Score(name="scaffolds", value=Estimate.plain(31, 80)),
        Score(name="nothing", value=Estimate.missing()),
    )
    first = Section(title="Matching", caution="A synthetic world; nothing here is a drug.", scores=scores, tables=(heat,))
    return [first, Section(title="Other " + HOSTILE, caution=HOSTILE, tables=(plain,), lines=("a line", HOSTILE))]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    lines = []
    for step in range(50, 2050, 50):
        point = {"step": step, "seconds": step / 10, "train/loss": 3 * math.exp(-step / 500) + 1, "train/lr": 1e-3}
        point |= {"train/nll/ligand_given_protein/ligand": 2 * math.exp(-step / 700) + 1, "train/grad_norm": None}
        if step % 500 == 0:
            point |= {"validation/nll/ligand_given_protein/ligand": 1.1, "validation/nll": 1.25, HOSTILE: 1.0}
        lines.append(json.dumps(point))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 2050, "train/lo')
    write_evaluation(folder / "evaluation.json", sections())
    with (folder / "samples.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "name", "protein", "ligand", "matched", "nll_per_token"])
        rows.writerow([0, "p1", "MKTHELTHAV", "CC(=O)NO", "1", 0.81])
        rows.writerow([1, HOSTILE, HOSTILE, "c1ccccc", "0", 1.4])
        rows.writerow([2, "p3", "M" * 300, "NC(=N)c1ccccc1", "", ""])
    (folder / "data.txt").write_text(f"data: demo\n{HOSTILE}\n")
    write_reproduction(folder, command=f"./run_train.sh --cpu {HOSTILE}", seed=7, device="cpu")
    return folder


class Reader(HTMLParser):
    """Collects tags and attributes, and checks that tags nest."""

    VOID = {"meta", "br", "img", "hr", "input", "link", "line", "circle", "rect", "polyline", "path", "ellipse", "polygon"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_holds_every_part_in_plain_words(run_folder: Path) -> None:
    text = " ".join("".join(read(render(run_folder)).text).split())
    for words in (
        "demo run",
        "a synthetic world made up after textbooks; nothing here is a drug",
        "A likelihood is not an affinity.",
        "0.93 [0.85, 0.97]",
        "0.08 [0.04, 0.16] shuffled proteins",
        "Motif by group",
        "Bound on ligand",
        "ligand_given_protein, validation",
        "1.250at step 500best validation bound",
        "2,000training steps",
        "0.930.85 \u2013 0.97, shuffled proteins 0.08matched",
        "3 of 3 samples, valid molecules first; 1 of 3 (33%) are not molecules.",
        "does not match",
        "nll_per_token0.81",
        "(300)",
        "seed: 7",
        "data: demo",
        "./run_train.sh --cpu",
        "torch 2.",
    ):
        assert words in text, words


def test_hostile_text_from_any_file_stays_text(run_folder: Path) -> None:
    page = render(run_folder)
    reader = read(page)
    tags = {tag for tag, _ in reader.seen}
    assert not tags & {"script", "img", "iframe", "link", "object", "embed", "form", "a", "use", "image"}, tags
    assert not [name for _, attributes in reader.seen for name in attributes if name.startswith("on")]
    assert "".join(reader.text).count("<script>alert('x')</script>") >= 10


def test_the_page_refers_to_nothing_outside_itself(run_folder: Path) -> None:
    reader = read(render(run_folder))
    referring = {"src", "href", "xlink:href", "srcset", "action", "poster", "data", "background", "cite", "ping"}
    assert not [(tag, name) for tag, attributes in reader.seen for name in attributes if name in referring]
    styles = [a["style"] or "" for _, a in reader.seen if "style" in a]
    css = re.findall(r"<style>(.*?)</style>", render(run_folder), flags=re.DOTALL)
    assert len(css) == 1
    assert not re.search(r"url\(|@import|https?:|//", " ".join([*styles, *css]))
    assert "default-src 'none'" in render(run_folder)


def test_molecules_are_drawn_and_other_strings_are_reported_as_none(run_folder: Path) -> None:
    pytest.importorskip("rdkit.Chem", reason="drawing molecules needs RDKit")
    reader = read(render(run_folder))
    labels = [a.get("aria-label") for tag, a in reader.seen if tag == "svg"]
    assert "CC(=O)NO" in labels and "NC(=N)c1ccccc1" in labels and "c1ccccc" not in labels
    assert "".join(reader.text).count("not a molecule") == 1
    drawing = molecule("CC(=O)NO")
    assert drawing is not None and "xmlns" not in drawing and "<?xml" not in drawing and "<path" in drawing


def test_heat_cells_are_shaded_by_their_share_of_the_row_and_the_diagonal_is_framed(run_folder: Path) -> None:
    cells = [a for tag, a in read(render(run_folder)).seen if tag == "td" and "background" in (a.get("style") or "")]
    assert len(cells) == 6
    assert [i for i, cell in enumerate(cells) if "on" in (cell["class"] or "").split()] == [0, 4]
    share = 40 / 45
    red, green, blue = (round(255 + share * (end - 255)) for end in (0, 114, 178))
    assert f"background:rgb({red},{green},{blue})" in (cells[0]["style"] or "")
    assert "background:rgb(255,255,255)" in (cells[3]["style"] or "")


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.jsonl", "evaluation.json", "samples.csv", "data.txt", "reproduction.json"])
def test_any_file_may_be_absent(run_folder: Path, missing: str) -> None:
    (run_folder / missing).unlink()
    read(render(run_folder))


def test_an_empty_folder_gives_a_page_and_no_folder_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "nothing yet"
    folder.mkdir()
    path = write_report(folder)
    assert path == folder / "report.html"
    assert "nothing yet" in path.read_text() and "not recorded" in path.read_text()
    assert [p.name for p in folder.iterdir()] == ["report.html"]
    with pytest.raises(FormatError, match="absent: found no folder, expected the folder of a run"):
        render(tmp_path / "absent")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metrics.jsonl", 'x\n{"step": 1}\n', r"metrics.jsonl:1: found 'x', expected a JSON object with a step"),
        ("config.yaml", "a: [", r"config.yaml: not readable as YAML"),
        ("evaluation.json", "{", r"evaluation.json: not readable as JSON"),
        ("evaluation.json", "{}", r"evaluation.json: found dict, expected a list of sections"),
        ("evaluation.json", '[{"title": "a"}, {"scores": 3}]', r"evaluation.json: section 2: KeyError 'title'"),
        ("evaluation.json", '[{"title": "a", "tables": [{"rows": ["r"], "columns": [], "cells": []}]}]', "section 1: ValueError"),
        ("reproduction.json", "[]", r"reproduction.json: found list, expected a JSON object; remove it"),
    ],
)
def test_a_file_of_another_form_is_named(run_folder: Path, file: str, text: str, message: str) -> None:
    (run_folder / file).write_text(text)
    with pytest.raises(FormatError, match=message):
        render(run_folder)


def test_an_evaluation_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    write_evaluation(path, sections())
    again = read_evaluation(path)
    assert [str(s) for s in again] == [str(s) for s in sections()]
    plain = json.loads(path.read_text())
    assert list(plain[0]) == ["title", "caution", "scores", "tables", "lines"]
    assert plain[0]["scores"][3]["value"] is None
    minimal = '[{"title": "t", "scores": [{"name": "a", "value": 0.5, "low": 0.4, "high": 0.6, "null": 0.1, "null_name": "n"}]}]'
    path.write_text(minimal)
    (section,) = read_evaluation(path)
    assert str(section.scores[0]) == "a  0.50 [0.40, 0.60]  n=1  null 0.1 (n)"
    write_evaluation(path, [Section(title="t", tables=(Table(rows=("r",), columns=("c",), cells=((math.nan,),)),))])
    assert read_evaluation(path)[0].tables[0].cells == ((None,),)


def test_a_table_whose_cells_do_not_fit_its_labels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"table 't': found 1 rows of \[2\] cells, expected 1 of 1"):
        Table(title="t", rows=("a",), columns=("b",), cells=((1, 2),))


def test_a_chart_keeps_its_lines_inside_and_thins_long_ones() -> None:
    points = tuple((float(i), math.sin(i / 200)) for i in range(5000))
    chart = line_chart("a & b", [Curve(name="c<d", points=points, colour="#000")])
    (line,) = re.findall(r'<polyline points="([^"]*)"', chart)
    places = [tuple(map(float, p.split(","))) for p in line.split()]
    assert len(places) == 300
    assert all(58 <= x <= 546 and 12 <= y <= 220 for x, y in places)
    assert min(y for _, y in places) < 40 and max(y for _, y in places) > 190
    assert "a &amp; b" in chart and "c&lt;d" in chart
    assert line_chart("t", [Curve(name="n", points=((1.0, math.nan),), colour="#000")]) == ""
    assert "<circle" in line_chart("t", [Curve(name="n", points=((1.0, 2.0),), colour="#000")])
    read(chart)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 4000, [0, 1000, 2000, 3000, 4000]), (1.02, 1.09, [1.02, 1.04, 1.06, 1.08]), (3, 3, [3])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == expected


def test_ticks_are_written_shortly() -> None:
    assert [tick_text(x) for x in (0, 0.25, 1500, 2e6, 1e-5, -3000)] == ["0", "0.25", "1.5k", "2M", "1e-05", "-3k"]


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install it to see the report as a browser does")
def test_a_browser_without_a_network_shows_the_tables(run_folder: Path, tmp_path: Path) -> None:
    page = write_report(run_folder)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-extensions"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [str(CHROMIUM), *flags, *offline, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    reader = read(shown.stdout)
    tables = [a.get("class") for tag, a in reader.seen if tag == "table"]
    assert tables == ["scores", "heat", "plain"]
    assert sum(tag == "svg" for tag, _ in reader.seen) >= 5
    assert "0.93 [0.85, 0.97]" in "".join(reader.text)
    assert not [tag for tag, _ in reader.seen if tag in ("script", "img")]


def test_samples_of_structures_are_shown_and_long_ones_shortened(tmp_path: Path) -> None:
    (tmp_path / "samples.csv").write_text(f"id,name,structure,rank\n0,p1,{'d' * 50}{'v' * 50},1\n1,p2,dvd,1\n")
    page = write_report(tmp_path).read_text()
    assert f"<dt>structure</dt><dd><code>{'d' * 40} … {'v' * 40} (100)</code></dd>" in page
    assert page.count("<dt>structure</dt>") == 2 and "<code>dvd</code>" in page
