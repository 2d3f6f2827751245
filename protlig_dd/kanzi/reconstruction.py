"""How well an autoencoder's tokens keep a structure: the figures that training logs. `evaluate.py` reports the same with intervals and nulls.

Decoded chains have a frame of their own, so all errors are after superposition by a proper rotation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from protlig_dd.evaluation.coordinates import good_steps, null_pairs, tm_scores
from protlig_dd.kanzi.flow import random_rotations
from protlig_dd.rng import Draws
from protlig_dd.structures.superpose import rmsd


@runtime_checkable
class Tokenizer(Protocol):
    """Chains to tokens and back, as `kanzi.tokenizer.KanziTokenizer` does it."""

    def encode(self, chains: Sequence[Float[np.ndarray, "_ 3"]]) -> list[list[int]]:
        """Return the tokens of chains."""

    def decode(self, tokens: Sequence[Sequence[int]], *, seed: int = 0) -> list[Float[np.ndarray, "_ 3"]]:
        """Return chains for tokens."""


def assess_reconstruction(tokenizer: Tokenizer, chains: Sequence[Float[np.ndarray, "_ 3"]], *, seed: int = 0) -> dict[str, float]:
    """Return what is left of chains after encoding and decoding, each figure a mean over chains unless stated otherwise.

    rmsd, rmsd_worst (the maximum): in Angstrom; null_rmsd: RMSD of the decoded chain nearest in length, both cut to the shorter;
    tm: TM-score; steps_3.8: share of a chain's C-alpha steps within 0.2 of 3.8 Angstrom; tokens_kept: share of all tokens that are the
    same after a rotation; codes_used, perplexity: number of distinct tokens and perplexity over all chains together.

    Args:
        tokenizer: the autoencoder to assess.
        chains: C-alphas in Angstrom, each turned at random before it is encoded.
        seed: seed of the rotations and of the decoder's noise.
    """
    tokens = tokenizer.encode(turned_chains(chains, seed, 0))
    pairs = list(zip(tokenizer.decode(tokens, seed=seed), chains, strict=True))
    errors = [rmsd(decoded, chain) for decoded, chain in pairs]
    found = {"rmsd": _mean(errors), "rmsd_worst": max(errors)}
    if len(chains) > 1:
        found["null_rmsd"] = _mean([rmsd(other, chain) for other, chain in null_pairs(pairs)])
    found["tm"] = _mean(tm_scores(pairs))
    found["steps_3.8"] = _mean([good_steps(decoded) for decoded, _ in pairs])
    return found | token_figures(tokenizer, chains, tokens, seed=seed)


def token_figures(
    tokenizer: Tokenizer, chains: Sequence[Float[np.ndarray, "_ 3"]], tokens: Sequence[Sequence[int]], *, seed: int = 0
) -> dict[str, float]:
    """Return tokens_kept, codes_used and perplexity, as in `assess_reconstruction`.

    Args:
        tokenizer: the autoencoder to assess.
        chains: C-alphas in Angstrom.
        tokens: the tokens of `turned_chains(chains, seed, 0)`.
        seed: seed of the rotations.
    """
    again = tokenizer.encode(turned_chains(chains, seed, 1))
    same = [a == b for x, y in zip(tokens, again, strict=True) for a, b in zip(x, y, strict=True)]
    _, counts = np.unique(np.concatenate([np.asarray(row) for row in tokens]), return_counts=True)
    shares = counts / counts.sum()
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return {"tokens_kept": sum(same) / len(same), "codes_used": float(len(counts)), "perplexity": perplexity}


def turned_chains(chains: Sequence[Float[np.ndarray, "_ 3"]], seed: int, number: int) -> list[Float[np.ndarray, "_ 3"]]:
    """Return chains, each turned by a rotation that depends on the seed, a number, and its index in the list."""
    draws = Draws.root(seed, "turned chains", number).fold_in(torch.arange(len(chains)))
    return [chain @ r.T for chain, r in zip(chains, random_rotations(draws).numpy(), strict=True)]


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are finite; NaN without any."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan
