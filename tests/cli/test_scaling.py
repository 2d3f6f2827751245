"""`protlig scaling plan`, `run` and `fit`, from the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from protlig_dd.cli.entry import main
from protlig_dd.data.bundle import load
from protlig_dd.evaluation.intervals import Estimate, Score
from protlig_dd.evaluation.sections import Section, write_evaluation
from protlig_dd.runs.experiment import Parts, load_experiment
from protlig_dd.scaling.plan import read_plan
from tests.support.known import LAW, grid_runs

TINY = ("data.num_train=400", "data.num_validation=32", "train.batch_size=8", "evaluation.num_examples=32")
SIZES = ("--size", "hidden_size=16,num_heads=1,num_blocks=1", "--size", "hidden_size=32,num_heads=2,num_blocks=1")


def plan(folder: Path, *more: str, base: str = "scaling/markov") -> int:
    return main(["scaling", "plan", base, *TINY, *SIZES, "--device", "cpu", "--out", str(folder), *more])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    assert plan(folder, "--examples", "40,80", "--epochs", "2", "--probe-steps", "1") == 0
    return folder


def test_a_study_is_planned_run_resumed_and_fitted(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = read_plan(study).runs
    assert [(r.examples, r.steps) for r in runs] == [(40, 10), (80, 20), (40, 10), (80, 20)]
    assert all(r.hours and r.flops_6nd == 6 * r.params * r.tokens and r.flops_counted > 0 for r in runs)
    assert main(["scaling", "run", str(study), "--shard", "0/2", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["scaling", "run", str(study), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.count("finished before") == 2 and "4 of 4 runs are finished" in out
    assert main(["scaling", "fit", str(study)]) == 0
    out = capsys.readouterr().out
    assert "true floor: 1." in out and "not identifiable from these runs: found 2 model sizes" in out
    with (study / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["tokens"]) for row in rows] == [r.tokens for r in sorted(runs, key=lambda r: r.name)]
    assert [int(row["params"]) for row in rows] == [r.params for r in sorted(runs, key=lambda r: r.name)]
    for planned in runs:
        (row,) = (row for row in rows if row["name"] == planned.name)
        assert float(row["flops"]) == pytest.approx(planned.flops_counted, rel=1e-3)
    page = (study / "scaling.html").read_text()
    assert "<script" not in page and not re.search(r"(?:src|href)=.https?:", page)
    assert json.loads((study / "fit.json").read_text())["law"]["law"] is None


def test_a_failed_run_is_told_and_the_rest_go_on(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = read_plan(study).runs
    path = study / "configs" / f"{first.name}.yaml"
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(values | {"data": values["data"] | {"order": 9}}))
    capsys.readouterr()
    assert main(["scaling", "run", str(study), "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert f"{first.name}: failed: data.order: found 9" in out and "3 of 4 runs are finished; failed:" in out
    assert all((study / "runs" / run.name / "checkpoints").is_dir() for run in rest)


def test_a_stopped_study_ends_with_the_signals_code(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("protlig_dd.cli.scaling.train", lambda options: iter([130]))
    assert main(["scaling", "run", str(study), "--device", "cpu"]) == 130
    assert f"stopped; go on with: protlig scaling run {study}" in capsys.readouterr().out


def test_an_unfinished_run_is_left_out_and_said(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", "run", str(study), "--shard", "0/2", "--device", "cpu"]) == 0
    metrics = sorted((study / "runs").glob("*/metrics.jsonl"))[0]
    lines = [json.dumps(json.loads(line) | {"step": 5}) for line in metrics.read_text().splitlines()]
    metrics.write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert main(["scaling", "fit", str(study)]) == 0
    out = capsys.readouterr().out
    assert f"left out: {metrics.parent}, stopped at step 5" in out and "\n1 runs" in out


def test_training_sets_of_a_study_are_nested_and_validation_is_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=14)) for _ in range(120)]
    fasta = tmp_path / "some.fasta"
    fasta.write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(texts)))
    words = (f"data.path={fasta}", "train.tokens_per_batch=512")
    assert (
        main(
            [
                "scaling",
                "plan",
                "scaling/proteins",
                *words,
                *SIZES,
                "--examples",
                "20,60",
                "--tokens",
                "2k",
                "--out",
                str(tmp_path / "s"),
                "--probe-steps",
                "0",
            ]
        )
        == 0
    )
    train, validation = [], []
    for planned in read_plan(tmp_path / "s").runs:
        config = load_experiment(tmp_path / "s" / "configs" / f"{planned.name}.yaml")
        bundle = load(config.data, Parts(config).tracks, config.seed)
        train.append({bundle.train.example(i)["protein"].tobytes() for i in range(len(bundle.train))})
        validation.append({bundle.validation.example(i)["protein"].tobytes() for i in range(len(bundle.validation))})
        assert planned.hours is None and abs(planned.tokens / 2000 - 1) < 0.3
    assert sorted(map(len, train)) == [20, 20, 60, 60]
    small, large = min(train, key=len), max(train, key=len)
    assert small < large and all(v == validation[0] for v in validation) and not large & validation[0]


def test_budgets_give_runs_of_equal_compute(tmp_path: Path) -> None:
    assert plan(tmp_path / "s", "--budgets", "1e9,4e9", "--probe-steps", "0", "--slurm") == 0
    runs = read_plan(tmp_path / "s").runs
    for compute in (1e9, 4e9):
        same = [r for r in runs if r.name.endswith(f"C{compute:.3g}".replace("+", ""))]
        assert len(same) == 2 and all(abs(r.flops_6nd / compute - 1) < 0.15 for r in same)
    assert (tmp_path / "s" / "run_slurm.sh").is_file()


def write_csv(path: Path, header: str = "N,D,loss", noise: float = 1e-3) -> Path:
    runs = grid_runs(noise=noise)
    rows = [f"{n},{d},{v}" for n, d, v in zip(runs.params, runs.tokens, runs.values, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_csv_is_fitted_and_the_truth_is_in_the_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy", reason="fitting scaling laws needs scipy (extra scaling)")
    path = write_csv(tmp_path / "mine.csv", "size,seen,bits")
    words = ["--columns", "tokens=seen", "--metric", "bits", "--resamples", "60", "--budgets", "1e15"]
    assert main(["scaling", "fit", str(path), *words]) == 0
    out = capsys.readouterr().out
    found = re.search(r"alpha ([\d.]+) \[([\d.]+), ([\d.]+)\]", out)
    assert found and float(found[2]) <= LAW.alpha <= float(found[3])
    assert "verdict: every parameter is identified" in out and "C = 1e+15: N_opt" in out
    folder = tmp_path / "mine_scaling"
    for name in ("loss_vs_size", "isoflop", "predicted"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "scaling.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "not identifiable" not in page.split("One variable")[0]


def test_generation_quality_is_a_metric_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "study"
    assert plan(folder, "--tokens", "2k", "--probe-steps", "0") == 0
    assert main(["scaling", "run", str(folder), "--device", "cpu"]) == 0
    for i, run in enumerate(sorted((folder / "runs").iterdir())):
        score = Score(name="validity", value=Estimate(value=0.4 + 0.1 * i, low=0.3, high=0.6, num=50))
        write_evaluation(run / "evaluation.json", [Section(title="Samples by ancestral", scores=(score,))])
    capsys.readouterr()
    for name in ("validity", "Samples by ancestral: validity"):
        assert main(["scaling", "fit", str(folder), "--metric", name, "--direction", "rising"]) == 0
        assert f"fitted: 1 - {name} (it rises)" in capsys.readouterr().out
    assert main(["scaling", "fit", str(folder), "--metric", "validty"]) == 1
    assert "has no such number (did you mean 'validity'?); it has:" in capsys.readouterr().err


BAD = {
    "no length": (["plan", "scaling/markov", "--sizes", "100k"], "found none, expected exactly one of --tokens, --epochs and --budgets"),
    "two lengths": (["plan", "scaling/markov", "--sizes", "100k", "--tokens", "1M", "--epochs", "2"], "found --tokens and --epochs"),
    "no size": (["plan", "scaling/markov", "--tokens", "1M"], "found no size"),
    "a size that is no number": (["plan", "scaling/markov", "--sizes", "big", "--tokens", "1M"], "--sizes: found 'big'"),
    "a typo in a setting": (
        ["plan", "scaling/markov", "data.lenth=9", "--sizes", "100k", "--tokens", "1M"],
        "data.lenth: unknown setting (did you mean 'length'?)",
    ),
    "an unknown base": (["plan", "scaling/markof", "--sizes", "100k", "--tokens", "1M"], "did you mean 'scaling/markov'?"),
    "no validation": (
        ["plan", "scaling/markov", "data.num_train=50", "data.num_validation=0", "--sizes", "100k", "--tokens", "1M"],
        "has no validation part",
    ),
    "no study": (["run", "nowhere"], "found no plan.json, expected a study"),
    "nothing to fit": (["fit", "nowhere"], "nowhere: found no run; expected a study, a run folder, or a CSV"),
    "a file that is not there": (["fit", "nothing.csv"], "nothing.csv: not readable as CSV"),
    "an unknown role": (["fit", "x.csv", "--columns", "width=a"], "--columns 'width=a': expected ROLE=COLUMN"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("N,D,loss\n1,2,3\n")
    arguments, words = BAD[case]
    assert main(["scaling", *arguments]) == 1
    err = capsys.readouterr().err
    assert words in err and len(err.strip().splitlines()) == 1, err


def test_a_study_with_runs_is_not_written_over(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "runs").mkdir()
    assert plan(study, "--tokens", "1k") == 1
    assert "holds runs of a study already" in capsys.readouterr().err
    assert plan(study, "--tokens", "1k", "--probe-steps", "0", "--replace") == 0
    assert len(read_plan(study).runs) == 2


def test_a_study_that_was_not_started_says_how(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", "fit", str(study)]) == 1
    assert f"found no run; start it with: protlig scaling run {study}" in capsys.readouterr().err
