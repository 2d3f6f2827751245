"""The index of a Foldseek database: which bytes belong to which key, as arrays that all processes share.

The text is parsed once into a binary sidecar beside it (`X.index.protlig`), which is memory-mapped from then on: opening costs no time and
no memory, and a loader's workers share its pages. A sidecar belongs to a text of one size and one modification time; another text makes
a new one. Small indices are parsed each time.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import tempfile
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Integer

from protlig_dd.data.foldseek_files import find_file
from protlig_dd.data.foldseek_rows import Numbers, count_rows, read_rows
from protlig_dd.errors import FormatError

SIDECAR_ENDING = ".protlig"
SIDECAR_FROM = 1 << 20
"""Bytes of index text from which on a sidecar is kept; less is parsed in a few milliseconds."""

_MAGIC = b"PLFSIDX1"
# magic, text size, text mtime, rows, flags, bytes a key, end of the furthest entry, its start, least and largest length, two digests
_HEADER = struct.Struct("<8sQqQIIqqqq16s16s")
_DIGEST = 16
_ARRAYS_AT = 128
_UNSORTED, _DENSE = 1, 2

_logger = logging.getLogger(__name__)


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

    def __len__(self) -> int:
        return len(self.starts)

    def find(self, key: int) -> int:
        """Return the row of a key, or -1."""
        if self.dense:
            return key if 0 <= key < len(self) else -1
        row = bisect_left(memoryview(self.keys), key)
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
    state = found.stat()
    if state.st_size < sidecar_from:
        return _in_memory(path, found, state)
    places = [found.with_name(found.name + SIDECAR_ENDING), _cache_place(found)]
    for place in places:
        index = _load(path, place, state)
        if index is not None:
            return index
    reasons = []
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(found, state, place)
        except OSError as error:
            reasons.append(f"{place.parent}: {error.strerror or error}")
            continue
        if reasons:
            _logger.warning("%s: the binary index is kept in %s (%s)", path, place, "; ".join(reasons))
        index = _load(path, place, state)
        if index is not None:
            return index
    _logger.warning(
        "%s: the index is parsed anew by each process, no binary one can be kept (%s)", path, "; ".join(reasons)
    )
    return _in_memory(path, found, state)


def _cache_place(source: Path) -> Path:
    named = os.environ.get("PROTLIG_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "protlig_dd"
    name = hashlib.blake2b(str(source.resolve()).encode(), digest_size=8).hexdigest()
    return folder / f"{name}-{source.name}{SIDECAR_ENDING}"


def _in_memory(path: Path, source: Path, state: os.stat_result) -> Index:
    count = count_rows(source)
    for key_bytes in (4, 8):
        sink = mmap.mmap(-1, _size(count, key_bytes))
        if _Builder(source, state, sink, count, key_bytes).build():
            break
    index = _view(path, sink, state)
    assert index is not None, path
    return index


def _write(source: Path, state: os.stat_result, place: Path) -> None:
    """Write the sidecar under another name and move it into its place: another process sees it whole or not at all."""
    count = count_rows(source)
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}-", suffix=".part", delete=False) as file:
        try:
            for key_bytes in (4, 8):
                file.truncate(_size(count, key_bytes))
                if _Builder(source, state, file, count, key_bytes).build():
                    break
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, place)
        except BaseException:
            os.unlink(file.name)
            raise


def _size(count: int, key_bytes: int) -> int:
    return _ARRAYS_AT + count * (12 + key_bytes)


def _load(path: Path, place: Path, state: os.stat_result) -> Index | None:
    try:
        with place.open("rb") as file:
            if os.fstat(file.fileno()).st_size < _ARRAYS_AT:
                return None
            return _view(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), state)
    except OSError:
        return None


def _view(path: Path, buffer: mmap.mmap, state: os.stat_result) -> Index | None:
    """Return the arrays of a sidecar, or None if it is not one of this text."""
    fields = _HEADER.unpack_from(buffer)
    magic, size, mtime, count, flags, key_bytes, end, start, least, greatest, keys_digest, lengths_digest = fields
    checked = buffer[_HEADER.size : _HEADER.size + _DIGEST] == _digest(buffer[: _HEADER.size])
    if magic != _MAGIC or not checked or (size, mtime) != (state.st_size, state.st_mtime_ns):
        return None
    if len(buffer) != _size(count, key_bytes):
        return None
    keys_at, lengths_at = _ARRAYS_AT + 8 * count, _ARRAYS_AT + (8 + key_bytes) * count
    return Index(
        path=path,
        starts=np.frombuffer(buffer, np.dtype("<i8"), count, _ARRAYS_AT),
        keys=np.frombuffer(buffer, np.dtype(f"<u{key_bytes}"), count, keys_at),
        lengths=np.frombuffer(buffer, np.dtype("<i4"), count, lengths_at),
        in_order=not flags & _UNSORTED,
        dense=bool(flags & _DENSE),
        furthest_end=end,
        furthest_start=start,
        least=least,
        greatest=greatest,
        keys_digest=keys_digest,
        lengths_digest=lengths_digest,
    )


def _digest(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


class _Builder:
    """Writes the arrays of an index into a file or a piece of memory, chunk by chunk."""

    def __init__(
        self, source: Path, state: os.stat_result, sink: IO[bytes] | mmap.mmap | Any, count: int, key_bytes: int
    ) -> None:
        self.source, self.state, self.sink, self.count, self.key_bytes = source, state, sink, count, key_bytes
        self.places = [_ARRAYS_AT, _ARRAYS_AT + 8 * count, _ARRAYS_AT + (8 + key_bytes) * count]
        self.widths = [8, key_bytes, 4]
        self.done, self.last_key, self.flags = 0, -1, _DENSE
        self.end = self.start = 0
        self.least, self.greatest = 2**31, -2
        self.digests = [hashlib.blake2b(digest_size=_DIGEST) for _ in range(2)]

    def build(self) -> bool:
        """Write everything; return False if the keys need more bytes than they were given."""
        for numbers in read_rows(self.source):
            if numbers[:, 0].max(initial=0) >= 1 << (8 * self.key_bytes):
                return False
            self._add(numbers)
        if self.done != self.count:
            raise FormatError(f"{self.source}: the index changed while it was read; read it again when it is complete")
        if self.flags & _UNSORTED:
            self._sort()
        least, greatest = (self.least, self.greatest) if self.count else (0, 0)
        digests = [digest.digest() for digest in self.digests]
        fields = (
            self.state.st_size,
            self.state.st_mtime_ns,
            self.count,
            self.flags,
            self.key_bytes,
            self.end,
            self.start,
        )
        header = _HEADER.pack(_MAGIC, *fields, least, greatest, *digests)
        self.sink.seek(0)
        self.sink.write(header + _digest(header))
        return True

    def _add(self, numbers: Numbers) -> None:
        keys, starts, sizes = numbers.T
        if not len(keys):
            return
        steps = np.diff(keys, prepend=self.last_key)
        if not (steps == 1).all():
            self.flags &= ~_DENSE
        if not self.flags & _UNSORTED and steps.min() <= 0:
            again = np.flatnonzero(steps == 0)
            if len(again):
                self._refuse_twice(int(keys[again[0]]), self.done + int(again[0]) + 1)
            self.flags |= _UNSORTED
        self.last_key = int(keys[-1])
        self.start = max(self.start, int(starts.max()))
        self.end = max(self.end, int((starts + sizes).max()))
        self.least, self.greatest = min(self.least, int(sizes.min()) - 2), max(self.greatest, int(sizes.max()) - 2)
        self._put(self.done, starts, keys, (sizes - 2))
        self.done += len(keys)

    def _put(
        self, row: int, starts: Int[np.ndarray, " r"], keys: Int[np.ndarray, " r"], lengths: Int[np.ndarray, " r"]
    ) -> None:
        columns = (starts.astype("<i8"), keys.astype(f"<u{self.key_bytes}"), lengths.astype("<i4"))
        for column, place, width in zip(columns, self.places, self.widths, strict=True):
            self.sink.seek(place + row * width)
            self.sink.write(column.tobytes())
        self.digests[0].update(keys.astype("<i8").tobytes())
        self.digests[1].update(columns[2].tobytes())

    def _sort(self) -> None:
        """Put the rows of a text that is not sorted into the order of their keys; memory grows with them, 32 bytes a row."""
        columns = []
        for place, kind in zip(self.places, ("<i8", f"<u{self.key_bytes}", "<i4"), strict=True):
            self.sink.seek(place)
            columns.append(np.frombuffer(self.sink.read(self.count * np.dtype(kind).itemsize), kind))
        starts, keys, lengths = columns
        order = np.argsort(keys, kind="stable")
        again: Bool[np.ndarray, " _"] = keys[order[1:]] == keys[order[:-1]]
        if again.any():
            place = int(np.flatnonzero(again)[0])
            self._refuse_twice(int(keys[order[place]]), int(order[place + 1]) + 1)
        self.digests = [hashlib.blake2b(digest_size=_DIGEST) for _ in range(2)]
        if (keys[order] == np.arange(self.count)).all():
            self.flags |= _DENSE
        self._put(0, starts[order], keys[order].astype(np.int64), lengths[order])

    def _refuse_twice(self, key: int, line: int) -> None:
        raise FormatError(
            f"{self.source}:{line}: found the key {key} a second time, expected each key once; "
            "the index is damaged or two were joined, write the database anew"
        )
