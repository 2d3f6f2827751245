"""`protlig sample`: what it refuses before a model is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from protlig_dd.cli.entry import main

FOLD = ["--task", "folding", "--protein", "MKT"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*FOLD, "--length", "7"], "--length: is of no use with --task folding, which takes --protein; leave it out"),
        ([*FOLD, "--structure", "DDD"], "--structure: is of no use with --task folding"),
        (
            ["--task", "inverse_folding", "--structure", "DDD", "--protein", "MKT"],
            "--protein: is of no use with --task inverse_folding, which takes --structure",
        ),
        ([*FOLD, "--condition", "a=1"], "--condition: is of no use with --task folding"),
        (["--task", "sequence", "--total-length", "9"], "--total-length: is of no use with --task sequence, which takes --length"),
        (["--protein", "MKT", "--structure", "DDD"], "--structure: is of no use with no --task"),
        (["--protein", "MKT", "--fix", "1=A"], "--fix: is of no use with no --task"),
        ([*FOLD, "--batch-size", "-7"], "--batch-size: found -7, expected 1 or more"),
        ([*FOLD, "--num", "0"], "--num: found 0, expected 1 or more"),
        ([*FOLD, "--tokenizer", "runs/kanzi"], "--tokenizer runs/kanzi: makes coordinates of structure tokens"),
        ([*FOLD, "--out", "plain"], "or .pdb for the coordinates of a run with Kanzi's codes"),
        ([*FOLD, "--tokenizer", "t", "--out", "x.csv"], "found --out 'x.csv'; give --out x.pdb"),
    ],
)
def test_options_without_a_use_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that is passed over in silence looks as if it had been obeyed."""
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "nowhere", *options]) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["sample", "r", *FOLD, "--out", "x.csv"], "protlig sample: interrupted; start the same command again to go on\n"),
        (["sample", "r", *FOLD], "protlig sample: interrupted\n"),
        (["tokenize", "in"], "protlig tokenize: interrupted\n"),
    ],
)
def test_a_stopped_command_says_whether_it_goes_on(
    command: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("sample.sample", "tokenize.tokenize"):
        monkeypatch.setattr(f"protlig_dd.cli.{name}", stop)
    assert main(command) == 130
    assert capsys.readouterr().err == told
