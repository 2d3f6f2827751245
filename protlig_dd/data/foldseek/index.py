"""The index of a Foldseek database: the bytes that belong to each key, as arrays that all processes share.

The text is parsed once into a binary sidecar (`X.index.protlig`), which is memory-mapped from then on: opening takes no time and no
memory, and a loader's workers share its pages. A sidecar is valid for one size and modification time of the text; another text gets a
new one. Small indices are parsed each time.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, Integer

from protlig_dd.data.foldseek import sidecar
from protlig_dd.data.foldseek.files import find_file
from protlig_dd.data.foldseek.rows import count_rows, read_rows
from protlig_dd.errors import FormatError
from protlig_dd.files import written_whole

SIDECAR_FROM = 1 << 20
"""Size of the index text in bytes from which a sidecar is kept; smaller ones are parsed in a few milliseconds."""
_SUMMARY = ("furthest_end", "furthest_start", "least", "greatest", "keys_digest", "lengths_digest", "starts_digest")


class UnknownKeyError(FormatError, KeyError):
    """A database has no entry with that key or name."""

    __str__ = Exception.__str__


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """The rows of an index, in the order of their keys.

    Attributes:
        path: the text file.
        starts: offset of each entry in the data, in bytes.
        lengths: the index's length of each entry minus 2; for letters, the number of residues.
        keys: increasing.
        in_order: whether the rows of the text are in this order.
        dense: whether the keys are 0 .. N - 1.
        furthest_end: the largest sum of offset and length.
        furthest_start: the largest offset.
        least, greatest: the smallest and the largest of `lengths`.
        keys_digest, lengths_digest, starts_digest: equal for two indices with the same keys, lengths or starts.
    """

    path: Path
    starts: Int64[np.ndarray, " N"]
    lengths: Int32[np.ndarray, " N"]
    keys: Integer[np.ndarray, " N"]
    in_order: bool
    dense: bool
    furthest_end: int
    furthest_start: int
    least: int
    greatest: int
    keys_digest: bytes
    lengths_digest: bytes
    starts_digest: bytes

    def __len__(self) -> int:
        return len(self.starts)

    def find(self, key: int) -> int:
        """Return the row of a key, or -1."""
        if self.dense:
            return key if 0 <= key < len(self) else -1
        row = bisect_left(self.keys.data, key)
        return row if row < len(self) and int(self.keys[row]) == key else -1

    def find_all(self, keys: Integer[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """Return the row of each key, -1 for a key that does not exist."""
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        wanted = np.asarray(keys, dtype=np.int64)
        if self.dense:
            return np.where((wanted >= 0) & (wanted < len(self)), wanted, -1)
        rows = np.searchsorted(self.keys, wanted.clip(min=0).astype(self.keys.dtype)).clip(max=len(self) - 1)
        return np.where(self.keys[rows] == wanted, rows, -1)

    def row_of(self, key: int) -> int:
        """Return the row of a key.

        Raises:
            UnknownKeyError: if the key does not exist.
        """
        row = self.find(key)
        if row < 0:
            some = f"{len(self)} keys from {self.keys[0]} to {self.keys[-1]}" if len(self) else "no entry at all"
            raise UnknownKeyError(f"{self.path}: found no key {key}, the index has {some}; name one that it has")
        return row

    def line_of(self, row: int) -> int:
        """Return the line of the text (from 1) that a row comes from; reads the text if it is not sorted."""
        if self.in_order:
            return row + 1
        key, before = int(self.keys[row]), 0
        source = find_file(self.path) or self.path
        for numbers in read_rows(source):
            found = np.flatnonzero(numbers[:, 0] == key)
            if len(found):
                return before + int(found[0]) + 1
            before += len(numbers)
        return 0


def open_index(path: Path, *, sidecar_from: int = SIDECAR_FROM) -> Index:
    """Return an index from its sidecar, which is written first if there is no valid one.

    The sidecar is written next to the text, else in a cache folder ($PROTLIG_CACHE, or the user's). If neither can be written, the rows
    are kept in memory and a warning is logged.

    Raises:
        FormatError: for a missing file, a malformed line, or a key that occurs twice.
    """
    found = find_file(path)
    if found is None:
        raise FormatError(f"{path}: found no such file, expected an index beside the data; copy the whole database")
    stamp = sidecar.stamp_of(found)
    if found.stat().st_size < sidecar_from:
        return _in_memory(path, found, stamp)
    index = sidecar.open_sidecar(
        found, lambda buffer: _view(path, buffer, stamp), lambda place: _write(found, stamp, place), least=sidecar.ARRAYS_AT
    )
    return _in_memory(path, found, stamp) if index is None else index


def _in_memory(path: Path, source: Path, stamp: bytes) -> Index:
    count = count_rows(source)
    for key_bytes in (4, 8):
        sink = mmap.mmap(-1, sidecar.sidecar_size(count, key_bytes))
        if sidecar.SidecarBuilder(source, stamp, sink, count, key_bytes).build():
            break
    index = _view(path, sink, stamp)
    assert index is not None, path
    return index


def _write(source: Path, stamp: bytes, place: Path) -> None:
    count = count_rows(source)
    with written_whole(place) as growing, growing.open("w+b") as file:
        for key_bytes in (4, 8):
            file.truncate(sidecar.sidecar_size(count, key_bytes))
            if sidecar.SidecarBuilder(source, stamp, file, count, key_bytes).build():
                break


def _view(path: Path, buffer: mmap.mmap, stamp: bytes) -> Index | None:
    """Return the arrays of a sidecar, or None if it does not belong to this text."""
    fields = sidecar.checked_header(buffer, sidecar.HEADER, sidecar.MAGIC, stamp)
    if fields is None or len(buffer) != sidecar.sidecar_size(fields[0], fields[2]):
        return None
    count, flags, key_bytes, *rest = fields
    keys_at, lengths_at = sidecar.ARRAYS_AT + 8 * count, sidecar.ARRAYS_AT + (8 + key_bytes) * count
    return Index(
        path=path,
        starts=np.frombuffer(buffer, np.dtype("<i8"), count, sidecar.ARRAYS_AT),
        keys=np.frombuffer(buffer, np.dtype(f"<u{key_bytes}"), count, keys_at),
        lengths=np.frombuffer(buffer, np.dtype("<i4"), count, lengths_at),
        in_order=not flags & sidecar.UNSORTED,
        dense=bool(flags & sidecar.DENSE),
        **dict(zip(_SUMMARY, rest, strict=True)),
    )
