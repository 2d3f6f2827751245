"""The accuracy of predicted structure tokens, with nulls that need no model: the most common token, the most common token of the residue,
and the tokens of the nearest training protein.

Accuracies divide by the **true** length: a short prediction gains nothing, and tokens after the true end are ignored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from protlig_dd.data.similarity import KmerIndex, letter_codes, nearest_identities
from protlig_dd.evaluation.intervals import Estimate, Score, ratio_bootstrap, wilson
from protlig_dd.structures.tm_align import dynamic_alignment

Tokens = Sequence[str]
_MATCH, _MISMATCH, _OPENING = 1.0, 0.0, -2.0


@dataclass(frozen=True, kw_only=True)
class Folded:
    """A protein and the tokens of its structure, one for each residue."""

    sequence: str
    tokens: Tokens


@dataclass(frozen=True)
class Nulls:
    """Predictions without a model, from training proteins.

    Args:
        training: proteins with their tokens, one for each residue.
    """

    training: Sequence[Folded]

    @cached_property
    def most_common(self) -> str:
        """The most common token of all."""
        return Counter(token for one in self.training for token in one.tokens).most_common(1)[0][0]

    @cached_property
    def by_residue(self) -> dict[str, str]:
        """The most common token of each residue."""
        counts = defaultdict[str, Counter[str]](Counter)
        for one in self.training:
            for residue, token in zip(one.sequence, one.tokens, strict=True):
                counts[residue][token] += 1
        return {residue: count.most_common(1)[0][0] for residue, count in counts.items()}

    @cached_property
    def _index(self) -> KmerIndex:
        return KmerIndex([one.sequence for one in self.training])

    def always(self, sequences: Sequence[str]) -> list[list[str]]:
        """Return the most common token for every residue."""
        return [[self.most_common] * len(sequence) for sequence in sequences]

    def of_residues(self, sequences: Sequence[str]) -> list[list[str]]:
        """Return the most common token of each residue; for residues absent from training, the most common of all."""
        return [[self.by_residue.get(residue, self.most_common) for residue in sequence] for sequence in sequences]

    def of_neighbours(self, sequences: Sequence[str]) -> list[list[str]]:
        """Return the tokens of the nearest training protein where it aligns, elsewhere the most common token of the residue."""
        _, nearest = nearest_identities(sequences, self._index, over="query")
        predicted = self.of_residues(sequences)
        for tokens, sequence, row in zip(predicted, sequences, nearest.tolist(), strict=True):
            neighbour = self.training[row]
            equal = letter_codes(sequence)[:, None] == letter_codes(neighbour.sequence)[None]
            for i, j in dynamic_alignment(np.where(equal, _MATCH, _MISMATCH), _OPENING).tolist():
                tokens[i] = neighbour.tokens[j]
        return predicted


def token_accuracy(predicted: Sequence[Tokens], true: Sequence[Tokens], *, seed: int = 0) -> Estimate:
    """Return the share of true tokens that the predictions have at the same positions, with the interval over chains.

    Raises:
        ValueError: if there is not one prediction for each chain.
    """
    if len(predicted) != len(true):
        raise ValueError(f"found {len(predicted)} predictions for {len(true)} chains, expected one each")
    right = [sum(a == b for a, b in zip(one, other, strict=False)) for one, other in zip(predicted, true, strict=True)]
    return ratio_bootstrap(_numbers(right), _numbers([len(t) for t in true]), seed=seed)


def _numbers(values: Sequence[int]) -> Float[np.ndarray, " n"]:
    return np.asarray(values, dtype=np.float64)


def summary(predicted: Sequence[Tokens], true: Sequence[Folded], nulls: Nulls, *, known: frozenset[str], seed: int = 0) -> list[Score]:
    """Return token accuracy with each of three nulls, length match and the share of valid tokens.

    Args:
        predicted: the tokens of each chain, as generated.
        true: the true chains.
        nulls: nulls of the training data.
        known: the tokens of the alphabet.
        seed: seed of the intervals.
    """
    sequences, tokens = [one.sequence for one in true], [one.tokens for one in true]
    accuracy = token_accuracy(predicted, tokens, seed=seed)

    def with_null(make: Callable[[Sequence[str]], list[list[str]]], name: str) -> Score:
        null = token_accuracy(make(sequences), tokens, seed=seed)
        return Score(name="token accuracy", value=accuracy, null=null, null_name=name)

    matched = sum(len(one) == len(other) for one, other in zip(predicted, tokens, strict=True))
    valid = sum(token in known for one in predicted for token in one)
    scores = [
        with_null(nulls.always, f"always {nulls.most_common}"),
        with_null(nulls.of_residues, "the residue's commonest token"),
        with_null(nulls.of_neighbours, "nearest training protein"),
        Score(name="length match", value=wilson(matched, len(true))),
    ]
    total = sum(map(len, predicted))
    return [*scores, Score(name="valid tokens", value=wilson(valid, total))] if total else scores
