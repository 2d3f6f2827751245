"""The command line as a person uses it: every command once, and every kind of bad input, each with one line and exit code 1."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from protlig_dd.cli.entry import build_parser, main

pytestmark = pytest.mark.xdist_group("run")
PROTEIN = "MKTAYIAKQRHEAVHWFKTAYIAKQ"


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail, and return its one line."""
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()
    told = [line for line in error if line.startswith("protlig ")]
    assert len(told) == 1 and "Traceback" not in "\n".join(error), error
    return error[error.index(told[0])]


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ("train", "check", "sample", "optimize", "evaluate", "report", "runs", "inspect", "prepare", "download", "doctor")
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert len(capsys.readouterr().out) > 100
    for words in ("train", "check", "sample", "evaluate", "report", "runs", "export", "tokenize", "foldseek info", "foldseek head"):
        with pytest.raises(SystemExit):
            main([*words.split(), "--help"])
        shown = capsys.readouterr().out
        assert f"\n  protlig {words} " in shown or f"\n  protlig {words}\n" in shown, f"{words} --help shows no example"
        assert "(see below)" not in shown, "what is not below is not to be seen there"
    assert all(command in build_parser().format_help() for command in commands)


def test_check_says_what_a_config_costs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rdkit", reason="the demo's molecules need RDKit (extra ligand)")
    assert main(["check", "demo/smoke", "--device", "cpu", "train.batch_size=8"]) == 0
    out = capsys.readouterr().out
    for words in ("config: demo_smoke, valid", "parameters", "FLOPs", "MiB", "SYNTHETIC", "ligand_given_protein 80%"):
        assert words in out, words


def test_doctor_checks_attention_against_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "agrees with the float32 reference" in capsys.readouterr().out


def test_samples_go_to_a_file_and_the_same_command_gives_the_same_file(
    smoke_run: Path, in_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sample", str(smoke_run), "--protein", PROTEIN, "--num", "3", "--device", "cpu", "--sampler", "first_hitting"]
    assert main([*arguments, "--out", "a.csv"]) == 0 and main([*arguments, "--out", "b.csv", "--batch-size", "1"]) == 0
    assert Path("a.csv").read_text() == Path("b.csv").read_text()
    with Path("a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] and all(row["protein"] == PROTEIN for row in rows)
    assert json.loads(Path("a.csv.json").read_text())["sampler"] == {"kind": "first_hitting"}
    assert not Path("a.csv.partial").exists()


def test_a_stopped_sampling_goes_on(smoke_run: Path, in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from protlig_dd.runs.generate import Generator

    arguments = ["sample", str(smoke_run), "--unconditional", "--num", "4", "--length", "9", "--device", "cpu", "--batch-size", "1"]
    arguments += ["--sampler", "first_hitting"]
    assert main([*arguments, "--out", "whole.csv"]) == 0
    plain = Generator._draw

    def interrupted(self: Generator, chunk):  # type: ignore[no-untyped-def]
        if chunk[0].id == 2:
            raise KeyboardInterrupt
        return plain(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(Generator, "_draw", interrupted)
        assert main([*arguments, "--out", "again.csv"]) == 130
    assert len(Path("again.csv.partial").read_text().splitlines()) == 3
    assert main([*arguments, "--out", "again.csv"]) == 0
    assert Path("again.csv").read_text() == Path("whole.csv").read_text()


def test_a_stopped_sampling_goes_on_in_every_form_and_loses_nothing(
    smoke_run: Path, in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SDF holds no invalid molecules: they are listed beside it, also from the file that an earlier command left."""
    pytest.importorskip("rdkit", reason="SDF needs RDKit (extra ligand)")
    arguments = [
        "sample",
        str(smoke_run),
        "--protein",
        PROTEIN,
        "--num",
        "6",
        "--device",
        "cpu",
        "--sampler",
        "first_hitting",
        "--no-likelihood",
    ]
    with monkeypatch.context() as patch:
        patch.setattr("protlig_dd.runs.output.write_rows", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*arguments, "--out", "x.sdf"]) == 130
    assert len(Path("x.sdf.partial").read_text().splitlines()) == 7
    assert main([*arguments, "--out", "x.sdf"]) == 0 and main([*arguments, "--out", "x.csv"]) == 0
    with Path("x.sdf.left_out.csv").open(newline="") as file:
        left_out = [row["ligand"] for row in csv.DictReader(file)]
    with Path("x.csv").open(newline="") as file:
        assert {*left_out} <= {row["ligand"] for row in csv.DictReader(file)}
    assert Path("x.sdf").read_text().count("$$$$") + len(left_out) == 6
    assert not Path("x.sdf.partial").exists() and f"{len(left_out)} of 6 samples are no valid molecules" in capsys.readouterr().out


def test_a_run_is_evaluated_reported_and_listed(smoke_run: Path, in_empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(smoke_run, "runs/smoke")
    assert main(["evaluate", "runs/smoke", "--num", "12", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    for words in ("SYNTHETIC", "training unigrams", "condition dependence", "shuffled proteins", "k-NN null", "validity"):
        assert words in out, words
    assert main(["report", "runs/smoke"]) == 0
    assert "<html" in Path("runs/smoke/report.html").read_text()
    assert main(["runs"]) == 0
    assert "runs/smoke" in capsys.readouterr().out


def test_a_lead_is_optimised_beside_its_null(smoke_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["optimize", str(smoke_run), "--ligand", "CCO", "--rounds", "1", "--population", "2", "--device", "cpu"]
    assert main([*arguments, "--sampler", "first_hitting"]) == 0
    assert "without selection" in capsys.readouterr().out
    assert main([*arguments, "--sampler", "first_hitting", "--out", "x.fasta"]) == 1
    assert ".fasta: the samples have no protein" in capsys.readouterr().err


def test_training_from_the_command_line_ends_with_the_summary(in_empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rdkit", reason="the demo's molecules need RDKit (extra ligand)")
    arguments = ["train", "demo/smoke", "--device", "cpu", "train.steps=2", "evaluation.num_samples=12", "evaluation.num_examples=12"]
    assert main([*arguments, "evaluation.samplers=[{kind: first_hitting}]", "sampling.sampler={kind: first_hitting}"]) == 0
    out = capsys.readouterr().out
    assert "SYNTHETIC" in out and "the law 0.85" in out and out.strip().endswith("report.html")


BAD = {
    "a typo in a setting": (["train", "demo/smoke", "train.stepz=3"], "train.stepz: unknown setting (did you mean 'steps'?)"),
    "a wrong type": (["train", "demo/smoke", "train.optim.lr=fast"], "train.optim.lr: found 'fast', expected a valid number"),
    "an unknown config": (["train", "demo/smok"], "found neither a file nor a packaged config of that name (did you mean 'demo/smoke'?)"),
    "an impossible combination": (
        ["check", "demo/smoke", "diffusion.process=uniform", "diffusion.parameterization=subs"],
        "subs needs process: absorbing",
    ),
    "an absent device": (["train", "demo/smoke", "--device", "xpu"], "xpu"),
    "an absent run": (["sample", "nowhere", "--unconditional"], "expected a run folder"),
    "nothing to condition on": (["sample", "nowhere"], "say --unconditional"),
    "an absent file": (["inspect", "nothing.csv"], "nothing.csv"),
    "an unknown data set": (["download", "uniref5"], "did you mean 'uniref50'?"),
    "an unknown role": (["inspect", "x.csv", "--column", "smilez=A"], "expected ROLE=NAME"),
    "a data file that is not there": (["train", "sedd/protein_66m", "data.path=none.fasta"], "none.fasta"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_line(case: str, in_empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = BAD[case]
    assert words in refused(capsys, *arguments)


BAD_FOR_A_RUN = {
    "a letter that is no residue": (["--protein", "MK1A"], "'1' at residue 3"),
    "a form that is unknown": (["--protein", PROTEIN, "--out", "x.cvs"], "did you mean '.csv'?"),
    "a form without the track": (["--unconditional", "--generate", "ligand", "--out", "x.fasta"], ".fasta: the samples have no protein"),
    "a sampler that is unknown": (["--protein", PROTEIN, "--sampler", "eulr"], "did you mean 'euler'?"),
    "steps that are no number": (["--protein", PROTEIN, "--sampler", "euler:many"], "expected a number"),
    "a shard beyond the last": (["--protein", PROTEIN, "--shard", "3/2"], "expected i/n with 0 <= i < n"),
    "no samples": (["--protein", PROTEIN, "--num", "0"], "--num: found 0"),
    "a symbol that is not in the track": (["--protein", PROTEIN, "--forbid", "ligand:Xx"], "found 'Xx'"),
    "a sequence that is too long": (["--protein", "A" * 90], "sampling never crops"),
    "a temperature of zero": (["--protein", PROTEIN, "--temperature", "0"], "expected a positive number"),
}


@pytest.mark.parametrize("case", BAD_FOR_A_RUN)
def test_bad_requests_get_one_clear_line(case: str, smoke_run: Path, in_empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, words = BAD_FOR_A_RUN[case]
    assert words in refused(capsys, "sample", str(smoke_run), "--device", "cpu", "--no-likelihood", *options)


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02\xff" * 50, b"protein,ligand\r\nMKV"])
def test_empty_binary_and_cut_off_files_get_one_clear_line(
    content: bytes, in_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pairs.csv").write_bytes(content)
    assert "pairs.csv" in refused(capsys, "train", "recipe/pairs", "data.path=pairs.csv", "--device", "cpu", "train.init_from=''")
