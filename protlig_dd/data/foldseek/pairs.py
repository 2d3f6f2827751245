"""Foldseek databases for reading: amino acids, 3Di and C-alpha coordinates, joined by key.

All forms that Foldseek writes are read: plain, split, compressed, padded, sub-databases, links, sparse and unsorted keys. Anything else is
an error with file, line and reason, raised when the database is opened if the index shows it, else when the entry is read; `verify.py`
reads everything. `FoldseekDB` is defined in `sequences.py`, the files are described in `files.py`, and `writer.py` writes databases.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer

from protlig_dd.data.foldseek.calpha import Coords
from protlig_dd.data.foldseek.files import sibling
from protlig_dd.data.foldseek.index import SIDECAR_FROM, Index
from protlig_dd.data.foldseek.letters import LetterBatch, Rows, checked_rows, pair_reader
from protlig_dd.data.foldseek.sequences import FoldseekDB
from protlig_dd.errors import FormatError

__all__ = ["FoldseekDB", "PairBatch", "PairedFoldseekDB"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Join:
    """The keys that two sub-databases share.

    Attributes:
        count: number of shared keys.
        aa_rows, ss_rows: for each, its row in the amino acids and in the 3Di letters; None if both have the same rows.
    """

    count: int
    aa_rows: Int64[np.ndarray, " N"] | None
    ss_rows: Int64[np.ndarray, " N"] | None


def join_by_key(aa: Index, ss: Index) -> Join:
    """Return the rows of amino acids and 3Di with equal keys; a warning gives the number without a partner."""
    if len(aa) == len(ss) and aa.keys_digest == ss.keys_digest:
        return Join(count=len(aa), aa_rows=None, ss_rows=None)
    rows = ss.find_all(aa.keys)
    shared = np.flatnonzero(rows >= 0)
    _logger.warning(
        "%s: %d of %d keys are not in %s (%d keys); only the %d keys of both are read",
        aa.path, len(aa) - len(shared), len(aa), ss.path, len(ss), len(shared),
    )  # fmt: skip
    return Join(count=len(shared), aa_rows=shared, ss_rows=rows[shared])


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBatch:
    """Amino acids and 3Di of b entries; both share the offsets.

    Attributes:
        aa: the amino acids.
        ss: the 3Di letters.
        offsets: entry i is `letters[offsets[i]:offsets[i + 1]]` in both.
    """

    aa: LetterBatch
    ss: LetterBatch

    @property
    def offsets(self) -> Int64[np.ndarray, " b1"]:
        """The start of each entry, and the end."""
        return self.aa.offsets


class PairedFoldseekDB:
    """Amino acids with 3Di letters, and coordinates if there are any, for the keys that both sub-databases have.

    Args:
        path: the database without a suffix: "folder/db" for db, db_ss and db_ca.
        keep_case: keep masked residues in lower case.
        sidecar_from: size of the index text in bytes from which a binary index is kept.

    Raises:
        FormatError: on first use, if the files are missing or damaged.
    """

    def __init__(self, path: str | Path, *, keep_case: bool = False, sidecar_from: int = SIDECAR_FROM) -> None:
        self.path = Path(path)
        self.aa = FoldseekDB(self.path, keep_case=keep_case, sidecar_from=sidecar_from)
        self.ss = FoldseekDB(sibling(self.path, "_ss"), keep_case=keep_case, sidecar_from=sidecar_from)
        self._joined: Join | None = None
        self._reader: Callable[[int], tuple[str, str]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments with which another process opens the database."""
        return self.aa.__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], keep_case=state["keep_case"], sidecar_from=state["sidecar_from"])  # type: ignore[misc]

    def __enter__(self) -> PairedFoldseekDB:
        _ = self._join
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; arrays returned before stay valid."""
        self.aa.close()
        self.ss.close()
        self._joined = self._reader = None

    @property
    def _join(self) -> Join:
        if self._joined is None:
            self._joined = join_by_key(self.aa.index, self.ss.index)
        return self._joined

    def __len__(self) -> int:
        return self._join.count

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (amino acids, 3Di) of all rows, in the order of the keys."""
        for row in range(len(self)):
            yield self.get_pair(row)

    @property
    def keys(self) -> Integer[np.ndarray, " N"]:
        """The key of each row, increasing."""
        rows = self._join.aa_rows
        return self.aa.keys if rows is None else self.aa.keys[rows]

    @property
    def lengths(self) -> Int32[np.ndarray, " N"]:
        """The residues of each row."""
        rows = self._join.aa_rows
        return self.aa.lengths if rows is None else self.aa.lengths[rows]

    def get_pair(self, row: int) -> tuple[str, str]:
        """Return the amino acids and the 3Di letters of a row, equally long.

        Raises:
            FormatError: if an entry is damaged, or the two differ in length.
            IndexError: if the row does not exist.
        """
        read = self._reader
        a, s = read(row) if read is not None else self._open_reader()(row)
        if len(a) != len(s):
            raise self._unequal(row, len(a), len(s))
        return a, s

    __getitem__ = get_pair

    def _open_reader(self) -> Callable[[int], tuple[str, str]]:
        """Return the function that reads a row; it is kept, since it is called for every row."""
        joined, aa, ss = self._join, self.aa.opened(), self.ss.opened()
        if joined.aa_rows is None:
            self._reader = pair_reader(aa, ss)
        else:
            self._reader = lambda row: (aa.text(self.aa_row(row)), ss.text(self.ss_row(row)))
        return self._reader

    def aa_row(self, row: int) -> int:
        """Return the row of the amino acids for a joined row."""
        return self._joined_row(row, self._join.aa_rows)

    def ss_row(self, row: int) -> int:
        """Return the row of the 3Di letters for a joined row."""
        return self._joined_row(row, self._join.ss_rows)

    def _joined_row(self, row: int, rows: Int64[np.ndarray, " N"] | None) -> int:
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path}: found the row {row}, expected 0 to {len(self) - 1}")
        return row if rows is None else int(rows[row])

    @property
    def joined_rows(self) -> dict[str, Int64[np.ndarray, " N"] | None]:
        """The rows of "protein" (amino acids) and "structure" (3Di) for each joined row; None if they are equal."""
        return {"protein": self._join.aa_rows, "structure": self._join.ss_rows}

    def require_equal_lengths(self) -> None:
        """Check by the indices that amino acids and 3Di of each entry have the same length.

        Raises:
            FormatError: for the first entry that does not.
        """
        joined, aa, ss = self._join, self.aa.index, self.ss.index
        if joined.aa_rows is None and aa.lengths_digest == ss.lengths_digest:
            return
        own = aa.lengths if joined.aa_rows is None else aa.lengths[joined.aa_rows]
        other = ss.lengths if joined.ss_rows is None else ss.lengths[joined.ss_rows]
        for row in np.flatnonzero(own != other)[:1].tolist():
            raise self._unequal(row, int(own[row]), int(other[row]))

    def _unequal(self, row: int, aa: int, ss: int) -> FormatError:
        reason = f"found {ss} letters of 3Di for {aa} amino acids, expected as many; the sub-databases belong to different versions"
        return self.ss.entries.fault(self.ss_row(row), reason)

    def pair_batch(self, rows: Rows) -> PairBatch:
        """Return amino acids and 3Di of many rows as arrays.

        Raises:
            FormatError: as for `get_pair`.
        """
        rows = checked_rows(rows, len(self), self.path)
        joined = self._join
        aa = self.aa.batch(rows if joined.aa_rows is None else joined.aa_rows[rows])
        ss = self.ss.batch(rows if joined.ss_rows is None else joined.ss_rows[rows])
        unequal = np.flatnonzero(aa.offsets != ss.offsets)
        if len(unequal):
            place = int(unequal[0]) - 1
            raise self._unequal(int(rows[place]), *(int(np.diff(one.offsets)[place]) for one in (aa, ss)))
        return PairBatch(aa=aa, ss=ss)

    def pairs(self, rows: Rows) -> list[tuple[str, str]]:
        """Return (amino acids, 3Di) of many rows."""
        batch = self.pair_batch(rows)
        return list(zip(batch.aa.texts(), batch.ss.texts(), strict=True))

    def row_of_key(self, key: int) -> int:
        """Return the row of a key.

        Raises:
            UnknownKeyError: if a sub-database lacks it.
        """
        aa, ss, joined = self.aa.row_of_key(key), self.ss.row_of_key(key), self._join
        if joined.aa_rows is None:
            return aa
        row = int(np.searchsorted(joined.aa_rows, aa))
        assert joined.ss_rows is not None and int(joined.ss_rows[row]) == ss, (key, row)
        return row

    def row_of_name(self, name: str) -> int:
        """Return the row of a name, as in the lookup file."""
        return self.row_of_key(self.aa.names.one_key_of(name))

    def get_by_key(self, key: int) -> tuple[str, str]:
        """Return the pair of a key."""
        return self.get_pair(self.row_of_key(key))

    def get_by_name(self, name: str) -> tuple[str, str]:
        """Return the pair of a name."""
        return self.get_pair(self.row_of_name(name))

    def name(self, row: int) -> str:
        """Return the name of a row: the first word of its header."""
        return self.aa.name(self.aa_row(row))

    @property
    def has_calpha(self) -> bool:
        """Whether there are C-alpha coordinates."""
        return self.aa.has_calpha

    def calpha(self, row: int) -> Coords:
        """Return the C-alpha coordinates of a row in Angstrom, [l, 3] float32."""
        return self.aa.calpha(self.aa_row(row))

    def calpha_batch(self, rows: Rows) -> tuple[Float32[np.ndarray, "n 3"], Int64[np.ndarray, " b1"]]:
        """Return the concatenated C-alpha coordinates of several rows in Angstrom, and the offsets of the entries."""
        aa_rows = self._join.aa_rows
        return self.aa.calpha_batch(rows if aa_rows is None else aa_rows[np.asarray(rows, dtype=np.int64)])
