"""Tests of reading structures: hand-written files whose every oddity is known, and real ones against Foldseek's own reading."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.data.readers.conditions import read_proteins
from protlig_dd.errors import FormatError
from protlig_dd.structures.structure_io import Chain, Gap, Structure, read_structure, write_pdb
from tests.support.chains import atom_line, helix, pdb_text
from tests.support.mmcif import CIF_HEAD

pytest.importorskip("gemmi")

DNA = "\n".join(
    atom_line(name, residue, i + 1, (4.0 * i + j, 0, 0), chain="D")
    for i, residue in enumerate((" DA", " DC", " DG", " DT"))
    for j, name in enumerate(("P", "O5'", "C5'", "C4'", "C3'", "O3'"))
)


def cif_text(rows: list[tuple[str, str, int, int, str, float]]) -> str:
    """Return mmCIF text of C-alpha atoms: residue, label chain, label number, author number, author chain, x."""
    lines = [
        f"ATOM {i} C CA . {residue} {label} 1 {label_seq} ? {x} 0.0 0.0 1.0 20.0 {number} {author} 1"
        for i, (residue, label, label_seq, number, author, x) in enumerate(rows, 1)
    ]
    return "\n".join([CIF_HEAD, *lines, ""])


def written(folder: Path, text: str, name: str = "x.pdb") -> Path:
    path = folder / name
    path.write_text(text, newline="")
    return path


def test_a_chain_has_its_letters_numbers_and_gaps(tmp_path: Path) -> None:
    """MSE is M, an unknown is X, insertion codes stay with their numbers, a jump of the numbers over a real hole is a gap."""
    residues = [("ALA", "-1"), ("MSE", "0"), ("SEP", "1"), ("UNK", "2"), ("GLY", "52"), ("TRP", "52A"), ("SEC", "53")]
    chain = read_structure(written(tmp_path, pdb_text(residues, record="HETATM"))).chain("A")
    assert chain.sequence == "AMSXGWU"
    assert chain.residue_names[1:3] == ("MSE", "SEP")
    assert chain.numbers == ("-1", "0", "1", "2", "52", "52A", "53")
    assert chain.index_of["52A"] == 5
    assert chain.gaps == (Gap(after=3, num_missing=49),)
    assert chain.coords_angstrom.dtype == np.float32
    assert np.isnan(chain.coords_angstrom[4, 4]).all(), "glycine has no C-beta"
    np.testing.assert_allclose(chain.ca[1], [3.8 + 1.2, 0, 0], atol=1e-3)


def test_a_numbering_that_jumps_over_an_intact_bond_is_no_gap_and_a_broken_bond_is_one(tmp_path: Path) -> None:
    bond = [atom_line(n, "ALA", k, (x + s, 0, 0)) for k, x in ((1, 0.0), (9, 3.8), (10, 20.0)) for n, s in (("N", 0.0), ("CA", 1.2), ("C", 2.5))]  # fmt: skip
    chain = read_structure(written(tmp_path, "\n".join(bond))).chain("A")
    assert chain.gaps == (Gap(after=1, num_missing=0),)


def test_the_best_occupied_conformer_is_read_and_ties_go_to_the_first(tmp_path: Path) -> None:
    lines = []
    for number, residue, occupancies in ((1, "ALA", (0.3, 0.7)), (2, "SER", (0.5, 0.5)), (3, "VAL", (1.0,))):
        for name, dx in (("N", 0.0), ("CA", 1.2), ("C", 2.5)):
            for i, occupancy in enumerate(occupancies):
                place, altloc = (3.8 * (number - 1) + dx + 0.1 * i, 0, 0), "AB"[i] if len(occupancies) > 1 else " "
                lines.append(atom_line(name, residue, number, place, altloc=altloc, occupancy=occupancy))
    chain = read_structure(written(tmp_path, "\n".join(lines))).chain("A")
    np.testing.assert_allclose(chain.ca[:, 0], [1.3, 5.0, 8.8], atol=1e-3)


def test_two_residues_under_one_number_give_the_better_occupied_one(tmp_path: Path) -> None:
    lines = [atom_line(n, "GLY", 1, (s, 0, 0)) for n, s in (("N", 0.0), ("CA", 1.2), ("C", 2.5))]
    for residue, altloc, occupancy in (("SER", "A", 0.4), ("THR", "B", 0.6)):
        lines += [
            atom_line(n, residue, 2, (3.8 + s, 0, 0), altloc=altloc, occupancy=occupancy) for n, s in (("N", 0.0), ("CA", 1.2), ("C", 2.5))
        ]
    assert read_structure(written(tmp_path, "\n".join(lines))).chain("A").sequence == "GT"


def test_chains_are_found_by_either_name_the_authors_first(tmp_path: Path) -> None:
    rows = [("ALA", "A", i, i + 100, "H", 3.8 * i) for i in (1, 2, 4, 5)]
    rows += [("GLY", "B", i, i, "A", 3.8 * i) for i in (1, 2, 3, 4)]
    structure = read_structure(written(tmp_path, cif_text(rows), "x.cif"))
    assert [(c.name, c.label, c.sequence) for c in structure.chains] == [("H", "A", "AAAA"), ("A", "B", "GGGG")]
    assert structure.chain("A").sequence == "GGGG", "an author's name wins over a label"
    assert structure.chain("B").sequence == "GGGG"
    assert structure.chain("H").numbers == ("101", "102", "104", "105")
    assert structure.chain("H").gaps == (Gap(after=1, num_missing=1),)
    with pytest.raises(FormatError, match=r"x\.cif: found no protein chain 'Q', expected one of H \(4 residues, label A\), A"):
        structure.chain("Q")


def test_windows_line_ends_gzip_and_odd_names_change_nothing(tmp_path: Path) -> None:
    text = pdb_text([("ALA", "1"), ("MSE", "2"), ("TRP", "3")])
    plain = read_structure(written(tmp_path, text)).chain("A")
    zipped = tmp_path / "with blank.ent.gz"
    zipped.write_bytes(gzip.compress(text.replace("\n", "\r\n").encode()))
    for path in (written(tmp_path, text.replace("\n", "\r\n"), "w.pdb"), zipped, written(tmp_path, text, "d1asha_")):
        chain = read_structure(path).chain("A")
        assert chain.sequence == plain.sequence == "AMW"
        np.testing.assert_array_equal(chain.coords_angstrom, plain.coords_angstrom)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.pdb", "", r"x\.pdb: not readable as a structure .*; expected PDB or mmCIF"),
        ("x.pdb", "hello\n", r"x\.pdb: not readable as a structure .*; expected PDB or mmCIF"),
        ("x.pdb", ">name\nMKTAYI\n", r"x\.pdb: (not readable|found no atoms)"),
        ("x.cif", "data_x\n_cell.a 1\n", r"x\.cif: found no atoms, expected a PDB or mmCIF file with coordinates"),
        ("x.pdb.gz", "plain text", r"x\.pdb\.gz: not readable as a structure"),
        ("x.pdb", DNA, r"x\.pdb: found no protein chain; no protein: D \(DNA\); expected a protein with coordinates"),
    ],
)
def test_what_is_no_protein_structure_gets_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_structure(written(tmp_path, text, name))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_get_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pdb", tmp_path):
        with pytest.raises(FormatError, match="found no such file"):
            read_structure(path)


def test_the_chains_that_are_there_stand_in_the_message_for_a_wrong_one(tmp_path: Path) -> None:
    path = written(tmp_path, pdb_text([("ALA", "1"), ("GLY", "2")]) + DNA)
    with pytest.raises(FormatError, match=r"no protein chain 'B', expected one of A \(2 residues\); no protein: D \(DNA\)"):
        read_proteins(f"{path}:B")
    assert read_proteins(f"{path}:A") == read_proteins(str(path)) == [("x_A", "AG")]


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    residues = [("ALA", "5"), ("MSE", "6"), ("GLY", "7"), ("TRP", "7A"), ("UNK", "9")]
    chain = read_structure(written(tmp_path, pdb_text(residues) + pdb_text(residues[:2], chain="B"))).chains[0]
    again = tmp_path / "again.pdb"
    write_pdb(Structure(source="x", chains=(chain, Chain.of_coordinates("AXW", helix(3)[:, None], name="Z"))), again)
    first, second = read_structure(again).chains
    assert (first.sequence, first.numbers, first.residue_names) == (chain.sequence, chain.numbers, chain.residue_names)
    np.testing.assert_allclose(first.coords_angstrom, chain.coords_angstrom, atol=5.1e-4)
    assert (second.name, second.sequence, second.numbers) == ("Z", "AXW", ("1", "2", "3"))
    np.testing.assert_allclose(second.ca, helix(3), atol=5.1e-4)
    assert np.isnan(second.backbone[:, 0]).all()
    with pytest.raises(ValueError, match="chain name 'long', expected at most 2"):
        write_pdb(Chain.of_coordinates("A", helix(1)[:, None], name="long"), again)


@pytest.mark.data
def test_every_real_chain_has_the_letters_and_places_that_foldseek_reads(shared: Path) -> None:
    """41 chains of PDB, gzipped PDB and mmCIF files: residues with a C-alpha, letter by letter, and coordinates to 0.001 A."""
    folder = shared / "data" / "foldseek_example"
    lines = (folder / "truth" / "plain" / "aa.fasta").read_text().splitlines()
    truth = {name[1:].split()[0]: letters for name, letters in zip(lines[::2], lines[1::2], strict=True)}
    seen = 0
    for path in sorted([*(folder / "structures" / "pdb").iterdir(), *(folder / "structures" / "cif").iterdir()]):
        structure = read_structure(path)
        stem = path.name.removesuffix(".gz").removesuffix(".pdb").removesuffix(".cif").removesuffix(".ent")
        for chain in structure.chains:
            name = f"{stem}_{chain.name}" if len(structure.chains) > 1 else stem
            letters = "".join(a for a, kept in zip(chain.sequence, chain.has_ca, strict=True) if kept)
            assert letters.replace("U", "C") == truth[name], name
            seen += 1
            dump = folder / "truth" / "plain" / "ca_per_chain" / f"{name}.pdb"  # of chain A, with chain B behind it
            if dump.is_file():
                atoms = [line for line in dump.read_text().splitlines() if line.startswith("ATOM")][: len(letters)]
                places = np.array([[float(line[30 + 8 * i : 38 + 8 * i]) for i in range(3)] for line in atoms])
                np.testing.assert_allclose(chain.ca[chain.has_ca], places, atol=2.1e-3)
    assert seen == 41
