"""`protlig finetune`: a run goes on with other pairs, from its own weights and with its own vocabulary, in a new folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from protlig_dd.cli import main
from protlig_dd.config_files import read_config
from protlig_dd.runs.families.finetune import finetuned_experiment
from protlig_dd.runs.families.table import train_stages
from protlig_dd.runs.open import open_run

SMILES = ["CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCl", "CNC", "OCCO", "CCCC", "CC#N", "C1CC1"]
SMALL = [
    "model={hidden_size: 16, num_heads: 2, num_blocks: 1, conditioning_size: 8}", "train.steps=3", "train.batch_size=4", "stages=null",
    "train.validate_every=0", "evaluation.after_training=false", "data.split={kind: random, validation_fraction: 0.2}",
]  # fmt: skip


def write_pairs(path: Path, protein: str, smiles: list[str]) -> Path:
    path.write_text("\n".join(["protein,smiles", *(f"{protein},{one}" for one in smiles)]))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    pairs = write_pairs(folder / "pairs.csv", "MKTAYIAKQRGGSW", SMILES)
    train_stages(read_config("pairs/small", [*SMALL, f"data.path={pairs}"]), folder / "run")
    return folder / "run"


def test_a_run_goes_on_with_other_pairs_in_a_new_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in run.rglob("*"))
    mine = write_pairs(tmp_path / "mine.csv", "ACDEFGHIKLMN", SMILES[::-1])
    out = tmp_path / "mine"
    assert main(["finetune", str(run), "--pairs", str(mine), "--out", str(out), "--steps", "8", "--lr", "0.02", "--device", "cpu"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("nats per token of the held-out ligands")]
    values = [float(line.split(": ")[1].split()[0]) for line in told]
    assert len(values) == 2
    assert values[1] < values[0]
    assert sorted((p.name, p.stat().st_mtime_ns) for p in run.rglob("*")) == before
    assert "--steps 8 --lr 0.02" in json.loads((out / "reproduction.json").read_text())["command"]
    assert (out / "vocabulary_ligand.json").read_text() == (run / "vocabulary_ligand.json").read_text()


def test_it_starts_from_the_weights_of_the_run(run: Path, tmp_path: Path) -> None:
    mine = write_pairs(tmp_path / "mine.csv", "ACDEFGHIKLMN", SMILES)
    out, source = tmp_path / "mine", open_run(run, device="cpu").model.state_dict()
    words = ["finetune", str(run), "--pairs", str(mine), "--out", str(out), "--steps", "1", "--lr", "1e-12", "train.optim.ema_decay=0"]
    assert main([*words, "--device", "cpu"]) == 0
    torch.testing.assert_close(open_run(out, device="cpu").model.state_dict(), source)


def test_its_settings_are_those_of_the_run_but_for_data_and_training(run: Path) -> None:
    config = finetuned_experiment(run, Path("mine.csv"), steps=40, lr=0.0, overrides=["train.batch_size=7"])
    source = open_run(run, device="cpu").config
    assert (config.model, config.diffusion, config.data.molecules) == (source.model, source.diffusion, source.data.molecules)  # type: ignore[union-attr]
    assert (config.train.optim.lr, config.train.steps, config.train.batch_size) == (source.train.optim.lr / 4, 40, 7)


def test_a_wrong_number_and_a_run_without_pairs_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", str(run), "--pairs", "x.csv", "--steps", "0"]) == 1
    assert "--steps 0" in capsys.readouterr().err
    assert main(["finetune", str(tmp_path), "--pairs", "x.csv"]) == 1
    assert "config.yaml" in capsys.readouterr().err
