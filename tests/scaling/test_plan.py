"""The plan of a study: numbers with units, the plan's files, shards and launch scripts."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.scaling.plan import Plan, PlannedRun, number, read_plan, shard_of, short, write_launcher, write_plan


def planned(name: str, hours: float | None = 0.5) -> PlannedRun:
    return PlannedRun(
        name=name,
        size="1k",
        params=1000,
        embedding_params=100,
        examples=50,
        unique_tokens=500,
        tokens=1000,
        steps=10,
        flops_6nd=6e6,
        flops_counted=5e6,
        hours=hours,
    )


PLAN = Plan(base="scaling/markov", runs=tuple(planned(n) for n in "abcde"), device="cpu", how_timed="timed")


@pytest.mark.parametrize(("text", "value"), [("100k", 1e5), ("0.3M", 3e5), ("1e15", 1e15), (" 2B ", 2e9), ("7", 7.0)])
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    assert number(text, "--sizes") == value


@pytest.mark.parametrize("text", ["", "many", "-3", "0", "1.2.3", "3x"])
def test_text_that_is_not_a_positive_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--sizes: found '{text}', expected positive numbers"):
        number(text, "--sizes")


def test_counts_are_written_short() -> None:
    assert [short(n) for n in (12, 1500, 2_340_000, 3e9)] == ["12", "1.5k", "2.34M", "3G"]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)
    assert read_plan(tmp_path) == PLAN
    with (tmp_path / "plan.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == list("abcde")
    text = "\n".join(PLAN.lines())
    assert "about 2.5 hours one after the other on cpu" in text and "6ND" in text
    assert "hours not measured" in "\n".join(Plan(base="x", runs=(planned("a", None),)).lines())


def test_a_folder_that_is_not_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found no plan\.json, expected a study; make one with: protlig scaling plan"):
        read_plan(tmp_path)
    write_plan(tmp_path, Plan(base="x", runs=()))
    with pytest.raises(ConfigError, match="found no run; make the plan again"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text('{"runs": [{"nam": 3}]}')
    with pytest.raises(FormatError, match=r"plan\.json: not a plan"):
        read_plan(tmp_path)


def test_shards_share_the_runs_out() -> None:
    shares = [[run.name for run in shard_of(PLAN, f"{i}/2")] for i in range(2)]
    assert shares == [["a", "c", "e"], ["b", "d"]]
    for text in ("2/2", "1", "a/b", "0/0"):
        with pytest.raises(ConfigError, match="expected i/n"):
            shard_of(PLAN, text)


@pytest.mark.parametrize("slurm", [False, True])
def test_launch_scripts_are_shell_and_start_the_study(tmp_path: Path, slurm: bool) -> None:
    folder = tmp_path / "my study"
    folder.mkdir()
    path = write_launcher(folder, PLAN, device="cuda" if slurm else "cpu", slurm=slurm)
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    (folder / "protlig").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (folder / "srun").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    for name in ("protlig", "srun"):
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(["bash", str(path), "x"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shard = "--shard|3/5|" if slurm else ""
    assert done.stdout == f"scaling|run|{folder}|--device|{'cuda' if slurm else 'cpu'}|{shard}x|"
    if slurm:
        text = path.read_text()
        assert "#SBATCH --array=0-4\n#SBATCH --time=01:00:00" in text and "--gpus-per-task=1" in text
