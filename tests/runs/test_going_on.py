"""Going on after a change, and opening a folder after one: the data, the config, the vocabulary, the place."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from random import Random

import pytest
import yaml

from protlig_dd import Generator, Request, open_run
from protlig_dd.checkpoints.pointers import list_checkpoints, step_of
from protlig_dd.cli.entry import main
from protlig_dd.errors import CheckpointError, ConfigError, FormatError
from tests.support.smoke import forget

pytestmark = pytest.mark.xdist_group("run")
Capture = pytest.CaptureFixture[str]
SIZE = ("model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1", "data.leakage=false")
QUICK = ("train.batch_size=8", "train.tokens_per_batch=null", "train.checkpoint_every=2", "train.log_every=1", "train.tracking.wandb=off")


def proteins(number: int = 24) -> list[str]:
    draws = Random(0)
    return ["".join(draws.choices("ACDEFGHIKLMNPQRSTVWY", k=12 + i)) for i in range(number)]


def write_fasta(path: Path, texts: list[str]) -> None:
    path.write_text("".join(f">p{i}\n{text}\n" for i, text in enumerate(texts)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder with a FASTA file."""
    monkeypatch.chdir(tmp_path)
    write_fasta(tmp_path / "x.fasta", proteins())
    return tmp_path


def train(*more: str, path: str = "x.fasta") -> int:
    given = ["train", "dplm/tiny", f"data.path={path}", *SIZE, *QUICK, "train.steps=2", "name=run", "--device", "cpu"]
    return main([*given, *more])


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("change", ["a_residue", "one_more", "reversed"])
def test_a_run_does_not_go_on_with_other_data(here: Path, capsys: Capture, change: str) -> None:
    assert train() == 0
    before, texts = all_files(here / "runs/run"), proteins()
    other = texts[0][:-1] + ("A" if texts[0][-1] != "A" else "G")
    write_fasta(here / "x.fasta", {"a_residue": [other, *texts[1:]], "one_more": [*texts, texts[0]], "reversed": texts[::-1]}[change])
    assert train("train.steps=4") == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("protlig train")]
    assert "runs/run: the data are not those of step 2: train had " in told and "train.init_from=runs/run" in told
    assert all_files(here / "runs/run") == before, "a refused command changes nothing"
    write_fasta(here / "x.fasta", texts)
    assert train("train.steps=4") == 0


def test_the_same_data_may_lie_elsewhere_and_older_runs_go_on_without_being_asked(here: Path) -> None:
    assert train() == 0
    (here / "x.fasta").rename(here / "y.fasta")
    assert train("train.steps=3", path="y.fasta") == 0
    forget(here / "runs/run", "data")
    write_fasta(here / "y.fasta", proteins()[::-1])
    assert train("train.steps=4", path="y.fasta") == 0
    assert json.loads((here / "runs/run/checkpoints/step_00000004/state.json").read_text())["data"]["train"]["examples"] > 0


def steps(folder: Path) -> list[int]:
    return [step_of(path) for path in list_checkpoints(folder / "checkpoints")]


@pytest.mark.parametrize("named", ["runs/run", "runs/run/", "runs/run/checkpoints/step_00000002", "runs/run/checkpoints/last.json"])
def test_ckpt_path_goes_on_with_the_training_that_it_names(here: Path, named: str) -> None:
    assert train() == 0
    assert train("train.steps=4", f"ckpt_path={named}", "name=other") == 0
    assert steps(here / "runs/run")[-1] == 4 and not (here / "runs/other").exists()
    metrics = [json.loads(line)["step"] for line in (here / "runs/run/metrics.jsonl").read_text().splitlines()]
    assert sorted(set(metrics)) == [1, 2, 3, 4], "it did not start at step 0 again"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["ckpt_path=x.ckpt"], "ckpt_path=x.ckpt: means to go on with a training .* expected a run folder .* write train.init_from=x.ckpt"),
        (["ckpt_path=runs/run/checkpoints/step_00000002"], "expected its last one, step_00000004; .* write train.init_from=runs/run"),
        (["ckpt_path=runs/run", "--out", "runs/other"], "--out runs/other: a training goes on in its own folder"),
        (["ckpt_path=runs/run", "model.dropout=0.3"], r"runs/run: holds another experiment \(model: found dropout"),
    ],
)
def test_a_checkpoint_that_is_not_gone_on_from_is_one_line(here: Path, capsys: Capture, given: list[str], words: str) -> None:
    assert train("train.steps=4") == 0
    capsys.readouterr()
    assert train("train.steps=6", *given) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("protlig train")]
    assert re.search(words, told)
    assert steps(here / "runs/run") == [2, 4]


def test_evaluation_says_that_the_data_are_others(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert train() == 0
    caplog.clear()
    caplog.set_level(logging.WARNING)
    assert len(open_run("runs/run", device="cpu").data.train) and not caplog.messages
    write_fasta(here / "x.fasta", proteins()[::-1])
    assert len(open_run("runs/run", device="cpu").data.train)
    assert "the split may have moved" in caplog.text


def test_relative_data_of_another_folder_are_one_line(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert train() == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["evaluate", "../runs/run", "--device", "cpu"]) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("protlig evaluate")]
    assert "config.yaml: data.path: found no 'x.fasta' in " in told and "start the command there, or write into this file" in told


CHANGES = [
    ("model.num_heads", 4),
    ("model.hidden_size", 32),
    ("diffusion.parameterization", "score"),
    ("tracks.protein.add_ends", False),
    ("tracks.ligand.max_length", 40),
    ("data.seed", 7),
    ("seed", 3),
]


def edit(folder: Path, setting: str, value: object) -> None:
    values = yaml.safe_load((folder / "config.yaml").read_text())
    *parents, last = setting.split(".")
    place = values
    for key in parents:
        place = place[key]
    place[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.mark.parametrize(("setting", "value"), CHANGES, ids=[name for name, _ in CHANGES])
def test_a_setting_of_the_weights_that_was_edited_by_hand_is_named(smoke_run: Path, tmp_path: Path, setting: str, value: object) -> None:
    folder = Path(shutil.copytree(smoke_run, tmp_path / "smoke"))
    edit(folder, setting, value)
    with pytest.raises(ConfigError, match=rf"smoke/config.yaml: {setting}: found '{value}', and the checkpoint was trained with '"):
        open_run(folder, device="cpu")
    again = ["train", str(folder / "config.yaml"), "train.steps=6", "--out", str(folder), "--device", "cpu"]
    assert main(again) == 1, "the checkpoint is asked, not the file that was edited"


def test_settings_of_sampling_evaluation_and_logging_may_be_edited_by_hand(smoke_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(smoke_run, tmp_path / "smoke"))
    for setting, value in (("sampling.batch_size", 3), ("evaluation.num_samples", 5), ("train.tracking.wandb", "off"), ("name", "mine")):
        edit(folder, setting, value)
    assert open_run(folder, device="cpu").config.sampling.batch_size == 3


def test_a_checkpoint_that_keeps_no_config_opens_and_weights_of_another_shape_are_one_line(smoke_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(smoke_run, tmp_path / "smoke"))
    forget(folder, "config")
    assert open_run(folder, device="cpu").step == 4
    edit(folder, "model.hidden_size", 32)
    with pytest.raises(CheckpointError, match=r"smoke: '.*' has shape .*, the model expects"):
        open_run(folder, device="cpu")


LIGANDS = ["CCO", "CC(=O)O", "c1ccccc1", "CCN", "CCCl", "CC=O", "CNC", "COC", "CCOC", "CCCN", "CC(C)O", "OCCO"]


def train_ligands(here: Path) -> Path:
    """Train on molecules with a vocabulary of their own, and return the run folder, elsewhere."""
    (here / "m.smi").write_text("\n".join(LIGANDS) + "\n")
    assert main(["prepare", "vocab", "m.smi", "--out", "vocab.json"]) == 0
    given = ["data.path=m.smi", "tracks.ligand.vocabulary=vocab.json", "model.conditioning_size=8", "train.steps=2", "name=lig"]
    small = ["model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1", *QUICK, "evaluation.after_training=false"]
    assert main(["train", "recipe/ligand", *given, *small, "--device", "cpu"]) == 0
    folder = here / "elsewhere" / "lig"
    folder.parent.mkdir()
    shutil.move(here / "runs/lig", folder)
    return folder


def one_sample(folder: Path) -> str:
    (sample,) = Generator(open_run(folder, device="cpu")).generate([Request(name="x", generate={"ligand": 5})], num=1)
    return sample.texts["ligand"]


def test_a_run_folder_is_all_that_it_needs_elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = train_ligands(here)
    (here / "vocab.json").unlink()
    monkeypatch.chdir(folder.parent)
    assert (folder / "vocabulary_ligand.json").is_file()
    assert one_sample(Path("lig"))
    (folder.parent / "vocab.json").write_text('{"tokens": ["C", "Br"]}')
    assert one_sample(Path("lig")), "a file of the same name in this folder is another one"


def test_a_run_that_kept_no_vocabulary_keeps_it_once_it_was_opened(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    folder = train_ligands(here)
    (folder / "vocabulary_ligand.json").unlink()
    sample = ["sample", str(folder), "--unconditional", "--num", "1", "--device", "cpu"]
    monkeypatch.chdir(folder.parent)
    assert main(sample) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("protlig sample")]
    assert "tracks.ligand.vocabulary: found no 'vocab.json' here and no vocabulary_ligand.json in the run folder" in told
    monkeypatch.chdir(here)
    assert main(sample) == 0
    monkeypatch.chdir(folder.parent)
    assert main(sample) == 0


def test_another_vocabulary_is_refused_before_anything_is_written(here: Path) -> None:
    folder = train_ligands(here)
    before = all_files(folder)
    (here / "vocab.json").write_text('{"tokens": ["C", "Br"]}')
    with pytest.raises((CheckpointError, FormatError, ConfigError)):
        from protlig_dd.runs.families.table import load
        from protlig_dd.runs.families.table import train as train_again

        train_again(load(str(folder / "config.yaml"), ["train.steps=3"]), folder, device="cpu")
    assert all_files(folder) == before
