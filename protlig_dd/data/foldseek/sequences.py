"""One sub-database of letters of a Foldseek database, with the coordinates and names of its keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Integer, UInt8

from protlig_dd.data.foldseek.calpha import Calphas, Coords
from protlig_dd.data.foldseek.entries import Entries
from protlig_dd.data.foldseek.files import base_of, find_file, sibling
from protlig_dd.data.foldseek.index import SIDECAR_FROM, Index
from protlig_dd.data.foldseek.letters import AMINO_ACIDS, THREE_DI, LetterBatch, Letters, Rows, checked_rows
from protlig_dd.data.foldseek.names import Names


class FoldseekDB:
    """One sub-database of letters: amino acids ("folder/db") or 3Di ("folder/db_ss"), with coordinates and names if there are any.

    Files are opened on first use, separately in each process, so an instance can be passed to a loader's workers. `with` closes the
    files at its end; using the instance again reopens them.

    Args:
        path: the database without a suffix.
        keep_case: keep masked residues in lower case, as in the database; `mask` returns them in either case.
        sidecar_from: size of the index text in bytes from which a binary index is kept.

    Raises:
        FormatError: on first use, if the files are missing or damaged.
    """

    def __init__(self, path: str | Path, *, keep_case: bool = False, sidecar_from: int = SIDECAR_FROM) -> None:
        self.path, self.keep_case, self._sidecar_from = Path(path), keep_case, sidecar_from
        self._text: Letters | None = None
        self._calphas: Calphas | None = None
        self._names: Names | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments with which another process opens the database."""
        return {"path": self.path, "keep_case": self.keep_case, "sidecar_from": self._sidecar_from}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], keep_case=state["keep_case"], sidecar_from=state["sidecar_from"])  # type: ignore[misc]

    def __enter__(self) -> FoldseekDB:
        self.opened()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; arrays returned before stay valid."""
        self._text = self._calphas = self._names = None

    def opened(self) -> Letters:
        """Return the reader of the letters; opens the files if necessary."""
        if self._text is None:
            entries = Entries(self.path, "letters", sidecar_from=self._sidecar_from)
            alphabet = THREE_DI if self.is_3di else AMINO_ACIDS
            self._text = Letters(entries, alphabet=alphabet, keep_case=self.keep_case)
        return self._text

    @property
    def is_3di(self) -> bool:
        """Whether the letters are 3Di, by the name: the type is the same."""
        return self.path.name.endswith("_ss")

    @property
    def entries(self) -> Entries:
        """The entries as bytes, with their type and index."""
        return self.opened().entries

    @property
    def index(self) -> Index:
        """The rows: keys, starts and lengths."""
        return self.entries.index

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[str]:
        """Yield the letters of all rows, in the order of the keys."""
        for row in range(len(self)):
            yield self.get_sequence(row)

    @property
    def keys(self) -> Integer[np.ndarray, " N"]:
        """The key of each row, increasing (memory-mapped)."""
        return self.index.keys

    @property
    def starts(self) -> Int64[np.ndarray, " N"]:
        """The offset of each row in the data, in bytes (memory-mapped)."""
        return self.index.starts

    @property
    def lengths(self) -> Int32[np.ndarray, " N"]:
        """The residues of each row (memory-mapped)."""
        return self.index.lengths

    @property
    def letters(self) -> UInt8[np.ndarray, " n"] | None:
        """All data as bytes (memory-mapped); None unless it is one plain file of letters.

        Row i is `letters[starts[i]:starts[i] + lengths[i]]`, unchecked, with masked residues in lower case.
        """
        whole = self.entries.plain
        return None if whole is None else np.frombuffer(whole, np.uint8)

    def get_sequence(self, row: int) -> str:
        """Return the letters of a row (from 0), without newline or NUL.

        Raises:
            FormatError: if the entry is damaged.
            IndexError: if the row does not exist.
        """
        return (self._text or self.opened()).text(row)

    __getitem__ = get_sequence

    def sequences(self, rows: Rows) -> list[str]:
        """Return the letters of many rows."""
        return self.batch(rows).texts()

    def batch(self, rows: Rows) -> LetterBatch:
        """Return the letters of many rows as one array, with their offsets and masks."""
        return self.opened().batch(rows)

    def mask(self, row: int) -> Bool[np.ndarray, " l"]:
        """Return which residues of a row are masked (lower case in the database)."""
        return self.opened().masked(row)

    def row_of_key(self, key: int) -> int:
        """Return the row of a key.

        Raises:
            UnknownKeyError: if the key does not exist.
        """
        return self.index.row_of(key)

    def row_of_name(self, name: str) -> int:
        """Return the row of a name, as in the lookup file.

        Raises:
            UnknownKeyError: if the name does not exist.
            FormatError: if several entries have it, or there is no lookup file.
        """
        return self.row_of_key(self.names.one_key_of(name))

    def get_by_key(self, key: int) -> str:
        """Return the letters of a key."""
        return self.get_sequence(self.row_of_key(key))

    def get_by_name(self, name: str) -> str:
        """Return the letters of a name."""
        return self.get_sequence(self.row_of_name(name))

    @property
    def names(self) -> Names:
        """The headers and the lookup file."""
        if self._names is None:
            self._names = Names(self.path, sidecar_from=self._sidecar_from)
        return self._names

    def name(self, row: int) -> str:
        """Return the name of a row: the first word of its header."""
        return self.names.name(int(self.keys[row]))

    @property
    def has_calpha(self) -> bool:
        """Whether the database has C-alpha coordinates."""
        return find_file(sibling(base_of(self.path), "_ca.index")) is not None

    @property
    def calphas(self) -> Calphas:
        """The C-alpha sub-database, joined by key.

        Raises:
            FormatError: if it is missing or damaged.
        """
        if self._calphas is None:
            database = sibling(base_of(self.path), "_ca")
            self._calphas = Calphas(database, self.index, sidecar_from=self._sidecar_from)
        return self._calphas

    def calpha(self, row: int) -> Coords:
        """Return the C-alpha coordinates of a row in Angstrom, [l, 3] float32.

        Raises:
            FormatError: if they are missing, damaged, or not one for each residue.
            IndexError: if the row does not exist.
        """
        return (self._calphas or self.calphas).read(row)

    def calpha_batch(self, rows: Rows) -> tuple[Float32[np.ndarray, "n 3"], Int64[np.ndarray, " b1"]]:
        """Return the concatenated C-alpha coordinates of several rows in Angstrom, and the offsets of the entries."""
        return self.calphas.batch(checked_rows(rows, len(self), self.path))
