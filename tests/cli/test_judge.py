"""`protlig judge`: ligands of any program, from every form of file, against a table of actives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.cli.entry import main
from protlig_dd.evaluation.sections import read_evaluation
from protlig_dd.runs.output import write_rows

pytest.importorskip("rdkit", reason="molecules need RDKit: pip install 'protlig_dd[ligand]'")

ACTIVES = {"P1": ["CCO", "CCCO", "CCCCO"], "P2": ["Cc1ccccc1", "Clc1ccccc1", "Brc1ccccc1"], "P3": ["CC(=O)NC", "CC(=O)NCC", "CCC(=O)NC"]}
PROTEINS = {name: "".join(np.random.default_rng(i).choice(list("ACDEFGHIKLMNPQRSTVWY"), 40)) for i, name in enumerate(ACTIVES)}
ROWS = [
    {"id": 0, "name": "any", "protein": PROTEINS["P1"], "ligand": "OCC", "nll_per_token": 1.5},
    {"id": 1, "name": "any", "protein": PROTEINS["P1"], "ligand": "Cc1ccccc1", "nll_per_token": 1.6},
    {"id": 2, "name": "P2", "protein": PROTEINS["P2"], "ligand": "Cc1ccccc1", "nll_per_token": 1.7},
    {"id": 3, "name": "P2", "protein": PROTEINS["P2"], "ligand": "C1(", "nll_per_token": 1.8},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"{name},{PROTEINS[name]},{smiles},1" for name, own in ACTIVES.items() for smiles in own]
    lines += [f"P1,{PROTEINS['P1']},{smiles},0" for smiles in ACTIVES["P2"]]  # measured not to bind
    Path("actives.csv").write_text("target_id,protein,smiles,label\n" + "\n".join(lines) + "\n")
    Path("training.csv").write_text(f"protein,smiles\n{PROTEINS['P1']},CCCCCO\n{PROTEINS['P3']},Cc1ccccc1\n")
    return tmp_path


def judged(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["judge", *arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def specific(out: str, row: str = "samples") -> float:
    (line,) = re.findall(rf"^{row}  +(\S+)", out, flags=re.MULTILINE)
    return float(line)


def test_samples_of_protlig_are_judged_by_sequence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("samples.csv"), ROWS, {})
    out = judged(capsys, "samples.csv", "--actives", "actives.csv", "--out", "judged.json")
    assert "2 targets in 2 clusters" in out and "1 of 4 left out: 1 syntax" in out
    assert specific(out) == pytest.approx(2 / 3, abs=0.01)  # pairs labelled 0 are no actives: toluene is not nearest to P1
    assert "no --training" in out and "copies of training" not in out
    (section,) = read_evaluation(Path("judged.json"))
    assert section.title == "Specificity of samples.csv" and section.scores[0].value.num == 3


@pytest.mark.parametrize("name", ["samples.smi", "samples.sdf", "samples.jsonl"])
def test_every_form_of_samples_is_read(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    rows = [{**row, "name": "P1" if row["protein"] == PROTEINS["P1"] else "P2"} for row in ROWS]
    write_rows(Path(name), rows, {})
    out = judged(capsys, name, "--actives", "actives.csv")
    assert specific(out) == pytest.approx(2 / 3, abs=0.01)
    assert ("1 of 4 left out" in out) == (name != "samples.sdf")
    assert ("valid molecules only" in out) == (name == "samples.sdf")


def test_training_pairs_give_copies_and_nulls_and_other_models_stand_beside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("samples.csv"), ROWS, {})
    Path("tuned.csv").write_text("smiles,target\nCCO,P1\nCC,P9\nCCCO,P1\nBrc1ccccc1,P2\n")
    out = judged(capsys, "samples.csv", "--actives", "actives.csv", "--training", "training.csv", "--beside", "tuned=tuned.csv")
    assert specific(out, "tuned") == 1.0
    assert "tuned.csv: 1 of other targets than the actives', such as 'P9', left out" in out
    assert re.search(r"exact copies of training ligands +0.67", out)
    assert specific(out, r"training ligands of the target \(copying\)") == 1.0
    assert specific(out, "training ligands of the nearest other protein") < 1


def test_a_column_that_names_the_target_can_be_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.csv").write_text("id,smiles,receptor\n1,CCO,P1\n2,CCO,P2\n")
    assert specific(judged(capsys, "other.csv", "--actives", "actives.csv", "--target", "receptor")) == 0.5
    refuses = refused(capsys, "other.csv", "--actives", "actives.csv")
    assert "other.csv: found 2 of other targets than the actives', such as '1', expected ligands of P1, P2, P3" in refuses


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["judge", *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def wrong_inputs() -> Iterator[tuple[list[str], str]]:
    yield ["samples.csv", "--actives", "none.csv"], "none.csv"
    yield ["none.csv", "--actives", "actives.csv"], "none.csv"
    yield ["none.sdf", "--actives", "actives.csv"], "none.sdf: found no such file"
    yield ["samples.csv", "--actives", "actives.csv", "--beside", "tuned.csv"], "--beside 'tuned.csv': expected NAME=FILE"
    yield ["samples.csv", "--actives", "actives.csv", "--target", "nme"], "expected 'nme' (did you mean 'name'?); correct --target"
    yield ["samples.csv", "--actives", "one.csv"], "--actives one.csv: actives: found 1 of 1 targets with 3 different actives or more"
    yield ["samples.csv", "--actives", "actives.csv", "--out", "x.csv"], "--out x.csv: found '.csv', expected one of .json"
    yield ["bare.csv", "--actives", "actives.csv"], "bare.csv: found no column that names the target of a ligand; give it with --target"


@pytest.mark.parametrize(
    ("arguments", "message"), list(wrong_inputs()), ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_what_cannot_be_judged_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_rows(Path("samples.csv"), ROWS, {})
    Path("one.csv").write_text("target_id,protein,smiles\n" + "".join(f"P1,{PROTEINS['P1']},{s}\n" for s in ACTIVES["P1"]))
    Path("bare.csv").write_text("smiles\nCCO\n")
    assert message in refused(capsys, *arguments)


def test_ligands_of_one_target_are_compared_with_all_targets_of_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("samples.csv"), ROWS[:2], {})
    out = judged(capsys, "samples.csv", "--actives", "actives.csv")
    assert "3 targets in 3 clusters" in out
    assert specific(out) == pytest.approx(0.5)
    assert specific(out, r"samples at other targets \(shuffled\)") < 0.5
