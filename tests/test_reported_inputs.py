"""Inputs of kinds that people reported against other tools: each command of `cases/` gives the outcome that is right.

The inputs, the commands and why each outcome is right are in the folder `cases` of the shared data; what each command's output must contain
is here, for the commands in turn. Those whose commands are prose there (a run that is killed, a changed file) are tests of their own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from protlig_dd.cli import main

EXPECTED: dict[str, list[str | tuple[str, ...]]] = {
    "01": ["3 records read, 3 kept, 0 dropped", "training tokens: 2394 protein"],  # 57 records of 40 residues and two ends
    "02": [("hash_first.fasta: sequences", "2 records read, 2 kept"), "training tokens: 24 protein"],
    "03": [("3 scores", "J as X (1); in b"), ("3 proteins", "J as X (1); in b"), ("rc 1", "gaps.fasta:1: 20 of 60"), "rc 1"],
    "04": [("rc 1", "mixed.fasta:3: the header"), "4 records read, 1 kept, 3 dropped"],
    "06": [("rc 1", "found SDF")] * 3 + [("rc 1", "found MOL2"), "2 records read, 0 kept, 2 dropped"],
    "07": ["6 records read, 1 kept, 5 dropped", "11 records read, 1 kept, 10 dropped"],
    "08": [("in 2 rows", "own split: 1 test"), ("pairs", "1 dropped: no protein")],
    "09": [("1 records read, 1 kept", "unused columns: 'msa'")],
    "10": ["affinity: 6.25 to 7.5"],
    "11": ["1 records read, 1 kept"],
    "13": [("data.affinity.unit", "nM")],
    "14": [("rc 1", "'->' at position 2 is not a symbol of the vocab vocabulary; add it with 'protlig prepare vocab'")],
    "15": [("3 kept", "2 kept with CXSMILES extension")],
    "16": [("rc 1", "holes.csv:3"), ("rc 1", "nullsmi.csv:3"), ("rc 1", "null.parquet:row 2"), ("rc 1", "holes.csv:3")],
    "17": [("rc 1", "holes.fasta:3"), ("rc 1", "holes.fasta:3")],
    "18": [("rc 0", "effect=0.22308", "--score-column")] * 3,
    "19": [("rc 0", "effect=0.22308", "correlation: none (1 pair"), ("rc 1", "--draws: found 1, expected 2 or more")],
    "21": [("name=sameauth_A  protein=MKTAYIAKQRQISFVKSH", "name=sameauth_B  protein=GSHMLED"), "protein=GSHMLED"],
    "22": [("rc 0", "motif=3-8"), ("rc 1", "no protein chain 'A'")],
    "23": ["length=12", "protein=MKHHHHCCDEKY"],
    "24": ["13 residues"],
    "25": [(">model0_MODEL_0_A", ">model0_MODEL_5_A"), "3 chains"],
    "26": ["DVVVVVVVVVVVVVVVVD", "DVVVVVVVVVVVVVVVVD", "length=18"],
    "29": [("rc 0", "motif=15-17 21-22")],
    "30": [("rc 1", "lookup:1: found the name", "41 faults"), "1s7mB01"],
    "32": ["C-alpha: none", ("rc 1", "has no C-alphas"), "1s7mB01"],
    "34": ["3 repeated names", "3 chains have the name of another one"],
    "35": ["nats=30.0028", ("rc 1", "vocab.txt: 'L' has id 13")],
    "36": [("rc 1", "not finite")] * 4,
    "37": [("rc 1", "has shape (0,)")],
    "38": ["nats=30.0028", "nats=30.0028"],
    "44": [("rc 0", "no valid molecules"), ("rc 1", ".fasta"), ("rc 1", ".fasta")],
    "49": [("rc 1", "no vocabulary_ligand.json in the run")],
}


def commands_of(case: Path) -> list[list[str]]:
    """The commands of a case, as words behind `protlig`."""
    lines = (case / "EXPECT.txt").read_text().splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("  protlig ") and "PYTHON" not in line and "..." not in line]


@pytest.fixture(scope="module")
def runs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the four small runs that the commands use, as `cases/make_runs.sh` makes them."""
    folder = tmp_path_factory.mktemp("cases")
    for name in ("14-dative-bonds", "make_runs.sh"):
        subprocess.run(["cp", "-r", shared / "cases" / name, folder], check=True)
    program = folder / "bin" / "protlig"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m protlig_dd "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["bash", "make_runs.sh"], cwd=folder, env=environment, check=True, capture_output=True)
    return folder / "runs"


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("number", EXPECTED)
def test_each_reported_input_has_the_right_outcome(
    number: str,
    shared: Path,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (case,) = (shared / "cases").glob(f"{number}-*")
    folder = Path(shutil.copytree(case, tmp_path / "case"))
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    monkeypatch.chdir(folder)
    caplog.set_level("INFO")
    commands = commands_of(case)
    assert len(commands) == len(EXPECTED[number])
    for words, patterns in zip(commands, EXPECTED[number], strict=True):
        code = main([word.replace("$RUNS", str(runs)) for word in words])
        captured = capfd.readouterr()
        said = f"rc {code}\n{captured.out}{captured.err}{caplog.text}"
        caplog.clear()
        assert "Traceback" not in said
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            assert pattern in said, (words, pattern, said)


@pytest.mark.data
def test_every_reported_input_is_looked_at(shared: Path) -> None:
    with_commands = {case.name[:2] for case in (shared / "cases").glob("[0-9]*") if commands_of(case)}
    assert with_commands == set(EXPECTED)
