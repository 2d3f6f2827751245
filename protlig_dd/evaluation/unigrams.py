"""The null of every likelihood: tokens drawn independently from the composition of the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from protlig_dd.data.table import Column, TokenTable
from protlig_dd.tokens.tracks import Track, TrackSet

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True, eq=False)
class Unigrams:
    """The composition of training data, track by track.

    Attributes:
        log_probs: for each track the log frequency of each id [k], with one added to every emittable id's count; -inf for ids that are not emittable.
    """

    log_probs: Mapping[str, Float[np.ndarray, " _"]]

    @staticmethod
    def of(table: TokenTable, tracks: TrackSet) -> Unigrams:
        """Return the composition of a table."""
        return Unigrams(log_probs={name: _log_frequencies(table.tracks[name], track) for name, track in tracks.items()})

    def nats(self, track: str, tokens: Int[np.ndarray, " n"], num_tokens: Int[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
        """Return the -log probability of each example's tokens; `tokens` are those of all examples, concatenated."""
        example = np.repeat(np.arange(len(num_tokens)), num_tokens)
        nats = -self.log_probs[track][tokens]
        return np.bincount(example, weights=nats, minlength=len(num_tokens)).astype(np.float64)


def _log_frequencies(column: Column, track: Track) -> Float[np.ndarray, " k"]:
    emittable = list(track.vocabulary.emittable_ids)
    counts = np.zeros(track.vocabulary.num_rows)
    for start in range(0, len(column), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(column)))
        counts += np.bincount(column.gather(rows), minlength=len(counts))
    log_probs = np.full(len(counts), -np.inf)
    log_probs[emittable] = np.log((counts[emittable] + 1) / (counts[emittable] + 1).sum())
    return log_probs
