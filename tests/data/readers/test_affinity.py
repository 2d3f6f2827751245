"""Affinities: numbers as people write them, units by name and by option, limits by one rule, and a line where a column is in doubt."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from protlig_dd.config import build
from protlig_dd.data.bundle import load
from protlig_dd.data.downloads.converters import convert_bindingdb
from protlig_dd.data.inspect import inspect
from protlig_dd.data.readers.affinity import AffinityPolicy, Survey, unit_of
from protlig_dd.data.readers.complexes import open_pairs, read_pairs
from protlig_dd.data.settings import DataSettings, PairData
from protlig_dd.data.splits import RandomSplit
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack

TRACKS = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
AS_VALUES = AffinityPolicy(limits="as_values")


def column(tmp_path: Path, name: str, cells: list[str], sep: str = ";") -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join([sep.join(["protein", "smiles", name]), *(sep.join(["MKTAYIAK", "CCO", cell]) for cell in cells)]) + "\n")
    return path


def affinities(path: Path, policy: AffinityPolicy | None = None) -> list[float | None]:
    return [record.affinity for record in read_pairs(path, affinity=policy)]


@pytest.mark.parametrize(
    ("name", "cell", "expected"),
    [
        *(("kd_nm", "1", 9.0), ("kd_nm", "1000", 6.0), ("Kd (nM)", "10", 8.0), ("KI [nM]", "0.1", 10.0), ("IC50 nM", "1e4", 5.0)),
        *(("ec50_um", "1", 6.0), ("Kd (µM)", "2.5", 5.60206), ("kd_pm", "5", 11.30103), ("ki_mm", "1", 3.0), ("Kd (M)", "1e-9", 9.0)),
        *(("pKd", "7.5", 7.5), ("pIC50", "4", 4.0), ("pChEMBL Value", "6.1", 6.1), ("neg_log10_affinity_m", "-1", -1.0)),
        *(("kiba_score", "17.2", 17.2), ("affinity (nM)", "5", 8.30103), ("binding_affinity_nanomolar", "5", 8.30103)),
        *(("affinity", "7.5", 7.5), ("affinity", "5 nM", 8.30103), ("affinity", "0.2uM", 6.69897), ("kd_um", "3 nM", 8.52288)),
    ],
)
def test_the_unit_is_that_of_the_name_or_of_the_cell(tmp_path: Path, name: str, cell: str, expected: float) -> None:
    assert affinities(column(tmp_path, name, [cell])) == [pytest.approx(expected, abs=1e-5)]


@pytest.mark.parametrize("unit", ["M", "mM", "uM", "nM", "pM"])
def test_the_option_gives_the_unit_of_a_column_without_one(tmp_path: Path, unit: str) -> None:
    power = {"M": 0, "mM": 3, "uM": 6, "nM": 9, "pM": 12}[unit]
    path = column(tmp_path, "Y", ["2.5", "10"])
    assert affinities(path, AffinityPolicy(unit=unit)) == pytest.approx([power - 0.39794, power - 1], abs=1e-5)
    assert affinities(path, AffinityPolicy(unit="as_given")) == [2.5, 10.0]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["7,5", "6,25"], [7.5, 6.25]),
        (["7,5", "1.234,5"], [7.5, 1234.5]),
        (["10,000", "0.5", "1,234,567"], [10000.0, 0.5, 1234567.0]),
        (["1,234.5", "12"], [1234.5, 12.0]),
        (["0,125", "3,250"], [0.125, 3.25]),
        (["1 000", "2'500", "5"], [1000.0, 2500.0, 5.0]),
        (["1e-3", "2.E2", ".5"], [0.001, 200.0, 0.5]),
        (["n/a", "ND", "-", "", "5"], [None, None, None, None, 5.0]),
    ],
)
def test_thousands_and_decimal_commas_are_told_apart_by_all_cells(tmp_path: Path, cells: list[str], expected: list[float | None]) -> None:
    assert affinities(column(tmp_path, "affinity", cells), AffinityPolicy(unit="as_given")) == expected


def test_a_comma_that_may_be_either_needs_the_option(tmp_path: Path) -> None:
    path = column(tmp_path, "IC50 (nM)", ["10,000", "500"])
    found, records = open_pairs(path)
    assert found.scale.about == "'10,000' may be thousands or decimals; set data.affinity.decimal=point or comma"
    assert [record.affinity for record in records] == [None, None]
    assert affinities(path, AffinityPolicy(decimal="point")) == pytest.approx([5.0, 6.30103], abs=1e-5)
    assert affinities(path, AffinityPolicy(decimal="comma")) == pytest.approx([8.0, 6.30103], abs=1e-5)
    both = open_pairs(column(tmp_path, "affinity", ["7,5", "6.25"]))[0].scale
    assert both.in_doubt and both.about == "'7,5' and '6.25' have different decimal marks; set data.affinity.decimal"


@pytest.mark.parametrize("cell", [">10000", "> 10,000", "<0.5", "≥3", "<=7", ">>100"])
def test_a_limit_is_no_affinity_unless_the_option_says_so(tmp_path: Path, cell: str) -> None:
    path = column(tmp_path, "Kd (nM)", [cell, "10", "0.25"])
    first = next(iter(read_pairs(path)))
    assert (first.affinity, first.remarks) == (None, ("affinity given as a limit (< or >), left out",))
    taken = next(iter(read_pairs(path, affinity=AS_VALUES)))
    assert taken.affinity is not None and taken.remarks == ("affinity given as a limit (< or >), taken as the value",)


def test_signs_of_equality_and_of_rounding_are_no_limits(tmp_path: Path) -> None:
    assert affinities(column(tmp_path, "Kd (nM)", ["=10", "~10", "≈ 10"])) == [8.0, 8.0, 8.0]


def test_bindingdb_and_tables_of_users_have_one_rule_for_limits(tmp_path: Path) -> None:
    header = [
        "BindingDB Reactant_set_id",
        "Ligand SMILES",
        "Ki (nM)",
        "IC50 (nM)",
        "Kd (nM)",
        "EC50 (nM)",
        "BindingDB Target Chain Sequence",
    ]
    rows = [["1", "CC", "", ">10000", "", "", "MKTAYIAK"], ["2", "CCO", "", "", " 10", "", "MKTAYIAK"]]
    archive = tmp_path / "b.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("b.tsv", "\n".join("\t".join(row) for row in [header, *rows]))
    own = tmp_path / "own.csv"
    own.write_text("protein,smiles,IC50 (nM)\nMKTAYIAK,CC,>10000\nMKTAYIAK,CCO,10\n")
    for policy, expected in ((AffinityPolicy(), [8.0]), (AS_VALUES, [5.0, 8.0])):
        table = convert_bindingdb(archive, tmp_path / "b.tsv", policy=policy)
        assert affinities(table) == expected == [a for a in affinities(own, policy) if a is not None]


@pytest.mark.parametrize(
    ("name", "cells", "words"),
    [
        (
            "affinity",
            ["0.5", "10000", "5022"],
            "the values of 'affinity' from 0.5 to 1e+04 are not -log10 M; they look like concentrations",
        ),
        ("Y", ["43.0", "10000.0", "0.016"], "the values of 'Y' from 0.016 to 1e+04 are not -log10 M; they look like concentrations"),
        ("affinity", ["-7.5", "-9"], "the values of 'affinity' from -9 to -7.5 are not -log10 M; set data.affinity.unit"),
        ("Kd", ["5", "8"], "the values of 'Kd' from 5 to 8 have no unit; set data.affinity.unit"),
        ("affinity", ["0.5", "1", "12"], "are too small for -log10 M, half of them below 2; set data.affinity.unit"),
    ],
)
def test_a_column_whose_unit_is_in_doubt_is_told_and_never_binned(tmp_path: Path, name: str, cells: list[str], words: str) -> None:
    path = column(tmp_path, name, cells * 8)
    text = "\n".join(inspect(path).lines())
    assert words in text and text.count("set data.affinity.unit") == 1
    kept = load(PairData(path=str(path), split=RandomSplit()), TRACKS)
    assert words in "\n".join(kept.report.lines())
    with pytest.raises(FormatError) as caught:
        load(PairData(path=str(path), affinity_bins=(5.0, 7.0)), TRACKS)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    data = PairData(path=str(path), affinity=AffinityPolicy(unit="as_given"), affinity_bins=(5.0, 7.0), split=RandomSplit())
    assert (load(data, TRACKS).train.labels["affinity_bin"] >= 0).all()


def test_values_of_another_unit_than_the_name_says_are_left_out_with_a_count(tmp_path: Path) -> None:
    path = column(tmp_path, "pKd", ["5000", "7.5", "inf"])
    assert [(record.affinity, bool(record.remarks)) for record in read_pairs(path)] == [(None, True), (7.5, False), (None, True)]
    assert "affinity: 7.5 to 7.5, median 7.5, in 1 rows (-log10 M, by the column's name)" in inspect(path).lines()
    nothing = column(tmp_path, "Kd (nM)", ["0", "-3"] * 8)
    assert affinities(nothing) == [None] * 16
    with pytest.raises(ConfigError, match=r"data\.affinity_bins: no training example of .* has an affinity; see: protlig inspect"):
        load(PairData(path=str(nothing), affinity_bins=(5.0,), split=RandomSplit()), TRACKS)


def test_a_cell_that_is_no_number_is_a_problem_of_its_record(tmp_path: Path) -> None:
    path = column(tmp_path, "Kd (nM)", ["10", "1-5", "1.2±0.3", "weak"])
    first, *others = read_pairs(path)
    assert first.affinity == 8.0
    for record, cell in zip(others, ["1-5", "1.2±0.3", "weak"], strict=True):
        assert record.problem is not None
        assert (
            record.problem[1]
            == f"{record.where}: found '{cell}' in the affinity column 'Kd (nM)', expected a number; correct or empty the cell"
        )
    assert "3 dropped: affinity that is no number" in "\n".join(inspect(path).lines())


def test_a_number_of_any_length_is_read_or_left_out() -> None:
    scale = Survey().scale("affinity", AffinityPolicy(unit="as_given"))
    assert scale.read("1" * 5000) == (None, "affinity that is not finite, left out")
    assert Survey().scale("pKd", AffinityPolicy()).read("9" * 400)[0] is None


def test_names_give_units() -> None:
    names = {
        "Kd/nM": "nM",
        "ki_nanomolar": "nM",
        "-log10(Ki)": "p",
        "minus_log_kd": "p",
        "Kd [μM]": "uM",
        "affinity (kcal/mol)": "",
        "log_ki": "",
    }
    assert {name: unit_of(name) for name in names} == names


def test_an_unknown_unit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"data\.affinity\.unit: found 'nm'"):
        build(DataSettings, {"kind": "pairs", "path": "a.csv", "affinity": {"unit": "nm"}}, "data")


@pytest.mark.parametrize(
    ("name", "cells", "role"),
    [
        ("label", [""] * 1005 + ["0.73"], "affinity"),
        ("Y", ["0", "1"] * 600 + ["5.2"], "label"),
        ("Y", ["5.2", "1.0"] * 600, "affinity"),
        ("label", ["", "1", "active"] * 5, "label"),
    ],
)
def test_all_cells_decide_what_a_column_of_labels_or_numbers_is(tmp_path: Path, name: str, cells: list[str], role: str) -> None:
    found, records = open_pairs(column(tmp_path, name, cells))
    assert found.roles[role] == name and ("label" in found.roles) == (role == "label")
    bad = [record.problem[0] for record in records if record.problem is not None]
    assert bad == (["label other than 0 and 1"] if "5.2" in cells and role == "label" else [])


def test_a_minus_as_a_label_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    records = list(read_pairs(column(tmp_path, "label", ["1", "-", "n/a", "0"])))
    assert [record.label for record in records] == [1, None, None, 0]
    assert [record.problem is None for record in records] == [True, False, True, True]
