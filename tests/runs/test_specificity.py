"""Specificity in the evaluation of a run on pairs: which targets, which samples, what is written and shown."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.sections import read_evaluation
from protlig_dd.evaluation.specificity import HELD_OUT, SAMPLES
from protlig_dd.runs import evaluate
from protlig_dd.runs.evaluate import evaluate_run, summarise_evaluation
from protlig_dd.runs.experiment import load_experiment
from protlig_dd.runs.held_out import HeldOut
from protlig_dd.runs.open import open_run
from protlig_dd.runs.run import Run
from protlig_dd.runs.train import train_experiment
from protlig_dd.sampling.requests import Request, Sample
from tests.support.smoke import SMOKE

pytest.importorskip("rdkit", reason="molecules need RDKit: pip install 'protlig_dd[ligand]'")
pytestmark = pytest.mark.xdist_group("run")

FAMILIES = {
    "P1": ["CCO", "CCCO", "CCCCO", "CCCCCO", "CC(C)O", "OCCO"],
    "P2": ["Cc1ccccc1", "Clc1ccccc1", "Brc1ccccc1", "Fc1ccccc1", "Oc1ccccc1", "Nc1ccccc1"],
    "P3": ["CC(=O)NC", "CC(=O)NCC", "CCC(=O)NC", "CC(=O)N", "CCC(=O)N", "CCCC(=O)N"],
    "P4": ["CCS", "CCCS", "CCCCS", "CCCCCS", "CSC", "SCCS"],
}


def protein(name: str) -> str:
    return "".join(np.random.default_rng(int(name[1:])).choice(list("ACDEFGHIKLMNPQRSTVWY"), 30))


def write_pairs(path: Path) -> None:
    """Four targets with six ligands each: the first two for training, the rest for the test; P4 has two for the test only."""
    lines = ["Drug_ID,Drug,Target_ID,Target,label,split"]
    for name, ligands in FAMILIES.items():
        for i, smiles in enumerate(ligands):
            part = "train" if i < (4 if name == "P4" else 2) else "validation" if i == 2 else "test"
            lines.append(f"D{i},{smiles},{name},{protein(name)},1,{part}")
    lines.append(f"D0,OCC,P1,{protein('P1')},1,test")  # trained on as CCO
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps on these pairs."""
    root = tmp_path_factory.mktemp("pairs")
    write_pairs(root / "pairs.csv")
    data = f"{{kind: pairs, path: {root / 'pairs.csv'}, split: {{kind: given}}, leakage: false}}"
    overrides = [
        *SMOKE,
        "name=pairs",
        f"data={data}",
        "evaluation.num_samples=8",
        "evaluation.specificity={samples_per_target: 3, guidance: [1, 2.5]}",
    ]
    train_experiment(load_experiment("demo/smoke", overrides), root / "run", device="cpu")
    return root / "run"


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    shutil.copytree(folder, tmp_path / "run")
    return open_run(tmp_path / "run", device="cpu")


class Writing:
    """A generator that writes the test ligands of the right target, one after another, and now and then no molecule."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def settings(self) -> dict[str, Any]:
        return {"seed": 0}

    def generate(self, requests: Sequence[Request], num: int) -> Iterator[Sample]:
        own = {protein(name): smiles for name, smiles in FAMILIES.items()}
        for request in requests:
            self.asked.append((request.name, num))
            for copy, smiles in enumerate([*own[request.given["protein"]][3:], "C("][:num]):
                yield Sample(id=copy, request=request.name, texts={"protein": request.given["protein"], "ligand": smiles})


def test_targets_are_named_by_the_table_and_have_the_ligands_that_were_not_trained_on(run: Run) -> None:
    held = HeldOut(run=run, split="test")
    assert held.has_targets
    assert dict(held.targets.proteins) == {name: protein(name) for name in ("P1", "P2", "P3")}
    assert held.targets.actives["P1"] == ("CCCCCO", "CC(C)O", "OCCO") and held.targets.num_left_out == 1
    assert held.training.of(protein("P4")) == ("CCS", "CCCS", "CCCCS", "CCCCCS")


def test_the_training_part_is_judged_by_its_own_ligands(run: Run) -> None:
    with pytest.raises(ValueError, match="found 1 of 4 targets with 3 different actives or more, expected"):
        HeldOut(run=run, split="train").targets  # noqa: B018


@pytest.mark.parametrize(("num", "expected"), [(0, 3), (2, 1), (6, 2), (100, 3)])
def test_as_many_ligands_are_generated_as_the_settings_say_or_fewer(run: Run, num: int, expected: int) -> None:
    generator = Writing()
    held = HeldOut(run=run, split="test", num=num)
    samples = held.samples_of_targets(generator)
    assert {name: len(some) for name, some in samples.items()} == dict.fromkeys(held.targets.names, expected)
    assert generator.asked == [(name, expected) for name in held.targets.names]


def test_evaluate_measures_specificity_and_writes_its_samples(run: Run) -> None:
    lines = list(evaluate_run(run, split="test"))
    (section,) = (s for s in read_evaluation(run.folder / "evaluation.json") if s.title.startswith("Specificity"))
    assert section.title == "Specificity, test split"
    assert [score.name.split(":")[0] for score in section.scores[:2]] == ["specificity"] * 2
    assert "chance 0.333" in section.scores[0].note
    rows = section.tables[0].rows
    assert rows[0] == SAMPLES and rows[-1] == HELD_OUT and len(rows) == 7
    assert "samples with guidance 2.5" in rows
    assert "samples with guidance 1" not in rows  # the run's own weight is the row "samples"
    assert "3 targets in 3 clusters" in section.lines[1] and "3 of them were trained on; 1 with fewer" in section.lines[1]
    with (run.folder / "samples" / "test_specificity.csv").open() as file:
        drawn = list(csv.DictReader(file))
    assert [row["name"] for row in drawn] == ["P1"] * 3 + ["P2"] * 3 + ["P3"] * 3
    assert any("own is nearest" in line for line in "\n".join(lines).splitlines())
    assert any("specificity: the nearest active" in line for line in summarise_evaluation(run))


def test_perfect_ligands_are_specific_and_those_of_the_shuffled_are_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Family:
        def ways(self, run: Run) -> Iterator[Any]:
            yield SimpleNamespace(name="writing", short="writing", generator=Writing(), is_shown=True)

    monkeypatch.setattr(evaluate, "family_of", lambda run: Family())
    (run.folder / "samples").mkdir(exist_ok=True)
    section, _ = evaluate._specificity(HeldOut(run=run, split="test"))
    score = section.scores[0]
    assert score.value.value == 1.0 and score.null is not None and score.null.value == 0.0
    with (run.folder / "samples" / "test_specificity.csv").open() as file:
        drawn = list(csv.DictReader(file))
    assert all(row["nearest_active"] == row["ligand"] and row["similarity"] == "1.0" for row in drawn[:3])


def test_it_can_be_left_out_and_is_refused_for_one_target(run: Run) -> None:
    off = load_experiment("demo/smoke", ["evaluation.specificity.num_targets=0"])
    assert off.evaluation.specificity.num_targets == 0
    with pytest.raises(ConfigError, match="num_targets: found 1, expected 2 or more, or 0 to leave it out"):
        load_experiment("demo/smoke", ["evaluation.specificity.num_targets=1"])
    with pytest.raises(ConfigError, match="samples_per_target: found 0, expected 1 or more"):
        load_experiment("demo/smoke", ["evaluation.specificity.samples_per_target=0"])


def test_the_demos_world_has_its_own_table_instead(smoke_run: Path) -> None:
    assert not HeldOut(run=open_run(smoke_run, device="cpu"), split="test").has_targets
