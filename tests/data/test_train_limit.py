"""`data.train_limit`: nested, seeded training subsets with the same validation set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protlig_dd.config import build
from protlig_dd.data.bundle import DataBundle, load
from protlig_dd.data.settings import DataSettings
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.protein import AMINO_ACIDS
from protlig_dd.tokens.settings import ProteinTrack

TRACKS = {"protein": ProteinTrack(max_length=32).build("protein")}


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(list(AMINO_ACIDS), size=12)) for _ in range(100)]
    path = tmp_path / "some.fasta"
    path.write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(texts)))
    return path


def loaded(path: Path, seed: int = 0, **more: object) -> DataBundle:
    split = {"kind": "random", "validation_fraction": 0.2, "test_fraction": 0.1}
    data = build(DataSettings, {"kind": "sequences", "path": str(path), "split": split, **more}, "data")
    return load(data, TRACKS, seed)


def texts(table: TokenTable) -> list[bytes]:
    return [table.example(i)["protein"].tobytes() for i in range(len(table))]


def test_training_sets_are_nested_and_validation_and_test_stay_whole(fasta: Path) -> None:
    bundles = [loaded(fasta, train_limit=limit) for limit in (10, 40, 70, 0)]
    sets = [set(texts(bundle.train)) for bundle in bundles]
    assert [len(s) for s in sets] == [10, 40, 70, 70]
    assert sets[0] < sets[1] < sets[2] == sets[3]
    for bundle in bundles:
        assert texts(bundle.validation) == texts(bundles[-1].validation) and len(bundle.validation) == 20
        assert texts(bundle.test) == texts(bundles[-1].test)
    held_out = set(texts(bundles[0].validation)) | set(texts(bundles[0].test))
    assert not held_out & sets[-1]
    assert "train_limit: 10 of 70 training examples" in bundles[0].report.split


def test_the_subset_is_the_seeds_and_not_the_beginning_of_the_file(fasta: Path) -> None:
    whole, limited = loaded(fasta), loaded(fasta, train_limit=10)
    assert texts(limited.train) != texts(whole.train)[:10]
    assert texts(limited.train) == texts(loaded(fasta, train_limit=10).train)


def test_examples_that_do_not_bind_are_no_part_of_the_limit(tmp_path: Path) -> None:
    rows = [f"{'ACDEFGHIKLMNPQ'[i % 14] * 5}{'WY'[i // 14 % 2]}{'AC' * (i // 28)},C{'C' * i},{i % 2}" for i in range(40)]
    (tmp_path / "pairs.csv").write_text("\n".join(["protein,smiles,label", *rows]) + "\n")
    data = build(
        DataSettings,
        {
            "kind": "pairs",
            "path": str(tmp_path / "pairs.csv"),
            "train_limit": 8,
            "leakage": False,
            "split": {"kind": "random", "validation_fraction": 0.2},
        },
    )
    assert len(load(data, TRACKS).train) == 8


def test_more_than_there_is_is_refused(fasta: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train_limit: found 71, there are 70 training examples"):
        loaded(fasta, train_limit=71)
    with pytest.raises(ConfigError, match=r"data\.train_limit: found -1, expected 0 \(all\) or more"):
        loaded(fasta, train_limit=-1)
