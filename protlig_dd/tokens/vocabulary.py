"""An immutable vocabulary: symbols and ids, special ids, and the ids a model may emit.

This file has the value with encode, decode and fingerprint; splitting text into symbols is in the files of the tracks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from protlig_dd.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Symbols with consecutive ids, a mask id, and the set of emittable ids.

    Args:
        name: its name in messages, such as "ESM protein".
        symbols: the symbols in the order of their ids.
        mask_id: the id of masked tokens; it may be beyond the symbols (a padded row).
        emittable_ids: the ids that are noised in training and drawn by samplers; never special ids.
        unknown_id: the id of unknown symbols, for readers that map them, or None.
        begin_id, end_id, pad_id: special ids, or None.
        num_rows: rows of the embedding table, at least as many as ids (33 ESM ids may have 37 rows); 0 for exactly as many.

    >>> v = Vocabulary(name="toy", symbols=("a", "b", "<mask>"), mask_id=2, emittable_ids=(0, 1))
    >>> v.encode("abba"), v.decode([1, 0])
    ([0, 1, 1, 0], ['b', 'a'])
    """

    name: str
    symbols: tuple[str, ...]
    mask_id: int
    emittable_ids: tuple[int, ...]
    unknown_id: int | None = None
    begin_id: int | None = None
    end_id: int | None = None
    pad_id: int | None = None
    num_rows: int = 0

    def __post_init__(self) -> None:
        if len(set(self.symbols)) != len(self.symbols):
            raise ConfigError(f"vocabulary '{self.name}': a symbol occurs twice")
        least = max(len(self.symbols), self.mask_id + 1)
        rows = self.num_rows or least
        object.__setattr__(self, "num_rows", rows)
        if rows < least:
            raise ConfigError(f"vocabulary '{self.name}': {rows} rows cannot hold {len(self.symbols)} symbols and mask {self.mask_id}")
        bad = set(self.emittable_ids) & self.special_ids
        if bad or not self.emittable_ids:
            raise ConfigError(f"vocabulary '{self.name}': emittable ids must be non-empty and not special; found special {sorted(bad)}")
        ids = [*self.emittable_ids, *self._named_ids]
        if len(set(ids)) != len(ids) or not 0 <= min(ids) <= max(ids) < rows:
            raise ConfigError(f"vocabulary '{self.name}': expected distinct ids from 0 to {rows - 1}, found {sorted(ids)}")

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each symbol."""
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @property
    def special_ids(self) -> set[int]:
        """Ids that are not symbols of the data: mask, begin, end, padding, unknown."""
        return set(self._named_ids)

    @property
    def _named_ids(self) -> list[int]:
        named = (self.mask_id, self.unknown_id, self.begin_id, self.end_id, self.pad_id)
        return [i for i in named if i is not None]

    def encode(self, symbols: Iterable[str]) -> list[int]:
        """Return the ids of symbols.

        Raises:
            ValueError: for the first symbol that is not in the vocabulary, with its position.
        """
        encoded = []
        for place, symbol in enumerate(symbols):
            found = self.ids.get(symbol)
            if found is None:
                raise ValueError(f"'{symbol}' at position {place + 1} is not a symbol of the {self.name} vocabulary")
            encoded.append(found)
        return encoded

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Return the symbols of ids; an id without a symbol (a padded row) is shown as "<id>"."""
        return [self.symbols[i] if 0 <= i < len(self.symbols) else f"<{i}>" for i in ids]

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of the meaning of all ids; checkpoints store it and it must match on loading."""
        ids = (self.begin_id, self.end_id, self.pad_id)
        content = [self.symbols, self.mask_id, sorted(self.emittable_ids), *ids, self.num_rows]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
