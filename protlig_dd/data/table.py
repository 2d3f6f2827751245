"""Token tables: many examples of several tracks as flat arrays, in memory or memory-mapped.

This file defines the value. `encode.py` makes it from records, `shards.py` stores it on disk, `foldseek/table.py` makes a lazy one over a
Foldseek database, and `loader.py` draws batches from it. A track that an example lacks has length 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, Int64, Shaped

Rows = Int[np.ndarray, " r"]


@runtime_checkable
class Column(Protocol):
    """The tokens of one track for N examples, in memory or on disk."""

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Tokens of each example; 0 if it lacks the track."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all examples."""

    def __len__(self) -> int:
        """Return N."""

    def gather(self, rows: Rows) -> Int32[np.ndarray, " n"]:
        """Return the concatenated tokens of the given rows, in their order."""

    def select(self, rows: Rows) -> Column:
        """Return the column of the given rows, sharing the tokens."""


@runtime_checkable
class Names(Protocol):
    """The names of N examples: an array, or an object that looks names up on access."""

    def __len__(self) -> int:
        """Return N."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""

    def __getitem__(self, rows: Any) -> Any:
        """Return one name, or the names of the given rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenColumn:
    """The tokens of one track for N examples; a selection of examples shares its memory with the whole.

    Args:
        pools: arrays of tokens: one, or one for each shard, possibly memory-mapped.
        starts: the offset of each example in the concatenated pools.
        lengths: tokens of each example; 0 if it lacks the track.
    """

    pools: tuple[Int32[np.ndarray, " _"], ...]
    starts: Int64[np.ndarray, " N"]
    lengths: Int64[np.ndarray, " N"]

    @staticmethod
    def of(values: Int[np.ndarray, " n"], offsets: Int[np.ndarray, " N1"]) -> TokenColumn:
        """Return the column whose example i is `values[offsets[i]:offsets[i + 1]]`."""
        offsets = np.asarray(offsets, dtype=np.int64)
        pool = np.ascontiguousarray(values, dtype=np.int32)
        return TokenColumn(pools=(pool,), starts=offsets[:-1], lengths=np.diff(offsets))

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def _bases(self) -> Int64[np.ndarray, " p1"]:
        return np.cumsum([0, *(len(pool) for pool in self.pools)], dtype=np.int64)

    @property
    def num_tokens(self) -> int:
        """Tokens of all examples."""
        return int(self.lengths.sum())

    def gather(self, rows: Rows) -> Int32[np.ndarray, " n"]:
        """Return the concatenated tokens of the given rows, in their order."""
        starts, stops = self.starts[rows], self.starts[rows] + self.lengths[rows]
        if len(self.pools) == 1:
            pool = self.pools[0]
            pieces = [pool[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        else:
            places = np.searchsorted(self._bases, starts, side="right") - 1
            places = np.minimum(places, len(self.pools) - 1)
            starts, stops = starts - self._bases[places], stops - self._bases[places]
            cuts = zip(places.tolist(), starts.tolist(), stops.tolist(), strict=True)
            pieces = [self.pools[p][a:b] for p, a, b in cuts]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)

    def select(self, rows: Rows) -> TokenColumn:
        """Return the column of the given rows, sharing the tokens."""
        return TokenColumn(pools=self.pools, starts=self.starts[rows], lengths=self.lengths[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenTable:
    """Examples of several tracks, their labels and their names.

    Args:
        tracks: a column for each track, all of N examples.
        labels: arrays of N numbers by name: "label" (1 binds, 0 does not, -1 unknown), "affinity" (float, NaN unknown),
            "affinity_bin" (-1 unknown), "split" ...
        names: the names of the examples, or None.
    """

    tracks: dict[str, Column]
    labels: dict[str, Shaped[np.ndarray, " N"]] = field(default_factory=dict)
    names: Names | None = None

    def __post_init__(self) -> None:
        sizes = {name: len(column) for name, column in self.tracks.items()}
        sizes |= {name: len(values) for name, values in self.labels.items()}
        if self.names is not None:
            sizes["names"] = len(self.names)
        assert self.tracks and len(set(sizes.values())) == 1, f"columns of unequal length: {sizes}"

    def __len__(self) -> int:
        return len(next(iter(self.tracks.values())))

    @property
    def num_tokens(self) -> int:
        """Tokens of all tracks and examples."""
        return sum(column.num_tokens for column in self.tracks.values())

    def example(self, i: int) -> dict[str, np.ndarray]:
        """Return the token ids of example i by track; empty arrays for tracks that it lacks."""
        row = np.array([i])
        return {name: column.gather(row) for name, column in self.tracks.items()}

    def name_of(self, i: int) -> str:
        """Return the name of example i, or its number if it has none."""
        return (str(self.names[i]) if self.names is not None else "") or f"example{i}"

    def select(self, indices: Sequence[int] | np.ndarray) -> TokenTable:
        """Return the table of the given examples (indices or a boolean mask); the tokens are shared, not copied."""
        rows: np.ndarray = np.asarray(indices)
        if rows.dtype == bool:
            rows = np.asarray(np.flatnonzero(rows))
        rows = rows.astype(np.int64, copy=False)
        return TokenTable(
            tracks={name: column.select(rows) for name, column in self.tracks.items()},
            labels={name: values[rows] for name, values in self.labels.items()},
            names=None if self.names is None else self.names[rows],
        )

    def with_labels(self, **labels: np.ndarray) -> TokenTable:
        """Return the table with label columns added or replaced."""
        return TokenTable(tracks=self.tracks, labels={**self.labels, **labels}, names=self.names)


def spread(table: TokenTable, num: int) -> TokenTable:
    """Return at most `num` examples, evenly spread over the table."""
    return table if len(table) <= num else table.select(np.linspace(0, len(table) - 1, num).astype(np.int64))
