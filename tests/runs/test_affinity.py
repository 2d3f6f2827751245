"""Affinity as a condition, from the table to the samples: bins in training, a class in sampling, one line for a class that is none."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from protlig_dd.cli.entry import main

LIGANDS = ["CCO", "CCN", "CCC", "c1ccccc1", "CC(=O)O", "CCCl", "OCCO", "CCOC"]
PROTEINS = ["MKTAYIAKQRHEAVHW", "GGSWHEAVHLLKTAYI", "AKQRMKTAYIWWHEAV", "LLVVAGSTEEKRDPQN"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("affinity")
    rows = [(p, PROTEINS[i % 4], 4.0 + i % 5) for i, p in enumerate(LIGANDS * 6)]
    table = folder / "pairs.csv"
    table.write_text("smiles,sequence,pKd\n" + "".join(f"{s},{p},{a}\n" for s, p, a in rows))
    settings = [
        *(f"data={{kind: pairs, path: {table}, affinity_bins: [5, 7], leakage: false}}", "data.split.kind=random"),
        *("model.conditions={affinity_bin: 3}", "model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1"),
        *("model.conv_width=null", "model.parameters=null", "train.steps=2", "train.batch_size=8"),
        *("train.checkpoint_every=2", "train.validate_every=2", "evaluation.after_training=false"),
        *("train.tracking.tensorboard=false", "train.tracking.wandb=off"),
    ]
    assert main(["train", "demo/smoke", *settings, "--device", "cpu", "--out", str(folder / "run")]) == 0
    return folder / "run"


def sampled(run: Path, *options: str) -> list[str]:
    out = run.parent / "out.csv"
    given = ["sample", str(run), "--protein", PROTEINS[0], "--num", "3", "--sampler", "first_hitting", "--device", "cpu"]
    assert main([*given, *options, "--out", str(out)]) == 0
    with out.open() as file:
        return [row["ligand"] for row in csv.DictReader(file)]


def test_a_bin_can_be_asked_for(run: Path) -> None:
    assert len(sampled(run, "--condition", "affinity_bin=2")) == 3
    assert len(sampled(run)) == 3


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("affinity_bin=3", "condition affinity_bin=3: expected 0 to 2"),
        ("affinity_bins=1", "condition affinity_bins=1: this run knows affinity_bin (0 to 2) (did you mean 'affinity_bin'?)"),
        ("affinity_bin=high", "--condition 'affinity_bin=high': expected NAME=CLASS"),
    ],
)
def test_a_class_that_is_none_is_one_line_that_says_what_there_is(
    run: Path, condition: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sample", str(run), "--protein", PROTEINS[0], "--condition", condition, "--device", "cpu"]
    assert main(command) == 1
    assert told in capsys.readouterr().err.strip().splitlines()[-1]
