"""Conditions as a person gives them: what is a file, and what is a sequence."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from protlig_dd.data.readers.conditions import read_ligands, read_proteins, read_structures, tell_proteins
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import ProteinTrack
from tests.support.backbones import chain_lines, write_lines
from tests.support.chains import pdb_text
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


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("holes.csv", "protein,smiles\nMKTAYIAK,CCO\n,CCN\n", "holes.csv:3: found no protein"),
        ("null.tsv", "name\tprotein\na\tMKTAYIAK\nb\t\n", "null.tsv:3: found no protein"),
        ("null.jsonl", '{"protein": "MKTAYIAK"}\n{"protein": null}\n', "null.jsonl:2: found no protein"),
        ("lists.jsonl", '{"protein": ["M", "K"]}\n', "lists.jsonl:1: found list"),
        ("holes.fasta", ">a\nMKTAYIAK\n>b\n\n>c\nMST\n", "holes.fasta:3: found no protein"),
        ("blank.fasta", ">a\n \t\n", "blank.fasta:1: found no protein"),
        ("mixed.fasta", ">a\nMKTAYIAK\n>ligand|name=GDP\nNCC\n", "mixed.fasta:3: the header '>ligand|name=GDP' says 'ligand'"),
    ],
)
def test_a_record_without_a_protein_is_no_condition(tmp_path: Path, name: str, content: str, place: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FormatError) as caught:
        read_proteins(str(tmp_path / name))
    assert f"{tmp_path}/{place}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nullsmi.csv", "name,smiles\na,CCO\nb,\n", "nullsmi.csv:3: found no ligand, expected one; fill the cell, or remove the record"),
        ("null.jsonl", '{"smiles": "C"}\n{"name": "b"}\n', "null.jsonl:2: found no ligand"),
        ("nums.smi", "CCO\n0.5\n", "nums.smi:2: '0.5' is not SMILES, which begins with an atom"),
        ("a.sdf", "x\n", "a.sdf: found SDF, expected SMILES"),
    ],
)
def test_a_record_without_a_ligand_is_no_condition(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FormatError) as caught:
        read_ligands(str(tmp_path / name))
    assert f"{tmp_path}/{words}" in str(caught.value)


def test_an_empty_cell_of_another_column_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("protein,smiles,affinity\nMKTAYIAK,,weak\nMST,5,\n")
    assert [text for _, text in read_proteins(str(tmp_path / "a.csv"))] == ["MKTAYIAK", "MST"]


def test_a_smiles_as_a_condition_begins_with_an_atom_or_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    assert read_ligands("c1cc____cc1") == [("ligand", "c1cc____cc1")] and read_ligands("__CO") == [("ligand", "__CO")]
    assert read_ligands("CCO |$;;R1$|") == [("ligand", "CCO")] and "the extension of CXSMILES" in caplog.text
    with pytest.raises(FormatError, match=r"--ligand: '\(\)' is not SMILES, which begins with an atom"):
        read_ligands("()")


def test_replaced_letters_and_nucleic_acids_are_told(caplog: pytest.LogCaptureFixture) -> None:
    track = ProteinTrack(unknown="X").build("protein")
    tell_proteins([("a", "MKT__V"), ("b", "MKJAYJ-"), ("c", "AUGGCCNNAUUG")], track)
    first, second = caplog.messages
    assert first.endswith("read as another one, as tracks.protein.unknown says: J as X (2), - as X (1); in b")
    assert second == "only letters of nucleotides, read as a protein all the same: c"
    caplog.clear()
    tell_proteins([("a", "MKTAYIAK")], track)
    assert not caplog.messages


def test_chains_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    path = write_lines(tmp_path / "x.pdb", chain_lines("AKGSAA"), ["TER"], chain_lines("GGSS"), ["TER"], chain_lines("LLKK", chain="B"))
    assert read_proteins(str(path)) == [("x_A", "AKGSAA"), ("x_A_2", "GGSS"), ("x_B", "LLKK")]
    assert read_proteins(f"{path}:A_2") == [("x_A_2", "GGSS")]


def test_the_chain_without_a_name_can_be_named(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    path = write_lines(tmp_path / "x.pdb", chain_lines("AKGSAA", chain=" "), ["TER"], chain_lines("GGSS", chain="B"))
    assert read_proteins(f"{path}:") == read_proteins(f"{path}:blank") == [("x_", "AKGSAA")]
    assert [name for name, _ in read_proteins(str(path))] == ["x_", "x_B"]
    with pytest.raises(FormatError, match=r"no protein chain 'A', expected one of blank \(6 residues\), B"):
        read_proteins(f"{path}:A")


def test_residues_whose_names_are_not_known_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those of force fields are known."""
    pytest.importorskip("gemmi")
    names = ["MET", "LYS", "HSD", "HIE", "HIP", "HIS", "CYX", "CYM", "ASH", "GLH", "LYN", "TYR"]
    path = tmp_path / "md.pdb"
    path.write_text(pdb_text([(name, str(i)) for i, name in enumerate(names, 1)], chain=" "))
    assert read_proteins(str(path)) == [("md_", "MKHHHHCCDEKY")] and not caplog.records
    path.write_text(pdb_text([(name, str(i)) for i, name in enumerate(["ALA", "QQQ", "GLY", "QQQ", "UNK"], 1)]))
    with caplog.at_level(logging.WARNING):
        assert read_proteins(str(path)) == [("md_A", "AXGXX")]
    assert [r.getMessage() for r in caplog.records] == [f"{path}: chain A: 3 of 5 residues are no known amino acids (QQQ 2, UNK 1): X"]
