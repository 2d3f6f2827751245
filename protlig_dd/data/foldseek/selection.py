"""The rows of a Foldseek database that a data set uses: a split by key and bounds on the length, as one bit a row.

A hash of the key decides whether an entry is for validation, so a protein is on the same side in the database, in each of its
sub-databases and on every machine, and nothing needs to be stored. 67 million rows take 9 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer, UInt8

from protlig_dd.data.foldseek.pairs import PairedFoldseekDB
from protlig_dd.errors import ConfigError
from protlig_dd.rng import Draws

SplitName = Literal["train", "val", "all"]

_BLOCK = 512  # rows counted together in advance: 64 bytes of bits
_ROWS_AT_ONCE = 1 << 18  # a multiple of the block


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which entries are selected.

    Attributes:
        split: "train", "val" or "all".
        val_fraction: fraction of the keys used for validation, 0 to below 1.
        seed: seed of the split.
        min_length: fewest residues.
        max_length: most residues; None for no bound.

    Raises:
        ConfigError: for values out of range.
    """

    split: SplitName = "train"
    val_fraction: float = 0.001
    seed: int = 42
    min_length: int = 1
    max_length: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.split not in ("train", "val", "all"):
            raise ConfigError(f"split: found '{self.split}', expected 'train', 'val' or 'all'")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction: found {self.val_fraction}, expected a fraction from 0 to below 1")
        if self.max_length is not None and self.max_length < self.min_length:
            raise ConfigError(f"max_length: found {self.max_length}, expected at least min_length, which is {self.min_length}")

    def accepts(self, keys: Integer[np.ndarray, " r"], lengths: Integer[np.ndarray, " r"]) -> Bool[np.ndarray, " r"]:
        """Return which entries are selected, from their keys and lengths."""
        wanted = lengths >= self.min_length
        if self.max_length is not None:
            wanted &= lengths <= self.max_length
        if self.split != "all":
            numbers = torch.from_numpy(keys.astype(np.int64))
            is_val = (Draws.root(self.seed, "foldseek split").fold_in(numbers).uniform() < self.val_fraction).numpy()
            wanted &= is_val if self.split == "val" else ~is_val
        return np.asarray(wanted)


class Selection:
    """The selected rows of a database, in the order of their keys, stored as bits.

    Args:
        db: the database; its lengths and keys are read once.
        choice: which entries are selected.

    Attributes:
        choice: the same.
        num_rows: rows of the database.

    Raises:
        ConfigError: if no entry is left; the message gives the number of entries and their lengths.
    """

    def __init__(self, db: PairedFoldseekDB, choice: Choice) -> None:
        self.choice, self.num_rows = choice, len(db)
        keys, lengths = db.keys, db.lengths
        bits = np.zeros(-(-self.num_rows // _BLOCK) * _BLOCK // 8, np.uint8)
        for first in range(0, self.num_rows, _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            packed = np.packbits(choice.accepts(keys[part], lengths[part]))
            bits[first // 8 : first // 8 + len(packed)] = packed
        self._bits: UInt8[np.ndarray, "_ 64"] = bits.reshape(-1, _BLOCK // 8)
        self._before = np.zeros(len(self._bits) + 1, np.int64)
        np.cumsum(np.bitwise_count(self._bits).sum(axis=1, dtype=np.int64), out=self._before[1:])
        if not len(self):
            span = f", of {lengths.min()} to {lengths.max()} residues" if self.num_rows else ""
            raise ConfigError(
                f"{db.path}: found no entry for split '{choice.split}' (val_fraction {choice.val_fraction}) of {choice.min_length} to "
                f"{choice.max_length} residues among {self.num_rows}{span}; widen the lengths or change val_fraction"
            )

    def __len__(self) -> int:
        return int(self._before[-1])

    def rows(self, places: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """Return the rows of the selected entries with the numbers `places`, from 0."""
        places = np.asarray(places, dtype=np.int64)
        block = np.searchsorted(self._before, places, side="right") - 1
        counts = np.cumsum(np.unpackbits(self._bits[block], axis=1), axis=1, dtype=np.int16)
        inside = np.argmax(counts > (places - self._before[block])[:, None], axis=1)
        return np.asarray(block * _BLOCK + inside, dtype=np.int64)
