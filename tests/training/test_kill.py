"""Killed at any moment and started again with the same command, a run ends with the same bytes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from protlig_dd.checkpoints.checkpoint import list_checkpoints, step_of
from tests.support.toy import killed_child, quick_settings, read_metrics, run_toy, start_process, train_child

STEPS, DROPOUT = 24, 0.1
CHANGES: dict[str, Any] = {"steps": STEPS, "checkpoint_every": 5, "log_every": 1}


def bytes_of(folder: Path, step: int) -> dict[str, bytes]:
    files = (folder / f"checkpoints/step_{step:08d}").glob("*.safetensors")
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run_toy(folder, quick_settings(**CHANGES), dropout=DROPOUT)
    return folder


# 0 is between the writing of the second checkpoint and its renaming; the others, so many lines of metrics and a little while after.
@pytest.mark.parametrize(
    "moment",
    [0, 8, pytest.param(3, marks=pytest.mark.slow), pytest.param(13, marks=pytest.mark.slow), pytest.param(19, marks=pytest.mark.slow)],
)
def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, whole: Path, moment: int) -> None:
    killed = start_process(killed_child, folder=tmp_path, changes=CHANGES, dropout=DROPOUT, moment=moment)
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    saved = list_checkpoints(tmp_path / "checkpoints")
    last = step_of(saved[-1]) if saved else 0
    if moment == 0:
        assert last == 5
        assert list((tmp_path / "checkpoints").glob(".writing-step_00000010-*/weights.safetensors"))
    logged_before = read_last(tmp_path)
    again = start_process(train_child, folder=tmp_path, changes=CHANGES, dropout=DROPOUT)
    again.join(120)
    assert again.exitcode == 0
    assert bytes_of(tmp_path, STEPS) == bytes_of(whole, STEPS)
    assert len(bytes_of(whole, STEPS)) == 3
    metrics = read_metrics(tmp_path)
    assert metrics == read_metrics(whole)
    assert logged_before >= last, "the killed run had gone on after its last checkpoint; those lines are replaced, not doubled"
    assert not list((tmp_path / "checkpoints").glob(".writing-*"))


def read_last(folder: Path) -> int:
    """Return the last step of the metrics, of which a killed run may have left the last line torn."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return sum(line.endswith("}") for line in lines)
