"""The family table: every kind of model is read, trained, checked, opened and evaluated through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from protlig_dd.config_files import read_config
from protlig_dd.errors import ConfigError
from protlig_dd.kanzi.experiment import AutoencoderExperiment, AutoencoderRun
from protlig_dd.runs.experiment import Experiment
from protlig_dd.runs.families.models import AUTOENCODERS, ModelSettings
from protlig_dd.runs.families.table import FAMILIES, TOKENS, family_of, family_of_run, load, train
from tests.support.folding_world import write_world


def packaged(root: Path) -> list[str]:
    paths = sorted((root / "configs").rglob("*.yaml"))
    return [p.relative_to(root / "configs").with_suffix("").as_posix() for p in paths if "accelerate" not in p.parts]


def test_the_table_knows_every_kind_of_model() -> None:
    tokens = {settings.kind for settings in get_args(ModelSettings)}
    assert set(FAMILIES) == tokens | AUTOENCODERS
    assert all(FAMILIES[kind] is TOKENS for kind in tokens)


def test_every_packaged_config_is_read_by_its_family(root: Path) -> None:
    for name in packaged(root):
        values = read_config(name)
        expected = AutoencoderExperiment if values["model"]["kind"] in AUTOENCODERS else Experiment
        assert isinstance(family_of(values).read(values), expected), name
        assert load(name).name == values["name"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gemmi")
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def test_a_run_of_every_family_can_be_made_again_from_its_folder(world: Path) -> None:
    """An autoencoder's run has its command and versions too, as a run of tokens has."""
    card = json.loads((world / "kanzi" / "reproduction.json").read_text())
    assert card["command"].startswith("protlig train kanzi/tiny") and card["seed"] == 0 and "torch" in card["versions"]


def test_a_family_opens_and_evaluates_its_runs(world: Path) -> None:
    family = family_of_run(world / "kanzi")
    assert isinstance(family.open(world / "kanzi", device="cpu"), AutoencoderRun)
    how = {"device": "cpu", "which": "last", "num": 2, "split": "test", "fold": "", "prostt5": ""}
    lines = list(family.evaluate(world / "kanzi", coordinates="", tokenizer="", **how))
    assert lines[0].startswith("Reconstruction, 2 ")
    with pytest.raises(ConfigError, match="--coordinates 'db': is for runs of structure tokens or proteins"):
        list(family.evaluate(world / "kanzi", coordinates="db", tokenizer="x", **how))


def test_any_experiment_is_trained_by_one_function(world: Path, tmp_path: Path) -> None:
    config = load(
        "kanzi/tiny",
        [
            *(f"data.path={world / 'pdbs'}", "data.min_length=4", "data.copies=2", "model.encoder_size=16"),
            *("model.encoder_heads=2", "model.pair_size=8", "model.decoder_size=16", "model.decoder_heads=2"),
            *("train.batch_size=4", "train.steps=1", "train.tracking.tensorboard=false", "train.validate_every=0"),
        ],
    )
    assert train(config, tmp_path / "run", device="cpu").steps == 1
    assert (tmp_path / "run" / "checkpoints" / "step_00000001").is_dir()
