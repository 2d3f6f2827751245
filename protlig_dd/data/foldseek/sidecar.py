"""Sidecars, the binary forms of a database's text files: where they are kept, and the sidecar of an index.

An index sidecar has a header, then offsets, keys and lengths as arrays.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int

from protlig_dd.data.foldseek.rows import Numbers, read_rows
from protlig_dd.errors import FormatError

SIDECAR_ENDING = ".protlig"
MAGIC = b"PLFSIDX1"
# magic, stamp of the text, rows, flags, bytes a key, end of the furthest entry, its start, least and largest length, digests of keys, lengths and starts
HEADER = struct.Struct("<8s32sQIIqqqq16s16s16s")
DIGEST = 16
ARRAYS_AT = 192
UNSORTED, DENSE = 1, 2
_END = 4096  # bytes

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


def stamp_of(source: Path) -> bytes:
    """Return 32 bytes that identify a text: size, time of modification, and a digest of its two ends.

    The ends distinguish two texts of one size that were written within one tick of the file system's clock.
    """
    state = source.stat()
    with source.open("rb", buffering=0) as file:
        ends = file.read(_END)
        file.seek(max(state.st_size - _END, 0))
        ends += file.read(_END)
    return struct.pack("<Qq", state.st_size, state.st_mtime_ns) + digest(ends)


def sidecar_size(count: int, key_bytes: int) -> int:
    """Return the size in bytes of the sidecar of an index with `count` rows."""
    return ARRAYS_AT + count * (12 + key_bytes)


def digest(data: bytes) -> bytes:
    """Return a 16-byte digest."""
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


def checked_header(buffer: mmap.mmap, header: struct.Struct, magic: bytes, stamp: bytes) -> tuple[Any, ...] | None:
    """Return the header's fields after magic and stamp, or None if the header is damaged or belongs to another text."""
    found_magic, found_stamp, *fields = header.unpack_from(buffer)
    checked = buffer[header.size : header.size + DIGEST] == digest(buffer[: header.size])
    return tuple(fields) if found_magic == magic and checked and found_stamp == stamp else None


def open_sidecar(source: Path, view: Callable[[mmap.mmap], _T | None], write: Callable[[Path], None], *, least: int) -> _T | None:
    """Return the sidecar of a text, which is written first if there is no valid one; None, with a warning, if none can be written.

    It is kept next to the text, or in a cache folder ($PROTLIG_CACHE, else the user's) if that cannot be written.

    Args:
        source: the text.
        view: returns the arrays of a mapped sidecar, or None if it does not belong to the text.
        write: writes a sidecar.
        least: bytes below which a file is no sidecar.
    """

    def load(place: Path) -> _T | None:
        try:
            with place.open("rb") as file:
                if os.fstat(file.fileno()).st_size < least:
                    return None
                return view(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError:
            return None

    places = [source.with_name(source.name + SIDECAR_ENDING), _cache_place(source)]
    for place in places:
        found = load(place)
        if found is not None:
            return found
    reasons = []
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write(place)
        except OSError as error:
            reasons.append(f"{place.parent}: {error.strerror or error}")
            continue
        if reasons:
            _logger.warning("%s: its binary form is kept in %s (%s)", source, place, "; ".join(reasons))
        found = load(place)
        if found is not None:
            return found
    _logger.warning("%s: it is parsed anew by each process, no binary form can be kept (%s)", source, "; ".join(reasons))
    return None


def _cache_place(source: Path) -> Path:
    named = os.environ.get("PROTLIG_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "protlig_dd"
    name = hashlib.blake2b(str(source.resolve()).encode(), digest_size=8).hexdigest()
    return folder / f"{name}-{source.name}{SIDECAR_ENDING}"


class SidecarBuilder:
    """Writes the arrays of an index into a file or a memory map, chunk by chunk.

    Args:
        source: the text.
        stamp: identifies the text; stored in the header.
        sink: the file or map to write; it can be read and sought.
        count: rows of the text.
        key_bytes: bytes of a key, 4 or 8.
    """

    def __init__(self, source: Path, stamp: bytes, sink: Any, count: int, key_bytes: int) -> None:
        self.source, self.stamp, self.sink, self.count, self.key_bytes = source, stamp, sink, count, key_bytes
        self.places = [ARRAYS_AT, ARRAYS_AT + 8 * count, ARRAYS_AT + (8 + key_bytes) * count]
        self.widths = [8, key_bytes, 4]
        self.done, self.last_key, self.flags = 0, -1, DENSE
        self.end = self.start = 0
        self.least, self.greatest = 2**31, -2
        self.digests = [hashlib.blake2b(digest_size=DIGEST) for _ in range(3)]

    def build(self) -> bool:
        """Write everything; return False if a key needs more than `key_bytes`."""
        for numbers in read_rows(self.source):
            if numbers[:, 0].max(initial=0) >= 1 << (8 * self.key_bytes):
                return False
            self._add(numbers)
        if self.done != self.count:
            raise FormatError(f"{self.source}: the index changed while it was read; read it again when it is complete")
        if self.flags & UNSORTED:
            self._sort()
        least, greatest = (self.least, self.greatest) if self.count else (0, 0)
        digests = [one.digest() for one in self.digests]
        fields = (self.stamp, self.count, self.flags, self.key_bytes, self.end, self.start)
        header = HEADER.pack(MAGIC, *fields, least, greatest, *digests)
        self.sink.seek(0)
        self.sink.write(header + digest(header))
        return True

    def _add(self, numbers: Numbers) -> None:
        keys, starts, sizes = numbers.T
        if not len(keys):
            return
        steps = np.diff(keys, prepend=self.last_key)
        if not (steps == 1).all():
            self.flags &= ~DENSE
        if steps.min() <= 0:  # unsorted, or a repeated key, which sorting finds
            self.flags |= UNSORTED
        self.last_key = int(keys[-1])
        self.start = max(self.start, int(starts.max()))
        self.end = max(self.end, int((starts + sizes).max()))
        self.least, self.greatest = min(self.least, int(sizes.min()) - 2), max(self.greatest, int(sizes.max()) - 2)
        self._put(self.done, starts, keys, (sizes - 2))
        self.done += len(keys)

    def _put(self, row: int, starts: Int[np.ndarray, " r"], keys: Int[np.ndarray, " r"], lengths: Int[np.ndarray, " r"]) -> None:
        columns = (starts.astype("<i8"), keys.astype(f"<u{self.key_bytes}"), lengths.astype("<i4"))
        for column, place, width in zip(columns, self.places, self.widths, strict=True):
            self.sink.seek(place + row * width)
            self.sink.write(column.tobytes())
        self.digests[0].update(keys.astype("<i8").tobytes())
        self.digests[1].update(columns[2].tobytes())
        self.digests[2].update(columns[0].tobytes())

    def _sort(self) -> None:
        """Sort the rows of an unsorted text by their keys, in 32 bytes of memory a row."""
        columns = []
        for place, kind in zip(self.places, ("<i8", f"<u{self.key_bytes}", "<i4"), strict=True):
            self.sink.seek(place)
            columns.append(np.frombuffer(self.sink.read(self.count * np.dtype(kind).itemsize), kind))
        starts, keys, lengths = columns
        order = np.argsort(keys, kind="stable")
        again: Bool[np.ndarray, " _"] = keys[order[1:]] == keys[order[:-1]]
        if again.any():
            place = int(np.flatnonzero(again)[0])
            raise FormatError(
                f"{self.source}:{order[place + 1] + 1}: found the key {keys[order[place]]} a second time, expected each key once; "
                "the index is damaged or two were joined, write the database anew"
            )
        self.digests = [hashlib.blake2b(digest_size=DIGEST) for _ in range(3)]
        if (keys[order] == np.arange(self.count)).all():
            self.flags |= DENSE
        self._put(0, starts[order], keys[order].astype(np.int64), lengths[order])
