"""C-alpha coordinates of Foldseek databases: 16-bit differences or floats; the size of an entry says which.

Both are planar: all x, then all y, then all z. Floats take 12 bytes a residue and a NUL. Differences have a 32-bit start and 16-bit steps
for each axis, in thousandths of an Angstrom, and two NULs at the end: 6 bytes a residue and 8. Foldseek truncates coordinates to three
decimals towards zero, so differences are up to 0.001 Angstrom off the structure file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from protlig_dd.data.foldseek.entries import Entries
from protlig_dd.data.foldseek.index import SIDECAR_FROM, Index
from protlig_dd.errors import FormatError

_PER_ANGSTROM = np.float32(1000)
_AT_ONCE = 8192  # residues decoded together, so that their numbers stay in the processor's cache
_SHORT, _LONG = np.dtype("<i2"), np.dtype("<i4")

Coords = Float32[np.ndarray, "l 3"]


def float_size(length: Any) -> Any:
    """Return the index length of an entry of floats, from its number of residues (a number or an array)."""
    return 12 * length + 1


def difference_size(length: Any) -> Any:
    """Return the index length of an entry of differences, from its number of residues (a number or an array)."""
    return 6 * length + 8


def decode_floats(raw: bytes, length: int) -> Coords:
    """Return the coordinates in Angstrom of an entry of floats."""
    return np.ascontiguousarray(np.frombuffer(raw, "<f4", 3 * length).reshape(3, length).T)


def decode_differences(raw: bytes, length: int) -> Coords:
    """Return the coordinates in Angstrom of an entry of 16-bit differences."""
    coords = np.empty((length, 3), np.float32)
    if length == 0:
        return coords
    # An axis is length + 1 numbers of 16 bits: the first two are the start, the others the steps from residue to residue.
    axes = np.frombuffer(raw, _SHORT, 3 * (length + 1)).reshape(3, length + 1)
    steps = axes[:, 1:].astype(np.int32)
    steps[:, 0] = axes[:, :2].copy().view(_LONG)[:, 0]
    np.add.accumulate(steps, axis=1, dtype=np.int32, out=steps)
    np.divide(steps.T, _PER_ANGSTROM, out=coords, dtype=np.float32, casting="unsafe")
    return coords


def decode_many_differences(raw: bytes, lengths: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "n 3"]:
    """Return the coordinates in Angstrom of concatenated entries of 16-bit differences, none of them empty."""
    numbers = np.frombuffer(raw, _SHORT)
    counts = 3 * lengths + 4
    begins, firsts = np.cumsum(counts) - counts, np.cumsum(lengths) - lengths
    # One running sum over all numbers: each axis begins by taking back where the one before ended, then adds its start.
    axes = (begins[:, None] + np.arange(3) * (lengths + 1)[:, None]).ravel()
    steps = numbers.astype(np.int32)
    steps[axes + 1] = (steps[axes + 1] << 16) | numbers[axes].astype(np.uint16)
    steps[axes] = 0
    steps[axes[1:]] = -np.add.reduceat(steps, axes, dtype=np.int32)[:-1]
    np.add.accumulate(steps, dtype=np.int32, out=steps)
    coords = np.empty((int(lengths.sum()), 3), np.float32)
    places = np.arange(len(coords)) + np.repeat(begins + 1 - firsts, lengths)
    per_axis = np.repeat(lengths + 1, lengths)
    for axis in range(3):
        coords[:, axis] = steps[places]
        places += per_axis
    coords /= _PER_ANGSTROM
    return coords


class Calphas:
    """The C-alpha sub-database of a database of letters, joined to it by key.

    Args:
        database: its path, such as "folder/db_ca".
        letters: the index of the letters, which has the number of residues of each entry.
        check: raise at once if the index points beyond the data.
        sidecar_from: size of the index text in bytes from which a binary index is kept.
    """

    def __init__(self, database: Path, letters: Index, *, check: bool = True, sidecar_from: int = SIDECAR_FROM) -> None:
        self.entries = Entries(database, "calpha", check=check, sidecar_from=sidecar_from)
        self.letters = letters
        index = self.entries.index
        self._residues = letters.lengths.data
        # With the same keys in the same order the rows are the same, and nothing needs to be looked up.
        self.aligned = len(index) == len(letters) and index.keys_digest == letters.keys_digest

    def row_of(self, row: int) -> int:
        """Return the row of this sub-database that belongs to a row of the letters.

        Raises:
            UnknownKeyError: if the entry has no coordinates.
        """
        return row if self.aligned else self.entries.index.row_of(int(self.letters.keys[row]))

    def read(self, row: int) -> Coords:
        """Return the coordinates in Angstrom of a row of the letters.

        Raises:
            FormatError: if there are none, not one for each residue, or one is not finite.
            IndexError: if the row does not exist.
        """
        if not 0 <= row < len(self._residues):
            raise IndexError(f"{self.entries.database}: found the row {row}, expected 0 to {len(self._residues) - 1}")
        return self._one(row if self.aligned else self.row_of(row), self._residues[row])

    def _one(self, own: int, length: int) -> Coords:
        raw = self.entries.raw(own)
        if len(raw) == 6 * length + 8:
            if raw[-2:] != b"\0\0":
                raise self._no_end(own, raw)
            return decode_differences(raw, length)
        self._refuse_size(own, len(raw), length)
        if raw[-1]:
            raise self._no_end(own, raw)
        coords = decode_floats(raw, length)
        if not np.isfinite(coords).all():
            residue = int(np.flatnonzero(~np.isfinite(coords).all(1))[0])
            reason = f"found the coordinates {coords[residue].tolist()} at residue {residue + 1}, expected numbers; the data is damaged"
            raise self.entries.fault(own, reason)
        return coords

    def _refuse_size(self, own: int, size: int, length: int) -> None:
        """Raise unless a size is that of floats, or of differences."""
        if size in (float_size(length), difference_size(length)):
            return
        raise self.entries.fault(
            own,
            f"found {size} bytes for the {length} residues of the sequence, expected {difference_size(length)} (16-bit differences) "
            f"or {float_size(length)} (floats); the sub-databases belong to different versions, or one is damaged",
        )

    def _no_end(self, own: int, raw: bytes) -> FormatError:
        return self.entries.fault(own, f"found {raw[-2:]!r} after the coordinates, expected NULs; the data is damaged or its offset wrong")

    def batch(self, rows: Int[np.ndarray, " b"]) -> tuple[Float32[np.ndarray, "n 3"], Int64[np.ndarray, " b1"]]:
        """Return the concatenated coordinates in Angstrom of several rows of the letters, and the offset of each.

        Raises:
            FormatError: as for `read`.
        """
        lengths = self.letters.lengths[rows].astype(np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        coords = np.empty((int(offsets[-1]), 3), np.float32)
        own = np.asarray(rows, dtype=np.int64) if self.aligned else self.entries.index.find_all(self.letters.keys[rows])
        if len(own) and int(own.min()) < 0:
            self.row_of(int(np.asarray(rows)[np.flatnonzero(own < 0)[0]]))
        # Cut where the residues reach the next multiple of _AT_ONCE; a longer entry is decoded alone.
        places = np.searchsorted(offsets, np.arange(0, offsets[-1], _AT_ONCE))
        cuts = np.unique([0, *places.tolist(), len(rows)])
        for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            coords[offsets[a] : offsets[b]] = self._some(own[a:b], lengths[a:b])
        return coords, offsets

    def _some(self, own: Int64[np.ndarray, " b"], lengths: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "n 3"]:
        sizes = self.entries.index.lengths[own].astype(np.int64) + 2
        floats: Bool[np.ndarray, " b"] = sizes != difference_size(lengths)
        if floats.any() or int(lengths.min()) == 0:
            return np.concatenate([self._one(*pair) for pair in zip(own.tolist(), lengths.tolist(), strict=True)])
        raw = self.entries.raw_joined(own)
        ends = np.cumsum(sizes) // 2 - 1
        wrong = np.flatnonzero(np.frombuffer(raw, _SHORT)[ends])
        if len(wrong):
            row = int(own[wrong[0]])
            raise self._no_end(row, self.entries.raw(row))
        return decode_many_differences(raw, lengths)
