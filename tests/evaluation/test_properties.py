"""Properties of aspirin and friends against published or RDKit's own reference values; the SA score's data file."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import pytest

from protlig_dd.errors import FormatError, MissingDependencyError

pytest.importorskip("rdkit", reason="molecules need RDKit: pip install 'protlig_dd[ligand]'")

from rdkit import Chem, RDConfig

from protlig_dd.evaluation import properties
from protlig_dd.evaluation.properties import PROPERTIES

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QED", 0.5501),
        ("SA score", 1.5800),
        ("logP", 1.3101),
        ("MW", 180.159),
        ("HBD", 1),
        ("HBA", 3),
        ("TPSA", 63.60),
        ("rotatable bonds", 2),
        ("Lipinski violations", 0),
    ],
)
def test_aspirin_has_its_known_properties(name: str, value: float) -> None:
    assert PROPERTIES[name](Chem.MolFromSmiles(ASPIRIN)) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(
    ("smiles", "violations"),
    [
        ("C", 0),
        ("C" * 20, 1),  # eicosane: log P only
        ("C" * 40, 2),  # and weight 562
        ("O=C(O)" + "C(O)" * 12 + "C(=O)O", 2),  # 14 donors, 16 acceptors, 450 Da
    ],
)
def test_lipinski_counts_each_limit_once(smiles: str, violations: int) -> None:
    assert properties.lipinski_violations(Chem.MolFromSmiles(smiles)) == violations


@pytest.mark.parametrize("smiles", ["C", "[H][H]", "*", "[Na+].[Cl-]", "[He]", "C" * 200])
@pytest.mark.parametrize("name", list(PROPERTIES))
def test_odd_molecules_have_finite_properties(smiles: str, name: str) -> None:
    assert abs(PROPERTIES[name](Chem.MolFromSmiles(smiles))) < 1e4


@pytest.mark.parametrize("present", [(), ("sascorer.py",)])
def test_a_missing_sa_table_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...]) -> None:
    (tmp_path / "SA_Score").mkdir()
    for name in present:
        (tmp_path / "SA_Score" / name).write_text("")
    monkeypatch.setattr(RDConfig, "RDContribDir", str(tmp_path))
    absent = "fpscores.pkl.gz" if present else "sascorer.py"
    with pytest.raises(
        MissingDependencyError, match=rf"SA score needs {absent} .* pip install 'protlig_dd\[ligand\]'.* leave 'SA score' out"
    ):
        properties.sa_score(Chem.MolFromSmiles("C"))


class Calls:
    """Something whose pickle calls a function when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("called",))


@pytest.mark.parametrize("content", [pickle.dumps(Calls()), b"", b"no pickle"])
def test_a_table_that_is_not_plain_numbers_is_refused_unrun(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "fpscores.pkl.gz"
    table.write_bytes(gzip.compress(content))
    with pytest.raises(FormatError, match=r"fpscores.pkl.gz: not readable as SA fragment scores: .*; reinstall RDKit"):
        properties._read_fragment_scores(table)
    assert capsys.readouterr().out == ""


def test_a_table_that_is_not_gzipped_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "fpscores.pkl.gz"
    table.write_bytes(pickle.dumps([[1.0, 2]]))
    with pytest.raises(FormatError, match="not readable as SA fragment scores: Not a gzipped file"):
        properties._read_fragment_scores(table)
