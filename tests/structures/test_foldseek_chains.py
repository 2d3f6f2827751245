"""Tests of which residues, letters and names Foldseek takes from a file; the real files are compared in test_threedi.py."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.errors import FormatError
from protlig_dd.structures.foldseek_chains import FoldseekChain, read_foldseek_chains, structure_stem
from tests.support.backbones import backbone, chain_lines, write_lines
from tests.support.chains import atom_line
from tests.support.mmcif import CIF_HEAD

pytest.importorskip("gemmi")


def only(path: Path) -> FoldseekChain:
    (chain,) = read_foldseek_chains(path).chains
    return chain


def test_letters_are_the_twenty_and_x(tmp_path: Path) -> None:
    """Selenomethionine is M, selenocysteine C, an unknown X; insertion codes are residues of their own."""
    numbers = ["-1", "0", "1", "52", "52A", "52B", "53"]
    path = write_lines(tmp_path / "x.pdb", chain_lines("AMCXGKS", numbers=numbers))
    chain = only(path)
    assert (chain.sequence, chain.entry_name, chain.name, chain.model) == ("AMCXGKS", "x", "A", 1)
    np.testing.assert_allclose(chain.atoms_angstrom, backbone(7), atol=5.1e-4)
    assert chain.problem is None and chain.has_backbone and chain.num_without_ca == 0
    assert chain.atoms_angstrom.dtype == np.float64 and (chain.b_factors == 20).all()


def test_the_last_place_of_an_atom_and_the_first_residue_of_a_number_are_taken(tmp_path: Path) -> None:
    """Whatever their occupancies; Foldseek's own database has the last one in its entry e13."""
    places = backbone(5)
    lines = []
    for i in range(5):
        for name, place in zip(("N", "CA", "C", "CB"), places[i], strict=True):
            if i == 2:
                lines.append(atom_line(name, "ALA", i + 1, place, altloc="A", occupancy=0.9))
                lines.append(atom_line(name, "ALA", i + 1, place + 1, altloc="B", occupancy=0.1))
            else:
                lines.append(atom_line(name, "ALA", i + 1, place))
    # a second kind of residue under the same number, as in a mixture of sequences
    lines.insert(8, atom_line("CA", "SER", 2, (9, 9, 9), altloc="B"))
    chain = only(write_lines(tmp_path / "x.pdb", lines))
    assert chain.sequence == "AAAAA"
    np.testing.assert_allclose(chain.ca, places[:, 1] + (np.arange(5) == 2)[:, None], atol=5.1e-4)


def test_residues_without_c_alpha_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = chain_lines("AAAAAA")
    kept = [line for line in lines if not (line[12:16].strip() == "CA" and line[22:26].strip() == "3")]
    chain = only(write_lines(tmp_path / "x.pdb", kept))
    assert chain.sequence == "AAAAA" and chain.num_without_ca == 1
    np.testing.assert_allclose(chain.ca, np.delete(backbone(6)[:, 1], 2, axis=0), atol=5.1e-4)


def test_a_calcium_ion_is_a_residue_only_where_the_file_does_not_say_better(tmp_path: Path) -> None:
    """Without TER nothing says where the polymer ends, and the ion's atom is called CA: Foldseek keeps it as X."""
    ion = "HETATM 9999 CA    CA A 900      10.000  20.000  30.000  1.00 20.00          CA  "
    assert only(write_lines(tmp_path / "a.pdb", chain_lines("AAAA"), [ion])).sequence == "AAAAX"
    assert only(write_lines(tmp_path / "b.pdb", chain_lines("AAAA"), ["TER"], [ion])).sequence == "AAAA"


def test_names_say_the_model_and_the_chain_where_there_are_several(tmp_path: Path) -> None:
    a, b = chain_lines("AAAA"), chain_lines("KKKK", chain="B")
    two = read_foldseek_chains(write_lines(tmp_path / "x.1.pdb", a, ["TER"], b, ["TER"]))
    assert [c.entry_name for c in two.chains] == ["x.1_A", "x.1_B"] and two.num_models == 1
    models = write_lines(tmp_path / "m.ent", ["MODEL        1"], a, ["ENDMDL", "MODEL        2"], a, ["ENDMDL"])
    found = read_foldseek_chains(models)
    assert [(c.entry_name, c.model) for c in found.chains] == [("m_MODEL_1_A", 1), ("m_MODEL_2_A", 2)]
    assert found.num_models == 2


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("1tim.pdb.gz", "1tim"),
        ("d1qd6.1.ent", "d1qd6.1"),
        ("d1asha_", "d1asha_"),
        ("jump32.767.pdb", "jump32.767"),
        ("X.CIF.GZ", "X.CIF"),
        ("model.mmcif", "model"),
        ("a.b", "a"),
        ("3bg1.pdb1", "3bg1"),
        ("6nrz.pdb1.gz", "6nrz"),
        ("d2hox.1", "d2hox"),
        ("x.pdb.zst", "x"),
        ("AF-P12345-F1-model_v4.cif.gz", "AF-P12345-F1-model_v4"),
        ("x.gz", "x"),
    ],
)
def test_a_name_loses_the_suffix_of_a_structure_file(name: str, stem: str) -> None:
    assert structure_stem(Path("folder.pdb") / name) == stem


@pytest.mark.parametrize(
    ("sequence", "kind", "words"), [("AAA", "too short", "found 3 residues"), ("XXXXX", "all residues unknown", "found 5 residues, none")]
)
def test_what_foldseek_does_not_take_has_a_reason(tmp_path: Path, sequence: str, kind: str, words: str) -> None:
    problem = only(write_lines(tmp_path / "x.pdb", chain_lines(sequence))).problem
    assert problem is not None and problem[0] == kind and words in problem[1]


def test_chains_of_other_things_hold_no_protein(tmp_path: Path) -> None:
    dna = [atom_line("P", " DA", i, (i, 0, 0), chain="D") for i in range(1, 7)]
    protein, other = read_foldseek_chains(write_lines(tmp_path / "x.pdb", chain_lines("AAAA"), ["TER"], dna)).chains
    assert (protein.entry_name, protein.problem) == ("x_A", None)
    assert other.problem is not None and other.problem[0] == "no protein" and "6 residues without" in other.problem[1]


def test_c_alpha_atoms_alone_are_distinguished_from_a_backbone(tmp_path: Path) -> None:
    assert not only(write_lines(tmp_path / "a.pdb", chain_lines("AAAAAA", names=("CA",)))).has_backbone
    assert not only(write_lines(tmp_path / "b.pdb", chain_lines("AAAAAA", names=("CA", "N")))).has_backbone
    assert only(write_lines(tmp_path / "c.pdb", chain_lines("AAAAAA", names=("CA", "N", "C")))).has_backbone


def test_titles_are_one_line_and_may_be_no_text(tmp_path: Path) -> None:
    lines = ["TITLE     A PROTEIN WITH A LONG", "TITLE    2 NAME"]
    assert read_foldseek_chains(write_lines(tmp_path / "a.pdb", lines, chain_lines("AAAA"))).title.startswith("A PROTEIN")
    path = tmp_path / "b.pdb"
    path.write_bytes(b"TITLE     CAF\xe9\n" + "\n".join(chain_lines("AAAA")).encode())
    assert read_foldseek_chains(path).title in ("", "CAF\udce9", "CAFé")


def test_files_that_are_no_structures_say_so(tmp_path: Path) -> None:
    empty = write_lines(tmp_path / "x.cif", ["data_x", "_entry.id x"])
    with pytest.raises(FormatError, match="x.cif: found no atoms"):
        read_foldseek_chains(empty)
    (tmp_path / "y.pdb.gz").write_bytes(gzip.compress(b"no structure at all\n"))
    with pytest.raises(FormatError, match="y.pdb.gz"):
        read_foldseek_chains(tmp_path / "y.pdb.gz")
    (tmp_path / "z.pdb.gz").write_bytes(gzip.compress("\n".join(chain_lines("AAAA")).encode())[:-20])
    with pytest.raises(FormatError, match="z.pdb.gz: not readable"):
        read_foldseek_chains(tmp_path / "z.pdb.gz")
    with pytest.raises(FormatError, match="no such file"):
        read_foldseek_chains(tmp_path / "absent.pdb")


def test_coordinates_that_are_no_numbers_are_missing_atoms(tmp_path: Path) -> None:
    """mmCIF may have a question mark for a coordinate: of a C-alpha it takes the residue away, of another atom that atom."""
    rows = []
    for i, places in enumerate(backbone(6), 1):
        for name, place in zip(("N", "CA", "C", "CB"), places, strict=True):
            x = "?" if (name, i) in {("CA", 2), ("N", 4)} else f"{place[0]:.3f}"
            rows.append(f"ATOM {len(rows)} {name[0]} {name} . ALA A 1 {i} ? {x} {place[1]:.3f} {place[2]:.3f} 1 20 {i} A 1")
    chain = only(write_lines(tmp_path / "x.cif", [CIF_HEAD], rows))
    assert chain.sequence == "AAAAA" and chain.num_without_ca == 1
    assert np.isnan(chain.atoms_angstrom[2, 0]).any() and np.isfinite(chain.ca).all()
