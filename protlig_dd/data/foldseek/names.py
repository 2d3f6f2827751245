"""Names of the entries of a Foldseek database: from a key to its header, and from a name to its keys through the lookup file.

A name is the first word of a header. `X.lookup` has a line `key TAB name TAB file number` for each entry. Sub-databases keep the headers
and the lookup of their parent, so both may contain keys that the database does not.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64

from protlig_dd.data.foldseek.entries import Entries
from protlig_dd.data.foldseek.files import base_of, find_file, mapped, sibling
from protlig_dd.data.foldseek.index import SIDECAR_FROM, UnknownKeyError
from protlig_dd.data.foldseek.rows import text_chunks
from protlig_dd.data.foldseek.sidecar import checked_header, digest, open_sidecar, stamp_of
from protlig_dd.errors import FormatError
from protlig_dd.files import written_whole

_MAGIC = b"PLFSNAM1"
_HEADER = struct.Struct("<8s32sQ")  # magic, stamp of the text, lines
_ARRAYS_AT = 64
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that it can be divided by
_ALL = 2**64
_TAB, _NEWLINE = ord("\t"), ord("\n")
_LONGEST_QUOTE = 64


class Names:
    """Headers and lookup of a database; each may be absent, and is opened on first use.

    Args:
        database: the path of a sub-database of letters; its own headers and lookup take precedence over those of the whole database.
        sidecar_from: size of the headers' index and of the lookup in bytes from which a binary index is kept.
    """

    def __init__(self, database: Path, *, sidecar_from: int = SIDECAR_FROM) -> None:
        self.database, self._sidecar_from = database, sidecar_from
        self._headers: Entries | None = None
        self._lookup: mmap.mmap | bytes | None = None
        self._index: NameIndex | None = None
        bases = dict.fromkeys((database, base_of(database)))
        self.headers_at = next((p for b in bases if find_file(sibling(p := sibling(b, "_h"), ".index"))), None)
        lookups = [sibling(base, ".lookup") for base in bases]
        self.lookup_at = next((path for path in lookups if find_file(path)), None)

    def header(self, key: int) -> str:
        """Return the header of a key: its name and, often, a title; the name alone if there is only a lookup.

        Raises:
            UnknownKeyError: if the key is in neither file.
            FormatError: if both files are missing, or the entry is damaged.
        """
        if self.headers_at is None:
            return self._name_in_lookup(key)
        if self._headers is None:
            self._headers = Entries(self.headers_at, "headers", sidecar_from=self._sidecar_from)
        headers = self._headers
        row = headers.index.row_of(key)
        raw = headers.raw(row)
        if not raw.endswith(b"\n\0"):
            raise headers.fault(
                row, f"found {headers.quote(raw[-8:])} at the end of a header, expected a newline and a NUL; copy the data again"
            )
        try:
            return raw[:-2].decode("utf-8")
        except UnicodeDecodeError as error:
            raise headers.fault(row, f"found a header that is no text ({error}); copy the data again") from error

    def name(self, key: int) -> str:
        """Return the first word of the header of a key; empty for an empty header."""
        return next(iter(self.header(key).split(maxsplit=1)), "")

    def keys_of(self, name: str) -> list[int]:
        """Return the keys of a name, increasing: names are file names and chains, and need not be unique.

        Raises:
            FormatError: if there is no lookup file, or the line of that name is damaged.
        """
        text, wanted = self._text(), b"\t" + name.encode() + b"\t"
        keys = []
        for begin in self._lines_with(name.encode(), wanted, text):
            place = text.find(b"\t", begin)
            if text[place : place + len(wanted)] == wanted:
                keys.append(self._number(text[begin:place]))
        return sorted(keys)

    def _lines_with(self, name: bytes, wanted: bytes, text: mmap.mmap | bytes) -> Iterator[int]:
        """Offsets of the lines that may have a name; all that have it are among them."""
        if len(text) >= self._sidecar_from:
            if self._index is None:
                assert self.lookup_at is not None
                self._index = open_name_index(find_file(self.lookup_at) or self.lookup_at)
            yield from self._index.lines_of(name)
            return
        place = text.find(wanted)
        while place >= 0:
            yield text.rfind(b"\n", 0, place) + 1
            place = text.find(wanted, place + 1)

    def _number(self, field: bytes) -> int:
        if not (field.isdigit() and len(field) < 19):
            raise FormatError(
                f"{self.lookup_at}: found {field[:24]!r} in place of a key, expected 'key TAB name TAB file'; copy the file again"
            )
        return int(field)

    def _text(self) -> mmap.mmap | bytes:
        if self.lookup_at is None:
            raise FormatError(
                f"{sibling(base_of(self.database), '.lookup')}: found no such file, expected the names of the entries; use keys, or copy the whole database"
            )
        if self._lookup is None:
            self._lookup = mapped(find_file(self.lookup_at) or self.lookup_at)
        return self._lookup

    def _name_in_lookup(self, key: int) -> str:
        """Return the name of a key by binary search, since lines are usually sorted by key; by a full scan if that fails."""
        text = self._text()
        low, high = 0, len(text)
        while low < high:
            begin = text.rfind(b"\n", 0, (low + high) // 2) + 1
            end = text.find(b"\n", begin)
            end = len(text) if end < 0 else end
            fields = text[begin:end].split(b"\t")
            found = self._number(fields[0])
            if found == key and len(fields) > 1:
                return fields[1].decode("utf-8", "replace")
            low, high = (end + 1, high) if found < key else (low, begin)
        line = b"%d\t" % key
        place = 0 if text[: len(line)] == line else text.find(b"\n" + line) + 1
        if place == 0 and text[: len(line)] != line:
            raise UnknownKeyError(f"{self.lookup_at}: found no key {key}, expected one for each entry; use keys, or copy the file again")
        fields = text[place : place + 4096].split(b"\n", 1)[0].split(b"\t")
        return fields[1].decode("utf-8", "replace")

    def one_key_of(self, name: str) -> int:
        """Return the key of a name.

        Raises:
            UnknownKeyError: if the lookup does not have it.
            FormatError: if several entries have it.
        """
        keys = self.keys_of(name)
        if not keys:
            raise UnknownKeyError(
                f"{self.lookup_at}: found no entry '{name}'; names are file names and chains, as in 1tim_A: see 'protlig foldseek head'"
            )
        if len(keys) > 1:
            some = ", ".join(map(str, keys[:5])) + (", ..." if len(keys) > 5 else "")
            raise FormatError(f"{self.lookup_at}: '{name}' is the name of {len(keys)} entries, of the keys {some}; use the key")
        return keys[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class NameIndex:
    """The position of each name in a lookup file.

    Attributes:
        hashes: the hashes of all names, increasing.
        places: for each, the offset of its line in bytes.
    """

    hashes: UInt64[np.ndarray, " N"]
    places: Int64[np.ndarray, " N"]

    def lines_of(self, name: bytes) -> list[int]:
        """Return the offsets of the lines whose names have the hash of `name`: nearly always the lines of that name."""
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
    """Return the name index of a lookup file from its sidecar, which is written first if there is no valid one.

    Raises:
        FormatError: for a line that is not `key TAB name TAB file`.
    """
    stamp = stamp_of(lookup)
    found = open_sidecar(lookup, lambda buffer: _view(buffer, stamp), lambda place: _write(lookup, stamp, place), least=_ARRAYS_AT)
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
    """The hash of the second field of each line of a chunk, and the offset of the line."""
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
        raise FormatError(f"{lookup}:{line + place}: found {found!r}, expected 'key TAB name TAB file'; copy the file again")
    # The sum over a name is the difference of two sums from the start of the chunk, divided by the power at which the name starts.
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
    with written_whole(place) as growing, growing.open("wb") as file:
        index = _parse(lookup)
        header = _HEADER.pack(_MAGIC, stamp, len(index.hashes))
        file.write((header + digest(header)).ljust(_ARRAYS_AT, b"\0"))
        index.hashes.astype("<u8", copy=False).tofile(file)
        index.places.astype("<i8", copy=False).tofile(file)


def _view(buffer: mmap.mmap, stamp: bytes) -> NameIndex | None:
    """Return the arrays of a sidecar, or None if it does not belong to this text."""
    fields = checked_header(buffer, _HEADER, _MAGIC, stamp)
    if fields is None or len(buffer) != _ARRAYS_AT + 16 * fields[0]:
        return None
    count = fields[0]
    return NameIndex(
        hashes=np.frombuffer(buffer, "<u8", count, _ARRAYS_AT), places=np.frombuffer(buffer, "<i8", count, _ARRAYS_AT + 8 * count)
    )
