"""`protlig sample --property`: the rows, the null, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from protlig_dd.cli.entry import main
from protlig_dd.evaluation.proteins import net_charge
from protlig_dd.runs.experiment import load_experiment
from protlig_dd.runs.options import SampleOptions
from protlig_dd.runs.sampler_settings import tilting_from
from protlig_dd.sampling import Tilting

pytestmark = pytest.mark.xdist_group("run")
Capture = pytest.CaptureFixture[str]
COMMON = ["--unconditional", "--generate", "protein", "--length", "12", "--num", "4", "--device", "cpu"]


@pytest.fixture
def arguments(smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a command that draws four proteins, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return ["sample", str(smoke_run), *COMMON, "--no-likelihood", "--sampler", "first_hitting"]


def rows_of(name: str) -> list[dict[str, str]]:
    with Path(name).open() as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["id"]))


@pytest.mark.parametrize("method", ["smc", "classifier", "best_of"])
def test_rows_have_the_property_beside_the_same_sample_without_guidance(
    arguments: list[str], capsys: pytest.CaptureFixture[str], method: str
) -> None:
    guided = ["--property", "charge", "--property-weight", "2", "--property-method", method, "--particles", "8"]
    assert main([*arguments, *guided, "--out", "x.csv"]) == 0
    out = capsys.readouterr().out
    assert main([*arguments, "--out", "plain.csv"]) == 0
    rows, plain = rows_of("x.csv"), rows_of("plain.csv")
    assert [float(row["property"]) for row in rows] == [net_charge(row["protein"]) for row in rows]
    assert [float(row["property_unguided"]) for row in rows] == [net_charge(row["protein"]) for row in plain]
    means = [sum(float(row[name]) for row in rows) / 4 for name in ("property", "property_unguided")]
    assert f"charge: mean {means[0]:.4g} by {method} with weight 2; without guidance {means[1]:.4g} (the null)" in out
    assert means[0] > means[1] + 0.5
    assert ("ess" in rows[0]) == ("effective sample size" in out) == (method == "smc")
    assert json.loads(Path("x.csv.json").read_text())["property"]["weight"] == 2


def test_batches_and_shards_change_no_sample(arguments: list[str]) -> None:
    guided = [*arguments, "--property", "entropy", "--property-weight", "-3", "--particles", "4"]
    assert main([*guided, "--out", "whole.csv"]) == 0
    assert main([*guided, "--out", "small.csv", "--batch-size", "1"]) == 0
    assert main([*guided, "--out", "second.csv", "--shard", "1/2"]) == 0
    whole, small, second = (
        [{k: v for k, v in row.items() if k != "rank"} for row in rows_of(f"{name}.csv")] for name in ("whole", "small", "second")
    )
    assert small == whole
    assert second == whole[1::2]


def test_weight_zero_is_the_plain_command(arguments: list[str]) -> None:
    assert main([*arguments, "--property", "charge", "--property-weight", "0", "--out", "x.csv"]) == 0
    assert main([*arguments, "--out", "plain.csv"]) == 0
    assert [row["protein"] for row in rows_of("x.csv")] == [row["protein"] for row in rows_of("plain.csv")]


def test_a_config_may_name_the_property_and_the_command_change_it() -> None:
    config = load_experiment("demo/smoke", ("sampling.property.name=hydropathy", "sampling.property.weight=3"))
    own = tilting_from(SampleOptions(run="x", unconditional=True), config)
    assert own == Tilting(name="hydropathy", weight=3.0)
    changed = SampleOptions(run="x", unconditional=True, particles=4, property_method="best_of")
    assert tilting_from(changed, config) == Tilting(name="hydropathy", weight=3.0, particles=4, method="best_of")
    assert tilting_from(SampleOptions(run="x", unconditional=True), load_experiment("demo/smoke", ())) is None


@pytest.mark.parametrize(
    "options,words",
    [
        (["--property", "charg"], "did you mean 'charge'?"),
        (["--property", "charge", "--property-weight", "nan"], "property.weight: found nan, expected a finite number"),
        (["--property", "charge", "--particles", "0"], "property.particles: found 0"),
        (["--property", "qed"], "is one of the track 'ligand', and protein is generated"),
        (["--particles", "8"], "--property: found none beside options about it"),
        (["--property", "odd_property:nothing"], "property 'odd_property:nothing': found nan for "),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    Path("odd_property.py").write_text("def nothing(texts):\n    return [float('nan')] * len(texts)\n")
    assert main([*arguments, *options]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("protlig ")]
    assert len(told) == 1 and words in told[0]


def test_a_function_in_a_runs_config_is_not_imported(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shared, here = tmp_path / "shared", tmp_path / "here"
    shutil.copytree(smoke_run, shared)
    here.mkdir()
    monkeypatch.chdir(here)
    ran = "from pathlib import Path\nPath('payload.ran').touch()\n"
    (here / "payload.py").write_text(f"{ran}def f(texts):\n    return [1.0] * len(texts)\n")
    config = shared / "config.yaml"
    config.write_text(config.read_text().replace("property: null", "property: {name: 'payload:f'}"))
    command = ["sample", str(shared), *COMMON, "--no-likelihood"]
    for options in ([], ["--property-weight", "2"]):
        assert main([*command, *options]) == 1
        assert "give it yourself: --property payload:f" in capsys.readouterr().err
    assert not list(here.glob("*.ran"))
    assert main([*command, "--property", "payload:f", "--particles", "2"]) == 0
    assert (here / "payload.ran").is_file()
    assert sys.path[0] != str(here), "a file of the folder must not stand in for a package"
