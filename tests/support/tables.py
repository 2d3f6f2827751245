"""Token tables made of lists of ids, and their shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from protlig_dd.data.shards import ShardWriter
from protlig_dd.data.table import Column, TokenColumn, TokenTable
from protlig_dd.tokens.tracks import TrackSet


def token_table(
    examples: Sequence[Mapping[str, Sequence[int] | np.ndarray]],
    tracks: Sequence[str],
    *,
    labels: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    names: Sequence[str] | None = None,
) -> TokenTable:
    """Return the table of examples given as lists of token ids by track; a track may be absent."""
    columns = dict[str, Column]()
    for track in tracks:
        rows = [np.asarray(example.get(track, ()), dtype=np.int32) for example in examples]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        columns[track] = TokenColumn.of(np.concatenate([np.zeros(0, np.int32), *rows]), offsets)
    return TokenTable(
        tracks=columns,
        labels={name: np.asarray(values) for name, values in (labels or {}).items()},
        names=None if names is None else np.asarray(names, dtype=object),
    )


def write_shards(table: TokenTable, folder: Path, tracks: TrackSet, *, tokens_per_shard: int = 8_000_000) -> None:
    """Write a table as shards."""
    with ShardWriter(folder, tracks, tokens_per_shard=tokens_per_shard) as writer:
        for i in range(len(table)):
            labels = {label: values[i].item() for label, values in table.labels.items()}
            writer.add(table.example(i), labels=labels, name="" if table.names is None else str(table.names[i]))
