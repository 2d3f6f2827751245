"""The Markov chain: its entropy by enumeration, nested streams, exact probabilities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from protlig_dd.config import build
from protlig_dd.data.bundle import load
from protlig_dd.data.settings import DataSettings
from protlig_dd.data.synthetic.markov import MarkovChain, nll, sequences
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.protein import AMINO_ACIDS
from protlig_dd.tokens.settings import ProteinTrack


@pytest.mark.parametrize(("order", "length"), [(1, 3), (2, 3), (1, 2)])
def test_the_entropy_is_that_of_the_enumerated_law(order: int, length: int) -> None:
    chain = MarkovChain(order=order, length=length, seed=3)
    everything = ["".join(letters) for letters in itertools.product(AMINO_ACIDS, repeat=length)]
    each = nll(chain, everything) * length
    assert np.exp(-each).sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.exp(-each) * each).sum() / length == pytest.approx(chain.entropy, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_sequences_are_drawn_from_the_law(order: int) -> None:
    chain = MarkovChain(order=order, length=20, num_train=4000, num_validation=0)
    each = nll(chain, sequences(chain)["train"])
    assert abs(each.mean() - chain.entropy) < 4 * each.std() / np.sqrt(len(each))
    assert chain.entropy < np.log(20)


def test_a_smaller_training_set_is_the_beginning_of_a_larger_one_and_validation_stays() -> None:
    small = sequences(MarkovChain(num_train=50, num_validation=20))
    large = sequences(MarkovChain(num_train=200, num_validation=20))
    assert large["train"][:50] == small["train"]
    assert large["validation"] == small["validation"]
    assert not set(large["train"]) & set(large["validation"])


def test_it_is_a_kind_of_data() -> None:
    data = build(DataSettings, {"kind": "markov", "num_train": 30, "num_validation": 10, "length": 12})
    bundle = load(data, {"protein": ProteinTrack(max_length=16).build("protein")})
    assert (len(bundle.train), len(bundle.validation), len(bundle.test)) == (30, 10, 0)
    assert "SYNTHETIC" in bundle.report.source
    with pytest.raises(ConfigError, match=r"data\.order: found 4, expected 1, 2 or 3"):
        build(DataSettings, {"kind": "markov", "order": 4}, "data")
