"""Two processes do what one does, and their checkpoints load in one, and one's in two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from protlig_dd.checkpoints import checkpoint as checkpoints
from protlig_dd.device import DeviceChoice
from protlig_dd.errors import ConfigError, DeviceError
from protlig_dd.training.distributed import launched, start
from protlig_dd.training.sharded import blocks_of
from tests.support.processes import free_port, require_deepspeed
from tests.support.toy import (
    CPU,
    ToyModel,
    quick_settings,
    read_metrics,
    run_toy,
    start_processes,
    stopping_child,
    train_child,
    validate_toy,
)

STEPS, STOP = 10, 6
CHANGES: dict[str, Any] = {"steps": STEPS, "checkpoint_every": 3, "log_every": 1, "validate_every": 2, "weight_decay": 0.1}
SIGTERM_EXIT = 143
STRATEGIES = ["ddp", "fsdp", pytest.param("zero3", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of one process on the same batches, cut into as many pieces."""
    folder = tmp_path_factory.mktemp("alone")
    run_toy(folder, quick_settings(**CHANGES, accumulation=4), validate=validate_toy)
    return folder


def assert_same_run(folder: Path, alone: Path) -> None:
    for name in ("train/loss", "train/nll", "train/grad_norm", "validation/nll", "train/tokens"):
        found, expected = read_metrics(folder, name), read_metrics(alone, name)
        assert found.keys() == expected.keys()
        for step, value in expected.items():
            assert found[step] == pytest.approx(value, abs=1e-6), (name, step)
    for part in ("weights", "ema", "optimizer"):
        path = f"checkpoints/step_{STEPS:08d}/{part}.safetensors"
        found_state, state = load_file(folder / path), load_file(alone / path)
        assert found_state.keys() == state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(found_state[name], tensor, rtol=0, atol=2e-6, msg=f"{part} {name}")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_equal_one_and_one_goes_on_from_two(tmp_path: Path, alone: Path, strategy: str) -> None:
    """Two processes with two micro-batches each, stopped by a signal, are finished by one process with four."""
    require_deepspeed(strategy)
    changes = {**CHANGES, "accumulation": 2, "distributed": strategy}
    children = start_processes(2, stopping_child, free_port(), folder=tmp_path, changes=changes, stop_after=STOP)
    for child in children:
        child.join(280)
    assert [child.exitcode for child in children] == [SIGTERM_EXIT, SIGTERM_EXIT]
    assert set(read_metrics(tmp_path)) == set(range(1, STOP + 2)), "they agree to stop one step after the signal"
    run_toy(tmp_path, quick_settings(**CHANGES, accumulation=4, distributed="none"), validate=validate_toy)
    assert_same_run(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero3"])
def test_two_processes_go_on_from_one(tmp_path: Path, alone: Path, strategy: str) -> None:
    require_deepspeed(strategy)
    stop = {"folder": tmp_path, "changes": {**CHANGES, "accumulation": 4}, "stop_after": STOP}
    (first,) = start_processes(1, stopping_child, free_port(), **stop)
    first.join(120)
    assert first.exitcode == SIGTERM_EXIT
    changes = {**CHANGES, "accumulation": 2, "distributed": strategy}
    children = start_processes(2, train_child, free_port(), folder=tmp_path, changes=changes, validated=True)
    for child in children:
        child.join(280)
    assert [child.exitcode for child in children] == [0, 0]
    assert_same_run(tmp_path, alone)


@pytest.mark.slow
def test_torchrun_starts_a_run(tmp_path: Path, alone: Path, root: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import pathlib, sys\nfrom tests.support.toy import quick_settings, run_toy, validate_toy\n"
        f"changes = { ({**CHANGES, 'accumulation': 2})!r}\n"
        "run_toy(pathlib.Path(sys.argv[1]), quick_settings(**changes), validate=validate_toy)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "run")],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(tmp_path / "run", alone)


def test_several_processes_without_a_strategy_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (launched().rank, launched().world, launched().local_rank) == (1, 2, 1)
    with pytest.raises(ConfigError, match="each would train alone; use ddp, fsdp or zero3"):
        start("none", CPU)


def test_a_device_without_collectives_is_refused() -> None:
    choice = DeviceChoice(device=torch.device("mps"), dtype=torch.float32, needs_scaler=False, reason="for a test")
    with pytest.raises(DeviceError, match="'ddp' does not run on mps"):
        start("ddp", choice)


def test_auto_is_plain_for_one_process() -> None:
    strategy = start("auto", CPU)
    assert (strategy.name, strategy.rank, strategy.world) == ("none", 0, 1)
    assert strategy.gather(3) == [3]
    assert strategy.broadcast(4) == 4
    assert strategy.sum_over_ranks([1, 2.5]) == [1.0, 2.5]


def test_blocks_are_the_members_of_the_outermost_lists() -> None:
    model = nn.ModuleDict({"a": ToyModel(num_blocks=2), "b": nn.ModuleList([nn.Sequential(nn.ModuleList([nn.Linear(1, 1)]))])})
    assert [type(block).__name__ for block in blocks_of(model)] == ["Block", "Block", "Sequential"]


def test_one_process_of_ddp_equals_none(tmp_path: Path) -> None:
    """A strategy for many runs in one process too, without torchrun."""
    for strategy in ("ddp", "none"):
        run_toy(tmp_path / strategy, quick_settings(distributed=strategy, steps=4, accumulation=2))
    ddp, none = (checkpoints.load(tmp_path / name / "checkpoints/step_00000004") for name in ("ddp", "none"))
    for name, value in none.weights.items():
        torch.testing.assert_close(ddp.weights[name], value, rtol=0, atol=1e-6)
