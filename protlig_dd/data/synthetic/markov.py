"""A synthetic source with exactly known entropy: a seeded Markov chain over the amino acids, of fixed length.

A scaling study on it can compare its fitted floor with the true entropy. The chain says nothing about proteins. Each part of the data is one
stream of draws: sequence i does not depend on the number of sequences, so training sets of several sizes are nested.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from protlig_dd import rng
from protlig_dd.config import settings
from protlig_dd.tokens.protein import AMINO_ACIDS

_LETTERS = len(AMINO_ACIDS)


@settings
class MarkovChain:
    """A Markov chain over the 20 amino acids.

    Attributes:
        seed: seed of the transitions and the sequences.
        order: letters that the next one depends on, 1 to 3: 20, 400 or 8,000 contexts to learn.
        length: residues of every sequence, more than the order; the first `order` are uniform.
        concentration: concentration of the Dirichlet distribution of each context's probabilities; smaller is more predictable.
        num_train: training sequences.
        num_validation: validation sequences.
        num_test: test sequences.
    """

    kind: Literal["markov"] = "markov"
    seed: int = 0
    order: int = 2
    length: int = 32
    concentration: float = 0.2
    num_train: int = 20_000
    num_validation: int = 1_000
    num_test: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 3:
            raise ValueError(f"order: found {self.order}, expected 1, 2 or 3")
        if self.length <= self.order:
            raise ValueError(f"length: found {self.length}, expected more than the order, {self.order}")
        if not self.concentration > 0:
            raise ValueError(f"concentration: found {self.concentration}, expected a positive number")
        for name, least in (("num_train", 1), ("num_validation", 0), ("num_test", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected {least} or more")

    @property
    def entropy(self) -> float:
        """The entropy of a sequence in nats a residue: the lower bound on any model's mean negative log-likelihood."""
        return _entropy(replace(self, num_train=1, num_validation=0, num_test=0))


@lru_cache(maxsize=4)
def _transitions_of(seed: int, order: int, concentration: float) -> Float[np.ndarray, "c k"]:
    draw = np.random.Generator(np.random.PCG64(rng.key(seed, "markov", "transitions")))
    weights = draw.gamma(concentration, size=(_LETTERS**order, _LETTERS)) + np.finfo(float).tiny
    return np.asarray(weights / weights.sum(1, keepdims=True))


def transitions(chain: MarkovChain) -> Float[np.ndarray, "c k"]:
    """Return the probability of each next letter after each context; context abc has the number (20 a + b) 20 + c."""
    return _transitions_of(chain.seed, chain.order, chain.concentration)


@lru_cache(maxsize=16)
def _entropy(chain: MarkovChain) -> float:
    """By the chain rule: k log 20 for the first letters, then sum_t sum_c p_t(c) H(next | c), with p_t propagated exactly."""
    table = transitions(chain)
    logs = np.log(np.where(table > 0, table, 1.0))
    uncertainty = -(table * logs).sum(1)
    context = np.full(len(table), 1 / len(table))
    total = chain.order * np.log(_LETTERS)
    for _ in range(chain.length - chain.order):
        total += float(context @ uncertainty)
        # p(b, c, d) = sum over a of p(a, b, c) P(d | a, b, c)
        context = (context[:, None] * table).reshape(_LETTERS, -1).sum(0)
    return float(total / chain.length)


def nll(chain: MarkovChain, texts: list[str]) -> Float[np.ndarray, " s"]:
    """Return the exact negative log-probability of each sequence in nats a residue; all have the chain's length."""
    letters = np.array([[AMINO_ACIDS.index(letter) for letter in text] for text in texts]).reshape(-1, chain.length)
    table, context = transitions(chain), np.zeros(len(letters), np.int64)
    total = np.full(len(letters), chain.order * np.log(_LETTERS))
    for place in range(chain.length):
        if place >= chain.order:
            total -= np.log(table[context, letters[:, place]])
        context = (context * _LETTERS + letters[:, place]) % len(table)
    return np.asarray(total / chain.length)


def sequences(chain: MarkovChain) -> dict[str, list[str]]:
    """Return the sequences of "train", "validation" and "test"."""
    sizes = {"train": chain.num_train, "validation": chain.num_validation, "test": chain.num_test}
    return {part: _draw(chain, part, size) for part, size in sizes.items()}


def _draw(chain: MarkovChain, part: str, size: int) -> list[str]:
    draw = np.random.Generator(np.random.PCG64(rng.key(chain.seed, "markov", part)))
    uniform = draw.random((size, chain.length))  # filled row by row, so the rows of a smaller size come first
    ends = np.cumsum(transitions(chain), axis=1)
    ends[:, -1] = 1.0
    letters, context = np.zeros((size, chain.length), np.int64), np.zeros(size, np.int64)
    for place in range(chain.length):
        if place < chain.order:
            letters[:, place] = (uniform[:, place] * _LETTERS).astype(np.int64)
        else:
            letters[:, place] = (uniform[:, place, None] >= ends[context]).sum(1)
        context = (context * _LETTERS + letters[:, place]) % len(ends)
    alphabet = np.array(list(AMINO_ACIDS))
    return ["".join(row) for row in alphabet[letters]]
