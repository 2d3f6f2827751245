"""Trackers: no step twice, nothing that blocks, nothing asked for and not given."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from protlig_dd import errors
from protlig_dd.errors import ConfigError, FormatError, MissingDependencyError
from protlig_dd.training import trackers, tracking
from protlig_dd.training.trackers import JsonlTracker, TensorBoardTracker
from protlig_dd.training.tracking import TrackingSettings, rejoin_wandb, start_tracking, wandb_mode

PDB = "ATOM      1  CA  UNK P   1       1.000   2.000   3.000  1.00  0.00           C\nEND\n"


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, pixels = struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0), zlib.compress(b"\0abc" * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_metrics_after_the_resumed_step_are_removed(tmp_path: Path) -> None:
    first = JsonlTracker(tmp_path)
    for step in (5, 10, 15):
        first.log(step, {"loss": float(step)})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 20, "lo')  # torn by a kill
    second = JsonlTracker(tmp_path, resumed_step=10)
    second.log(15, {"loss": 1.5})
    second.close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(5, 5.0), (10, 10.0), (15, 1.5)]


def test_a_metric_that_is_not_finite_is_null(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(1, {"a": math.nan, "b": math.inf, "c": 1})
    tracker.close()
    assert {k: v for k, v in rows(tmp_path)[0].items() if k != "seconds"} == {"step": 1, "a": None, "b": None, "c": 1.0}


def test_texts_and_pictures_become_files(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log_text(7, "samples/ligands", "CCO")
    tracker.log_image(7, "molecules", png())
    tracker.log_structure(7, "structures/best", PDB)
    tracker.close()
    assert (tmp_path / "samples/structures_best_00000007.pdb").read_text() == PDB
    assert (tmp_path / "samples/samples_ligands_00000007.txt").read_text() == "CCO\n"
    assert (tmp_path / "samples/molecules_00000007.png").read_bytes() == png()


def test_tensorboard_reads_what_we_write(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    tracker = TensorBoardTracker(tmp_path, resumed_step=3)
    tracker.log(4, {"loss": 0.5})
    tracker.log_text(4, "note", "CCO")
    tracker.log_image(4, "molecules", png())
    tracker.log_structure(4, "structures/best", PDB)
    tracker.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = list(LegacyEventFileLoader(str(path)).Load())
    assert any(e.HasField("session_log") and e.step == 4 for e in events), "later steps of the killed run are hidden"
    values = {v.tag: v for e in events for v in e.summary.value}
    assert values["loss"].simple_value == 0.5 and "structures/best" not in values
    assert values["note"].tensor.string_val[0] == b"CCO"
    assert (values["molecules"].image.width, values["molecules"].image.height) == (3, 2)


def test_only_rank_0_tracks(tmp_path: Path) -> None:
    nothing = start_tracking(tmp_path, TrackingSettings(), rank=1)
    nothing.log(1, {"loss": 1.0})
    nothing.log_image(1, "x", b"")
    nothing.log_text(1, "x", "")
    nothing.log_structure(1, "x", PDB)
    nothing.close()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forget every wandb key and mode of this machine."""
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.mark.usefixtures("no_key")
def test_without_a_key_wandb_is_not_used_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode(TrackingSettings()) == ("off", "there is no key (wandb login, or WANDB_MODE=offline)")
    with pytest.raises(ConfigError, match="tracking.wandb: found 'on' but no key; log in with: wandb login"):
        wandb_mode(TrackingSettings(wandb="on"))
    assert wandb_mode(TrackingSettings(wandb="off"))[0] == "off"
    Path(os.environ["NETRC"]).write_text("machine 127.0.0.1:9 login user password " + "0" * 40)
    assert wandb_mode(TrackingSettings())[0] == "offline", "the key is found; the server cannot be reached"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode(TrackingSettings())[0] == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(TrackingSettings(wandb="on"))[0] == "off"


@pytest.mark.usefixtures("no_key")
def test_a_server_that_cannot_be_reached_is_noticed_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    start = time.monotonic()
    mode, reason = wandb_mode(TrackingSettings())
    assert mode == "offline"
    assert "http://127.0.0.1:9 cannot be reached; send the run later with: wandb sync" in reason
    assert time.monotonic() - start < 5


def test_a_package_that_is_absent_is_used_only_if_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")

    def absent(package: str, purpose: str, *, extra: str) -> Any:
        raise MissingDependencyError(f"{purpose} needs the package '{package}'")

    for module in (tracking, trackers):
        monkeypatch.setattr(module, "require", absent)
    assert wandb_mode(TrackingSettings()) == ("off", "it is not installed")
    with pytest.raises(errors.MissingDependencyError, match="wandb"):
        wandb_mode(TrackingSettings(wandb="on"))
    alone = start_tracking(tmp_path, TrackingSettings(), rank=0)
    assert len(alone.trackers) == 1
    alone.close()


@pytest.mark.usefixtures("no_key")
def test_an_offline_run_is_written_and_resumed_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    caplog.set_level(logging.INFO)
    wandb = pytest.importorskip("wandb", reason="wandb is not installed (extra train)")
    begin, asked = wandb.init, []
    monkeypatch.setattr(wandb, "init", lambda **how: asked.append(how["resume"]) or begin(**how))
    ids, told = [], []
    for resumed in (0, 1):
        caplog.clear()
        tracker = start_tracking(tmp_path, TrackingSettings(tensorboard=False), rank=0, resumed_step=resumed, config={"a": 1})
        tracker.log(resumed + 1, {"loss": 1.0})
        tracker.log_text(resumed + 1, "note", "CCO")
        tracker.log_structure(resumed + 1, "structures/best", PDB)
        tracker.close()
        ids.append(json.loads((tmp_path / "wandb_run.json").read_text())["id"])
        told.append([message for message in caplog.messages if "wandb sync --append" in message])
    assert ids[0] == ids[1]
    written = [p for p in (tmp_path / "wandb").glob("offline-run-*/*.wandb") if ids[0] in p.name]
    assert len(written) == 2 and not told[0]
    assert (
        f"this is part 2 of the offline run {ids[0]}; upload all parts together for one history: wandb sync {tmp_path}/wandb/" in told[1][0]
    )
    assert asked == ["allow", "allow"], "it is written into each part, and `wandb sync` then continues the run of its id"
    assert all(p.stat().st_size > 0 for p in written)
    kept = list((tmp_path / "wandb").glob("offline-run-*/files/media/molecule/structures/best_*.pdb"))
    assert kept and {path.read_text() for path in kept} == {PDB}


@pytest.mark.slow
def test_a_server_that_never_answers_costs_seconds_and_the_run_goes_on_offline(tmp_path: Path) -> None:
    """In a process of its own: what wandb does at the end of the process counts too."""
    pytest.importorskip("wandb")
    script = (
        "import sys, pathlib, logging; logging.basicConfig(level=logging.INFO)\n"
        "from protlig_dd.training.tracking import TrackingSettings, start_tracking\n"
        "settings = TrackingSettings(tensorboard=False, timeout_seconds=2.0)\n"
        "tracker = start_tracking(pathlib.Path(sys.argv[1]), settings, rank=0)\n"
        "tracker.log(1, {'loss': 1.0})\n"
        "tracker.close()\n"
    )
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)  # connections are taken, and never answered
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        environment = {**os.environ, "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": url, "WANDB_MODE": "online"}
        start = time.monotonic()
        command = [sys.executable, "-c", script, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert "this run is logged offline, send it later with: wandb sync" in done.stderr
    assert rows(tmp_path)[0]["loss"] == 1.0
    assert seconds < 40, f"{seconds:.0f} s"


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("content", ["", "{", "[" * 3000, "{}", '{"id": "../../../elsewhere"}', '{"id": 5}'])
def test_an_identity_that_is_none_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "wandb_run.json").write_text(content)
    with pytest.raises(FormatError, match=r"wandb_run.json: .*remove"):
        rejoin_wandb(tmp_path, TrackingSettings())
