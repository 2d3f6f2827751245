"""Held-out examples of a run, and their texts."""

from __future__ import annotations

import numpy as np

from protlig_dd.data.table import TokenTable
from protlig_dd.evaluation.token_accuracy import Folded
from protlig_dd.runs.run import Run
from protlig_dd.tokens.tracks import Track

_TRAINING_TEXTS = 20_000  # training examples that novelty and neighbours are looked up in


_COUNTED = 1_000_000  # training examples whose tokens are counted for the unigram null; of more, so many evenly spread


def spread(table: TokenTable, num: int) -> TokenTable:
    """At most `num` examples, evenly spread over the table."""
    return table if len(table) <= num else table.select(np.linspace(0, len(table) - 1, num).astype(np.int64))


def texts_of(run: Run, table: TokenTable, track: str) -> list[str]:
    """Return a track's texts of at most 20,000 examples."""
    rows = spread(table, _TRAINING_TEXTS)
    return [run.parts.tracks[track].decode(rows.example(i)[track].tolist()) for i in range(len(rows))]


def chains_of(run: Run, table: TokenTable, track: Track) -> list[Folded]:
    """Return proteins with the tokens of a track that is aligned to them, of at most 20,000 examples."""
    assert track.aligned_to is not None
    rows = spread(table, _TRAINING_TEXTS)
    texts = zip(texts_of(run, rows, track.aligned_to), texts_of(run, rows, track.name), strict=True)
    return [Folded(sequence=a, tokens=track.split(b, where="data")) for a, b in texts if a and b]


def emitted(track: Track) -> frozenset[str]:
    """Return the symbols that may be generated on a track."""
    return frozenset(track.vocabulary.decode(track.vocabulary.emittable_ids))
