"""The gallery and the cards of a report: what is shown first."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from protlig_dd.errors import FormatError
from protlig_dd.evaluation.intervals import Estimate, Score
from protlig_dd.evaluation.sections import Section, write_evaluation
from protlig_dd.report.gallery import read_gallery
from protlig_dd.report.page import render

pytest.importorskip("rdkit.Chem", reason="drawing molecules needs RDKit")


def write_samples(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "samples.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def section(title: str, *names: str) -> Section:
    return Section(title=title, scores=tuple(Score(name=name, value=Estimate(value=0.5, low=0.4, high=0.6, num=9)) for name in names))


def cards(page: str) -> list[str]:
    """The names on the cards, in their order."""
    return [part.partition("</span>")[0] for part in page.split('<div class="card">')[1:] for part in [part.partition("<span>")[2]]]


def test_condition_gap_specificity_and_validity_come_first(tmp_path: Path) -> None:
    bounds = section("Likelihood bound", *(f"nats per token, {i}" for i in range(5)))
    gap = section("Condition dependence", "condition gap, ligand_given_protein", "nats per token, true pairs")
    samples = section("Samples", "validity", "uniqueness")
    specificity = section("Specificity", "specificity: the nearest active is one of the own target", "specificity: difference")
    write_evaluation(tmp_path / "evaluation.json", [bounds, gap, samples, specificity])
    assert cards(render(tmp_path)) == ["condition gap, ligand_given_protein", specificity.scores[0].name, "validity", "nats per token, 0"]
    write_evaluation(tmp_path / "evaluation.json", [bounds])
    assert cards(render(tmp_path)) == [f"nats per token, {i}" for i in range(4)]


def test_samples_are_grouped_by_target_with_the_valid_ones_first(tmp_path: Path) -> None:
    rows = [{"id": i, "name": "P1", "protein": "MKT", "ligand": "C("} for i in range(12)]
    rows += [{"id": 12, "name": "P1", "protein": "MKT", "ligand": "CCO"}, {"id": 13, "name": "P2", "protein": "MV", "ligand": "c1ccccc1"}]
    rows += [{"id": 14, "name": "P0", "protein": "MA", "ligand": "((("}]
    found = read_gallery(write_samples(tmp_path, rows))
    assert found is not None
    assert [(group.name, group.num, group.num_valid) for group in found.groups] == [("P1", 13, 1), ("P2", 1, 1), ("P0", 1, 0)]
    assert [dict(sample["texts"])["ligand"] for sample in found.groups[0].shown] == ["CCO", "C(", "C(", "C("]
    assert found.note == "6 of 15 samples, for 3 of 3 names, valid molecules first; 13 of 15 (87%) are not molecules."
    page = render(tmp_path)
    assert page.index("<h3>P1</h3>") < page.index('aria-label="CCO"') < page.index("not a molecule</div>") < page.index("<h3>P2</h3>")
    assert "13 samples, 1 valid." in page


def test_the_nearest_known_active_is_drawn_and_named_beside_a_sample(tmp_path: Path) -> None:
    rows = [{"name": "P1", "ligand": "CCO", "nearest_active": "CCCO", "similarity": 0.5}, {"name": "P1", "ligand": "CCN"}]
    write_samples(tmp_path, rows)
    page = render(tmp_path)
    assert 'aria-label="CCCO"' in page and "<code>CCCO  (0.5)</code>" in page
    assert page.count("nearest known active") == 1 and "<dt>similarity</dt>" not in page


def test_samples_with_names_of_their_own_are_one_group(tmp_path: Path) -> None:
    found = read_gallery(write_samples(tmp_path, [{"name": f"n{i}", "ligand": "C(" if i < 20 else "CC"} for i in range(24)]))
    assert found is not None and len(found.groups) == 1 and found.groups[0].name == ""
    assert [dict(sample["facts"])["name"] for sample in found.groups[0].shown[:5]] == ["n20", "n21", "n22", "n23", "n0"]
    assert len(found.groups[0].shown) == 12


def test_other_texts_stay_in_their_order_and_an_empty_file_is_told(tmp_path: Path) -> None:
    found = read_gallery(write_samples(tmp_path, [{"name": "a", "structure": "dvd"}, {"name": "a", "structure": "vvv"}]))
    assert found is not None and found.num_valid is None and found.note == "2 of 2 samples, in the order of the file."
    (tmp_path / "samples.csv").write_text("id,name\n")
    assert "The file of samples is empty." in render(tmp_path)
    assert read_gallery(tmp_path / "none.csv") is None
    (tmp_path / "samples.csv").write_bytes(b"a,b\n\xff,\xff\n")
    with pytest.raises(FormatError, match="samples.csv: not readable as CSV"):
        read_gallery(tmp_path / "samples.csv")
