"""SELFIES as the notation of ligands: round trips, molecules from any symbols, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.cli import main
from protlig_dd.errors import FormatError
from protlig_dd.runs.generate import open_tokens
from protlig_dd.tokens.ligand import load_vocabulary
from protlig_dd.tokens.selfies_notation import read_selfies, selfies_vocabulary
from protlig_dd.tokens.settings import LigandTrack

Chem = pytest.importorskip("rdkit.Chem")
TRACK = LigandTrack(notation="selfies").build("ligand")
MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)[O-]", "C[NH+](C)Cc1ccc2[nH]ncc2c1", "F/C=C/Cl", "O=S(=O)(N1CCC1)c1cnccc1Br", "CC#N.[Na+].[Cl-]",
    "C1CC2CCC1CC2", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "OB(O)c1ccccc1", "C[Si](C)(C)C",
]  # fmt: skip


def canonical(smiles: str) -> str:
    molecule = Chem.MolFromSmiles(smiles)
    assert molecule is not None, smiles
    return str(Chem.MolToSmiles(molecule))


@pytest.mark.parametrize("smiles", MOLECULES)
def test_a_molecule_comes_back_as_the_same_molecule(smiles: str) -> None:
    assert canonical(TRACK.decode(TRACK.encode(smiles))) == canonical(smiles)


@given(st.lists(st.sampled_from(sorted(set(TRACK.vocabulary.emittable_ids) - {TRACK.vocabulary.ids["."]})), min_size=1, max_size=60))
def test_any_symbols_are_a_molecule(ids: list[int]) -> None:
    smiles = TRACK.decode(ids)
    assert Chem.MolFromSmiles(smiles, sanitize=False) is not None, smiles


def test_the_symbols_are_distinct_and_those_of_the_package() -> None:
    selfies = pytest.importorskip("selfies")
    symbols = [s for s in selfies_vocabulary().symbols if s.startswith("[")]
    assert len(symbols) == len(set(symbols))
    for symbol in symbols:
        selfies.decoder(f"[C][C]{symbol}[C][C]")
    missing = selfies.get_semantic_robust_alphabet() - set(symbols)
    assert not {s for s in missing if s.strip("[]=#") in ("C", "N", "O", "S", "P", "F", "Cl", "Br", "I", "B")}


def test_masks_are_shown_and_not_translated() -> None:
    ids = TRACK.encode("CCO")
    ids[2] = TRACK.vocabulary.mask_id
    assert TRACK.decode(ids) == "[C]_[O]"
    assert read_selfies("[C][C]") == "CC"


@pytest.mark.parametrize("text", ["c1cc", "", "C(C)(C)(C)(C)C", "hello", "[", "C%1"])
def test_what_is_no_molecule_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="x.smi:3: "):
        TRACK.encode(text, where="x.smi:3")


def test_gaps_in_a_smiles_are_refused_with_the_reason() -> None:
    with pytest.raises(FormatError, match="cannot be written as SELFIES"):
        open_tokens(TRACK, "c1cc__cc1")


def test_a_vocabulary_is_made_in_the_notation_of_a_config(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("\n".join(MOLECULES))
    (tmp_path / "c.yaml").write_text("extends: pairs/small\n")
    out = tmp_path / "v.json"
    assert main(["prepare", "vocab", str(tmp_path / "a.smi"), "--out", str(out), "--config", str(tmp_path / "c.yaml")]) == 0
    assert "[=C]" in load_vocabulary(out).symbols
    track = LigandTrack(notation="selfies", vocabulary=str(out)).build("ligand")
    assert canonical(track.decode(track.encode(MOLECULES[0]))) == canonical(MOLECULES[0])
