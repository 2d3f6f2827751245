"""A Foldseek database as records, so that everything that reads sequences reads it too: training, `prepare`, `inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from protlig_dd.data.foldseek_db import FoldseekDB, PairedFoldseekDB
from protlig_dd.data.foldseek_files import find_file, sibling
from protlig_dd.data.records import Record

_ROWS_AT_ONCE = 4096


def is_database(path: Path) -> bool:
    """Return whether a path names a Foldseek database: data in one file or in parts, beside an `.index`."""
    has_data = find_file(path) is not None or find_file(sibling(path, ".0")) is not None
    return has_data and find_file(sibling(path, ".index")) is not None


def has_structures(path: Path) -> bool:
    """Return whether a database has 3Di letters beside its amino acids."""
    return is_database(sibling(path, "_ss"))


def read_database(path: Path) -> Iterator[Record]:
    """Yield the entries of a database in the order of their keys, lazily: "protein", and "structure" (3Di) where it has them.

    Args:
        path: the database, without any ending: "folder/db" for db, db_ss and db_ca.

    Raises:
        FormatError: for whatever is wrong with the files, with file, row and reason.
    """
    if has_structures(path):
        with PairedFoldseekDB(path) as pairs:
            yield from _pairs(path, pairs, np.arange(len(pairs)))
        return
    with FoldseekDB(path) as letters:
        for row, text in enumerate(letters):
            yield _record(path, letters, row, {"protein": text})


def read_rows(path: Path, rows: Int64[np.ndarray, " b"]) -> Iterator[Record]:
    """Yield some entries of a database with 3Di, counted in the order of their keys; see `read_database`."""
    with PairedFoldseekDB(path) as pairs:
        yield from _pairs(path, pairs, rows)


def _pairs(path: Path, pairs: PairedFoldseekDB, rows: Int64[np.ndarray, " b"]) -> Iterator[Record]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        for row, (protein, structure) in zip(some.tolist(), pairs.pairs(some), strict=True):
            yield _record(path, pairs, row, {"protein": protein, "structure": structure})


def _record(path: Path, database: FoldseekDB | PairedFoldseekDB, row: int, texts: dict[str, str]) -> Record:
    return Record(where=entry_place(path, row), texts=texts, name=entry_name(database, row))


def entry_place(path: Path, row: int) -> str:
    """Return where an entry stands, for messages: entries are counted from 1 in the order of their keys."""
    return f"{path}: entry {row + 1}"


def entry_name(database: FoldseekDB | PairedFoldseekDB, row: int) -> str:
    """Return what an example made of an entry is called: the first word of its header."""
    return database.name(row).split(" ")[0]
