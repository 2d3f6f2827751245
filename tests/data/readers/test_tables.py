"""Tables: no column is lost because of the first row, no cell is taken for a text that is none, and nothing is cut off without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protlig_dd.data.inspect import inspect
from protlig_dd.data.readers.complexes import read_pairs
from protlig_dd.data.readers.mutants import read_mutants
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sources import find_sources
from protlig_dd.data.readers.tables import open_table
from protlig_dd.data.settings import PairData
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack

TRACKS = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
PAIR = {"protein": "MKTAYIAK", "smiles": "CCO"}


def write_json(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def write_parquet(path: Path, items: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(items), path)
    return path


def read(path: Path, **options: Any) -> list[Record]:
    return list(read_pairs(path, needed=(), **options))


def test_keys_that_come_late_in_json_lines_are_columns(tmp_path: Path) -> None:
    items: list[dict[str, Any]] = [{"smiles": "CCO"}, *[PAIR] * 1500, {**PAIR, "affinity": 7.5, "split": "test"}, {**PAIR, "label": 0}]
    records = read(write_json(tmp_path / "a.jsonl", items))
    assert [record.texts.get("protein") for record in records[:2]] == [None, "MKTAYIAK"]
    assert (records[-2].affinity, records[-2].split, records[-1].label) == (7.5, "test", 0)
    found = inspect(tmp_path / "a.jsonl")
    assert found.kind == "pairs" and found.roles["affinity"] == "affinity" and found.splits == {"test": 1, "of none": 1501}
    assert found.encoded.dropped == {"no protein": 1} and found.labels == {"1": 0, "0": 1, "none": 1502}


def test_keys_that_come_late_in_a_torch_list_are_columns(tmp_path: Path) -> None:
    import torch

    torch.save([PAIR, {**PAIR, "pKd": 6.5}], tmp_path / "a.pt")
    assert [record.affinity for record in read(tmp_path / "a.pt")] == [None, 6.5]


def test_json_lines_with_endless_new_keys_are_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [{f"k{i}": 1} for i in range(10_002)])
    with pytest.raises(FormatError, match=r"a\.jsonl:10001: found more than 10,000 different keys, expected the same few in all objects"):
        open_table(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"smiles": ' + "1" * 5000 + "}", "expected a JSON object on one line (Exceeds the limit"),
        ('{"smiles": "C", "smiles": "N"}', "expected a JSON object on one line (the key 'smiles' stands twice)"),
        ("[" * 100_000, "expected a JSON object on one line"),
    ],
)
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"smiles": "C"}\n' + line + "\n")
    with pytest.raises(FormatError) as caught:
        read(tmp_path / "a.jsonl")
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}:2: found") and words in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_that_stands_twice_is_refused_if_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("smiles,protein,smiles,note,note\nC,MKTAYIAK,N,x,y\n")
    with pytest.raises(FormatError, match=r"a\.csv: found 2 columns called 'smiles', expected one; rename the others"):
        read(path)
    path.write_text("smiles,protein,note,note\nC,MKTAYIAK,x,y\n")
    assert len(read(path)) == 1
    path.write_text("mutant,DMS_score,mutant\nM1A,1,K2A\n")
    with pytest.raises(FormatError, match="found 2 columns called 'mutant'"):
        read_mutants(path, "MKT")


def test_a_parquet_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_arrays([pa.array(["C"]), pa.array(["N"]), pa.array(["MKTAYIAK"])], names=["smiles", "smiles", "protein"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=r"a\.parquet: found 2 columns called 'smiles'"):
        read(tmp_path / "a.parquet")


def test_rows_shorter_than_the_header_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("protein,smiles,pKd,note\nMKTAYIAK,CCO,5,\nMKTAYIAK,CCO\nMKTAYIAK,CCO,6\nMKTAYIAK\n")
    assert [(record.affinity, record.remarks) for record in read(path)] == [
        (5.0, ()),
        (None, ("row shorter than the header",)),
        (6.0, ()),
        (None, ("row shorter than the header",)),
    ]
    assert f"  1 kept with row shorter than the header; in {path}:3" in inspect(path).lines()
    path.write_text("mutant,DMS_score\nM1A,1\nK2A\n")
    with pytest.raises(FormatError, match=r"a\.csv:3: found '' in DMS_score, expected a finite number"):
        read_mutants(path, "MKT")


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=; "])
def test_the_first_line_of_excel_names_the_separator(tmp_path: Path, first: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{first}\nprotein;smiles;affinity\nMKTAYIAK;CCO;7,5\n")
    (record,) = read(path)
    assert (record.where, record.texts["ligand"], record.affinity) == (f"{path}:3", "CCO", 7.5)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_cells_may_be_as_long_as_a_protein_or_an_alignment(tmp_path: Path, name: str) -> None:
    sep = "\t" if name == "a.tsv" else ","
    long, notes = "M" * 140_000, json.dumps({"a": ["x" * 200_000]}).replace('"', '""')
    (tmp_path / name).write_text(sep.join(["protein", "smiles", "notes"]) + "\n" + sep.join([long, "CCO", f'"{notes}"']) + "\n")
    (record,) = read(tmp_path / name)
    assert record.texts == {"protein": long, "ligand": "CCO"}


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('protein,smiles\nMKTAYIAK,CCO\nMKTAYIAK,"CCN\nMKTAYIAK,CCC\n')
    with pytest.raises(FormatError, match=r"a\.csv:3: found a quoted cell that never ends, expected a closing quote; correct the row"):
        read(path)
    path.write_text('protein,"smiles\nMKTAYIAK,CCO\n')
    with pytest.raises(FormatError, match=r"a\.csv:1: found a quoted cell that never ends"):
        open_table(path)


@pytest.mark.parametrize(("value", "found"), [(b"MKTAYIAK", "bytes"), (list("MKTAYIAK"), "list"), (5, "int"), ({"a": "b"}, "dict")])
@pytest.mark.parametrize("column", ["protein", "smiles"])
def test_a_cell_that_is_no_text_is_no_sequence(tmp_path: Path, value: Any, found: str, column: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{**PAIR, column: value}])
    (record,) = read(path)
    assert record.problem is not None and column not in record.texts
    assert f"a.parquet:row 1: found {found} " in record.problem[1] and f"in the column '{column}', expected text" in record.problem[1]
    kept = inspect(path, {**TRACKS, "protein": ProteinTrack(unknown="X", most_unknown=1.0).build("protein")}).encoded
    assert kept.kept == 0 and list(kept.dropped) == [f"{'ligand' if column == 'smiles' else column} that is no text"]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_files_of_one_part_must_have_the_same_columns(tmp_path: Path, suffix: str) -> None:
    items = [{**PAIR, "label": 0}, {**PAIR, "label": 1}]
    for number, some in enumerate((items, [PAIR, PAIR])):
        path = tmp_path / f"train-{number}.{suffix}"
        if suffix == "csv":
            path.write_text("\n".join([",".join(some[0]), *(",".join(map(str, item.values())) for item in some)]) + "\n")
        else:
            (write_parquet if suffix == "parquet" else write_json)(path, some)
    words = rf"train-1\.{suffix}: found no column 'label' in use, train-0\.{suffix} has it; give all files of one part the same columns"
    with pytest.raises(FormatError, match=words):
        find_sources(PairData(path=str(tmp_path)), TRACKS)
    with pytest.raises(FormatError, match=words):
        inspect(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "pt"])
def test_a_text_longer_than_the_bound_is_refused_with_its_row(tmp_path: Path, suffix: str) -> None:
    import torch

    path, items = tmp_path / f"a.{suffix}", [PAIR, {"protein": "M" * 1001, "smiles": "C"}]
    if suffix in ("csv", "tsv"):
        sep = "," if suffix == "csv" else "\t"
        path.write_text("\n".join([sep.join(PAIR), *(sep.join(item.values()) for item in items)]) + "\n")
    elif suffix == "pt":
        torch.save(items, path)
    else:
        (write_json if suffix == "jsonl" else write_parquet)(path, items)
    assert len(read(path, max_record=1001)) == 2
    with pytest.raises(
        FormatError, match=rf"a\.{suffix}:.*[23]: found a record of more than 1,000 characters, reading stopped there; remove it"
    ):
        read(path, max_record=1000)
