"""C-alpha coordinates of Foldseek databases: 16-bit differences and floats, decided for each entry by its size.

Both are planar, all x, then all y, then all z. Floats are 12 bytes a residue and a NUL. Differences are, for each axis, a 32-bit start and
16-bit steps in thousandths of an Angstrom, and two NULs in the end: 6 bytes a residue and 8. Foldseek cuts a coordinate to three decimals
towards zero, so differences are up to 0.001 Angstrom off what was in the structure file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from protlig_dd.data.foldseek_entries import Entries
from protlig_dd.data.foldseek_index import SIDECAR_FROM, Index
from protlig_dd.errors import FormatError

_PER_ANGSTROM = np.float32(1000)
_AT_ONCE = 64  # entries decoded together: their numbers stay in the processor's cache

Coords = Float32[np.ndarray, "l 3"]


def float_size(length: int) -> int:
    """Return the index length of an entry of floats."""
    return 12 * length + 1


def difference_size(length: int) -> int:
    """Return the index length of an entry of differences."""
    return 6 * length + 8


def decode_floats(raw: bytes, length: int) -> Coords:
    """Return the coordinates in Angstrom of an entry of floats."""
    return np.ascontiguousarray(np.frombuffer(raw, "<f4", 3 * length).reshape(3, length).T)


def decode_differences(raw: bytes, length: int) -> Coords:
    """Return the coordinates in Angstrom of an entry of 16-bit differences."""
    if length == 0:
        return np.zeros((0, 3), np.float32)
    # An axis is length + 1 numbers of 16 bits: the first two are the start, the others the steps from residue to residue.
    axes = np.frombuffer(raw, "<i2", 3 * (length + 1)).reshape(3, length + 1)
    steps = axes[:, 1:].astype(np.int32)
    steps[:, 0] = np.ascontiguousarray(axes[:, :2]).view("<i4")[:, 0]
    np.cumsum(steps, axis=1, dtype=np.int32, out=steps)
    coords = steps.T.astype(np.float32, order="C")
    coords /= _PER_ANGSTROM
    return coords


def _decode_many_differences(raws: Sequence[bytes], lengths: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "n 3"]:
    numbers = np.frombuffer(b"".join(raws), "<i2")
    counts = 3 * lengths + 4
    begins = np.cumsum(counts) - counts
    firsts = np.cumsum(lengths) - lengths  # of each entry among the residues
    coords = np.empty((int(lengths.sum()), 3), np.float32)
    # Where each residue's x step stands: the second of the two numbers of the start, for the first.
    places = np.arange(len(coords)) + np.repeat(begins + 1 - firsts, lengths)
    per_axis = np.repeat(lengths + 1, lengths)
    for axis in range(3):
        steps = numbers[places].astype(np.int32)
        low, high = numbers[begins + axis * (lengths + 1)], steps[firsts]
        steps[firsts] = (high << 16) | low.astype(np.uint16)
        # One running sum over all entries: each begins by taking back where the one before ended.
        steps[firsts[1:]] -= np.add.reduceat(steps, firsts, dtype=np.int32)[:-1]
        np.cumsum(steps, dtype=np.int32, out=steps)
        coords[:, axis] = steps
        places += per_axis
    coords /= _PER_ANGSTROM
    return coords


class Calphas:
    """The C-alpha sub-database of a database of letters, joined to it by key.

    Args:
        database: its path, such as "folder/db_ca".
        letters: the index of the letters, which knows the number of residues.
        check: whether to refuse, here and now, an index that points beyond the data.
        sidecar_from: bytes of index text from which on a binary index is kept.
    """

    def __init__(self, database: Path, letters: Index, *, check: bool = True, sidecar_from: int = SIDECAR_FROM) -> None:
        self.entries = Entries(database, "calpha", check=check, sidecar_from=sidecar_from)
        self.letters = letters
        index = self.entries.index
        # The same keys in the same order: the rows are the same, and nothing needs to be looked up.
        self.aligned = len(index) == len(letters) and index.keys_digest == letters.keys_digest

    def row_of(self, row: int) -> int:
        """Return the row here of a row of the letters.

        Raises:
            UnknownKeyError: if the entry has no coordinates.
        """
        return row if self.aligned else self.entries.index.row_of(int(self.letters.keys[row]))

    def read(self, row: int) -> Coords:
        """Return the coordinates in Angstrom of a row of the letters.

        Raises:
            FormatError: if there are none, or not for each residue, or one is not a number.
        """
        length, own = int(self.letters.lengths[row]), self.row_of(row)
        raw = self.entries.raw(own)
        if self._is_float(own, len(raw), length):
            coords = decode_floats(raw, length)
            if not np.isfinite(coords).all():
                raise self._not_finite(own, coords)
        else:
            coords = decode_differences(raw, length)
        if raw[-1] or (len(raw) != float_size(length) and raw[-2]):
            raise self._no_end(own, raw)
        return coords

    def _is_float(self, own: int, size: int, length: int) -> bool:
        if size == difference_size(length):
            return False
        if size == float_size(length):
            return True
        raise self.entries.fault(
            own,
            f"found {size} bytes for the {length} residues of the sequence, expected {difference_size(length)} (16-bit differences) "
            f"or {float_size(length)} (floats); the sub-databases belong to different versions, or one is damaged",
        )

    def _not_finite(self, own: int, coords: Coords) -> FormatError:
        residue = int(np.flatnonzero(~np.isfinite(coords).all(1))[0])
        return self.entries.fault(
            own,
            f"found the coordinates {coords[residue].tolist()} at residue {residue + 1}, expected numbers; the data is damaged",
        )

    def _no_end(self, own: int, raw: bytes) -> FormatError:
        return self.entries.fault(
            own, f"found {raw[-2:]!r} after the coordinates, expected NULs; the data is damaged or its offset wrong"
        )

    def batch(self, rows: Int[np.ndarray, " b"]) -> tuple[Float32[np.ndarray, "n 3"], Int64[np.ndarray, " b1"]]:
        """Return the coordinates in Angstrom of many rows of the letters, one behind the other, and where each begins.

        Raises:
            FormatError: as for `read`.
        """
        lengths = self.letters.lengths[rows].astype(np.int64)
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        coords = np.empty((int(offsets[-1]), 3), np.float32)
        own = np.asarray(rows, dtype=np.int64) if self.aligned else self.entries.index.find_all(self.letters.keys[rows])
        if len(own) and int(own.min()) < 0:
            self.row_of(int(np.asarray(rows)[np.flatnonzero(own < 0)[0]]))
        for first in range(0, len(rows), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            coords[offsets[first] : offsets[min(first + _AT_ONCE, len(rows))]] = self._some(own[part], lengths[part])
        return coords, offsets

    def _some(self, own: Int64[np.ndarray, " b"], lengths: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "n 3"]:
        sizes = self.entries.index.lengths[own] + 2
        floats: Bool[np.ndarray, " b"] = sizes == 12 * lengths + 1
        wrong = ~floats & (sizes != 6 * lengths + 8)
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            self._is_float(int(own[place]), int(sizes[place]), int(lengths[place]))
        raws = [self.entries.raw(row) for row in own.tolist()]
        for row, raw, is_float in zip(own.tolist(), raws, floats.tolist(), strict=True):
            if raw[-1] or (raw[-2] and not is_float):
                raise self._no_end(row, raw)
        if not floats.any() and int(lengths.min(initial=1)) > 0:
            return _decode_many_differences(raws, lengths)
        pieces = []
        for row, raw, length, is_float in zip(own.tolist(), raws, lengths.tolist(), floats.tolist(), strict=True):
            pieces.append(decode_floats(raw, length) if is_float else decode_differences(raw, length))
            if is_float and not np.isfinite(pieces[-1]).all():
                raise self._not_finite(row, pieces[-1])
        return np.concatenate(pieces)
