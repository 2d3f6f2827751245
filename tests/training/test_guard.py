"""The watchdog names the process that a run waits for."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path

import pytest

from protlig_dd.errors import DeviceError
from protlig_dd.training.guard import Watchdog, catch_signals
from protlig_dd.training.out_of_memory import smallest_accumulation
from protlig_dd.training.strategies import Single
from tests.support.toy import CPU


def heartbeat(folder: Path, rank: int, step: int, phase: str, age: float = 0.0) -> None:
    folder.mkdir(exist_ok=True)
    beat = {"step": step, "phase": phase, "time": time.time() - age}
    (folder / f"rank_{rank:05d}.json").write_text(json.dumps(beat))


def test_the_rank_that_is_behind_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "heartbeats"
    for rank, (step, phase) in enumerate([(12, "update"), (12, "prepare"), (12, "exchange")]):
        heartbeat(folder, rank, step, phase)
    watchdog = Watchdog(folder, rank=0, world=3, seconds=5.0)
    assert watchdog.explain() == "no progress for 5 s: rank 1 hangs at step 12, prepare; the other 2 wait for it"
    heartbeat(folder, 2, 11, "checkpoint", age=60)
    assert "rank 2 hangs at step 11, checkpoint" in watchdog.explain()
    assert "no heartbeat at all from rank 2: its process has died or is frozen" in watchdog.explain()
    (folder / "rank_00001.json").unlink()
    assert "rank 1 hangs before its first step" in watchdog.explain()


def test_a_stall_is_reported_once_with_the_place_in_the_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Watchdog(tmp_path / "heartbeats", rank=0, world=1, seconds=0.08) as watchdog:
        watchdog.beat(3, "data")
        time.sleep(0.4)
    messages = [r.getMessage() for r in caplog.records]
    assert sum("rank 0 hangs at step 3, data" in m for m in messages) == 1
    assert any("rank 0 stands here" in m and "test_a_stall_is_reported" in m for m in messages)


def test_a_run_that_moves_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Watchdog(tmp_path / "heartbeats", rank=0, world=1, seconds=5.0) as watchdog:
        watchdog.beat(1, "data")
        watchdog._look()
    assert not caplog.records
    assert json.loads((tmp_path / "heartbeats/rank_00000.json").read_text())["step"] == 1


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "file").write_text("")
    Watchdog(tmp_path / "file" / "heartbeats", rank=0, world=1, seconds=5.0)._look()
    assert "a hung process will not be named" in caplog.text


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    seen = []

    def work() -> None:
        with catch_signals() as stop:
            seen.append(stop.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]


def test_the_smallest_accumulation_that_fits_is_found() -> None:
    tried = []

    def attempt(accumulation: int) -> None:
        tried.append(accumulation)
        if accumulation < 4:
            raise RuntimeError("out of memory")

    assert smallest_accumulation(attempt, Single(CPU)) == 4
    assert tried == [1, 2, 4]

    def hopeless(accumulation: int) -> None:
        raise MemoryError

    with pytest.raises(DeviceError, match="not even 8 micro-batches"):
        smallest_accumulation(hopeless, Single(CPU), largest=8)

    def wrong(accumulation: int) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        smallest_accumulation(wrong, Single(CPU))
