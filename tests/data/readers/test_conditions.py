"""Conditions as a person gives them: what is a file, and what is a sequence."""

from __future__ import annotations

from pathlib import Path

import pytest

from protlig_dd.data.readers.conditions import read_proteins, read_structures
from protlig_dd.errors import FormatError
from tests.support.foldseek_cases import Form, random_entries, write_database


@pytest.mark.parametrize("read", [read_proteins, read_structures])
@pytest.mark.parametrize("text", ["nofile.fasta", "./nofile", "folder/nofile", "nofile.fasta.gz", "x" * 300 + ".fa"])
def test_a_path_that_is_not_there_is_never_a_sequence(read, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FormatError, match="found no such file; check the path, or give"):
        read(text)


def test_a_folder_is_no_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    for text in ("plain", "./plain"):
        with pytest.raises(FormatError, match="plain: is a folder, expected a file"):
            read_proteins(text)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_database_is_read_by_its_name_alone(parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entries = sorted(random_entries(3, 4), key=lambda entry: entry.key)
    write_database(tmp_path, entries, Form(parts=parts))
    assert [text for _, text in read_proteins("db")] == [entry.aa.upper() for entry in entries]


def test_letters_are_a_sequence_and_files_without_an_ending_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_proteins("MKT__V") == [("protein", "MKT__V")]
    assert read_proteins("M" * 5000) == [("protein", "M" * 5000)]
    assert read_structures("0001,0002") == [("structure", "0001,0002")]
    (tmp_path / "mine").write_text(">a\nMKT\n")
    (tmp_path / "MKT").write_text(">a\nGGG\n")
    assert read_proteins("mine") == [("a", "MKT")] and read_proteins("MKT") == [("protein", "MKT")]
