"""`protlig lr-find` from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from protlig_dd.cli.entry import main
from protlig_dd.cli.lr_find import learning_rates
from protlig_dd.runs.experiment import load_experiment
from protlig_dd.runs.lr_find import LrFinder

MARKOV = [
    *("scaling/markov", "data.num_train=300", "data.num_validation=60", "evaluation.num_examples=60", "train.batch_size=8"),
    *("model.hidden_size=32", "model.num_blocks=1", "model.num_heads=2"),
]
FIND = ["lr-find", *MARKOV, "--device", "cpu"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_sweep_prints_table_curve_and_settings_that_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib (extra plot)")
    files = ["--out", "x.json", "--plot", "x.png"]
    assert main([*FIND, "--lrs", "1e-7,1e-2,1e3", "--batches", "4,8", "--steps", "80", *files]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^ +(\S+) +([48]) +(\d+) +([\d,]+) +[\d.]+ +(diverged|[\d.]+)", out, flags=re.MULTILINE)
    assert len(rows) == 6 + 2 and [row[4] for row in rows].count("diverged") == 2
    (words,) = re.findall(r"^recommended: (.*)$", out, flags=re.MULTILINE)
    assert words.startswith("train.optim.lr=0.01 train.batch_size=")
    assert load_experiment("scaling/markov", words.split()).train.optim.lr == 0.01
    assert "upper estimate for long ones" in out and "edge of the grid" not in out and "unigram null" in out
    written = json.loads(Path("x.json").read_text())
    assert written["recommended"] == words.split() and len(written["trials"]) == 8
    assert written["best"]["lr"] == 0.01 and [t["diverged"] for t in written["trials"]].count(True) == 2
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in Path().iterdir()) == ["x.json", "x.png"], "no run folder"


def test_the_best_at_the_edge_and_nothing_learned_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIND, "--lrs", "1e-7,1e-2", "--batches", "8", "--steps", "40"]) == 0
    out = capsys.readouterr().out
    assert "recommended: train.optim.lr=0.01" in out and "at the upper edge of the grid; widen it: --lrs 0.003..0.1" in out
    assert main([*FIND, "--lrs", "1e-8,1e-7", "--batches", "8", "--steps", "4"]) == 0
    out = capsys.readouterr().out
    assert "no recommendation: no candidate is below the unigram null" in out and "recommended" not in out
    assert main([*FIND, "--lrs", "1e3,1e4", "--batches", "8", "--steps", "20"]) == 0
    out = capsys.readouterr().out
    assert "every candidate diverged; try lower ones: --lrs 10..300" in out and "recommended" not in out


def test_an_interrupted_sweep_prints_what_is_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    whole, made = LrFinder._trial, []

    def stopped(self: LrFinder, *args: Any, **more: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(whole(self, *args, **more))
        return made[-1]

    monkeypatch.setattr(LrFinder, "_trial", stopped)
    assert main([*FIND, "--lrs", "1e-3,2e-3,4e-3", "--batches", "8", "--steps", "4", "--out", "x.json"]) == 130
    told = capsys.readouterr()
    assert "interrupted after 2 of 5 trainings: no recommendation" in told.out and "recommended" not in told.out
    assert "  0.001" in told.out and "  0.002" in told.out and "  0.004" not in told.out
    assert told.err.splitlines()[-1] == "protlig lr-find: interrupted" and not Path("x.json").exists()


BAD = {
    "an autoencoder": (["kanzi/tiny"], "model.kind: found 'kanzi': lr-find is for models of tokens; this kind is not supported"),
    "an unknown config": (["scaling/markof"], "did you mean 'scaling/markov'?"),
    "a typo in a setting": ([*MARKOV, "train.optim.lrr=1"], "train.optim.lrr: unknown setting"),
    "a range that falls": ([*MARKOV, "--lrs", "1e-2..1e-4"], "--lrs: found '1e-2..1e-4', expected LOW..HIGH such as 1e-4..1e-2, or a list"),
    "a range of three": ([*MARKOV, "--lrs", "1e-4..1e-3..1e-2"], "--lrs: found '1e-4..1e-3..1e-2', expected LOW..HIGH"),
    "a rate that is no number": ([*MARKOV, "--lrs", "1e-4,high"], "--lrs: found 'high', expected"),
    "a rate of zero": ([*MARKOV, "--lrs", "0,1e-3"], "--lrs: found 0, expected positive numbers"),
    "an infinite rate": ([*MARKOV, "--lrs", "inf"], "--lrs: found 'inf', expected"),
    "half an example": ([*MARKOV, "--batches", "1.5"], "--batches: found '1.5', expected whole numbers"),
    "an empty batch": ([*MARKOV, "--batches", "0"], "--batches: found 0, expected 1 or more"),
    "no time": ([*MARKOV, "--minutes", "0"], "--minutes: found 0, expected a positive number"),
    "too little time": ([*MARKOV, "--minutes", "0.0001"], "--minutes 0.0001: is too short for 15 candidates on cpu"),
    "negative steps": ([*MARKOV, "--steps", "-1"], "--steps: found -1, expected 1 or more"),
    "another ending": ([*MARKOV, "--out", "x.csv"], "--out x.csv: found '.csv', expected .json"),
    "a folder that is not there": ([*MARKOV, "--plot", "no/x.png"], "--plot no/x.png: expected the name of a file in a folder that exists"),
    "no validation": ([*MARKOV, "data.num_validation=0"], "data: has no validation part"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_get_one_clear_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected = BAD[case]
    assert main(["lr-find", *words, "--device", "cpu"]) == 1
    told = capsys.readouterr()
    assert expected in told.err and len(told.err.strip().splitlines()) == 1 and told.out == ""
    assert list(Path().iterdir()) == []


def test_a_range_of_rates_has_two_a_decade() -> None:
    assert learning_rates("1e-4..1e-1") == (1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1)
    assert learning_rates("1e-3..1.5e-3") == (1e-3, 1.2e-3, 1.5e-3)
