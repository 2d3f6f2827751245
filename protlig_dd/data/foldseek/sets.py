"""Foldseek databases as torch data sets: by index (`FoldseekDataset`) and as a stream (`FoldseekStream`).

Both select a split by key, filter by length and shard over ranks, and are pure functions of (seed, epoch, place): the i-th example of a
rank does not depend on the number of workers, and resuming means reading the next place. No list of rows is ever made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer, UInt8
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from protlig_dd.data.foldseek.pairs import PairedFoldseekDB
from protlig_dd.data.permutation import keyed_order, permuted
from protlig_dd.errors import ConfigError
from protlig_dd.rng import Draws

Example = dict[str, Any]
"""`key`, `aa`, `ss`, and `calpha` (float32 Angstrom, [l, 3]) if requested."""

_AT_ONCE = 1024  # examples that a stream reads together
SplitName = Literal["train", "val", "all"]

_BLOCK = 512  # rows counted together in advance: 64 bytes of bits
_ROWS_AT_ONCE = 1 << 18  # a multiple of the block


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which entries are selected: a split by key and bounds on the length.

    A hash of the key decides whether an entry is for validation, so a protein is on the same side in the database, in each of its
    sub-databases and on every machine, and nothing needs to be stored.

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
    """The selected rows of a database, in the order of their keys, stored as bits: 67 million rows take 9 MB.

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


def _read(db: PairedFoldseekDB, rows: Int64[np.ndarray, " b"], *, calpha: bool) -> list[Example]:
    keys = db.keys[rows].tolist()
    examples: list[Example] = [{"key": key, "aa": aa, "ss": ss} for key, (aa, ss) in zip(keys, db.pairs(rows), strict=True)]
    if calpha:
        coords, offsets = db.calpha_batch(rows)
        for example, a, b in zip(examples, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            example["calpha"] = coords[a:b].copy()
    return examples


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank: found {rank} with world_size {world_size}, expected 0 to {world_size - 1}")


class FoldseekDataset(Dataset[Example]):
    """The pairs of a database by index; a sampler decides order and batches.

    Args:
        db: the database.
        choice: split and lengths.
        world_size: processes that share it; 1 if the sampler shards (DistributedSampler).
        rank: this process, from 0; it gets every `world_size`-th entry, and all ranks get equally many.
        calpha: add coordinates to the examples.

    Raises:
        ConfigError: if no entry is selected, or fewer than there are ranks.
    """

    def __init__(
        self, db: PairedFoldseekDB, choice: Choice | None = None, *, world_size: int = 1, rank: int = 0, calpha: bool = False
    ) -> None:
        _check_rank(rank, world_size)
        self.db, self.world_size, self.rank, self.calpha = db, world_size, rank, calpha
        self.selection = Selection(db, choice or Choice())
        if len(self.selection) < world_size:
            raise ConfigError(f"{db.path}: {len(self.selection)} entries cannot be dealt to {world_size} processes; use fewer")

    def __len__(self) -> int:
        return len(self.selection) // self.world_size

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Return several examples, read together; torch's loader calls this for a batch."""
        places = np.asarray(indices, dtype=np.int64)
        if len(places) and not 0 <= int(places.min()) <= int(places.max()) < len(self):
            raise IndexError(f"found the indices {places.min()} to {places.max()}, expected 0 to {len(self) - 1}")
        return _read(self.db, self.selection.rows(places * self.world_size + self.rank), calpha=self.calpha)


class FoldseekStream(IterableDataset[Example]):
    """The pairs of a database in a shuffled order, epoch after epoch; iterating yields the rest of the current epoch.

    Args:
        db: the database.
        choice: split and lengths.
        shuffle_buffer_size: None shuffles all entries. A number cuts the entries into windows of that size, and shuffles the windows and
            the entries within each: reading stays local, for disks that seek. 0 keeps the order of the keys.
        seed: seed of the order, which differs between epochs.
        world_size: processes that share the stream.
        rank: this process, from 0.
        batch_size: batch size of the loader that uses the stream; with it, batches are the same for any number of workers.
        drop_last: leave out the (at most world_size - 1) last entries of an epoch's order, so that all ranks get equally many.
        calpha: add coordinates to the examples.

    Raises:
        ConfigError: if no entry is selected, or an argument is out of range.
    """

    def __init__(
        self,
        db: PairedFoldseekDB,
        choice: Choice | None = None,
        *,
        shuffle_buffer_size: int | None = None,
        seed: int = 42,
        world_size: int = 1,
        rank: int = 0,
        batch_size: int = 1,
        drop_last: bool = True,
        calpha: bool = False,
    ) -> None:
        _check_rank(rank, world_size)
        if batch_size < 1 or (shuffle_buffer_size is not None and shuffle_buffer_size < 0):
            raise ConfigError(
                f"found batch_size {batch_size} and shuffle_buffer_size {shuffle_buffer_size}, expected at least 1 and at least 0 (or None)"
            )
        self.db, self.seed, self.world_size, self.rank = db, seed, world_size, rank
        self.shuffle_buffer_size, self.batch_size = shuffle_buffer_size, batch_size
        self.drop_last, self.calpha = drop_last, calpha
        self.selection = Selection(db, choice or Choice())
        self.epoch = self.examples = 0

    def __len__(self) -> int:
        """Return the examples of this rank in an epoch."""
        share, rest = divmod(len(self.selection), self.world_size)
        return share + (not self.drop_last and self.rank < rest)

    def rows(self, places: Int64[np.ndarray, " b"], epoch: int) -> Int64[np.ndarray, " b"]:
        """Return the rows of the database at the given places of this rank's order in an epoch."""
        count = len(self.selection)
        places = np.asarray(places, dtype=np.int64) * self.world_size + self.rank
        if self.shuffle_buffer_size is None:
            places = permuted(places, size=count, seed=self.seed, names=("foldseek", epoch))
        elif self.shuffle_buffer_size > 1:
            places = self._in_windows(places, epoch, self.shuffle_buffer_size)
        return self.selection.rows(places)

    def _in_windows(self, places: Int64[np.ndarray, " b"], epoch: int, size: int) -> Int64[np.ndarray, " b"]:
        count = len(self.selection)
        order = keyed_order(self.seed, "foldseek windows", epoch, size=-(-count // size))
        sizes = np.minimum(size, count - order * size)  # the last window of the database may be short
        ends = np.cumsum(sizes)
        slots = np.searchsorted(ends, places, side="right")
        inside = places - (ends - sizes)[slots]
        found = np.empty(len(places), np.int64)
        for slot in np.unique(slots).tolist():
            window, these = int(order[slot]), slots == slot
            inner = permuted(inside[these], size=int(sizes[slot]), seed=self.seed, names=("foldseek", epoch, "window", window))
            found[these] = window * size + inner
        return found

    def __iter__(self) -> Iterator[Example]:
        """Yield the rest of the epoch, then advance to the next one. In a loader's worker: that worker's share."""
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker is not None else (1, 0)
        epoch = self.epoch
        for places in self._places(self.examples, workers, number):
            rows = self.rows(places, epoch)
            for place, example in zip(places.tolist(), _read(self.db, rows, calpha=self.calpha), strict=True):
                if worker is None:
                    self.examples = place + 1
                yield example
        if worker is None:
            self.epoch, self.examples = epoch + 1, 0

    def _places(self, begin: int, workers: int, number: int) -> Iterator[Int64[np.ndarray, " _"]]:
        """Yield a worker's places from `begin` on: every `workers`-th batch of the order, in pieces that are read together."""
        for first in itertools.count(0, _AT_ONCE):
            batch, inside = np.divmod(np.arange(first, first + _AT_ONCE), self.batch_size)
            places = begin + (batch * workers + number) * self.batch_size + inside
            places = places[places < len(self)]
            if not len(places):
                return
            yield places

    def state_dict(self, *, examples: int | None = None) -> dict[str, Any]:
        """Return the state that resumes the stream after the examples so far.

        Args:
            examples: examples of this epoch consumed on this rank. None uses this object's count, which a loader with workers does not
                update (its workers have copies): give the number of batches times their size.
        """
        return {"epoch": self.epoch, "examples": self.examples if examples is None else examples, **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ConfigError: if it belongs to another order: other entries, seed, ranks or shuffling.
        """
        for name, value in self._order().items():
            if state.get(name) != value:
                raise ConfigError(
                    f"{self.db.path}: the saved position has {name} {state.get(name)!r}, the stream {value!r}; "
                    "resume with the same data and settings, or begin a new epoch"
                )
        self.epoch, self.examples = int(state["epoch"]), int(state["examples"])

    def _order(self) -> dict[str, Any]:
        return {
            "choice": asdict(self.selection.choice), "entries": len(self.selection), "seed": self.seed, "world_size": self.world_size, "rank": self.rank,
            "shuffle_buffer_size": self.shuffle_buffer_size, "drop_last": self.drop_last,
        }  # fmt: skip
