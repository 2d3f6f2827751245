"""The index of a Foldseek database: which bytes belong to which key, as arrays that all processes share.

The text is parsed once into a binary sidecar beside it (`X.index.protlig`), which is memory-mapped from then on: opening costs no time and
no memory, and a loader's workers share its pages. A sidecar belongs to a text of one size and one modification time; another text makes
a new one. Small indices are parsed each time.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, Integer

from protlig_dd.data.foldseek.files import find_file
from protlig_dd.data.foldseek.rows import count_rows, read_rows
from protlig_dd.data.foldseek.sidecar import (
    ARRAYS_AT,
    DENSE,
    DIGEST,
    HEADER,
    MAGIC,
    UNSORTED,
    SidecarBuilder,
    digest,
    keep_beside,
    sidecar_size,
    stamp_of,
)
from protlig_dd.errors import FormatError
from protlig_dd.files import written_whole

SIDECAR_FROM = 1 << 20
"""Bytes of index text from which on a sidecar is kept; less is parsed in a few milliseconds."""


class UnknownKeyError(FormatError, KeyError):
    """A database holds no entry of that key or name."""

    __str__ = Exception.__str__


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """The rows of an index, in the order of their keys.

    Attributes:
        path: the text file.
        starts: the byte of the data at which each entry begins.
        lengths: the index's length of each entry less 2: for letters, residues.
        keys: increasing.
        in_order: whether the rows of the text are in this order.
        dense: whether the keys are 0 .. N - 1.
        furthest_end: the largest sum of offset and length.
        furthest_start: the largest offset.
        least: the smallest of `lengths`.
        greatest: the largest of `lengths`.
        keys_digest: equal for two indices of the same keys.
        lengths_digest: equal for two indices of the same lengths.
        starts_digest: equal for two indices of the same starts.
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
        """Return the row of each key, -1 where there is none."""
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
            UnknownKeyError: if there is none.
        """
        row = self.find(key)
        if row < 0:
            some = f"{len(self)} keys from {self.keys[0]} to {self.keys[-1]}" if len(self) else "no entry at all"
            raise UnknownKeyError(f"{self.path}: found no key {key}, the index has {some}; name one that it has")
        return row

    def line_of(self, row: int) -> int:
        """Return the line of the text (from 1) that a row comes from; reads the text if that is not sorted."""
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
    """Return an index, from its sidecar if there is a valid one, which is made if there is none.

    The sidecar lies beside the text, or in a cache folder ($PROTLIG_CACHE, else that of the user) if it cannot be written there, or else
    nowhere: then the rows are held in memory, and a line of the log says so.

    Raises:
        FormatError: for a missing file, a line that is no row, or a key that occurs twice.
    """
    found = find_file(path)
    if found is None:
        raise FormatError(f"{path}: found no such file, expected an index beside the data; copy the whole database")
    stamp = stamp_of(found)
    if found.stat().st_size < sidecar_from:
        return _in_memory(path, found, stamp)
    index = keep_beside(found, lambda place: _load(path, place, stamp), lambda place: _write(found, stamp, place))
    return _in_memory(path, found, stamp) if index is None else index


def _in_memory(path: Path, source: Path, stamp: bytes) -> Index:
    count = count_rows(source)
    for key_bytes in (4, 8):
        sink = mmap.mmap(-1, sidecar_size(count, key_bytes))
        if SidecarBuilder(source, stamp, sink, count, key_bytes).build():
            break
    index = _view(path, sink, stamp)
    assert index is not None, path
    return index


def _write(source: Path, stamp: bytes, place: Path) -> None:
    count = count_rows(source)
    with written_whole(place) as growing, growing.open("w+b") as file:
        for key_bytes in (4, 8):
            file.truncate(sidecar_size(count, key_bytes))
            if SidecarBuilder(source, stamp, file, count, key_bytes).build():
                break


def _load(path: Path, place: Path, stamp: bytes) -> Index | None:
    try:
        with place.open("rb") as file:
            if os.fstat(file.fileno()).st_size < ARRAYS_AT:
                return None
            return _view(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), stamp)
    except OSError:
        return None


def _view(path: Path, buffer: mmap.mmap, stamp: bytes) -> Index | None:
    """Return the arrays of a sidecar, or None if it is not one of this text."""
    fields = HEADER.unpack_from(buffer)
    magic, found, count, flags, key_bytes, end, start, least, greatest, keys_digest, lengths_digest, starts_digest = (
        fields
    )
    checked = buffer[HEADER.size : HEADER.size + DIGEST] == digest(buffer[: HEADER.size])
    if magic != MAGIC or not checked or found != stamp:
        return None
    if len(buffer) != sidecar_size(count, key_bytes):
        return None
    keys_at, lengths_at = ARRAYS_AT + 8 * count, ARRAYS_AT + (8 + key_bytes) * count
    return Index(
        path=path,
        starts=np.frombuffer(buffer, np.dtype("<i8"), count, ARRAYS_AT),
        keys=np.frombuffer(buffer, np.dtype(f"<u{key_bytes}"), count, keys_at),
        lengths=np.frombuffer(buffer, np.dtype("<i4"), count, lengths_at),
        in_order=not flags & UNSORTED,
        dense=bool(flags & DENSE),
        furthest_end=end,
        furthest_start=start,
        least=least,
        greatest=greatest,
        keys_digest=keys_digest,
        lengths_digest=lengths_digest,
        starts_digest=starts_digest,
    )
