"""One sub-database of letters of a Foldseek database, with the coordinates and names that belong to it by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64, Integer, UInt8

from protlig_dd.data.foldseek.calpha import Calphas, Coords
from protlig_dd.data.foldseek.entries import Entries
from protlig_dd.data.foldseek.files import base_of, find_file, sibling
from protlig_dd.data.foldseek.index import SIDECAR_FROM, Index
from protlig_dd.data.foldseek.letters import AMINO_ACIDS, THREE_DI, LetterBatch, Letters
from protlig_dd.data.foldseek.names import Names

Rows = Int[np.ndarray, " b"] | Sequence[int]


class FoldseekDB:
    """One sub-database of letters: amino acids ("folder/db") or 3Di ("folder/db_ss"), with coordinates and names where they are there.

    Nothing is opened before it is needed, and each process opens for itself: an instance can be handed to a loader's workers. `with`
    lets go of the files at its end; using the instance again opens them again.

    Args:
        path: the database, without any ending.
        keep_case: whether masked residues, lower case in the database, stay so; `mask` tells them in any case.
        sidecar_from: bytes of index text from which on a binary index is kept beside it.

    Raises:
        FormatError: on first use, for whatever is wrong with the files.
    """

    def __init__(self, path: str | Path, *, keep_case: bool = False, sidecar_from: int = SIDECAR_FROM) -> None:
        self.path, self.keep_case, self._sidecar_from = Path(path), keep_case, sidecar_from
        self._text: Letters | None = None
        self._calphas: Calphas | None = None
        self._names: Names | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to open the database itself."""
        return {"path": self.path, "keep_case": self.keep_case, "sidecar_from": self._sidecar_from}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], keep_case=state["keep_case"], sidecar_from=state["sidecar_from"])  # type: ignore[misc]

    def __enter__(self) -> FoldseekDB:
        self.opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files; arrays that were handed out stay valid."""
        self._text = self._calphas = self._names = None

    def opened(self) -> Letters:
        """Return what reads the letters, opening the files if they are not open."""
        if self._text is None:
            entries = Entries(self.path, "letters", sidecar_from=self._sidecar_from)
            alphabet = THREE_DI if self.is_3di else AMINO_ACIDS
            self._text = Letters(entries, alphabet=alphabet, keep_case=self.keep_case)
        return self._text

    @property
    def is_3di(self) -> bool:
        """Whether the letters are 3Di: the name says so, the type does not."""
        return self.path.name.endswith("_ss")

    @property
    def entries(self) -> Entries:
        """The bytes behind the letters, with their type and their index."""
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
        """Where each row begins in the data, in bytes (memory-mapped)."""
        return self.index.starts

    @property
    def lengths(self) -> Int32[np.ndarray, " N"]:
        """The residues of each row (memory-mapped)."""
        return self.index.lengths

    @property
    def letters(self) -> UInt8[np.ndarray, " n"] | None:
        """The whole data (memory-mapped), or None unless it is one plain file of letters.

        Row i is `letters[starts[i]:starts[i] + lengths[i]]`, unchecked, with masked residues in lower case.
        """
        entries = self.entries
        if entries.dbtype.compressed or entries.dbtype.padded or entries.data.whole is None:
            return None
        return np.frombuffer(entries.data.whole, np.uint8)

    def get_sequence(self, row: int) -> str:
        """Return the letters of a row, from 0: the letters only, without newline or NUL.

        Raises:
            FormatError: if the entry is damaged.
            IndexError: if there is no such row.
        """
        text = self._text
        if text is None:
            text = self.opened()
        return text.text(row)

    def __getitem__(self, row: int) -> str:
        return self.get_sequence(row)

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
            UnknownKeyError: if there is none.
        """
        return self.index.row_of(key)

    def row_of_name(self, name: str) -> int:
        """Return the row of a name, as in the lookup file.

        Raises:
            UnknownKeyError: if there is none.
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
        """Whether there are C-alpha coordinates beside the letters."""
        return find_file(sibling(base_of(self.path), "_ca.index")) is not None

    @property
    def calphas(self) -> Calphas:
        """The C-alpha sub-database, joined by key.

        Raises:
            FormatError: if it is not there, or damaged.
        """
        if self._calphas is None:
            database = sibling(base_of(self.path), "_ca")
            self._calphas = Calphas(database, self.index, sidecar_from=self._sidecar_from)
        return self._calphas

    def calpha(self, row: int) -> Coords:
        """Return the C-alpha coordinates of a row in Angstrom, [l, 3] float32.

        Raises:
            FormatError: if they are not there, damaged, or not one for each residue.
            IndexError: if there is no such row.
        """
        return (self._calphas or self.calphas).read(row)

    def calpha_batch(self, rows: Rows) -> tuple[Float32[np.ndarray, "n 3"], Int64[np.ndarray, " b1"]]:
        """Return the C-alpha coordinates of many rows in Angstrom, one behind the other, and the offsets of the entries."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"{self.path}: found rows {rows.min()} to {rows.max()}, expected 0 to {len(self) - 1}")
        return self.calphas.batch(rows)
