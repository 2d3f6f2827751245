"""Tests of files whose residues are hard to tell apart: numbers, chains and names as programs other than the PDB's write them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.errors import FormatError
from protlig_dd.structures.foldseek_chains import read_foldseek_chains
from protlig_dd.structures.structure_io import read_structure
from tests.support.backbones import chain_lines, write_lines
from tests.support.chains import atom_line
from tests.support.mmcif import CIF_HEAD

pytest.importorskip("gemmi")

THREE = {"A": "ALA", "G": "GLY", "K": "LYS", "S": "SER"}


def cif(folder: Path, polymers: dict[str, str], author: str = "A", number: object = None) -> Path:
    """Write C-alphas of polymers by their label; `number` gives the author's number of the i-th residue of all, else it counts on."""
    lines, count = [CIF_HEAD], 0
    for label, sequence in polymers.items():
        for i, letter in enumerate(sequence, 1):
            count += 1
            own = count if number is None else number(count) if callable(number) else number
            place = f"{3.8 * count:.3f} 0.0 0.0 1.0 20.0 {own} {author} 1"
            lines.append(f"ATOM {count} C CA . {THREE[letter]} {label} {'ABCDEF'.index(label) + 1} {i} ? {place}")
    return write_lines(folder / "x.cif", lines)


def without(path: Path, *fields: str) -> Path:
    """Take columns out of the atoms of an mmCIF file."""
    head, lines = CIF_HEAD.splitlines(), path.read_text().splitlines()
    names = [line.removeprefix("_atom_site.") for line in head[2:]]
    dropped = [names.index(field) for field in fields]
    rows = [" ".join(word for i, word in enumerate(line.split()) if i not in dropped) for line in lines if line.startswith("ATOM")]
    return write_lines(path, [*head[:2], *(f"_atom_site.{name}" for name in names if name not in fields)], rows)


def test_the_polymers_of_one_authors_chain_are_chains(tmp_path: Path) -> None:
    structure = read_structure(cif(tmp_path, {"A": "AKGSAKGSAKGSAKGSAK", "B": "GSSAKGG", "C": "KKGGSSAA"}))
    assert [(c.name, c.label, len(c)) for c in structure.chains] == [("A", "A", 18), ("A", "B", 7), ("A", "C", 8)]
    assert structure.describe() == "A (18 residues), A (7 residues, label B), A (8 residues, label C)"
    assert structure.chain("B").sequence == "GSSAKGG" and structure.chain("A").sequence.startswith("AKGS")
    assert structure.chain("A", number="20") is structure.chains[1] and structure.chain("A", number="99") is structure.chains[0]


@pytest.mark.parametrize("number", [1, lambda i: {5: 4, 6: 4}.get(i, i), lambda i: (i - 1) % 9 + 1])
def test_residues_with_one_authors_number_are_told_apart_by_mmcifs_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: object
) -> None:
    """A column of ones, three residues of one number, and two polymers that both count from 1; adjacent residues of one kind too."""
    path = cif(tmp_path, {"A": "AAGSAAAAA", "B": "AKGSAKGSA"}, number=number)
    with caplog.at_level(logging.WARNING):
        structure = read_structure(path)
    assert {c.label: c.sequence for c in structure.chains} == {"A": "AAGSAAAAA", "B": "AKGSAKGSA"}
    np.testing.assert_allclose(np.concatenate([c.ca[:, 0] for c in structure.chains]), 3.8 * np.arange(1, 19), rtol=1e-5)
    assert structure.chain("B").numbers == tuple(map(str, range(1, 10)))
    assert [r.getMessage().split(" in chain")[0] for r in caplog.records] == [
        f"{path}: found several residues with the authors' number {'1' if number == 1 or number(10) == 1 else '4'}"
    ]
    assert "".join(c.sequence for c in read_foldseek_chains(path).chains) == "AAGSAAAAAAKGSAKGSA"


def test_files_without_a_warning_keep_their_authors_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    structure = read_structure(cif(tmp_path, {"A": "AKGS"}, author="H", number=lambda i: i + 100))
    assert structure.chains[0].name == "H" and structure.chains[0].numbers == ("101", "102", "103", "104") and not caplog.records


@pytest.mark.parametrize("fields", [("auth_seq_id",), ("auth_seq_id", "auth_asym_id"), ("label_entity_id",), ("pdbx_PDB_ins_code",)])
def test_mmcif_of_other_writers_is_read_whole(tmp_path: Path, fields: tuple[str, ...]) -> None:
    path = without(cif(tmp_path, {"A": "AAGSAKGS"}), *fields)
    assert read_structure(path).chain("A").sequence == "AAGSAKGS"
    assert [c.sequence for c in read_foldseek_chains(path).chains] == ["AAGSAKGS"]


def test_three_residues_of_one_number_are_three_unless_they_are_marked_as_alternatives(tmp_path: Path) -> None:
    numbers = ["1", "2", "2", "2", "3"]
    path = write_lines(tmp_path / "x.pdb", chain_lines("AKGSA", numbers=numbers))
    assert read_structure(path).chains[0].sequence == "AKGSA"
    (chain,) = read_foldseek_chains(path).chains
    assert (chain.sequence, chain.num_alike) == ("AKA", 2), "createdb takes the first residue of a number"


def test_residues_that_gemmi_puts_together_are_refused_or_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.pdb", chain_lines("AKKKAL", numbers=["1", "2", "2", "2", "3", "4"]))
    with pytest.raises(FormatError, match=r"x\.pdb: chain A: found the atom N of residue 2 \(LYS\) twice.*give each residue a number"):
        read_structure(path)
    (chain,) = read_foldseek_chains(path).chains
    assert (chain.sequence, chain.num_alike) == ("AKAL", 2)


def test_chains_without_names_are_told_apart_by_ter(tmp_path: Path) -> None:
    """As AMBER writes them; one chain takes up nothing of another whose residues have its numbers."""
    ions = ["HETATM 9999 ZN    ZN   900      10.000  20.000  30.000  1.00 20.00          ZN  "]
    first, second = chain_lines("AKGSAA", chain=" "), chain_lines("KKGLSA", chain=" ")
    structure = read_structure(write_lines(tmp_path / "x.pdb", first, ["TER"], second, ["TER"], ions, ["END"]))
    assert [(c.name, c.label, c.sequence) for c in structure.chains] == [("", "", "AKGSAA"), ("", "_2", "KKGLSA")]
    assert structure.chain("blank").sequence == structure.chain("").sequence == "AKGSAA"
    assert structure.chain("_2").sequence == "KKGLSA" and not structure.others
    assert structure.describe() == "blank (6 residues), blank (6 residues, label _2)"


def test_a_name_given_twice_makes_two_chains(tmp_path: Path) -> None:
    a, b, again = chain_lines("AKGSAA"), chain_lines("GGGG", chain="B"), chain_lines("LLKK", numbers="5678")
    structure = read_structure(write_lines(tmp_path / "x.pdb", a, ["TER"], b, ["TER"], again, ["TER"]))
    assert [(c.name, c.label, c.sequence) for c in structure.chains] == [("A", "A", "AKGSAA"), ("B", "B", "GGGG"), ("A", "A_2", "LLKK")]
    assert structure.chain("A", number="8").label == "A_2"


@pytest.mark.parametrize("width", [54, 66])
def test_short_lines_are_read(tmp_path: Path, width: int) -> None:
    path = write_lines(tmp_path / "x.pdb", [line[:width] for line in chain_lines("AKGSA", chain=" ")])
    assert read_structure(path).chain("").sequence == "AKGSA"


def test_ligands_and_water_behind_ter_leave_a_chain_as_it_is(tmp_path: Path) -> None:
    """Even an amino acid as a ligand, and water that is written as ATOM."""
    ligand = [atom_line(n, "GLU", 301, (50 + i, 0, 0), record="HETATM") for i, n in enumerate(("N", "CA", "C", "O"))]
    water = [atom_line("O", "HOH", 400 + i, (60 + i, 0, 0)) for i in range(3)]
    structure = read_structure(write_lines(tmp_path / "x.pdb", chain_lines("AKGSAA"), ["TER"], ligand, water, ["END"]))
    assert structure.describe() == "A (6 residues)"


@pytest.mark.parametrize("place", [17, 13, 21])
@pytest.mark.parametrize("read", [read_structure, read_foldseek_chains])
def test_a_name_that_is_no_text_gets_one_line_with_its_place(tmp_path: Path, place: int, read: object) -> None:
    """Of a residue, an atom and a chain; a title in another encoding does not matter."""
    lines = [line.encode() for line in chain_lines("AKGSAA")]
    lines[8:12] = [line[:place] + b"\xe9" + line[place + 1 :] for line in lines[8:12]]
    path = tmp_path / "x.pdb"
    path.write_bytes(b"\n".join([b"TITLE     CAF\xc9", *lines, b""]))
    with pytest.raises(FormatError, match=r"x\.pdb:10: found b'ATOM.*xe9.*, which is no text, expected names in UTF-8") as caught:
        read(path)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    path.write_bytes(b"\n".join([b"TITLE     CAF\xc9", *lines[:8], *lines[12:], b""]))
    assert read_structure(path).chains[0].sequence == "AKSAA"


def test_a_file_packed_by_zstandard_says_how_to_unpack_it(tmp_path: Path) -> None:
    (tmp_path / "x.pdb.zst").write_bytes(b"\x28\xb5\x2f\xfd\x04\x00rest")
    with pytest.raises(FormatError, match=r"x\.pdb\.zst: is compressed by Zstandard.*unpack it with zstd -d"):
        read_structure(tmp_path / "x.pdb.zst")
