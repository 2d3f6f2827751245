"""Runs: a folder that can be gone on with, opened, refused, and started from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from protlig_dd.errors import CheckpointError, ConfigError
from protlig_dd.runs.experiment import Parts, load_experiment
from protlig_dd.runs.open import open_run
from protlig_dd.runs.train import train_experiment
from tests.support.smoke import SMOKE, forget

pytestmark = pytest.mark.xdist_group("run")


def test_a_run_folder_holds_what_is_needed_to_use_it(smoke_run: Path) -> None:
    for name in ("config.yaml", "data.txt", "lengths.json", "metrics.jsonl", "checkpoints/last.json"):
        assert (smoke_run / name).is_file(), name
    assert "SYNTHETIC" in (smoke_run / "data.txt").read_text()
    steps = [json.loads(line)["step"] for line in (smoke_run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 4


def test_an_opened_run_has_the_averaged_weights_and_can_have_the_plain_ones(smoke_run: Path) -> None:
    averaged, plain = open_run(smoke_run, device="cpu"), open_run(smoke_run, device="cpu", averaged=False)
    assert averaged.step == plain.step == 4 and not averaged.model.training
    different = [not torch.equal(a, b) for a, b in zip(averaged.model.parameters(), plain.model.parameters(), strict=True)]
    assert any(different)
    assert not any(p.requires_grad for p in averaged.model.parameters())


def test_training_again_goes_on_after_the_last_step_and_more_steps_are_the_same_run(smoke_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    shutil.copytree(smoke_run, folder)
    result = train_experiment(load_experiment("demo/smoke", [*SMOKE, "train.steps=6"]), folder, device="cpu")
    assert result.steps == 6
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 6


def test_a_folder_of_another_experiment_is_refused_with_the_setting_that_differs(smoke_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds another experiment \(model: found num_blocks '2' there and '3' now\).*name=\.\.\."):
        train_experiment(load_experiment("demo/smoke", [*SMOKE, "model.num_blocks=3"]), smoke_run, device="cpu")


def test_a_folder_that_was_never_trained_in_is_taken_over(smoke_run: Path, tmp_path: Path) -> None:
    shutil.copy(smoke_run / "config.yaml", tmp_path)
    again = [*SMOKE, "model.num_blocks=1", "train.steps=1"]
    assert train_experiment(load_experiment("demo/smoke", again), tmp_path, device="cpu").steps == 1
    assert open_run(tmp_path, device="cpu").config.model.num_blocks == 1


def test_a_vocabulary_that_changed_since_training_is_refused(smoke_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    shutil.copytree(smoke_run, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("num_rows: 33", "num_rows: 37", 1))
    with pytest.raises(ConfigError, match="config.yaml: tracks.protein.num_rows: found '37', and the checkpoint was trained with '33'"):
        open_run(folder, device="cpu")
    forget(folder, "config")
    with pytest.raises(CheckpointError, match="the vocabulary of track 'protein' was .* in training and is .* now"):
        open_run(folder, device="cpu")


def test_a_folder_without_checkpoints_or_config_is_refused_in_one_line(tmp_path: Path, smoke_run: Path) -> None:
    with pytest.raises(ConfigError, match="expected a run folder"):
        open_run(tmp_path, device="cpu")
    shutil.copy(smoke_run / "config.yaml", tmp_path)
    with pytest.raises(CheckpointError, match="found no checkpoint"):
        open_run(tmp_path, device="cpu")


def test_a_damaged_checkpoint_is_named_and_refused(smoke_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    shutil.copytree(smoke_run, folder)
    weights = next((folder / "checkpoints").glob("step_00000004/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step_00000004/weights\.safetensors"):
        open_run(folder, device="cpu")


def test_a_model_starts_from_a_run_and_frozen_parameters_stay(smoke_run: Path, tmp_path: Path) -> None:
    overrides = [*SMOKE, "name=tuned", f"init_from={smoke_run}", "train.freeze=[protein]", "train.optim.ema_decay=0"]
    result = train_experiment(load_experiment("demo/smoke", overrides), tmp_path / "tuned", device="cpu")
    assert result.steps == 4
    before, after = open_run(smoke_run, device="cpu").model, open_run(tmp_path / "tuned", device="cpu").model
    for (name, a), (_, b) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        if "protein" in name:
            assert torch.equal(a, b), name
    assert not torch.equal(
        before.get_parameter("stacks.ligand.head.linear.weight"), after.get_parameter("stacks.ligand.head.linear.weight")
    )


def test_guidance_needs_a_model_that_saw_the_track_alone() -> None:
    from protlig_dd.sampling import Guidance

    with_alone = Parts(load_experiment("demo/smoke"))
    with_alone.require_guidance(Guidance(weight=2.0), ("ligand",))
    without = Parts(load_experiment("demo/smoke", ["diffusion.tasks.ligand_only=null"]))
    without.require_guidance(Guidance(weight=1.0), ("ligand",))
    with pytest.raises(ConfigError, match="never trained on ligand alone; expected a task such as ligand_only"):
        without.require_guidance(Guidance(weight=2.0), ("ligand",))


def test_the_parameter_count_of_a_config_is_held_against_the_model() -> None:
    from protlig_dd.device import choose_device

    parts = Parts(load_experiment("demo/smoke", ["model.parameters=5"]))
    with pytest.raises(ConfigError, match=r"found 5 in the config, the model has [\d,]+"):
        parts.build_model(choose_device("cpu"))


def test_short_names_of_settings_are_understood() -> None:
    config = load_experiment("demo/smoke", ["distributed=fsdp", "init_from=runs/x", "train.optim.kind=adamw"])
    assert (config.train.distributed, config.train.init_from) == ("fsdp", "runs/x")


def test_previews_are_drawn_at_intervals(tmp_path: Path) -> None:
    from protlig_dd.runs.preview import preview_hooks

    overrides = [*SMOKE, "name=preview", "evaluation.preview_every=2", "evaluation.preview_samples=2"]
    train_experiment(load_experiment("demo/smoke", overrides), tmp_path / "run", device="cpu", make_hooks=preview_hooks)
    shown = sorted(p.name for p in (tmp_path / "run" / "samples").glob("*.txt"))
    assert shown == ["samples_00000002.txt", "samples_00000004.txt"]
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "samples/valid" in metrics


def test_the_micro_batch_that_fits_is_found(tmp_path: Path) -> None:
    overrides = [*SMOKE, "name=auto", "train.tokens_per_batch=auto"]
    assert train_experiment(load_experiment("demo/smoke", overrides), tmp_path / "auto", device="cpu").steps == 4
