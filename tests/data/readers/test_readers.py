"""Readers give the right data or one clear error for any bytes, compression and line ends."""

from __future__ import annotations

import gzip
import json
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protlig_dd.data.readers.complexes import Columns, open_pairs, read_pairs
from protlig_dd.data.readers.files import data_suffix, read_lines
from protlig_dd.data.readers.molecules import MoleculePolicy, read_molecules
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sequences import read_sequences
from protlig_dd.errors import FormatError

ROWS = [("MKTAYI", "CCO", 1), ("MKV", "c1ccccc1", 0), ("GAVL", "CC(=O)O", 1)]
FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pairs(records):
    return [(r.texts.get("protein"), r.texts.get("ligand"), r.label) for r in records]


def write(path, text, *, pack=None):
    data = text.encode()
    if pack == "gz":
        data = gzip.compress(data)
    if pack == "zst":
        zstandard = pytest.importorskip("zstandard")
        data = zstandard.ZstdCompressor().compress(data[:5]) + zstandard.ZstdCompressor().compress(data[5:])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("pack", [None, "gz", "zst"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("suffix", "sep"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_a_pair_table_reads_the_same_in_every_dress(tmp_path, suffix, sep, end, pack):
    text = end.join([sep.join(["SMILES", "Protein", "Y"]), *(sep.join([s, p, str(y)]) for p, s, y in ROWS)]) + end
    path = write(tmp_path / (f"pairs.{suffix}" + (f".{pack}" if pack else "")), "\ufeff" + text, pack=pack)
    records = list(read_pairs(path))
    assert pairs(records) == ROWS
    assert [r.where for r in records] == [f"{path}:{n}" for n in (2, 3, 4)]


def test_parquet_json_lines_and_torch_lists_read_like_csv(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    items = [{"protein_seq": p, "ligand_smiles": s, "label": y, "system_id": f"n{i}", "tokens": [1, 2]} for i, (p, s, y) in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, items)) + "\n\n")
    pq.write_table(pa.Table.from_pylist(items), tmp_path / "a.parquet")
    torch.save([{**item, "prot_tokens": torch.ones(3)} for item in items], tmp_path / "a.pt")
    torch.save({key: [item[key] for item in items] for key in items[0]}, tmp_path / "b.pt")
    for name, where in (("a.jsonl", "a.jsonl:2"), ("a.parquet", "a.parquet:row 2"), ("a.pt", "a.pt:item 2"), ("b.pt", "b.pt:item 2")):
        records = list(read_pairs(tmp_path / name))
        assert pairs(records) == ROWS
        assert records[1].name == "n1" and records[1].where == str(tmp_path / where)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    import torch

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save([Evil()], tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "raw.pt"):
        with pytest.raises(FormatError, match="no code of a file is run here.*; expected a list of records with plain values") as caught:
            list(read_pairs(tmp_path / name))
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_a_column_y_of_numbers_is_an_affinity_and_nanomolar_columns_become_exponents(tmp_path):
    kiba = write(tmp_path / "kiba.tab", '"ID1"\t"X1"\tID2\tX2\tY\n"1"\t"CCO"\tp\tMKV\t11.1\n"2"\tCC\tp\tMKV\t1.0\n')
    understood, records = open_pairs(kiba)
    assert understood.roles["affinity"] == "Y" and "label" not in understood.roles
    assert [(r.affinity, r.label, r.texts["ligand"]) for r in records] == [(11.1, None, "CCO"), (1.0, None, "CC")]
    molar = write(tmp_path / "b.csv", "smiles,sequence,Kd (nM)\nCC,MKV,10\nCC,MKV,>1000\nCC,MKV,\n")
    assert [r.affinity for r in read_pairs(molar)] == pytest.approx([8.0, None, None])


def test_splits_names_and_missing_cells_are_understood(tmp_path):
    path = write(tmp_path / "a.csv", "id,smiles,target,split\nx,CC,,Train\ny,,MKV,val\nz,CC,MKV,TEST\nw,CC,MKV\n")
    records = list(read_pairs(path))
    assert [(r.name, r.split, sorted(r.texts)) for r in records] == [
        ("x", "train", ["ligand"]),
        ("y", "validation", ["protein"]),
        ("z", "test", ["ligand", "protein"]),
        ("w", None, ["ligand", "protein"]),
    ]


def test_line_numbers_count_quoted_line_breaks(tmp_path):
    path = write(tmp_path / "zinc.csv", 'smiles,logP\n"CCO\n",1\n"CC\n",oops\n')
    assert [r.texts["ligand"] for r in read_molecules(path)] == ["CCO", "CC"]
    assert [r.where.rsplit(":", 1)[1] for r in read_molecules(path)] == ["2", "4"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"a\.csv: found an empty file, expected records"),
        ("a.csv", b"\n\n", r"found blank lines only, expected a header line"),
        ("a.csv", b"smiles,prot\nC,M\n", r"found the columns 'smiles', 'prot', none of them a protein; rename one to 'protein'"),
        ("a.csv", b"smiles,protein\nC,M,x\n", r"a\.csv:2: found 3 cells, the header has 2"),
        ("a.csv", b"smiles,protein\nC,\xff\xfe\n", r"a\.csv:2?.*found bytes that are not UTF-8"),
        ("a.csv", b"smiles,protein\nC,M\0M\n", r"a\.csv:2: found binary data, expected text"),
        ("a.csv", b"\x1f\x8b\x08\x00", r"the name says no compression, the content is gzip compressed; rename the file"),
        ("a.csv.gz", b"smiles,protein\n", r"the name says gzip, the content is not compressed"),
        (
            "a.jsonl",
            b'{"smiles": "C", "protein": "M"}\n{"smiles"\n',
            r"a\.jsonl:2: found '\{\"smiles\"', expected a JSON object on one line",
        ),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: found '\[1\]', expected a JSON object such as"),
        ("a.parquet", b"PAR1 no", r"a\.parquet: not readable as Parquet"),
        ("a.xlsx", b"PK", r"found the suffix '\.xlsx', expected one of \.csv"),
        ("a.pt", b"not torch", r"a\.pt: not readable as a torch file"),
    ],
)
def test_bad_tables_are_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        list(read_pairs(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_label_that_is_none_and_a_named_column_that_is_absent(tmp_path):
    path = write(tmp_path / "a.csv", "smiles,protein,Y\n" + "C,M,1\n" * 6 + "C,M,maybe\n")
    *good, bad = read_pairs(path)
    assert [record.label for record in good] == [1] * 6 and all(record.problem is None for record in good)
    assert re.search(r"a\.csv:8: found 'maybe' in the label column 'Y', expected 0 or 1", bad.problem[1])
    with pytest.raises(FormatError, match=r"expected 'Smiles' for data\.columns\.ligand \(did you mean 'smiles'\?\)"):
        list(read_pairs(path, Columns(ligand="Smiles")))
    with pytest.raises(FormatError, match=r"missing\.csv: cannot be opened \(No such file"):
        list(read_pairs(tmp_path / "missing.csv"))


@pytest.mark.parametrize("pack", ["gz", "zst"])
def test_a_truncated_archive_says_so(tmp_path, pack):
    path = write(tmp_path / f"a.fasta.{pack}", ">x\n" + "MKVLAWGRT" * 3000 + "\n", pack=pack)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(FormatError, match=r"the compressed file is truncated or damaged .*download or pack it again"):
        list(read_lines(path))


def test_fasta_joins_lines_and_keeps_names_and_places(tmp_path):
    path = write(tmp_path / "a.fasta", ">one first protein\r\nMKV\r\nlaw\r\n\r\n>two\r\n>three\r\nGA*\r\n")
    assert [(r.name, r.texts["protein"], r.where.rsplit(":", 1)[1]) for r in read_sequences(path)] == [
        ("one", "MKVlaw", "1"),
        ("two", "", "5"),
        ("three", "GA*", "6"),
    ]
    with pytest.raises(FormatError, match=r"b\.fasta:1: found 'MKV', expected '>' and a name"):
        list(read_sequences(write(tmp_path / "b.fasta", "MKV\n")))


def test_smiles_files_with_names_headers_and_numbers(tmp_path):
    path = write(tmp_path / "a.smi", "smiles name\nCCO ethanol\n\n# note\nC[NH+](C)C\n12\tCC(C)O\n")
    assert [(r.texts["ligand"], r.name) for r in read_molecules(path)] == [("CCO", "ethanol"), ("C[NH+](C)C", ""), ("CC(C)O", "12")]
    with pytest.raises(FormatError, match="found no molecule, expected one SMILES a line"):
        list(read_molecules(write(tmp_path / "b.smi", "smiles\n")))


def test_the_policy_does_what_it_says():
    salt = "C[C@H](N)C(=O)[O-].[Na+]"
    assert MoleculePolicy().apply(salt, where="a:1") == salt
    assert MoleculePolicy(salts="strip").apply(salt, where="a:1") == "C[C@H](N)C(=O)[O-]"
    assert MoleculePolicy(salts="strip", stereo="strip", charges="neutralize").apply(salt, where="a:1") == "CC(N)C(=O)O"
    with pytest.raises(FormatError, match=r"a:1: 'C\.C' has several fragments; set data\.molecules\.salts=strip"):
        MoleculePolicy(salts="refuse").apply("C.C", where="a:1")
    with pytest.raises(FormatError, match=r"a:1: 'C1CC' is not a valid molecule"):
        MoleculePolicy(validate=True).apply("C1CC", where="a:1")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "pt", "csv.gz", "csv.zst"])
@given(content=st.binary(max_size=200) | st.text(alphabet="smilesprotein,\t\n\r\"'{}:[]C1", max_size=80).map(str.encode))
@FUZZ
def test_no_bytes_crash_the_table_readers(tmp_path, suffix, content):
    path = tmp_path / f"fuzz.{suffix}"
    path.write_bytes(content)
    try:
        assert all(isinstance(r, Record) for r in read_pairs(path, needed=()))
    except FormatError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("suffix", ["fasta", "fasta.gz", "smi"])
@given(content=st.binary(max_size=200) | st.text(alphabet=">;#MKVC \n\r\t", max_size=60).map(str.encode))
@FUZZ
def test_no_bytes_crash_the_line_readers(tmp_path, suffix, content):
    path = tmp_path / f"fuzz.{suffix}"
    path.write_bytes(content)
    read = read_molecules if suffix == "smi" else read_sequences
    try:
        assert all(isinstance(r, Record) for r in read(path))
    except FormatError as error:
        assert str(path) in str(error)


CELL = st.text(alphabet="Aé漢😀\"\\,;'", min_size=1, max_size=8)


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
@FUZZ
def test_json_lines_round_trip_any_text(tmp_path, rows):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"protein": p, "smiles": s}, ensure_ascii=False) for p, s in rows), encoding="utf-8")
    assert [(r.texts["protein"], r.texts["ligand"]) for r in read_pairs(path)] == [(p.strip(), s.strip()) for p, s in rows]


def test_suffixes_ignore_compression_and_case():
    assert [data_suffix(Path(p)) for p in ("a.CSV.gz", "b.fasta", "CID-SMILES.gz", "x.tar.jsonl.zst")] == [".csv", ".fasta", "", ".jsonl"]


def test_headers_of_fasta_may_give_the_part(tmp_path) -> None:
    path = tmp_path / "flip.fasta"
    lines = ["1a SET=train VALIDATION=False", "1b SET=train VALIDATION=True", "1c SET=test VALIDATION=False", "1d split=val", "1e OS=x"]
    path.write_text("".join(f">{line}\nMKT\n" for line in lines))
    found = {record.name: record.split for record in read_sequences(path)}
    assert found == {"1a": "train", "1b": "validation", "1c": "test", "1d": "validation", "1e": None}
