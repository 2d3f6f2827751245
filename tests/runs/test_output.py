"""Files of samples: every form, ranked, and a partial file that survives a stop and refuses to be mixed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.runs.output import PartialFile, check_output, check_tracks, rank, structures_beside, write_rows

ROWS = [
    {"id": 0, "name": "a", "protein": "MK", "ligand": "CCO", "nll_per_token": 2.0},
    {"id": 1, "name": "a", "protein": "MK", "ligand": "CCN", "nll_per_token": 1.0},
    {"id": 2, "name": "b", "protein": "MKV", "ligand": "C", "nll_per_token": 3.0},
]


def test_samples_are_ranked_within_their_request_the_likeliest_first() -> None:
    assert [(row["id"], row["rank"]) for row in rank(ROWS)] == [(1, 1), (0, 2), (2, 1)]


def test_every_form_holds_every_sample_and_the_settings_lie_beside_it(tmp_path: Path) -> None:
    for suffix in (".csv", ".jsonl", ".fasta", ".smi", ".sdf"):
        out = tmp_path / f"samples{suffix}"
        write_rows(out, ROWS, {"seed": 5})
        assert json.loads((tmp_path / f"samples{suffix}.json").read_text()) == {"seed": 5}
    with (tmp_path / "samples.csv").open() as file:
        assert [row["ligand"] for row in csv.DictReader(file)] == ["CCO", "CCN", "C"]
    assert (tmp_path / "samples.fasta").read_text().splitlines()[:2] == [">a_0 nll_per_token=2.0", "MK"]
    assert (tmp_path / "samples.smi").read_text().splitlines()[0] == "CCO a_0 nll_per_token=2.0"
    assert (tmp_path / "samples.sdf").read_text().count("$$$$") == 3


def test_sdf_holds_the_valid_molecules_and_the_others_are_listed_beside_it(tmp_path: Path) -> None:
    rows = [{"id": 7, "name": "a", "ligand": "C1C"}, {"id": 8, "name": "a", "ligand": "CCO"}, {"id": 9, "name": "a", "ligand": ""}]
    (told,) = write_rows(tmp_path / "x.sdf", rows, {})
    assert told == f"2 of 3 samples are no valid molecules and stand in {tmp_path / 'x.sdf.left_out.csv'} instead (ids 7, 9)"
    assert (tmp_path / "x.sdf").read_text().count("$$$$") == 1 and ">  <id>  (1) \n8\n" in (tmp_path / "x.sdf").read_text()
    with (tmp_path / "x.sdf.left_out.csv").open(newline="") as file:
        assert [(row["id"], row["ligand"], row["reason"]) for row in csv.DictReader(file)] == [("7", "C1C", "syntax"), ("9", "", "empty")]
    assert write_rows(tmp_path / "x.sdf", rows[1:2], {}) == [] and not (tmp_path / "x.sdf.left_out.csv").exists()


def test_a_form_that_cannot_hold_the_samples_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="the samples have no protein"):
        write_rows(tmp_path / "x.fasta", [{"id": 7, "name": "a", "ligand": "C"}], {})
    assert not (tmp_path / "x.fasta").exists()


def test_an_unknown_form_and_an_absent_folder_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found '\.cvs', expected one of .*did you mean '\.csv'"):
        check_output(tmp_path / "x.cvs")
    with pytest.raises(ConfigError, match="does not exist; make it first"):
        check_output(tmp_path / "no" / "x.csv")


def test_a_stopped_run_finds_what_it_has_done_and_a_line_cut_off_is_drawn_again(tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    partial = PartialFile(out, {"seed": 1})
    rows = partial.append(iter(ROWS))
    next(rows), next(rows)
    with partial.path.open("a") as file:
        file.write('{"id": 2, "na')
    again = PartialFile(out, {"seed": 1})
    assert again.rows == ROWS[:2]
    list(again.append(ROWS[2:]))
    assert PartialFile(out, {"seed": 1}).rows == ROWS


def test_a_partial_file_of_other_settings_is_refused_not_mixed(tmp_path: Path) -> None:
    PartialFile(tmp_path / "x.csv", {"seed": 1})
    with pytest.raises(FormatError, match="left by a run with other settings"):
        PartialFile(tmp_path / "x.csv", {"seed": 2})


def test_the_file_of_structure_tokens_is_named(tmp_path: Path) -> None:
    """`--out codes.fasta` holds the proteins where a row has both: whoever asked for structures has to be told where they are."""
    both = [{"id": 0, "name": "a", "protein": "MK", "structure": "DD"}]
    out = tmp_path / "codes.fasta"
    write_rows(out, both, {})
    assert structures_beside(out, both) == tmp_path / "codes.structure.fasta"
    assert (tmp_path / "codes.structure.fasta").read_text() == ">a_0\nDD\n"
    assert structures_beside(out, [{"structure": "DD"}]) is None
    assert structures_beside(tmp_path / "codes.csv", both) is None


@pytest.mark.parametrize("broken", ["settings", "structure"])
def test_all_files_are_written_or_none(tmp_path: Path, broken: str) -> None:
    """An error in the last of OUT, OUT.structure.fasta and OUT.json leaves none of them, and keeps those of before."""
    rows = [{"id": 0, "name": "a", "protein": "MK", "structure": "DD"}]
    bad_rows = [*rows, {"id": 1, "name": "b", "protein": "MK"}] if broken == "structure" else rows
    bad_settings = {"seed": object()} if broken == "settings" else {}
    with pytest.raises((TypeError, KeyError)):
        write_rows(tmp_path / "x.fasta", bad_rows, bad_settings)
    assert list(tmp_path.iterdir()) == []
    write_rows(tmp_path / "x.fasta", rows, {"seed": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises((TypeError, KeyError)):
        write_rows(tmp_path / "x.fasta", bad_rows, bad_settings)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert sorted(before) == ["x.fasta", "x.fasta.json", "x.structure.fasta"]


def test_the_form_that_cannot_hold_the_samples_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^\.smi: the samples have no ligand"):
        write_rows(tmp_path / "x.smi", [{"id": 7, "name": "a", "protein": "MK"}], {})


EVIL = "a\n>fake\r\nMKV\u2028$$$$\x1b[31m\udcff"


def test_a_name_stays_in_its_line_and_writes_no_record_of_its_own(tmp_path: Path) -> None:
    rows = [{"id": 0, "name": EVIL, "protein": "MK", "structure": "DD", "ligand": "CCO"}]
    for suffix in (".fasta", ".smi", ".sdf", ".csv"):
        (told,) = write_rows(tmp_path / f"x{suffix}", rows, {})
        assert told.startswith("1 names with control characters") and told.isprintable()
    for name in ("x.fasta", "x.structure.fasta"):
        title, text = (tmp_path / name).read_text().splitlines()
        assert title == ">a_>fake__MKV_$$$$_[31m__0" and text in ("MK", "DD")
    assert (tmp_path / "x.smi").read_text().splitlines() == ["CCO a_>fake__MKV_$$$$_[31m__0"]
    assert (tmp_path / "x.sdf").read_text().splitlines().count("$$$$") == 1
    with (tmp_path / "x.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["a_>fake__MKV_$$$$_[31m_"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "plain", "a=b"])
def test_a_name_is_no_formula_of_a_spreadsheet_and_smiles_stay_as_they_are(tmp_path: Path, name: str) -> None:
    told = write_rows(tmp_path / "x.csv", [{"id": 0, "name": name, "ligand": "=O"}, {"id": 1, "name": name, "ligand": "[O-]"}], {})
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ligand"] for row in rows] == ["=O", "[O-]"]
    assert {row["name"] for row in rows} == {f"'{name}" if name[0] in "=+-@" else name.replace("\t", "_")}
    assert bool(told) == (name not in ("plain", "a=b"))
    write_rows(tmp_path / "x.jsonl", [{"id": 0, "name": name, "ligand": "=O"}], {})
    assert json.loads((tmp_path / "x.jsonl").read_text())["name"] == name


@pytest.mark.parametrize(
    ("suffix", "tracks", "message"),
    [
        (".fasta", [{"ligand"}], "the samples have no protein"),
        (".fasta", [{"structure"}, {"protein"}], "the samples have no protein"),
        (".fasta", [{"structure"}, {"structure", "ligand"}], None),
        (".smi", [{"protein"}], "the samples have no ligand"),
        (".sdf", [{"protein", "ligand"}, {"protein"}], "the samples have no ligand"),
        (".csv", [{"protein"}, {"ligand"}], None),
    ],
)
def test_whether_a_form_can_hold_samples_is_known_from_their_tracks(suffix: str, tracks: list[set[str]], message: str | None) -> None:
    if message is None:
        return check_tracks(Path(f"x{suffix}"), tracks)
    with pytest.raises(FormatError, match=message):
        check_tracks(Path(f"x{suffix}"), tracks)
    return None


def test_a_folder_in_the_place_of_the_output_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder, expected the name of a file"):
        check_output(tmp_path / "x.csv")


@pytest.mark.parametrize("content", [b'{"seed": 1}\n{"id": 0,\n', b"\xff\n", b"[1]\n", b""])
def test_a_damaged_partial_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv.partial").write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.csv\.partial: (is damaged|was left by a run with other settings \(seed\))"):
        PartialFile(tmp_path / "x.csv", {"seed": 1})
