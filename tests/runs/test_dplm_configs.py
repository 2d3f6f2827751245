"""The packaged DPLM configs, the names that this field's users know, and growing a DPLM into a DPLM-2."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.config import to_mapping
from protlig_dd.config_files import list_configs, read_config
from protlig_dd.errors import CheckpointError, ConfigError
from protlig_dd.models.transfer import initialise_from
from protlig_dd.runs import spellings
from protlig_dd.runs.experiment import Experiment, Parts, experiment_from, load_experiment

NAMES = sorted(n for n in list_configs() if n.startswith("dplm"))


@pytest.mark.parametrize("name", NAMES)
def test_every_config_builds_with_the_parameters_it_says(name: str) -> None:
    if name == "dplm2/tiny":
        pytest.importorskip("torch")
    config = load_experiment(name)
    parts = Parts(config)
    with torch.device("meta"):
        model = config.model.build(parts.tracks, "reference")
    assert config.model.parameters in (None, count_parameters(model))
    assert set(parts.diffusion.parameterizations) == set(config.tracks)


def test_the_sizes_are_there() -> None:
    assert {"dplm/8m", "dplm/35m", "dplm/150m", "dplm/650m", "dplm/3b", "dplm/tiny", "dplm2/tiny"} <= set(NAMES)


def setting(config: Experiment, path: str) -> Any:
    value: Any = to_mapping(config)
    for key in path.split("."):
        value = value[key]
    return value


@pytest.mark.parametrize(
    ("spelling", "path", "expected"),
    [
        ("name=mine", "name", "mine"),
        ("datamodule.max_tokens=8192", "train.tokens_per_batch", 8192),
        ("datamodule.data_dir=somewhere", "data.path", "somewhere"),
        ("datamodule.num_workers=7", "train.prefetch", 7),
        ("trainer.devices=2", "train.devices", 2),
        ("trainer.accumulate_grad_batches=3", "train.accumulation", 3),
        ("trainer.precision=bf16-mixed", "train.precision", "bf16"),
        ("trainer.precision=16", "train.precision", "fp16"),
        ("trainer.max_steps=5000", "train.steps", 5000),
        ("trainer.fast_dev_run=true", "train.steps", 1),
        ("trainer.limit_train_batches=10", "train.steps", 10),
        ("model.gradient_ckpt=true", "model.activation_checkpointing", True),
        ("init_from=runs/other", "train.init_from", "runs/other"),
    ],
)
def test_known_spellings_change_what_they_name(spelling: str, path: str, expected: Any, caplog: pytest.LogCaptureFixture) -> None:
    spellings._told.clear()
    caplog.set_level(logging.INFO)
    before, after = load_experiment("dplm/150m"), load_experiment("dplm/150m", [spelling])
    assert setting(before, path) != expected and setting(after, path) == expected
    told = [r.message for r in caplog.records]
    assert bool(told) == (not spelling.startswith(("name=", "init_from=")))
    load_experiment("dplm/150m", [spelling])
    assert [r.message for r in caplog.records] == told, "told once"


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        (["trainer.max_steps=100", "trainer.limit_train_batches=1"], 100),
        (["trainer.limit_train_batches=1", "trainer.max_steps=100"], 100),
        (["trainer.limit_train_batches=7", "train.steps=5"], 5),
        (["trainer.fast_dev_run=true", "trainer.max_steps=100"], 1),
        (["trainer.limit_train_batches=7"], 7),
        (["ckpt_path=null", "trainer.max_steps=3"], 3),
    ],
)
def test_one_setting_decides_the_number_of_steps(given: list[str], steps: int) -> None:
    assert load_experiment("dplm/tiny", given).train.steps == steps


@pytest.mark.parametrize("value", ["0.5", "1.0", "0", "-1"])
def test_a_share_of_an_epoch_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=f"trainer.limit_train_batches: found '{value}', expected a number of batches"):
        load_experiment("dplm/tiny", [f"trainer.limit_train_batches={value}"])


@pytest.mark.parametrize("spelling", ["dplm/dplm_150m", "dplm/150m"])
def test_experiment_names_the_config(spelling: str) -> None:
    assert load_experiment("dual_track/demo", [f"experiment={spelling}", "name=x"]).name == "x"
    assert load_experiment("dual_track/demo", [f"experiment={spelling}"]).model == load_experiment("dplm/150m").model


def test_flags_of_the_original_are_ours() -> None:
    given = ["sample", "--model_name", "m", "--sampling_strategy=annealing@2.0:0.1", "--num", "3"]
    assert spellings.native_flags(given) == ["sample", "--model", "m", "--strategy=annealing@2.0:0.1", "--num", "3"]


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="trainer.precision: found '8'"):
        load_experiment("dplm/150m", ["trainer.precision=8"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("diffusion.parameterization=score", "variant"),
        ("diffusion.variant.masked_language={chosen: 0}", "chosen"),
        ("diffusion.variant={coupled: true, masked_language: {}}", "masked_language"),
        ("diffusion={weighting: elbo, variant: {self_mixup: true}}", "self_mixup"),
        ("model.hidden_size=97", "hidden_size"),
    ],
)
def test_impossible_settings_are_refused(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_experiment("dplm/tiny", [change])


def test_tracks_apart_need_the_encoder() -> None:
    with pytest.raises(ConfigError, match="must not see each other"):
        load_experiment("dual_track/demo", ["diffusion.tasks.apart=1"])


def small(name: str, *overrides: str) -> Parts:
    size = ("model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1", *overrides)
    return Parts(experiment_from(read_config(name, size)))


def test_a_dplm_grows_into_a_dplm2() -> None:
    old, new = small("dplm/tiny"), small("dplm2/tiny")
    torch.manual_seed(3)
    source = old.config.model.build(old.tracks, "reference")
    model = new.config.model.build(new.tracks, "reference")
    fresh = {n: t.clone() for n, t in model.state_dict().items()}
    initialise_from(model, new.tracks, source.state_dict(), old.tracks, "dplm")
    state, given = model.state_dict(), source.state_dict()
    assert torch.equal(state["embedding.weight"][:33], given["embedding.weight"])
    assert torch.equal(state["head.decoder.weight"][:33], given["embedding.weight"]), "the tied matrix is the head's"
    assert torch.equal(state["head.bias"][:33], given["head.bias"]) and not state["head.bias"][33:].any()
    assert torch.equal(state["blocks.0.attention.qkv.weight"], given["blocks.0.attention.qkv.weight"])
    new_rows, old_rows = state["embedding.weight"][33:], given["embedding.weight"]
    assert not torch.equal(new_rows, fresh["embedding.weight"][33:])
    assert abs(float(new_rows.mean() - old_rows.mean())) < 4 * float(old_rows.std()) / new_rows.numel() ** 0.5
    assert torch.allclose(new_rows.std(), old_rows.std(), rtol=0.2)


def test_another_shape_is_refused() -> None:
    old, new = small("dplm/tiny"), small("dplm2/tiny", "model.num_heads=4", "model.hidden_size=24")
    source = old.config.model.build(old.tracks, "reference")
    model = new.config.model.build(new.tracks, "reference")
    with pytest.raises((CheckpointError, RuntimeError)):
        initialise_from(model, new.tracks, source.state_dict(), old.tracks, "dplm")
