"""A process of a training that dies is named in one line, with the last checkpoint and what to do."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from protlig_dd.checkpoints.checkpoint import Checkpoint, save
from protlig_dd.training.peers import LAUNCHED, Peers, RankDiedError, own_place
from tests.support.processes import free_port
from tests.support.toy import start_processes, waiting_child


@pytest.fixture
def gone() -> tuple[str, int]:
    """Return the place of a process that was killed, and that nobody has waited for."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process.kill()
    yield socket.gethostname(), process.pid
    process.wait()


def test_the_lowest_living_rank_says_once_who_died_and_how_to_go_on(tmp_path: Path, gone: tuple[str, int]) -> None:
    peers = Peers([own_place(), gone], rank=0)
    message = rf"rank 1 \(process {gone[1]} on .*\) of 2 has died; there is no checkpoint yet; start the same command again to go on"
    with pytest.raises(RankDiedError, match=message), peers.mourned(tmp_path):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    assert peers.report(tmp_path) == "", "it was said"
    last = save(tmp_path, Checkpoint(step=7, weights={}))
    assert f"the last checkpoint is {last}" in Peers([own_place(), gone]).report(tmp_path)
    with pytest.raises(SystemExit), Peers([own_place(), gone, own_place()], rank=2).mourned(tmp_path):
        raise RuntimeError("Connection reset by peer")


def test_an_error_beside_living_processes_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protlig_dd.training.peers._PATIENCE_SECONDS", 0.1)
    for peers in (Peers(), Peers([own_place(), own_place()]), Peers([own_place(), ("another host", 1)])):
        with pytest.raises(RuntimeError, match="shapes do not match"), peers.mourned(tmp_path):
            raise RuntimeError("shapes do not match")


def test_the_launcher_says_it_where_there_is_one(tmp_path: Path, gone: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAUNCHED, "1")
    assert Peers([own_place(), gone]).report(tmp_path) == ""


@pytest.mark.slow
def test_a_killed_process_of_a_real_group_is_named(tmp_path: Path) -> None:
    first, second = start_processes(2, waiting_child, free_port(), folder=tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "checkpoints/last.json").is_file() and time.monotonic() < until:
        time.sleep(0.05)
    assert second.pid is not None
    os.kill(second.pid, signal.SIGKILL)
    first.join(60)
    second.join(60)
    assert re.search(
        r"rank 1 \(process \d+ on .*\) of 2 has died; the last checkpoint is .*step_\d+; start", (tmp_path / "told").read_text()
    )


@pytest.mark.slow
def test_a_killed_process_that_train_has_started_is_one_line(root: Path, tmp_path: Path) -> None:
    settings = ["train.steps=2000", "train.checkpoint_every=5", "train.log_every=0", "evaluation.after_training=false", "train.devices=2"]
    command = [sys.executable, "-m", "protlig_dd.cli", "train", "demo/smoke", *settings, "--device", "cpu", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (tmp_path / "run/checkpoints/last.json").is_file() and time.monotonic() < until:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "Traceback" not in told and len(re.findall("has died|was killed", told)) == 1
    assert re.search(
        r"protlig train: rank \d of 2 \(process \d+\) was killed by SIGKILL .*; the last checkpoint is .*; start the same", told
    )
