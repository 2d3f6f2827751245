"""Checkpoints: whole or absent, checked, pruned, never lost."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from protlig_dd.checkpoints import checkpoint as checkpoints
from protlig_dd.checkpoints.checkpoint import Checkpoint, find_resumable, list_checkpoints, load, pointed_at, save
from protlig_dd.checkpoints.matching import require_fingerprints, require_same_shapes
from protlig_dd.checkpoints.pointers import mend_pointers
from protlig_dd.errors import CheckpointError

Log = pytest.LogCaptureFixture


def made(step: int) -> Checkpoint:
    weights = {"a": torch.full((3, 2), float(step)), "b": torch.arange(4)}
    return Checkpoint(step=step, weights=weights, optimizer={"a/step": torch.tensor(1.0)}, state={"best": 0.5})


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    folder = save(tmp_path, made(7))
    assert folder.name == "step_00000007"
    found = load(folder)
    assert found.step == 7
    assert torch.equal(found.weights["a"], made(7).weights["a"])
    assert found.weights["b"].dtype == torch.int64
    assert found.optimizer["a/step"] == 1.0
    assert found.ema == {}
    assert found.state["best"] == 0.5
    assert load(folder, parts=("weights",)).optimizer == {}


def test_tied_weights_are_stored_and_given_back(tmp_path: Path) -> None:
    shared = torch.randn(3, 3)
    found = load(save(tmp_path, Checkpoint(step=1, weights={"x": shared, "y": shared, "part": shared[1]})))
    assert torch.equal(found.weights["x"], found.weights["y"])
    assert torch.equal(found.weights["part"], shared[1])


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, made(step), keep=2, best=step == 2)
    assert [checkpoints.step_of(p) for p in list_checkpoints(tmp_path)] == [2, 5, 6]
    assert pointed_at(tmp_path, "last") == tmp_path / "step_00000006"
    assert pointed_at(tmp_path, "best") == tmp_path / "step_00000002"
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("step")) == ["best.json", "last.json"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_file_is_named_with_both_checksums(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, made(3))
    good = checkpoints.sha256_of(folder / name)
    damage(folder / name)
    bad = checkpoints.sha256_of(folder / name)
    with pytest.raises(CheckpointError, match=f"{name}: damaged: found sha256 {bad}, expected {good}.*--resume=last-good"):
        load(folder)


def test_a_missing_file_and_a_broken_manifest_are_named(tmp_path: Path) -> None:
    folder = save(tmp_path, made(3))
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights.safetensors: missing"):
        load(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest.json: not readable"):
        load(folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lists no weights"):
        load(folder)


def test_a_damaged_newest_is_refused_and_passed_over_only_when_asked(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, made(step))
    for step in (2, 3):
        damage(tmp_path / f"step_{step:08d}" / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"step_00000003/weights.safetensors: damaged"):
        find_resumable(tmp_path)
    assert find_resumable(tmp_path, "last-good") == tmp_path / "step_00000001"
    assert (tmp_path / "damaged_step_00000003" / "weights.safetensors").is_file(), "nothing is lost"
    assert find_resumable(tmp_path) == tmp_path / "step_00000001", "from then on the run goes on as usual"
    damage(tmp_path / "step_00000001" / "weights.safetensors")
    with pytest.raises(CheckpointError, match="all 1 checkpoints are damaged"):
        find_resumable(tmp_path, "last-good")


def test_an_unfinished_write_is_no_checkpoint_and_is_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, made(1))
    monkeypatch.setattr(os, "rename", _stop)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, made(2))
    monkeypatch.undo()
    assert any(p.name.startswith(".writing-step_00000002") for p in tmp_path.iterdir())
    assert find_resumable(tmp_path) == tmp_path / "step_00000001"
    checkpoints.clean(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"step_00000001", "last.json"}


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("target", ["save_file", "write_json", "flush"])
def test_a_full_disk_is_one_line_and_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    good = save(tmp_path, made(1))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, target, full)
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, made(2))
    message = str(caught.value)
    assert "step_00000002: not written ([Errno 28] No space left on device)" in message
    assert "the checkpoint of step 1 is intact" in message
    assert "\n" not in message
    monkeypatch.undo()
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_00000001"]
    assert not list(tmp_path.glob(".writing-step*")), "the room it took is given back"
    assert load(good).step == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_the_writer_of_tensors_reports_a_full_disk_as_an_error_we_catch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = checkpoints.save_file
    monkeypatch.setattr(checkpoints, "save_file", lambda tensors, path: original(tensors, "/dev/full"))
    with pytest.raises(CheckpointError, match="not written"):
        save(tmp_path, made(2))


def test_a_step_that_is_written_again_replaces_the_old_one(tmp_path: Path) -> None:
    save(tmp_path, made(4))
    again = Checkpoint(step=4, weights={"a": torch.zeros(1)})
    assert load(save(tmp_path, again)).weights["a"].shape == (1,)
    assert [p.name for p in tmp_path.glob("*step*")] == ["step_00000004"]


def test_nothing_is_resumed_where_nothing_is(tmp_path: Path) -> None:
    assert find_resumable(tmp_path / "absent") is None
    assert find_resumable(tmp_path, "last-good") is None
    assert pointed_at(tmp_path, "best") is None


def test_a_pointer_to_what_is_gone_points_nowhere(tmp_path: Path) -> None:
    folder = save(tmp_path, made(1), best=True)
    shutil.rmtree(folder)
    assert pointed_at(tmp_path, "best") is None


def validated(step: int, value: float, best: float) -> Checkpoint:
    return replace(made(step), state={"best": best, "metrics": {"nll": value}})


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Return a folder of four checkpoints, of which that of step 2 is the best."""
    for step, value, best in ((1, 3.0, 3.0), (2, 2.0, 2.0), (3, 2.5, 2.0), (4, 2.0, 2.0)):
        save(tmp_path, validated(step, value, best), keep=0, best=step < 3)
    return tmp_path


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"checkpoint": 3}', b'{"checkpoint": "../x"}', b"[" * 3000, b"\xff", b'{"checkpoint": "step_00000009"}']
)
@pytest.mark.parametrize(("name", "step"), [("last", 4), ("best", 2)])
def test_a_damaged_pointer_is_worked_out_from_the_checkpoints(several: Path, caplog: Log, content: bytes, name: str, step: int) -> None:
    (several / f"{name}.json").write_bytes(content)
    assert pointed_at(several, name) == several / f"step_{step:08d}"
    assert f"{name}.json: " in caplog.text
    mend_pointers(several)
    assert json.loads((several / f"{name}.json").read_text()) == {"checkpoint": f"step_{step:08d}"}


def test_nothing_is_removed_while_it_is_not_known_which_checkpoint_is_the_best(tmp_path: Path, caplog: Log) -> None:
    for step in range(1, 5):
        save(tmp_path, made(step), keep=0, best=step == 1)
    (tmp_path / "best.json").write_text("{")
    with pytest.raises(CheckpointError, match="best.json: damaged, and the checkpoints beside it do not say which is the best"):
        pointed_at(tmp_path, "best")
    save(tmp_path, made(5), keep=1)
    assert len(list_checkpoints(tmp_path)) == 5 and "nothing is removed until then" in caplog.text


def test_a_pointer_leads_to_no_other_folder(several: Path) -> None:
    other = save(several.parent / "other", made(7))
    for name in (f"../other/{other.name}", str(other)):
        (several / "last.json").write_text(json.dumps({"checkpoint": name}))
        assert pointed_at(several, "last") == several / "step_00000004"


@pytest.mark.parametrize("all_bits", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["a_bit_of_each_byte", "every_bit"])
@pytest.mark.parametrize("name", ["manifest.json", "last.json", "best.json"])
def test_every_flipped_bit_is_harmless_or_refused_by_name(several: Path, name: str, all_bits: bool) -> None:
    folder = several / "step_00000002"
    path = folder / name if name == "manifest.json" else several / name
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8) if all_bits else (place % 8,):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            if name == "manifest.json":
                with pytest.raises(CheckpointError, match=re.escape(str(folder))):
                    checkpoints.verify(folder)
            else:
                found = pointed_at(several, path.stem)
                assert found is not None and found.parent == several
                mend_pointers(several)
                assert pointed_at(several, path.stem) == found


def test_a_manifest_names_no_file_of_another_folder(several: Path) -> None:
    folder = several / "step_00000004"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret"] = manifest["files"]["state.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="manifest.json: damaged: expected format 1"):
        load(folder)


def test_the_state_says_what_made_it(tmp_path: Path) -> None:
    folder = save(tmp_path, made(1))
    assert json.loads((folder / "state.json").read_text())["torch"] == torch.__version__


def test_a_checkpoint_of_another_model_or_vocabulary_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"1 tensors missing \['b'\], 1 not expected \['c'\]"):
        require_same_shapes({"a": torch.zeros(2), "c": torch.zeros(2)}, {"a": (2,), "b": (2,)})
    with pytest.raises(CheckpointError, match=r"'a' has shape \(2,\), the model expects \(3,\)"):
        require_same_shapes({"a": torch.zeros(2)}, {"a": (3,)})
    require_fingerprints({"fingerprints": {"ligand": "x"}}, {"ligand": "x"}, "here")
    with pytest.raises(CheckpointError, match=r"track 'ligand' was x in training and is y now"):
        require_fingerprints({"fingerprints": {"ligand": "x"}}, {"ligand": "y"}, "here")
