"""Molecules: other formats are refused with how to convert them, text without an atom is no SMILES, extensions are cut off and counted."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from protlig_dd.config import build
from protlig_dd.data.bundle import load
from protlig_dd.data.inspect import inspect
from protlig_dd.data.prepare import prepare_vocab
from protlig_dd.data.readers.complexes import read_pairs
from protlig_dd.data.readers.molecules import MoleculePolicy, read_molecules, read_smiles
from protlig_dd.data.settings import MoleculeData
from protlig_dd.data.splits import RandomSplit
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import LigandTrack, TrackSettings

SDF = "\n     RDKit          2D\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0    0.0    0.0 C   0  0\nM  END\n$$$$\n"
MOL2 = "@<TRIPOS>MOLECULE\nx\n 3 2 0 0 0\nSMALL\n@<TRIPOS>ATOM\n 1 C1 0 0 0 C.3 1 UNL 0\n"
XYZ = "3\nwater\nO 0.0 0.0 0.119\nH 0.0 0.763 -0.477\nH 0.0 -0.763 -0.477\n"
TRACKS = {"ligand": LigandTrack().build("ligand")}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        *(("a.sdf", SDF, "SDF"), ("a.txt", SDF, "SDF"), ("a.mol2", MOL2, "MOL2"), ("a.smi", MOL2, "MOL2"), ("a.xyz", XYZ, "XYZ")),
        *(("a.txt", XYZ, "XYZ"), ("a.mol", SDF, "a molfile"), ("a.pdb", "ATOM\n", "a structure"), ("a.sdf.gz", SDF, "SDF")),
    ],
)
def test_other_formats_are_refused_with_how_to_convert_them(tmp_path: Path, name: str, text: str, found: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    plain = name.removesuffix(".gz")
    words = f"{path}: found {found}, expected SMILES, one a line; convert it, for example: obabel {plain} -O a.smi"
    for use in (inspect, lambda file: list(read_molecules(file)), lambda file: prepare_vocab([file], tmp_path / "v.json")):
        with pytest.raises(FormatError) as caught:
            use(path)
        assert str(caught.value) == words
    assert not (tmp_path / "v.json").exists()


@pytest.mark.parametrize("text", ["-", ".", "()", "#", "1", "2.5", "(C)", "=O", "%12", "0.016 7"])
def test_a_text_that_does_not_begin_with_an_atom_is_no_smiles(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'smiles\nCCO\n"{text}"\n')
    found = inspect(path)
    assert found.encoded.kept == 1 and "is not SMILES, which begins with an atom" in found.encoded.first["ligand with unknown symbols"][0]
    with pytest.raises(FormatError, match=r"a\.csv:3: '.*' is not SMILES, which begins with an atom; correct or remove the record"):
        load(MoleculeData(path=str(path)), TRACKS)
    assert prepare_vocab([path], tmp_path / "v.json").refused == 1


def test_extensions_of_cxsmiles_are_cut_off_and_counted(tmp_path: Path) -> None:
    table, lines = tmp_path / "a.csv", tmp_path / "a.smi"
    table.write_text("smiles\nCC(O)CC |&1:1|\nCCO |$;;R1$|\nCCN\n")
    lines.write_text("CC(O)CC |&1:1| butanol\nCCO |$;;R1$|\nCCN amine\n7 CCO |$;;R1$|\n")
    assert [record.texts["ligand"] for record in read_molecules(table)] == ["CC(O)CC", "CCO", "CCN"]
    found = [(record.texts["ligand"], record.name) for record in read_molecules(lines)]
    assert found == [("CC(O)CC", "butanol"), ("CCO", ""), ("CCN", "amine"), ("CCO", "7")]
    for path, count in ((table, 2), (lines, 3)):
        assert inspect(path).encoded.remarks == {"CXSMILES extension (|...|), cut off": count}
        report = load(MoleculeData(path=str(path), split=RandomSplit(validation_fraction=0.5)), TRACKS).report
        assert f"  {count} kept with CXSMILES extension (|...|), cut off; in {path}:" in "\n".join(report.lines())


def test_a_word_behind_a_smiles_in_a_cell_is_no_extension(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("smiles,protein\nCCO ethanol,MKTAYIAK\n")
    (record,) = read_pairs(tmp_path / "a.csv")
    assert record.texts["ligand"] == "CCO ethanol" and record.remarks == ()


@pytest.mark.parametrize(
    "smiles", ["[NH3][Pt]([NH3])(Cl)Cl", "[NH3][Cu]([NH3])([NH3])[NH3]", "[NH3][Fe]([NH3])Cl", "[NH3][Ru]([NH3])([NH3])Cl"]
)
def test_metals_are_read_as_rdkit_writes_them(tmp_path: Path, smiles: str) -> None:
    """RDKit's canonical form of an ammine has the dative bonds -> and <-."""
    pytest.importorskip("rdkit")
    policy = MoleculePolicy(canonical=True)
    written = policy.apply(smiles, where="a:1")
    assert "->" in written or "<-" in written
    (tmp_path / "a.smi").write_text(f"{smiles}\n" * 4)
    report = prepare_vocab([tmp_path / "a.smi"], tmp_path / "v.json", molecules=policy)
    assert report.refused == 0 and {"->", "<-"} & set(report.kept)
    track = build(TrackSettings, {"kind": "ligand", "vocabulary": str(tmp_path / "v.json")}).build("ligand")
    assert track.decode(track.encode(written)) == written
    data = MoleculeData(path=str(tmp_path / "a.smi"), molecules=policy, split=RandomSplit(validation_fraction=0.5))
    assert sum(load(data, {"ligand": track}).report.examples.values()) == 4


def test_a_vocabulary_of_unreadable_smiles_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("CC>>CO\n")
    with pytest.raises(
        FormatError, match=r"prepare vocab: none of 1 records has a SMILES that can be read, the first: .*a\.smi:1: '>' at character 3"
    ):
        prepare_vocab([tmp_path / "a.smi"], tmp_path / "v.json")


def test_records_without_a_smiles_are_counted_by_prepare_vocab(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"smiles": "CCO"}\n{"smiles": null}\n{"smiles": ["C"]}\n')
    report = prepare_vocab([tmp_path / "a.jsonl"], tmp_path / "v.json")
    assert (report.molecules, report.refused) == (1, 2)
    assert "a.jsonl:2: found no ligand, expected one" in report.first[0] and "a.jsonl:3: found list ['C'] in the column" in report.first[1]


def test_a_line_longer_than_the_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("CCO\n" + "C" * 101 + "\n")
    assert len(list(read_smiles(tmp_path / "a.smi", max_record=101))) == 2
    with pytest.raises(FormatError, match=r"a\.smi:2: found a record of more than 100 characters"):
        list(read_smiles(tmp_path / "a.smi", max_record=100))
