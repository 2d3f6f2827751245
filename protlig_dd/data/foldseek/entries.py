"""The entries of one sub-database as bytes: index and data, checked against each other; compressed entries are unpacked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from protlig_dd.data.foldseek.files import DataFiles, Role, read_dbtype, sibling
from protlig_dd.data.foldseek.index import SIDECAR_FROM, open_index
from protlig_dd.errors import FormatError, require

_HEAD, _FLAG = 4, 1  # bytes of the size before a compressed entry, and of the flag after it
_PACKED, _STORED = b"\x00", b"\xff"
_LONGEST_QUOTE = 24


class Entries:
    """One sub-database.

    Args:
        database: its path without a suffix, such as "folder/db_ca".
        role: the kind of entries expected.
        check: raise at once if the index points beyond the data.
        sidecar_from: size of the index text in bytes from which a binary index is kept.

    Raises:
        FormatError: for missing files, another type, a damaged index, or truncated data.
        MissingDependencyError: for a compressed database without zstandard.
    """

    def __init__(self, database: Path, role: Role, *, check: bool = True, sidecar_from: int = SIDECAR_FROM) -> None:
        self.database, self.role = database, role
        self.dbtype = read_dbtype(database, role)
        self.data = DataFiles(database)
        if role != "calpha" and not self.dbtype.compressed and self.data.read(0, 1) == b">":
            raise FormatError(
                f"{database}: found a FASTA file, expected entries that each end with a newline and a NUL; make the database with "
                "createdb --createdb-mode 0"
            )
        self.index = open_index(sibling(database, ".index"), sidecar_from=sidecar_from)
        self._unpackers = _Unpackers(database) if self.dbtype.compressed else None
        self._starts, self._lengths = self.index.starts.data, self.index.lengths.data
        # Nearly all databases: uncompressed bytes in one file, which can be sliced directly.
        self.plain = None if self.dbtype.compressed or self.dbtype.padded else self.data.whole
        if check:
            self._check_ends()

    def __len__(self) -> int:
        return len(self.index)

    def key(self, row: int) -> int:
        """Return the key of a row."""
        return int(self.index.keys[row])

    def raw(self, row: int) -> bytes:
        """Return an entry with its terminator, unpacked; for a padded database the codes without padding.

        Raises:
            FormatError: if the data does not hold all of it.
        """
        start: int = self._starts[row]
        size: int = self._lengths[row] + 2
        if self.plain is not None:
            found = self.plain[start : start + size]
            if len(found) == size:
                return found
        if self._unpackers is not None:
            return self._unpacked(row, start, size)
        if self.dbtype.padded:
            return self._padded(row, start, size - 2)
        found = self.data.read(start, size)
        if len(found) != size:
            raise self.fault(row, f"found {len(found)} bytes at {start}, expected {size}; {self._what_to_do()}")
        return found

    def raw_joined(self, rows: Int64[np.ndarray, " b"]) -> bytes:
        """Return several entries with their terminators, concatenated.

        Raises:
            FormatError: if the data does not hold all of them.
        """
        if self.plain is not None and len(rows):
            starts = self.index.starts[rows]
            ends = starts + self.index.lengths[rows] + 2
            if int(ends.max()) <= self.data.size:
                plain = self.plain
                return b"".join([plain[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)])
        return b"".join([self.raw(row) for row in rows.tolist()])

    def fault(self, row: int, reason: str) -> FormatError:
        """Return the error for an entry: file, line and key, then the reason."""
        return FormatError(f"{self.database}: entry {self.key(row)} (line {self.index.line_of(row)} of the index): {reason}")

    def _padded(self, row: int, start: int, length: int) -> bytes:
        whole = length + -length % 4
        found = self.data.read(start, whole)
        if len(found) != whole or found[length:] != b"\x14" * (whole - length):
            raise self.fault(row, f"found {found[length:]!r} after {length} codes, expected 20s up to four bytes; {self._what_to_do()}")
        return found[:length]

    def _unpacked(self, row: int, start: int, size: int) -> bytes:
        assert self._unpackers is not None
        head = self.data.read(start, _HEAD)
        packed_size = int.from_bytes(head, "little")
        packed = self.data.read(start + _HEAD, packed_size + _FLAG)
        if len(head) != _HEAD or len(packed) != packed_size + _FLAG:
            have = len(packed) - _FLAG if packed else 0
            raise self.fault(row, f"found {have} compressed bytes at {start}, expected {packed_size}; {self._what_to_do()}")
        flag, packed = packed[-1:], packed[:-1]
        if flag == _STORED:
            payload = packed
        elif flag == _PACKED:
            payload = self._unpackers.unpack(packed, size)
        else:
            raise self.fault(row, f"found the flag {flag!r} after a compressed entry, expected 0 or 255; {self._what_to_do()}")
        if len(payload) != size - 1:
            raise self.fault(row, f"found {len(payload)} bytes when unpacked, expected {size - 1}; {self._what_to_do()}")
        return payload + b"\0"

    def _what_to_do(self) -> str:
        if not self.dbtype.given:
            return "there is no .dbtype that would say how the data is stored: copy the whole database"
        return "the data is truncated or damaged: copy it again"

    def _beyond(self) -> Iterator[tuple[int, Bool[np.ndarray, " r"], Int64[np.ndarray, " r"]]]:
        """Yield (first row, mask of bad rows, end offsets) for pieces of the index."""
        index, step = self.index, 1 << 18
        for first in range(0, len(index), step):
            starts, lengths = index.starts[first : first + step], index.lengths[first : first + step]
            if self.dbtype.compressed:
                ends = starts + (_HEAD + _FLAG)
            elif self.dbtype.padded:
                ends = starts + lengths
            else:
                ends = starts + lengths + 2
            yield first, (ends > self.data.size) | (lengths < (0 if self.role == "letters" else -1)), ends

    def bad_rows(self) -> Iterator[tuple[int, str]]:
        """Yield the rows that end beyond the data or have no room for a terminator, with the reason."""
        for first, bad, ends in self._beyond():
            for place in np.flatnonzero(bad).tolist():
                row = first + place
                length = int(self.index.lengths[row]) + 2
                if ends[place] > self.data.size:
                    where = f"offset {self.index.starts[row]} and length {length} end at {ends[place]}"
                    files = ", ".join(p.name for p in self.data.parts)
                    yield row, f"{where}, the data has {self.data.size} bytes ({files}); {self._what_to_do()}"
                else:
                    yield row, f"found the length {length}, which has no room for terminators; {self._what_to_do()}"

    def _check_ends(self) -> None:
        index = self.index
        if not len(index):
            return
        furthest = index.furthest_end
        if self.dbtype.compressed:
            furthest = index.furthest_start + _HEAD + _FLAG
        elif self.dbtype.padded:
            furthest = max(index.furthest_end - 2, 0)
        if furthest <= self.data.size and index.least >= (0 if self.role == "letters" else -1):
            return
        for row, reason in self.bad_rows():
            raise self.fault(row, reason)

    def quote(self, found: bytes) -> str:
        """Return the first bytes of `found`, quoted for a message."""
        return repr(found[:_LONGEST_QUOTE]) + ("..." if len(found) > _LONGEST_QUOTE else "")


class _Unpackers(threading.local):
    """A zstd decompressor for each thread, since one must not be shared between threads."""

    def __init__(self, database: Path) -> None:
        zstandard = require("zstandard", f"reading the compressed database {database}", extra="data")
        self._error: Any = zstandard.ZstdError
        self._unpacker = zstandard.ZstdDecompressor()

    def unpack(self, packed: bytes, limit: int) -> bytes:
        """Return the content of a frame; empty if the frame is damaged or holds more than `limit` bytes."""
        # Decompressed as a stream: the frames do not store their size, and the size in a damaged index cannot be allocated.
        frame = self._unpacker.decompressobj()
        try:
            found: bytes = frame.decompress(packed)
        except self._error:
            return b""
        return found if frame.eof and not frame.unused_data and len(found) <= limit else b""
