"""A run folder of which any file is damaged, or was written by somebody else: one line, never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from protlig_dd.cli.entry import main
from tests.support.smoke import SMOKE

pytestmark = pytest.mark.xdist_group("run")
FILES = ["config.yaml", "data.txt", "metrics.jsonl", "evaluation.json", "traces.json", "reproduction.json", "samples.csv", "wandb_run.json"]
CHECKPOINTS = ["last.json", "best.json", "step_00000004/manifest.json", "step_00000004/state.json"]
CONTENTS = {
    "deep": b'{"a":' * 5000,
    "digits": b'{"step": ' + b"9" * 6000 + b"}",
    "list": b"[1]",
    "bytes": b"\xff\xfe\x00",
    "empty": b"",
    "open": b"{",
    "object": b"{}",
    "null": b"null",
    "odd": b'{"id": {}, "name": [1], "checkpoint": [], "model": 3, "step": "x", "files": [1], "predicted": {}}',
    "sections": b'[{"title": 3, "scores": 5}, [], 3]',
}


def require_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(command)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"protlig {command[0]}: ")]
    assert code in (0, 1) and len(told) == code and all(len(line) < 600 for line in told), (command, told)


@pytest.mark.parametrize("name", FILES)
def test_no_file_of_a_run_folder_ends_reading_it_in_a_traceback(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for file in ("config.yaml", "metrics.jsonl"):
        shutil.copy(smoke_run / file, tmp_path)
    before = (tmp_path / name).read_bytes() if (tmp_path / name).is_file() else b""
    for content in CONTENTS.values():
        (tmp_path / name).write_bytes(content)
        require_one_line(["report", str(tmp_path)], capsys)
        require_one_line(["runs", str(tmp_path)], capsys)
    (tmp_path / name).write_bytes(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", *(f"checkpoints/{name}" for name in CHECKPOINTS)])
def test_no_file_of_a_run_folder_ends_using_it_in_a_traceback(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for content, value in CONTENTS.items():
        folder = Path(shutil.copytree(smoke_run, tmp_path / content))
        (folder / name).write_bytes(value)
        require_one_line(["train", "demo/smoke", *SMOKE, "--device", "cpu", "--out", str(folder)], capsys)
        require_one_line(["score", "--model", str(folder), "--protein", "MKTAYIAKQR", "--device", "cpu"], capsys)


@pytest.mark.parametrize("name", ["/elsewhere", "../elsewhere", "a/../../b", ""])
def test_a_config_names_no_folder_outside_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shared.yaml").write_text(f"extends: demo/smoke\nname: '{name}'\n")
    assert main(["train", "shared.yaml", "--device", "cpu"]) == 1
    assert f"name: found '{name}', expected the name of a folder below runs/" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["shared.yaml"]
