"""The real model through the command line: two processes equal one, and a killed run ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SETTINGS = [
    *("demo/smoke", "train.steps=6", "train.log_every=1", "train.checkpoint_every=2", "train.validate_every=0"),
    *("train.batch_size=12", "train.tracking.tensorboard=false", "train.tracking.wandb=off", "evaluation.after_training=false"),
    "train.optim.kind=adamw",  # which can be sharded
]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONWARNINGS": "ignore"}


def command(folder: Path, *more: str) -> list[str]:
    return ["protlig_dd.cli", "train", *SETTINGS, *more, "--device", "cpu", "--out", str(folder)]


def run_alone(root: Path, folder: Path, *more: str) -> None:
    subprocess.run([sys.executable, "-m", *command(folder, *more)], check=True, env=environment(root), timeout=240, capture_output=True)


def metrics(folder: Path, *names: str) -> dict[int, list[float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: [row[name] for name in names] for row in rows if names[0] in row}


def weights(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "checkpoints/step_00000006").glob("*.safetensors"))}


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_alone(root, folder)
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero3"])
def test_two_processes_give_the_losses_of_one(root: Path, alone: Path, tmp_path: Path, strategy: str) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    done = subprocess.run(
        [*launcher, *command(tmp_path / "run", f"distributed={strategy}")],
        env=environment(root),
        timeout=280,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected, found = (metrics(alone, "train/loss", "train/grad_norm"), metrics(tmp_path / "run", "train/loss", "train/grad_norm"))
    assert list(found) == list(expected) == [1, 2, 3, 4, 5, 6]
    for step in expected:
        assert found[step] == pytest.approx(expected[step], abs=1e-6, rel=1e-5), step


@pytest.mark.parametrize("lines", [1, 3, 4])
def test_a_killed_run_ends_with_the_same_bytes(root: Path, alone: Path, tmp_path: Path, lines: int) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", *command(folder)], env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log, end = folder / "metrics.jsonl", time.monotonic() + 200
    while time.monotonic() < end and process.poll() is None:
        if log.is_file() and len(log.read_text().splitlines()) >= lines:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    run_alone(root, folder)
    assert weights(folder) == weights(alone) and len(weights(alone)) == 3
    assert list(metrics(folder, "train/loss")) == [1, 2, 3, 4, 5, 6]
