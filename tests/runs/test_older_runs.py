"""A run folder made before the package was rearranged opens, samples and trains on as it did then (tests/golden/run_before)."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from protlig_dd import Generator, Request, open_run
from protlig_dd.checkpoints.run_folder import read_config_file
from protlig_dd.runs.experiment import experiment_from
from protlig_dd.runs.families.table import train

NLL_AT_STEP_6 = 3.6767103  # of the same experiment trained on from step 4 to 6 by the code of that time


@pytest.fixture
def before(tmp_path: Path, root: Path) -> Path:
    return Path(shutil.copytree(root / "tests" / "golden" / "run_before", tmp_path / "before"))


def test_an_older_run_gives_the_samples_that_it_gave_then(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keys of that time, the numbers of the samples: only the keys have changed since (docs/changes.md)."""
    monkeypatch.setattr("protlig_dd.runs.generate.sample_keys", lambda requests, num: range(len(requests) * num))
    request = Request(name="protein", given={"protein": "MKTAYIAKQRHEAVHWFLLSKKA"}, generate={"ligand": None})
    samples = Generator(open_run(before, device="cpu"), seed=0).generate([request], num=4)
    with (before / "samples.csv").open(newline="") as file:
        expected = {int(row["id"]): row for row in csv.DictReader(file)}
    for sample in samples:
        assert sample.texts["ligand"] == expected[sample.id]["ligand"]
        assert sample.nll_per_token == pytest.approx(float(expected[sample.id]["nll_per_token"]), rel=1e-4)


def test_an_older_run_is_trained_on(before: Path) -> None:
    values = read_config_file(before / "config.yaml")
    values["train"]["steps"] = 6
    assert train(experiment_from(values), before, device="cpu").steps == 6
    metrics = [json.loads(line) for line in (before / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["validation/nll"] == pytest.approx(NLL_AT_STEP_6, rel=1e-5)
