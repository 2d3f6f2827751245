"""Results of a stopped command are taken up by what they were made of, not by name; and models whose numbers are none give one line."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from protlig_dd.cli.entry import main
from protlig_dd.runs.output import PartialFile
from tests.support.encoders import QUICK, fasta, sequences

pytestmark = pytest.mark.xdist_group("dplm")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one config, trained from unlike weights."""
    root = tmp_path_factory.mktemp("going_on")
    proteins = fasta(root / "s.fasta", sequences(40))
    for name, seed in (("a", 0), ("b", 1)):
        given = [f"data.path={proteins}", *QUICK, f"seed={seed}", "sampling.sampler.num_steps=3"]
        assert main(["train", "dplm/tiny", *given, "--out", str(root / name)]) == 0
    assert main(["export", str(root / "a"), "--out", str(root / "exported")]) == 0
    return root


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which `m` is the first model."""
    shutil.copytree(models / "a", tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stopped_after(num: int, monkeypatch: pytest.MonkeyPatch, command: list[str], place: str) -> None:
    """Run a command that is interrupted after `num` calls of a function (or items of an iterator)."""
    with monkeypatch.context() as patch:
        if place == "append":
            whole = PartialFile.append

            def some(self: PartialFile, rows: Iterator[dict[str, object]]) -> Iterator[object]:
                for i, row in enumerate(whole(self, rows), 1):
                    yield row
                    if i == num:
                        raise KeyboardInterrupt

            patch.setattr(PartialFile, "append", some)
        else:
            calls = []

            def save(*args: object, **kwargs: object) -> None:
                calls.append(1)
                if len(calls) > num:
                    raise KeyboardInterrupt
                save_file(*args, **kwargs)  # type: ignore[arg-type]

            patch.setattr("protlig_dd.runs.embed.save_file", save)
        assert main(command) == 130


EMBED = ["embed", "--model", "m", "--protein", "x.fasta", "--tokens", "20", "--device", "cpu", "--out"]


def test_vectors_of_a_name_are_those_of_its_sequence_today(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two corrected sequences, one of them in the part that was written, and a new one: everything else is kept."""
    texts = ["MKTAYIAKQRHE", "GGSWLLVPAA", "ACDEFG", "WYV"]
    fasta(Path("x.fasta"), texts)
    stopped_after(2, monkeypatch, [*EMBED, "x.safetensors"], "save")
    parts = sorted(Path("x.safetensors.partial").glob("part_*"))
    before = [part.stat().st_mtime_ns for part in parts]
    fasta(Path("x.fasta"), ["AAAAAAAAAAAA", *texts[1:3], "AAA", "MKT"])
    with monkeypatch.context() as patch:
        patch.setattr("protlig_dd.runs.embed._join", lambda *args: [before.append(p.stat().st_mtime_ns) for p in parts])
        assert main([*EMBED, "x.safetensors"]) == 0
    assert len(parts) == 2 and before[:2] == before[2:], "parts that are right are not made again"
    assert main([*EMBED, "x.safetensors"]) == 0 and main([*EMBED, "fresh.safetensors"]) == 0
    found, fresh = load_file("x.safetensors"), load_file("fresh.safetensors")
    assert found.keys() == fresh.keys() == {"p0", "p1", "p2", "p3", "p4"}
    assert all(torch.allclose(found[name], fresh[name], atol=1e-6) for name in fresh)


def test_vectors_of_other_weights_are_refused(
    here: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta(Path("x.fasta"), ["MKTAYIAKQRHE", "GGSWLLVPAA", "ACDEFG"])
    stopped_after(1, monkeypatch, [*EMBED, "x.safetensors"], "save")
    shutil.rmtree("m")
    shutil.copytree(models / "b", "m")
    assert main([*EMBED, "x.safetensors"]) == 1
    assert "x.safetensors.partial: was begun with other settings (weights)" in capsys.readouterr().err
    assert len(list(Path("x.safetensors.partial").glob("part_*"))) == 1, "nothing is lost"


def test_samples_of_two_models_are_never_in_one_file(
    here: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "sample",
        "--model",
        "m",
        "--task",
        "sequence",
        "--length",
        "12",
        "--num",
        "6",
        "--device",
        "cpu",
        "--batch-size",
        "1",
        "--out",
    ]
    stopped_after(3, monkeypatch, [*command, "x.csv"], "append")
    shutil.rmtree("m")
    shutil.copytree(models / "b", "m")
    assert main([*command, "x.csv"]) == 1
    assert "x.csv.partial: was left by a run with other settings (weights); remove it" in capsys.readouterr().err
    shutil.rmtree("m")
    shutil.copytree(models / "a", "m")
    assert main([*command, "x.csv"]) == 0 and main([*command, "fresh.csv"]) == 0
    assert Path("x.csv").read_bytes() == Path("fresh.csv").read_bytes()


POISONS = {
    "every weight": lambda name, tensor: torch.full_like(tensor, torch.nan),
    "one row of the embedding": lambda name, tensor: tensor.index_fill(0, torch.tensor([22]), torch.nan) if "word_emb" in name else tensor,
    "an infinite bias": lambda name, tensor: tensor.index_fill(0, torch.tensor([5]), torch.inf) if name == "lm_head.bias" else tensor,
}
COMMANDS = {
    "sample": ["sample", "--model", "nan", "--task", "sequence", "--length", "60", "--num", "2", "--steps", "8", "--out", "n.fasta"],
    "score": ["score", "--model", "nan", "--protein", "MKTAYIAKW", "--out", "n.csv"],
    "pll": ["score", "--model", "nan", "--protein", "MKTAYIAKW", "--method", "pll"],
    "mutants": ["score", "--model", "nan", "--protein", "MKTAYIAKW", "--mutants", "x.csv"],
    "embed": ["embed", "--model", "nan", "--protein", "MKTAYIAKW", "--out", "n.safetensors"],
    "export": ["export", "nan", "--out", "out"],
}


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_whose_numbers_are_none_gives_one_line_and_no_result(
    command: str, poison: str, here: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models / "exported", "nan")
    file = Path("nan/model.safetensors")
    save_file({name: POISONS[poison](name, tensor) for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    Path("x.csv").write_text("mutant,DMS_score\nM1A,1\nK2R,2\nT3S,3\nA4W,4\n")
    device = [] if command == "export" else ["--device", "cpu"]
    if (command, poison) == ("embed", "an infinite bias"):
        assert main([*COMMANDS[command], *device]) == 0, "the head has no part in embeddings"
        return
    assert main([*COMMANDS[command], *device]) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line]
    assert told.startswith(f"protlig {COMMANDS[command][0]}: nan") and "not finite" in told
    assert not any(Path(name).exists() for name in ("n.fasta", "n.csv", "n.safetensors", "out"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["sample", "--model", "m", "--task", "sequence", "--length", "5", "--guidance", "nan"],
            "guidance.weight: found nan, expected a finite number",
        ),
        (["sample", "--model", "m", "--task", "sequence", "--length", "5", "--temperature", "nan"], "guidance.temperature: found nan"),
        (["sample", "--model", "m", "--task", "sequence", "--length", "5", "--top-p", "nan"], "guidance.top_p: found nan"),
        (
            ["sample", "--model", "m", "--task", "sequence", "--length", "5", "--strategy", "vanilla@nan"],
            "--sampler.temperature: found nan",
        ),
        (
            ["sample", "--model", "m", "--task", "sequence", "--length", "5", "--unmasking", "stochasticinf"],
            "--sampler.randomness: found inf",
        ),
        (["score", "--model", "m", "--protein", "MKT", "--draws", "1"], "--draws: found 1, expected 2 or more for the standard error"),
        (["score", "--model", "m", "--protein", "MKT", "--method", "chain", "--draws", "0"], "--draws: found 0, expected 1 or more"),
        (["score", "--model", "m", "--protein", "MKT", "--method", "bound", "--draws", "0"], "--draws: found 0, expected 2 or more"),
        (["score", "--model", "m", "--protein", "MKT", "--mutants", "x.csv", "--draws", "0"], "--draws: found 0, expected 1 or more"),
        (["score", "--model", "m", "--protein", "MKT", "--score-column", "y"], "--score-column y: is of no use without --mutants"),
        (["score", "--model", "m", "--protein", "MKT", "--out", "x.fasta"], "--out x.fasta: found '.fasta', expected one of .csv, .jsonl"),
        (["score", "--model", "m", "--protein", "s.fasta", "--out", "x.csv"], "--protein: p1 has 402 tokens, the model takes 256"),
        (["embed", "--model", "m", "--protein", "MKT", "--out", "x.safetensors", "--tokens", "0"], "--tokens: found 0, expected 1 or more"),
        (["embed", "--model", "m", "--protein", "MKT", "--out", "m.safetensors"], "--out m.safetensors: is a folder"),
        (["sample", "--model", "m", "--task", "sequence", "--length", "5", "--out", "x.smi"], ".smi: the samples have no ligand"),
        (["sample", "--model", "m", "--task", "sequence", "--length", "5", "--out", "x.sdf"], ".sdf: the samples have no ligand"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(
    options: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.csv").write_text("mutant\nM1A\n")
    fasta(Path("s.fasta"), ["MKTAYIAK", "G" * 400])
    Path("m.safetensors").mkdir()
    before = sorted(path.name for path in Path().iterdir())
    assert main([*options, "--device", "cpu"]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert words in told and told.startswith(f"protlig {options[0]}: ")
    assert sorted(path.name for path in Path().iterdir()) == before


def test_lengths_that_are_none_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", "--model", "m", "--task", "sequence", "--device", "cpu"]
    for content in ("{}", '{"protein": []}', '{"protein": [3, -1]}', '{"protein": 5}', '{"other": [3]}', "[]", '{"a": [1], "b": [1, 2]}'):
        Path("m/lengths.json").write_text(content)
        assert main(command) == 1
        (told,) = capsys.readouterr().err.splitlines()
        assert "lengths" in told and ("--length" in told or "expected the file that training writes" in told), (content, told)


def test_one_sample_where_nothing_is_drawn(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", "--model", "m", "--task", "sequence", "--device", "cpu", "--strategy", "argmax", "--unmasking", "deterministic"]
    for more, num in (
        (["--length", "5", "7"], 2),
        (["--length", "5", "--num", "3"], 3),
        (["--length", "5", "--unmasking", "stochastic1.0"], 10),
        (["--length", "5", "--strategy", "gumbel_argmax"], 10),
        ([], 10),
    ):
        assert main([*command, *more]) == 0
        rows = capsys.readouterr().out.splitlines()
        assert len(rows) == num, more
    assert len({row.split("protein=")[1].split()[0] for row in rows}) > 1, "drawn lengths differ"


ASSAYS = {
    "no scores": ("mutant\nM1A\nK2R\nT3S:A4G\n", [], 3, "no correlation: found the columns mutant, none called DMS_score"),
    "sequences only": ("mutated_sequence\nAKTAYIAK\nMRTAYIAK\n", [], 2, "none called DMS_score; name one with --score-column"),
    "another column": ("mutant,score\nM1A,1\nK2R,2\nT3S,3\n", [], 3, "no correlation: found the columns mutant, score"),
    "the column is named": ("mutant,score\nM1A,1\nK2R,2\nT3S,3\n", ["--score-column", "score"], 3, "Spearman of mutation effects"),
    "one mutant": ("mutant,DMS_score\nM1A,0.1\n", [], 1, "correlation: none (1 pair); it takes 3"),
    "an empty score": (
        "mutant,DMS_score\nM1A,1\nK2R,2\nT3S,3\nY5F,\n",
        [],
        4,
        "1 mutants without a measured score are not in the correlation",
    ),
    "no score at all": ("mutant,DMS_score\nM1A,\nK2R,NA\n", [], 2, "correlation: none (0 pairs)"),
}


@pytest.mark.parametrize("case", ASSAYS)
def test_effects_come_without_measured_scores_too(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, options, num, words = ASSAYS[case]
    Path("x.csv").write_text(table)
    assert main(["score", "--model", "m", "--protein", "MKTAYIAK", "--mutants", "x.csv", "--device", "cpu", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("effect=" in line for line in lines) == num and words in "\n".join(lines)


def test_a_score_column_that_is_not_there_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.csv").write_text("mutant,score\nM1A,1\n")
    assert main(["score", "--model", "m", "--protein", "MKT", "--mutants", "x.csv", "--score-column", "scores"]) == 1
    assert "expected the score 'scores' (did you mean 'score'?)" in capsys.readouterr().err


def test_a_score_is_that_of_its_sequence_whatever_stands_before_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The hidden sets come from the sequence, not from the place in the file; X and U are neither scored nor counted."""

    def scores(*texts: str) -> list[str]:
        fasta(Path("x.fasta"), list(texts))
        assert main(["score", "--model", "m", "--protein", "x.fasta", "--device", "cpu"]) == 0
        return [line.split("  ", 2)[2] for line in capsys.readouterr().out.splitlines()]

    first, second = scores("MKTAYIAKQR", "GGSWLLVPAA")
    assert scores("GGSWLLVPAA", "ACD", "MKTAYIAKQR")[::2] == [second, first]
    assert first.startswith("length=10") and scores("MKTAXYIAUKQR")[0].startswith("length=10")


def test_a_name_of_a_table_is_one_line_everywhere(here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    Path("x.csv").write_text('name,protein\n"a\n>fake\nMKV",MKT____IAK\n=1+1,MK____\n')
    command = ["sample", "--model", "m", "--protein", "x.csv", "--num", "1", "--device", "cpu", "--out"]
    for out in ("x.fasta", "y.csv"):
        assert main([*command, out]) == 0
    assert [line for line in Path("x.fasta").read_text().splitlines() if line.startswith(">")][0].startswith(">a_>fake_MKV_0")
    with Path("y.csv").open(newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == {"a_>fake_MKV", "'=1+1"}
    assert Path("x.fasta").read_text().count("\n") == 4
    assert "1 names have line breaks or other control characters, which become '_': a_>fake_MKV" in caplog.text
    assert "begin like a formula, are written otherwise: '=1+1" in capsys.readouterr().out
