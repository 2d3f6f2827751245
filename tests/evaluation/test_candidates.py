"""What is said about a molecule that a search proposes: alerts of known catalogues and of strained rings, and likeness to the lead."""

from __future__ import annotations

import pytest

from protlig_dd.cli.optimize import _rows, _summary
from protlig_dd.evaluation.candidates import similarities, structural_alerts
from protlig_dd.sampling.optimize import Candidate, OptimizeResult, Round

pytest.importorskip("rdkit", reason="molecules need RDKit (extra ligand)")


@pytest.mark.parametrize(
    ("smiles", "alert"),
    [
        ("CC1=CC=C1C(=O)N", "cyclobutadiene"),
        ("C1=CC2=C1C=CC=C2", "cyclobutadiene"),
        ("C1=CC1", "double bond in a ring of three"),
        ("C1#CCCC1", "triple bond in a small ring"),
        ("C1=C=CCC1", "cumulated double bonds in a small ring"),
        ("CC(=O)Cl", "acid_halide"),
        ("O=C1C=CC(=O)C=C1", "quinone_A(370)"),
        ("C1CC", "no valid molecule"),
    ],
)
def test_an_unstable_or_reactive_molecule_has_its_alert(smiles: str, alert: str) -> None:
    assert alert in structural_alerts(smiles)


@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1", "C1CCC1", "C1CC1", "c1ccc2c(c1)-c1ccccc1-2", "CC(=O)Nc1ccc(C)cc1"])
def test_a_plain_molecule_has_none(smiles: str) -> None:
    assert structural_alerts(smiles) == ()


def test_similarity_is_one_for_the_lead_itself_however_written() -> None:
    assert similarities("CCO", ["OCC", "C(O)C", "CCN", "c1ccccc1", "x"]) == pytest.approx([1, 1, 1 / 3, 0, 0])


def candidate(text: str, score: float) -> Candidate:
    return Candidate(text=text, score=score, ids=())


def test_the_lead_and_doubles_are_left_out_of_the_results_and_shares_are_told() -> None:
    lead = candidate("CCO", 0.4)
    found = tuple(candidate(s, x) for s, x in (("CC1=CC=C1C", 0.9), ("NCC", 0.8), ("CCN", 0.8), ("OCC", 0.4), ("CCO", 0.4)))
    rows = _rows(lead, found)
    assert [(r["rank"], r["ligand"], r["score"], r["alerts"]) for r in rows] == [
        (1, "CC1=CC=C1C", 0.9, "cyclobutadiene"),
        (2, "NCC", 0.8, ""),
    ]
    assert rows[1]["similarity"] == pytest.approx(1 / 3, abs=1e-3)
    rounds = tuple(Round(t=0.5, num_samples=8, num_admissible=n, num_evaluations=1, mean=0.5, best=0.9) for n in (2, 4))
    result = OptimizeResult(lead=lead, best=found, history=rounds, null_best=(lead,), null=rounds[:1], num_evaluations=9)
    lines = "\n".join(_summary(result, rows))
    for words in (
        "6 of 16 (38 %)",
        "without selection 2 of 8 (25 %)",
        "best  0.9000 after 9",
        "alerts: 1 of 2 molecules; the best without one: 0.8000",
    ):
        assert words in lines, lines
    assert "no molecule but the lead" in "\n".join(_summary(result, _rows(lead, (lead, candidate("OCC", 0.4)))))
