"""From names to lines of a lookup file: the hashes of all names, sorted, in a binary form beside it that all processes share.

A lookup of 67 million lines is 2 GB of text, which takes a second or two to go through for one name. Here a name is found by halving;
the line itself then says whether it is the name or another of the same hash.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64

from protlig_dd.data.foldseek_rows import text_chunks
from protlig_dd.data.foldseek_sidecar import DIGEST, digest, keep_beside, replacing, stamp_of
from protlig_dd.errors import FormatError

_MAGIC = b"PLFSNAM1"
_HEADER = struct.Struct("<8s32sQ")  # magic, stamp of the text, lines
_ARRAYS_AT = 64
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that it can be divided by
_ALL = 2**64
_TAB, _NEWLINE = ord("\t"), ord("\n")
_LONGEST_QUOTE = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class NameIndex:
    """Where in a lookup file each name stands.

    Attributes:
        hashes: of all names, increasing.
        places: for each, the byte at which its line begins.
    """

    hashes: UInt64[np.ndarray, " N"]
    places: Int64[np.ndarray, " N"]

    def lines_of(self, name: bytes) -> list[int]:
        """Return where the lines begin whose names have the hash of a name: nearly always those of the name."""
        wanted = np.uint64(hash_of(name))
        first, last = (int(np.searchsorted(self.hashes, wanted, side=side)) for side in ("left", "right"))  # type: ignore[call-overload]
        return sorted(self.places[first:last].tolist())


def hash_of(name: bytes) -> int:
    """Return the hash of a name: the sum of (byte j + 1) F^j, modulo 2^64."""
    value = 0
    for byte in reversed(name):
        value = (value * _FACTOR + byte + 1) % _ALL
    return value


def open_name_index(lookup: Path) -> NameIndex:
    """Return the name index of a lookup file, from its binary form if there is a valid one, which is made if there is none.

    Raises:
        FormatError: for a line that is not `key TAB name TAB file`.
    """
    stamp = stamp_of(lookup)
    found = keep_beside(lookup, lambda place: _load(place, stamp), lambda place: _write(lookup, stamp, place))
    return found or _parse(lookup)


def _parse(lookup: Path) -> NameIndex:
    hashes, places, at, line = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0, 1
    for chunk in text_chunks(lookup):
        own_hashes, begins = _hash_names(lookup, chunk, line)
        hashes.append(own_hashes)
        places.append(begins + at)
        at, line = at + len(chunk), line + len(begins)
    all_hashes = np.concatenate(hashes)
    order = np.argsort(all_hashes, kind="stable")
    return NameIndex(hashes=all_hashes[order], places=np.concatenate(places)[order])


def _hash_names(lookup: Path, chunk: bytes, line: int) -> tuple[UInt64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """The hash of the second field of each line of a chunk, and where the line begins."""
    text = np.frombuffer(chunk, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    if not chunk.endswith(b"\n"):
        ends = np.append(ends, len(text))
    begins = np.concatenate([[0], ends[:-1] + 1])
    tabs = np.append(np.flatnonzero(text == _TAB), [len(text), len(text)])
    first = np.searchsorted(tabs, begins)
    starts, stops = tabs[first] + 1, tabs[np.minimum(first + 1, len(tabs) - 1)]
    bad = np.flatnonzero(stops >= ends)
    if len(bad):
        place = int(bad[0])
        found = chunk[int(begins[place]) : int(ends[place])][:_LONGEST_QUOTE]
        raise FormatError(
            f"{lookup}:{line + place}: found {found!r}, expected 'key TAB name TAB file'; copy the file again"
        )
    # The sum over a name is a difference of sums from the chunk's beginning, divided by the power at which the name starts.
    powers = _powers(_FACTOR, len(text))
    sums = np.zeros(len(text) + 1, np.uint64)
    np.cumsum((text.astype(np.uint64) + np.uint64(1)) * powers[:-1], out=sums[1:])
    return (sums[stops] - sums[starts]) * _powers(pow(_FACTOR, -1, _ALL), len(text))[starts], begins


def _powers(factor: int, number: int) -> UInt64[np.ndarray, " n1"]:
    """The powers 0 .. number of a factor, modulo 2^64."""
    found = np.full(number + 1, factor, np.uint64)
    found[0] = 1
    return np.cumprod(found)


def _write(lookup: Path, stamp: bytes, place: Path) -> None:
    with replacing(place) as file:
        index = _parse(lookup)
        header = _HEADER.pack(_MAGIC, stamp, len(index.hashes))
        file.write((header + digest(header)).ljust(_ARRAYS_AT, b"\0"))
        index.hashes.astype("<u8", copy=False).tofile(file)
        index.places.astype("<i8", copy=False).tofile(file)


def _load(place: Path, stamp: bytes) -> NameIndex | None:
    """Return the arrays of a binary form, or None if it is not one of this text."""
    try:
        with place.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _ARRAYS_AT:
                return None
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:
        return None
    magic, found, count = _HEADER.unpack_from(buffer)
    checked = buffer[_HEADER.size : _HEADER.size + DIGEST] == digest(buffer[: _HEADER.size])
    if magic != _MAGIC or not checked or found != stamp or size != _ARRAYS_AT + 16 * count:
        return None
    return NameIndex(
        hashes=np.frombuffer(buffer, "<u8", count, _ARRAYS_AT),
        places=np.frombuffer(buffer, "<i8", count, _ARRAYS_AT + 8 * count),
    )
