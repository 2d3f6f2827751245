"""`protlig foldseek build` and `protlig tokenize`, from the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from protlig_dd.cli.entry import main
from protlig_dd.data.readers.sequences import join_structures, read_fasta
from tests.support.backbones import chain_lines, entries_of, write_lines
from tests.support.structure_folders import helix_file, odd_folder

pytest.importorskip("gemmi")
pytest.importorskip("mini3di")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return odd_folder(tmp_path / "in")


def test_a_database_is_built_and_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "db"
    assert main(["foldseek", "build", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 4 chains, 48 residues, of 11 files" in said and "1 C-alpha only" in said
    assert len(entries_of(out, "_ca")["good"]) == 6 * 12 + 7
    assert main(["foldseek", "build", str(folder), "--out", str(out)]) == 1
    assert "there already; remove the database" in capsys.readouterr().err
    more = ["--coord-store-mode", "1", "--mask-bfactor-threshold", "21"]
    assert main(["foldseek", "build", str(folder), "--out", f"{out}2", *more]) == 0
    masked = out.with_name("db2")
    assert len(entries_of(masked, "_ca")["good"]) == 12 * 12 and entries_of(masked)["good"] == b"akgslakgslak\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["foldseek", "build", "nowhere", "--out", "db"], "nowhere: found no such file or folder"),
        (["foldseek", "build", "IN", "--out", "db", "--workers", "-1"], "--workers -1: expected 0"),
        (["tokenize", "IN", "--track", "3d"], "--track '3d': expected 3di"),
        (["tokenize", "IN", "--out", "x.csv"], "--out x.csv: found '.csv', expected one of .fasta, .jsonl"),
        (["tokenize", "IN", "--out", "absent/x.fasta"], "the folder absent does not exist"),
        (["tokenize", "IN", "--shard", "2/2"], "--shard '2/2': expected i/n"),
        (["tokenize", "nowhere", "--out", "x"], "nowhere: found no such file, folder or Foldseek database"),
        (["tokenize", "IN", "--max-length", "9"], "--max-length 9: is for a Foldseek database"),
        (["tokenize", "IN", "--tokenizer", "t"], "--tokenizer t: is for --track kanzi, found --track 3di"),
        (["tokenize", "IN/notes.txt"], "found no chain to tokenize among 1 files"),
        (["tokenize", "IN/notes.txt", "--out", "x.fasta"], "(1 unreadable files, such as"),
    ],
)
def test_mistakes_are_told_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([a.replace("IN", str(folder)) for a in arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_two_fasta_files_of_equal_names_are_what_training_reads(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.fasta"
    assert main(["tokenize", str(folder), "--track", "3di", "--out", str(out)]) == 0
    records = list(join_structures(lambda: read_fasta(out), tmp_path / "x_3di.fasta"))
    assert [r.name for r in records] == ["good", "noext", "packed", "also_good"]
    assert all(r.problem is None and len(r.texts["structure"]) == 12 for r in records)
    assert records[0].texts["protein"] == "AKGSLAKGSLAK" and records[0].texts["structure"][0] == "D"
    rows = (tmp_path / "x.fasta.skipped.tsv").read_text().splitlines()
    assert len(rows) == 7 and any("caonly.pdb chain A\tC-alpha only" in row for row in rows)


def test_json_lines_and_printed_tokens_are_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenize", str(folder), "--out", str(tmp_path / "x.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"name", "sequence", "structure"}] * 4
    capsys.readouterr()
    assert main(["tokenize", str(folder)]) == 0
    assert capsys.readouterr().out == "".join(f">{row['name']}\n{row['structure']}\n" for row in rows)


def test_shards_are_all_files_once(folder: Path, tmp_path: Path) -> None:
    names = []
    for i in range(3):
        out = tmp_path / f"{i}.jsonl"
        assert main(["tokenize", str(folder), "--shard", f"{i}/3", "--out", str(out)]) == 0
        names += [json.loads(line)["name"] for line in out.read_text().splitlines()]
    assert sorted(names) == ["also_good", "good", "noext", "packed"]


def test_chains_models_and_repeated_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names join sequences to tokens, so a second chain of one name is left out and listed."""
    a, b = chain_lines("AKGSL"), chain_lines("SSSSSS", chain="B", numbers=["1", "2", "2A", "2B", "10", "11"])
    write_lines(tmp_path / "in" / "my protein.pdb", a, ["TER"], b, ["TER"])
    helix_file(tmp_path / "in" / "x.pdb")
    helix_file(tmp_path / "in" / "y" / "x.pdb", "SSSSS")
    out = tmp_path / "t.jsonl"
    assert main(["tokenize", str(tmp_path / "in"), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["name"], row["sequence"]) for row in rows] == [
        ("my_protein_A", "AKGSL"),
        ("my_protein_B", "SSSSSS"),
        ("x", "AKGSLAKGSLAK"),
    ]
    assert "1 repeated names, such as x (x): found the name 'x' a second time" in capsys.readouterr().out


def test_a_file_name_that_is_no_text_is_read_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names are bytes to the system, and gemmi takes text only: one such name must not end the work on all other files."""
    helix_file(tmp_path / "in" / "a.pdb")
    try:
        os.rename(tmp_path / "in" / "a.pdb", os.fsencode(tmp_path / "in") + b"/b\xff.pdb")
    except OSError:
        pytest.skip("the file system takes no names that are not UTF-8")
    (tmp_path / "in" / os.fsdecode(b"c\xff.pdb")).write_text("no structure\n")
    out = tmp_path / "db"
    assert main(["foldseek", "build", str(tmp_path / "in"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 chains, 12 residues, of 2 files" in said and "c\ufffd.pdb" in said and "/structure.pdb" not in said
    assert out.with_name("db_h").read_bytes() == b"b\xff\n\0"


def test_a_place_that_cannot_be_written_is_told_with_what_to_do(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["foldseek", "build", str(folder), "--out", str(tmp_path / "file" / "db")]) == 1
    assert f"{tmp_path / 'file'}: File exists; check the path" in capsys.readouterr().err
