"""Stages: what each inherits and starts from, what is refused before the first begins, and going on after a stop."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from protlig_dd.checkpoints.pointers import list_checkpoints
from protlig_dd.config_files import read_config
from protlig_dd.errors import ConfigError
from protlig_dd.runs.families.stages import stages_of
from protlig_dd.runs.families.table import experiment_of, train_stages
from protlig_dd.runs.open import open_run

TINY = [
    "model={hidden_size: 16, num_heads: 2, num_blocks: 1, conditioning_size: 8}", "train.steps=4", "train.batch_size=4",
    "train.checkpoint_every=2", "train.validate_every=0", "evaluation.after_training=false", "stages.ligand.train.steps=3",
    "stages.ligand.train.validate_every=0", "data.split={kind: random, validation_fraction: 0.2}",
]  # fmt: skip


def values_of(folder: Path, *more: str) -> dict[str, Any]:
    """Return the plain values of a tiny run on pairs with a stage of ligands."""
    smiles = ["CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCl", "CNC", "OCCO", "CCCC", "CC#N", "C1CC1"]
    (folder / "ligands.smi").write_text("\n".join(smiles * 2))
    rows = [f"{'MKTAYIAKQR'[i:]}GGSW,{smiles[i]}" for i in range(len(smiles))]
    (folder / "pairs.csv").write_text("\n".join(["protein,smiles", *rows]))
    paths = [f"data.path={folder / 'pairs.csv'}", f"stages.ligand.data.path={folder / 'ligands.smi'}"]
    return read_config("pairs/small", [*TINY, *paths, *more])


def test_a_stage_is_the_config_with_its_changes_and_starts_from_those_before_it_that_share_a_track() -> None:
    values = {
        "tracks": {"protein": {"kind": "protein"}, "ligand": {"kind": "ligand"}},
        "train": {"steps": 9, "batch_size": 2},
        "stages": {
            "a": {"train": {"steps": 1}, "tracks": {"protein": None}},
            "b": {"tracks": {"ligand": None}},
            "c": None,
            "d": {"train": {"init_from": "elsewhere"}},
        },
    }
    made = stages_of(values, Path("run"))
    assert [(stage.name, stage.folder.as_posix()) for stage in made] == [
        ("a", "run/stages/a"),
        ("b", "run/stages/b"),
        ("d", "run/stages/d"),
        ("", "run"),
    ]
    assert [stage.values["train"].get("init_from") for stage in made] == [None, None, "elsewhere", "run/stages/a,run/stages/b,run/stages/d"]
    assert made[0].values["train"] == {"steps": 1, "batch_size": 2}
    assert all("stages" not in stage.values for stage in made)


def test_the_last_weights_of_a_stage_are_the_first_of_the_next(tmp_path: Path) -> None:
    values = values_of(tmp_path, "train.steps=1", "train.optim.lr=1e-12", "train.optim.ema_decay=0")
    _, result = train_stages(values, tmp_path / "run")
    assert result.steps == 1
    first, last = (open_run(folder, device="cpu").model.state_dict() for folder in (tmp_path / "run/stages/ligand", tmp_path / "run"))
    torch.testing.assert_close(first, last)
    assert not torch.equal(first["head.linear.weight"], torch.zeros_like(first["head.linear.weight"]))
    learned = [(folder / "vocabulary_ligand.json").read_text() for folder in (tmp_path / "run/stages/ligand", tmp_path / "run")]
    assert learned[0] == learned[1]
    assert '"merges"' in learned[0]


def test_a_stopped_command_goes_on_in_its_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = values_of(tmp_path)
    whole, _ = tmp_path / "whole", train_stages(values, tmp_path / "whole")
    part = tmp_path / "part"
    ligand_only = {**values, "stages": {"ligand": values["stages"]["ligand"]}}
    stage = stages_of(ligand_only, part)[0]
    experiment = experiment_of(stage.values)
    from protlig_dd.runs.train import train_experiment

    train_experiment(experiment, stage.folder, device="cpu")  # as if the command had been stopped between the stages
    before = list_checkpoints(stage.folder / "checkpoints")
    with caplog.at_level(logging.INFO):
        train_stages(values, part)
    assert list_checkpoints(stage.folder / "checkpoints") == before
    assert "stage 2 of 2: pairs_small" in caplog.text
    one, other = (open_run(folder, device="cpu").model.state_dict() for folder in (whole, part))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_fault_of_a_later_stage_is_told_before_the_first_begins(tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    with pytest.raises(ConfigError, match=r"^data.path: found no '.*none.csv'"):
        train_stages(values_of(tmp_path, f"data.path={missing}"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"stages.ligand.data.path: found no .* leave the stage out: stages.ligand=null"):
        train_stages(values_of(tmp_path, f"stages.ligand.data.path={missing}"), tmp_path / "run")
    with pytest.raises(ConfigError, match="batch_sise: unknown setting"):
        train_stages(values_of(tmp_path, "train.batch_sise=3"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[1]", "stages: found .1., expected names with settings"),
        ("{a: 3}", "stages.a: found 3, expected settings"),
        ("{../a: {}}", "stages: found the name '../a'"),
    ],
)
def test_stages_that_are_none_are_refused(stages: str, message: str) -> None:
    values = read_config("pairs/small", [f"stages={stages}"]) if stages != "[1]" else {"stages": [1]}
    values["stages"] = {name: stage for name, stage in values["stages"].items() if name != "ligand"} if stages != "[1]" else [1]
    with pytest.raises(ConfigError, match=message):
        stages_of(values, Path("run"))


def test_a_stage_can_be_left_out(tmp_path: Path) -> None:
    values = values_of(tmp_path, "stages.ligand=null")
    assert [stage.name for stage in stages_of(values, tmp_path)] == [""]


def test_one_stage_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, folder = values_of(tmp_path), tmp_path / "run"
    train_stages(values, folder, only="ligand")
    assert not (folder / "config.yaml").exists()
    train_stages(values, folder, only="last")
    assert (folder / "config.yaml").is_file()
    with pytest.raises(ConfigError, match="--stage pairs: expected one of ligand, last"):
        train_stages(values, folder, only="pairs")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="found WORLD_SIZE=2 and 2 stages: start each by itself, with --stage ligand, last"):
        train_stages(values, folder)


@pytest.mark.slow
def test_processes_train_the_stages_one_after_the_other(tmp_path: Path) -> None:
    values_of(tmp_path)
    words = [*TINY, f"data.path={tmp_path / 'pairs.csv'}", f"stages.ligand.data.path={tmp_path / 'ligands.smi'}", "train.devices=2"]
    command = ["train", "pairs/small", *words, "train.optim.kind=adamw", "tracks.ligand.merges=5", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", "protlig_dd", *command, "--device", "cpu"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/stages/ligand/checkpoints").is_dir()
    assert f"trained 4 steps: {tmp_path / 'run'}" in done.stdout
