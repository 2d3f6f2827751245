"""Foldseek databases exported as FASTA (amino acids or 3Di) and as PDB files of C-alpha traces; and a description in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from protlig_dd.data.foldseek.calpha import float_size
from protlig_dd.data.foldseek.entries import Entries
from protlig_dd.data.foldseek.files import base_of, find_file, sibling
from protlig_dd.data.foldseek.index import UnknownKeyError
from protlig_dd.data.foldseek.pairs import FoldseekDB
from protlig_dd.errors import FormatError, one_line
from protlig_dd.files import written_whole
from protlig_dd.structures.structure_io import Chain, write_pdb

_NO_FILE_NAME = re.compile(r"[^\w.+-]")


def header_of(db: FoldseekDB, row: int) -> str:
    """Return the header of a row for a FASTA file; the key if the database has no names."""
    if db.names.headers_at is None and db.names.lookup_at is None:
        return str(db.keys[row])
    return db.names.header(int(db.keys[row]))


def export_fasta(db: FoldseekDB, rows: Iterable[int], path: Path) -> int:
    """Write the letters of rows as FASTA, one line each, under their headers, whole or not at all; return the number of rows."""
    count = 0
    with written_whole(path) as growing, growing.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(f">{one_line(header_of(db, row))}\n{db.get_sequence(row)}\n")
            count += 1
    return count


def export_traces(db: FoldseekDB, rows: Iterable[int], folder: Path) -> int:
    """Write the C-alpha traces of rows as PDB files of one chain, "name.pdb" each; return the number of files.

    Raises:
        FormatError: if two entries have one file name, or coordinates are missing or damaged.
        MissingDependencyError: without gemmi.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, int] = {}
    for row in rows:
        key = int(db.keys[row])
        name = _NO_FILE_NAME.sub("_", next(iter(header_of(db, row).split(maxsplit=1)), str(key)))
        if name in written:
            raise FormatError(f"{folder / name}.pdb: found two entries of that name, the keys {written[name]} and {key}; export them apart")
        written[name] = key
        chain = Chain.of_coordinates(db.get_sequence(row).upper().replace("*", "X"), db.calpha(row)[:, None])
        write_pdb(chain, folder / f"{name}.pdb")
    return len(written)


def select_rows(db: FoldseekDB, *, keys: Iterable[int] = (), names: Iterable[str] = (), limit: int = 0) -> list[int] | range:
    """Return the rows of the given keys and names, or all rows without any; at most `limit` unless it is 0."""
    chosen = [*(db.row_of_key(key) for key in keys), *(db.row_of_name(name) for name in names)]
    rows: list[int] | range = list(dict.fromkeys(chosen)) if chosen else range(len(db))
    return rows[:limit] if limit else rows


def describe_database(path: Path) -> Iterator[str]:
    """Yield a description of a database line by line: each sub-database with its type and size, lengths, and shared keys.

    Raises:
        FormatError: if the amino acids cannot be opened.
    """
    db = FoldseekDB(path)
    yield f"{path}: {len(db)} entries"
    yield _sub_database("amino acids" if not db.is_3di else "3Di", db.entries)
    lengths = db.lengths
    if len(lengths):
        total = int(lengths.sum(dtype=np.int64))
        yield (
            f"  residues: {total} in all; shortest {lengths.min()}, median {np.median(lengths):g}, "
            f"mean {total / len(lengths):.1f}, longest {lengths.max()}"
        )
    if not db.is_3di:
        yield from _three_di(db)
    yield from _calphas(db)
    yield from _names(db)


def _sub_database(what: str, entries: Entries) -> str:
    index, parts = entries.index, entries.data.parts
    form = entries.dbtype
    known = (("zstd", form.compressed), ("padded", form.padded), ("without .dbtype", not form.given))
    words = ", ".join(name for name, holds in known if holds) or "plain"
    keys = f"keys {index.keys[0]} to {index.keys[-1]}" if len(index) else "no keys"
    keys = "keys 0 .. N - 1" if index.dense else keys
    order = "" if index.in_order else ", index unsorted"
    files = f"{len(parts)} files" if len(parts) > 1 else "1 file"
    return f"  {what} ({entries.database.name}): {len(index)} entries, {words}, {keys}{order}, {entries.data.size} bytes in {files}"


def _three_di(db: FoldseekDB) -> Iterator[str]:
    path = sibling(db.path, "_ss")
    if find_file(sibling(path, ".index")) is None:
        yield f"  3Di: none ({path.name}.index is not there)"
        return
    ss = FoldseekDB(path)
    shared = int((ss.index.find_all(db.keys) >= 0).sum())
    yield _sub_database("3Di", ss.entries)
    yield f"  pairs of amino acids and 3Di: {shared}; without 3Di {len(db) - shared}, without amino acids {len(ss) - shared}"


def _calphas(db: FoldseekDB) -> Iterator[str]:
    if not db.has_calpha:
        yield f"  C-alpha: none ({base_of(db.path).name}_ca.index is not there)"
        return
    entries = db.calphas.entries
    yield _sub_database("C-alpha", entries)
    rows = entries.index.find_all(db.keys)
    has = rows >= 0
    sizes = entries.index.lengths[rows[has]].astype(np.int64) + 2
    floats = int((sizes == float_size(db.lengths[has].astype(np.int64))).sum())
    yield f"  coordinates: {len(sizes) - floats} as 16-bit differences, {floats} as floats; missing for {int((~has).sum())}"


def _names(db: FoldseekDB) -> Iterator[str]:
    places = [str(path.name) for path in (db.names.headers_at, db.names.lookup_at) if path is not None]
    yield f"  names: {', '.join(places) or 'none, entries are known by key'}"
    if len(db):
        try:
            yield f"  first: {header_of(db, 0)}"
        except UnknownKeyError as error:
            yield f"  first: no name ({error})"
