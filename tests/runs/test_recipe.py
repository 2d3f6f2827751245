"""The recipe on real data, through the command line: each track alone, then the pairs from both, then the gap, whatever it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protlig_dd.cli.entry import main

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.xdist_group("recipe")]
QUICK = ("--device", "cpu", "train.steps=3", "train.checkpoint_every=3", "train.validate_every=3", "train.log_every=1")
SMALL = ("model.hidden_size=32", "model.num_heads=2", "model.num_blocks=1", "model.conditioning_size=16")
SHORT = ("tracks.protein.max_length=256",)
FEW_CALLS = ("evaluation.samplers=[{kind: confidence, num_steps: 4}]", "evaluation.num_times=2")


def pair_files(shared: Path) -> tuple[str, ...]:
    folder = shared / "data" / "human_pairs"
    return tuple(
        f"data.{key}={folder / f'cold_{part}.csv'}" for key, part in (("path", "train"), ("validation_path", "val"), ("test_path", "test"))
    )


def number_after(text: str, start: str) -> tuple[float, float, float]:
    """Return value, low and high of the first line that starts so."""
    match = re.search(rf"^\s*{re.escape(start)}\s+(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text, re.MULTILINE)
    assert match, text
    value, low, high = map(float, match.groups())
    return value, low, high


def test_the_recipe_runs_end_to_end_and_evaluation_prints_the_gap_with_its_interval(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    molecules = f"data.path={shared / 'data' / 'zinc250k' / 'train.txt'}"
    sequences = f"data.path={shared / 'data' / 'flip_proteins' / 'sequences.fasta.gz'}"
    pairs = pair_files(shared)
    assert main(["train", "recipe/ligand", molecules, "data.limit=400", *SMALL, *QUICK]) == 0
    assert main(["train", "recipe/protein", sequences, "data.limit=200", *SHORT, *SMALL, *QUICK]) == 0
    capsys.readouterr()
    assert main(["train", "recipe/pairs", *pairs, *SHORT, *FEW_CALLS, *SMALL, *QUICK]) == 0
    log = capsys.readouterr()
    told = log.out + log.err + (tmp_path / "runs" / "recipe_pairs" / "data.txt").read_text()
    assert "negatives, kept for evaluation" in told and "a file for training and validation and test" in told
    assert main(["evaluate", "runs/recipe_pairs", "--split", "test", "--num", "16", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    true, shuffled = number_after(out, "true pairs"), number_after(out, "shuffled pairs")
    gap, low, high = number_after(out, "gap")
    assert low <= gap <= high
    assert abs(shuffled[0] - true[0] - gap) < 0.02  # each is rounded by its own interval
    assert "pairs labelled as not binding" in out and "Samples by confidence" in out


def test_pairs_start_from_both_tracks_of_the_single_runs(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    molecules = f"data.path={shared / 'data' / 'zinc250k' / 'test.txt'}"
    assert main(["train", "recipe/ligand", molecules, "data.limit=200", *SMALL, *QUICK]) == 0
    alone = ("train.init_from=runs/recipe_ligand", "data.limit=200")
    with caplog.at_level("INFO"):
        assert main(["train", "recipe/pairs", *pair_files(shared), *alone, *SHORT, *SMALL, *QUICK]) == 0
    assert "started from runs/recipe_ligand" in caplog.text
    assert "fresh: stacks.protein" in caplog.text


def test_proteins_of_every_length_can_be_cropped_instead_of_dropped(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sequences = f"data.path={shared / 'data' / 'flip_proteins' / 'sequences.fasta.gz'}"
    cropped = ("data.too_long=crop", "data.limit=200", "tracks.protein.max_length=128")
    assert main(["train", "recipe/protein", sequences, *cropped, *SMALL, *QUICK]) == 0
    told = (tmp_path / "runs" / "recipe_protein" / "data.txt").read_text()
    assert re.search(r"200 kept, \d+ of them cropped, 0 dropped", told), told
