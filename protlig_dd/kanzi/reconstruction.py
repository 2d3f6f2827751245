"""How well an autoencoder's tokens keep a structure: errors of the decoded chains, beside what another chain's tokens would give.

Every figure is a mean over chains. Decoded chains lie in a frame of their own, so all errors are after superposition by a proper rotation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from protlig_dd.evaluation.coordinates import nearest_in_length
from protlig_dd.kanzi.flow import random_rotations
from protlig_dd.rng import Draws
from protlig_dd.structures.superpose import rmsd
from protlig_dd.structures.tm_score import tm_score

_STEP_ANGSTROM = 3.8
_STEP_TOLERANCE = 0.2


@runtime_checkable
class Tokenizer(Protocol):
    """Chains to tokens and back, as `kanzi.tokenizer.KanziTokenizer` does it."""

    @property
    def num_codes(self) -> int:
        """How many different tokens there are."""

    def encode(self, chains: Sequence[Float[np.ndarray, "_ 3"]]) -> list[list[int]]:
        """Return the tokens of chains."""

    def decode(self, tokens: Sequence[Sequence[int]], *, seed: int = 0) -> list[Float[np.ndarray, "_ 3"]]:
        """Return chains for tokens."""


def assess_reconstruction(
    tokenizer: Tokenizer, chains: Sequence[Float[np.ndarray, "_ 3"]], *, seed: int = 0, rotations: int = 1
) -> dict[str, float]:
    """Return what is left of chains after encoding and decoding.

    rmsd, rmsd_worst: in Angstrom; null_rmsd: the same for the decoded tokens of the chain nearest in length, both cut to the shorter;
    tm: TM-score; steps_3.8: part of the C-alpha steps within 0.2 of 3.8 Angstrom; tokens_kept: part of the tokens that are the same
    after a rotation; codes_used, perplexity: of the tokens of all chains together.

    Args:
        tokenizer: what is judged.
        chains: C-alphas in Angstrom, each turned at random before it is encoded.
        seed: of rotations and samples.
        rotations: how often each chain is turned, encoded and decoded.
    """
    rounds = [_one_round(tokenizer, chains, seed, number) for number in range(rotations)]
    tokens = [row for one, _ in rounds for row in one]
    decoded = [row for _, many in rounds for row in many]
    errors = [rmsd(d, c) for d, c in zip(decoded, [*chains] * rotations, strict=True)]
    found = {"rmsd": _mean(errors), "rmsd_worst": max(errors)}
    if len(chains) > 1:
        found["null_rmsd"] = _mean([e for _, many in rounds for e in _null_errors(many, chains)])
    found["tm"] = _mean(
        [tm_score(d, c).value for d, c in zip(decoded, [*chains] * rotations, strict=True) if len(c) > 2]
    )
    found["steps_3.8"] = _good_steps(decoded)
    return found | token_figures(tokenizer, chains, tokens, seed=seed)


def token_figures(
    tokenizer: Tokenizer, chains: Sequence[Float[np.ndarray, "_ 3"]], tokens: Sequence[Sequence[int]], *, seed: int = 0
) -> dict[str, float]:
    """Return tokens_kept, codes_used and perplexity, as in `assess_reconstruction`.

    Args:
        tokenizer: what is judged.
        chains: C-alphas in Angstrom.
        tokens: of the chains as `turned_chains(chains, seed, 0)` turns them, and of further rounds behind these.
        seed: of the rotations.
    """
    again = tokenizer.encode(turned_chains(chains, seed, 1))
    same = [a == b for x, y in zip(tokens, again, strict=False) for a, b in zip(x, y, strict=True)]
    return {"tokens_kept": sum(same) / len(same)} | _usage(tokens)


def turned_chains(chains: Sequence[Float[np.ndarray, "_ 3"]], seed: int, number: int) -> list[Float[np.ndarray, "_ 3"]]:
    """Return chains, each turned by a rotation that depends on the seed, a number, and its place in the list."""
    draws = Draws.root(seed, "turned chains", number).fold_in(torch.arange(len(chains)))
    return [chain @ r.T for chain, r in zip(chains, random_rotations(draws).numpy(), strict=True)]


def _one_round(
    tokenizer: Tokenizer, chains: Sequence[np.ndarray], seed: int, number: int
) -> tuple[list[list[int]], list[np.ndarray]]:
    tokens = tokenizer.encode(turned_chains(chains, seed, number))
    return tokens, tokenizer.decode(tokens, seed=seed)


def _null_errors(decoded: Sequence[np.ndarray], chains: Sequence[np.ndarray]) -> list[float]:
    errors = []
    for chain, other in zip(chains, nearest_in_length([len(c) for c in chains]), strict=True):
        length = min(len(chain), len(decoded[other]))
        errors.append(rmsd(decoded[other][:length], chain[:length]))
    return errors


def _good_steps(decoded: Sequence[np.ndarray]) -> float:
    steps = np.concatenate([np.linalg.norm(np.diff(chain, axis=0), axis=1) for chain in decoded])
    return float((np.abs(steps - _STEP_ANGSTROM) <= _STEP_TOLERANCE).mean()) if len(steps) else math.nan


def _usage(tokens: Sequence[Sequence[int]]) -> dict[str, float]:
    _, counts = np.unique(np.concatenate([np.asarray(row) for row in tokens]), return_counts=True)
    shares = counts / counts.sum()
    return {"codes_used": float(len(counts)), "perplexity": float(np.exp(-(shares * np.log(shares)).sum()))}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
