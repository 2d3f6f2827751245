"""Training a structure autoencoder from the command line: a run that goes on where it was, opens again, and makes tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from protlig_dd.cli.entry import main
from protlig_dd.config_files import read_config
from protlig_dd.errors import CheckpointError, ConfigError
from protlig_dd.kanzi.experiment import autoencoder_from, open_autoencoder, open_tokenizer
from protlig_dd.kanzi.published import to_published
from protlig_dd.runs.families.table import AUTOENCODER, TOKENS, family_of
from protlig_dd.structures.structure_io import Chain, write_pdb

pytest.importorskip("gemmi")

SMALL = [
    "model.encoder_size=16", "model.encoder_heads=2", "model.pair_size=8", "model.decoder_size=16", "model.decoder_heads=2",
    "model.decoder_blocks=1", "model.window=4", "data.min_length=4", "train.log_every=2", "train.validate_every=3",
    "train.checkpoint_every=3", "validation.num_steps=2", "sampling.num_steps=3", "train.tracking.wandb=off",
]  # fmt: skip


def chain(length: int) -> np.ndarray:
    return (np.random.default_rng(length).normal(size=(length, 3)).cumsum(0) * 2).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("structures")
    for number, length in enumerate((8, 11, 14)):
        backbone = np.repeat(chain(length)[:, None], 3, axis=1) + [[-1.4, 0, 0], [0, 0, 0], [0, 1.5, 0]]
        write_pdb(Chain.of_coordinates("ACDEFGHIKLMNPQ"[:length], backbone.astype(np.float32)), path / f"{number}.pdb")
    return path


def train(folder: Path, out: Path, steps: int) -> int:
    changes = [*SMALL, f"data.path={folder}", f"train.steps={steps}", "train.optim.lr_schedule=constant"]
    return main(["train", "kanzi/tiny", *changes, "--device", "cpu", "--out", str(out)])


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train(folder, out, 6) == 0
    return out


def test_training_writes_what_a_run_holds(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validated = [line for line in lines if "validation/rmsd" in line]
    assert [line["step"] for line in validated] == [3, 6]
    for name in ("rmsd", "null_rmsd", "tm", "codes_used", "perplexity", "tokens_kept", "steps_3.8"):
        assert np.isfinite(validated[-1][f"validation/{name}"]), name
    assert (run / "data.txt").read_text().splitlines() == ["chains: 3", "0.pdb:A", "1.pdb:A", "2.pdb:A"]
    assert (run / "config.yaml").is_file()


def test_a_run_that_was_stopped_ends_with_the_same_weights(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    assert train(folder, out, 3) == 0
    assert train(folder, out, 6) == 0
    whole, resumed = (open_autoencoder(path, device="cpu") for path in (run, out))
    assert whole.step == resumed.step == 6
    for (name, a), (_, b) in zip(whole.model.state_dict().items(), resumed.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_run_and_a_published_file_of_it_make_the_same_tokens(run: Path, tmp_path: Path) -> None:
    opened = open_autoencoder(run, device="cpu")
    assert opened.config is not None
    tensors = to_published(opened.model.state_dict(), opened.config.model)
    torch.save({"model": tensors, "model_cfg": {}}, tmp_path / "cleaned_model.pt")
    own = open_tokenizer(run, device="cpu")
    text = own.tokenize(chain(9))
    assert len(text.split()) == 9 and own.sampler.num_steps == 3
    published = open_autoencoder(tmp_path / "cleaned_model.pt", device="cpu")
    # a file without a configuration does not tell the window, and none tells where the codes stand: those are the authors'
    assert published.config is None and published.model.config.window == 16
    assert published.tokenizer().sampler.num_steps == 100
    assert open_tokenizer(run, device="cpu", overrides={"num_steps": 7}).sampler.num_steps == 7


def test_another_experiment_in_the_folder_is_refused(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [*SMALL, f"data.path={folder}", "train.steps=6", "seed=5"]
    assert main(["train", "kanzi/tiny", *changes, "--device", "cpu", "--out", str(run)]) == 1
    assert "holds another experiment (seed: found '0' there and '5' now)" in capsys.readouterr().err


def test_check_says_what_it_costs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "kanzi/base", f"data.path={folder}", "data.validation_fraction=0", "data.min_length=4", "--device", "cpu"]) == 0
    found = capsys.readouterr().out
    for words in ("config: kanzi_base, valid", "41,494,025 parameters, 1,000 codes", "chains: 3", "100,000"):
        assert words in found, words
    assert main(["check", "kanzi/tiny", f"data.path={folder}", "--devices", "8xH100"]) == 1
    assert "--devices 8xH100: is for models of tokens" in capsys.readouterr().err


def test_configs_are_told_apart_and_mistakes_have_a_path() -> None:
    assert family_of(read_config("kanzi/tiny")) is AUTOENCODER and family_of(read_config("dual_track/demo")) is TOKENS
    for change, words in (
        ("model.windw=3", r"model\.windw: unknown setting \(did you mean 'window'\?\)"),
        ("train.batch_size=7", r"train.batch_size: found 7, expected a multiple of data.copies \(4\)"),
        ("sampling.guidance=2", "sampling.guidance: found 2.0 without condition_dropout"),
        ("train.distributed=fsdp", "train.distributed: found 'fsdp', expected auto, none or ddp"),
        ("train.init_from=runs/a", "train.init_from: found 'runs/a', which an autoencoder's training does not know"),
        ("condition_dropout=1", "condition_dropout: found 1.0, expected 0 to below 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            autoencoder_from(read_config("kanzi/tiny", [change]))


def test_what_is_no_autoencoder_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {kind: dit}\n")
    with pytest.raises(ConfigError, match="found no autoencoder's run"):
        open_autoencoder(tmp_path, device="cpu")
    values = read_config("kanzi/tiny")
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="found no checkpoint, expected step_"):
        open_autoencoder(tmp_path, device="cpu")


def test_an_autoencoder_is_no_model_of_tokens(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "--task", "folding", "--protein", "MKT", "--device", "cpu"]) == 1
    assert f"{run}: is the run of a structure autoencoder" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--num", "-1"]) == 1
    assert "--num -1: expected 1 or more" in capsys.readouterr().err


def test_a_run_is_evaluated_and_drawn(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "Reconstruction, 3 training chains" in told and "learned by heart" in told and "another chain's prediction" in told
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "<h2>Structures</h2>" in page and page.count("<animate") == 6 and "RMSD below 2 A" in page
