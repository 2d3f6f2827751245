"""The results of an evaluation go to the wandb run of its training, and nowhere if there is none."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from protlig_dd.evaluation.intervals import Estimate, Score, wilson
from protlig_dd.evaluation.sections import Section, write_evaluation
from protlig_dd.evaluation.trace_pairs import write_traces
from protlig_dd.report.tracked import evaluation_metrics, track_evaluation
from protlig_dd.training.tracking import TrackingSettings, start_tracking
from tests.support.chains import traces

METRIC = b"evaluation/coordinates_test_split/rmsd_a/null/another_s"
SETTINGS = TrackingSettings(tensorboard=False)


def sections() -> list[Section]:
    scores = (
        Score(name="RMSD (A)", value=Estimate(value=1.5, low=1.4, high=1.6, num=9), null=wilson(1, 4), null_name="another's"),
        Score(name="codes used", value=Estimate.plain(31, 80)),
        Score(name="nothing", value=Estimate.missing()),
    )
    return [Section(title="Coordinates, test split", scores=scores)]


def test_each_score_is_logged_under_its_section_with_its_null() -> None:
    found = evaluation_metrics(sections())
    at = "evaluation/coordinates_test_split"
    assert found[f"{at}/rmsd_a"] == 1.5 and found[f"{at}/rmsd_a/low"] == 1.4 and found[f"{at}/rmsd_a/high"] == 1.6
    assert found[f"{at}/rmsd_a/null/another_s"] == 0.25 and found[f"{at}/codes_used"] == 31
    assert not [name for name in found if "nothing" in name], "no value, no metric"


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")))


def test_an_evaluation_goes_to_the_run_of_its_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_evaluation(tmp_path / "evaluation.json", sections())
    write_traces(tmp_path / "traces.json", traces())
    track_evaluation(tmp_path, SETTINGS, step=7)
    assert not (tmp_path / "wandb").exists(), "a run that was trained without wandb gets none"
    start_tracking(tmp_path, SETTINGS, rank=0).close()
    run_id = json.loads((tmp_path / "wandb_run.json").read_text())["id"]
    track_evaluation(tmp_path, SETTINGS, step=7, with_traces=True)
    deadline = time.monotonic() + 20  # wandb's own process writes a moment after the run has ended
    while (is_absent := METRIC not in written(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_absent
    assert all(run_id in path.name for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    drawn = sorted(path.name for path in (tmp_path / "wandb").glob("offline-run-*/files/media/molecule/**/*.pdb"))
    assert [name.split("_")[0] for name in drawn] == ["best", "median", "worst"]


def test_wandb_that_is_turned_off_stays_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (tmp_path / "wandb_run.json").write_text('{"id": "a"}\n')
    track_evaluation(tmp_path, SETTINGS, step=7, with_traces=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wandb_run.json"]
