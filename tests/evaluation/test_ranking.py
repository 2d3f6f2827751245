"""Ranking pairs: the AUROC against a plain count, what needs no model, and a model that ignores its protein."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.cli import main
from protlig_dd.config_files import read_config
from protlig_dd.evaluation.binding.ranking import agreement, auroc, nulls, target_codes
from protlig_dd.evaluation.targets import Training
from protlig_dd.runs.families.table import train_stages

pytest.importorskip("rdkit", reason="molecules need RDKit: pip install 'protlig_dd[ligand]'")
pytest.importorskip("selfies", reason="SELFIES: pip install 'protlig_dd[ligand]'")

A, B = "MKTAYIAKQRQISFVKSHFSRQ", "GGSDEFHIKWYCACDEFGHIKL"
SMALL = [
    "model={hidden_size: 16, num_heads: 2, num_blocks: 1, conditioning_size: 8}", "train.steps=3", "train.batch_size=4", "stages=null",
    "train.validate_every=0", "evaluation.after_training=false", "data.split={kind: random, validation_fraction: 0.2}",
]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20))
def test_the_auroc_is_the_share_of_ordered_pairs(drawn: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([float(s) for s, _ in drawn]), np.array([label for _, label in drawn])
    wins = [float(p > n) + 0.5 * float(p == n) for p in scores[labels] for n in scores[~labels]]
    found = auroc(scores, labels)
    assert np.isnan(found) if not wins else found == pytest.approx(np.mean(wins))


def test_a_score_that_knows_only_targets_is_no_better_than_chance_within_them() -> None:
    proteins, clusters = target_codes([A] * 4 + [B] * 4)
    labels = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    found = agreement((proteins == 0).astype(float), labels, proteins, clusters)
    assert found.overall.value > 0.7
    assert found.within.value == 0.5
    assert found.overall.has_interval


def test_what_needs_no_model() -> None:
    training = Training(pairs={A: ["CCO", "CCCO"], B: ["c1ccccc1"]})
    found = nulls([A, A, B, B], ["CCO", "c1ccccc1", "c1ccccc1", "CN"], training, {B: ["CCO", "CN", "CCN"]})
    assert found["fingerprint k-NN"][0] == 1.0
    assert found["fingerprint k-NN"][1] < 0.2
    assert found["target's share of actives"].tolist() == [3 / 4, 3 / 4, 2 / 6, 2 / 6]
    assert found["ligand's share of actives"].tolist() == [2 / 4, 2 / 3, 2 / 3, 1 / 3]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranked")
    smiles = ["CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCl", "CNC", "OCCO", "CCCC", "CC#N", "C1CC1"]
    rows = [f"{A if i % 2 else B},{one},{int(i != 3)}" for i, one in enumerate(smiles)]
    (folder / "pairs.csv").write_text("\n".join(["protein,smiles,label", *rows, f"{A},CCO,0", f"{B},CCN,0"]))
    train_stages(read_config("pairs/small", [*SMALL, f"data.path={folder / 'pairs.csv'}"]), folder / "run")
    return folder / "run"


def test_pairs_are_ranked_within_their_targets(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run.parent / "ranked.csv"
    assert main(["score", "--model", str(run), "--pairs", str(run.parent / "pairs.csv"), "--out", str(out), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "AUROC over 12 labelled pairs" in told
    assert all(null in told for null in ("fingerprint k-NN", "target's share", "ligand's share", "bound without the protein"))
    with out.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert len(rows) == 12
    for row in rows:
        assert float(row["pmi"]) == pytest.approx(float(row["nats_alone"]) - float(row["nats_given_protein"]), abs=2e-4)
    half = [float(row["pmi"]) for row in rows[:6]]
    assert half == sorted(half, reverse=True)


def test_a_model_that_ignores_its_protein_saves_nothing(run: Path) -> None:
    from protlig_dd.evaluation.binding.ranking import information
    from protlig_dd.runs.open import open_run

    opened = open_run(run, device="cpu")
    for name, parameter in opened.model.named_parameters():
        if name.startswith("given.") and ("layers.3" in name or "absent" in name):
            parameter.data.zero_()
    assert np.abs(information(opened.denoising, opened.data.train, num_times=2).pmi).max() < 1e-4


def test_what_cannot_be_ranked_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--model", str(run), "--pairs", "x.csv", "--protein", "MKT"]) == 1
    assert "leave --protein, --mutants and --method out" in capsys.readouterr().err
    (tmp_path / "none.csv").write_text("protein,smiles\nMKT,C(\n")
    assert main(["score", "--model", str(run), "--pairs", str(tmp_path / "none.csv")]) == 1
    assert "protlig inspect" in capsys.readouterr().err
