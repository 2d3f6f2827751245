"""A lazy token table over a Foldseek database: letters are encoded when a batch is drawn; and the entries as records.

67 million entries open in seconds, since only their lengths are read. Options that depend on the letters of every entry (leaving out
unknown symbols) need the whole database: `encode.encode_records` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Int64, Integer

from protlig_dd.data.encode import EncodeReport, TooLong, fitting_rows
from protlig_dd.data.foldseek.files import find_file, sibling
from protlig_dd.data.foldseek.letters import THREE_DI
from protlig_dd.data.foldseek.pairs import FoldseekDB, PairedFoldseekDB
from protlig_dd.data.letter_codes import letter_ids
from protlig_dd.data.readers.records import Record
from protlig_dd.data.table import Column, TokenColumn, TokenTable
from protlig_dd.errors import FormatError
from protlig_dd.tokens.tracks import Track, TrackSet

_LETTERS = {"protein": THREE_DI, "structure": THREE_DI[:-1]}
"""The letters in a database made from structures, by track: the twenty letters, and X for other residues."""

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class LetterColumn:
    """One track of N entries of a database.

    Args:
        database: the sub-database of letters.
        rows: the row of each example in it.
        lengths: tokens of each example, including begin and end.
        track: the track that the letters are encoded for.
        ids: the token id of each byte; -1 for bytes without one.
    """

    database: FoldseekDB
    rows: Integer[np.ndarray, " N"]
    lengths: Int32[np.ndarray, " N"]
    track: Track
    ids: Int32[np.ndarray, " 256"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_tokens(self) -> int:
        """Tokens of all examples."""
        return int(self.lengths.sum(dtype=np.int64))

    def gather(self, rows: Int[np.ndarray, " r"]) -> Int32[np.ndarray, " n"]:
        """Return the concatenated tokens of the given rows, in their order.

        Raises:
            FormatError: for a damaged entry, or a letter outside the vocabulary, with its place.
        """
        batch = self.database.batch(self.rows[rows].astype(np.int64))
        tokens = self.ids[batch.letters]
        if len(tokens) and int(tokens.min()) < 0:
            raise self._unknown(rows, int(np.argmin(tokens)), batch.offsets)
        return _with_ends(tokens, batch.offsets, self.track) if self.track.add_ends else tokens

    def select(self, rows: Int[np.ndarray, " r"]) -> LetterColumn:
        """Return the column of the given rows."""
        return LetterColumn(database=self.database, rows=self.rows[rows], lengths=self.lengths[rows], track=self.track, ids=self.ids)

    def _unknown(self, rows: Int[np.ndarray, " r"], place: int, offsets: Int64[np.ndarray, " b1"]) -> FormatError:
        example = int(np.searchsorted(offsets, place, side="right")) - 1
        row = int(self.rows[rows[example]])
        letter = self.database.get_sequence(row)[place - int(offsets[example])]
        return self.database.entries.fault(
            row,
            f"found '{letter}' at residue {place - int(offsets[example]) + 1}, which is not in the vocabulary of the track "
            f"'{self.track.name}'; set data.unknown=drop to read all entries first and leave out such ones",
        )


def _with_ends(tokens: Int32[np.ndarray, " n"], offsets: Int64[np.ndarray, " b1"], track: Track) -> Int32[np.ndarray, " m"]:
    """Add the begin and end tokens to each example."""
    count, lengths = len(offsets) - 1, np.diff(offsets)
    begins = offsets[:-1] + 2 * np.arange(count)
    whole = np.empty(len(tokens) + 2 * count, np.int32)
    begin_id, end_id = track.vocabulary.begin_id, track.vocabulary.end_id
    assert begin_id is not None and end_id is not None, track.name
    whole[begins], whole[begins + lengths + 1] = begin_id, end_id
    whole[np.arange(len(tokens)) + 1 + 2 * np.repeat(np.arange(count), lengths)] = tokens
    return whole


@dataclass(frozen=True, kw_only=True, eq=False)
class EntryNames:
    """The names of N entries, looked up on access."""

    database: FoldseekDB
    rows: Integer[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        return (entry_name(self.database, int(row)) for row in self.rows)

    def __getitem__(self, rows: Any) -> Any:
        found = self.rows[rows]
        return EntryNames(database=self.database, rows=found) if found.ndim else entry_name(self.database, int(found))


def fits(database: Path, tracks: TrackSet) -> bool:
    """Return whether each letter of a database is one token of the tracks, so that `lay_over` can be used."""
    wanted = [name for name in _LETTERS if name in tracks]
    if "protein" not in wanted or ("structure" in wanted and not has_structures(database)):
        return False
    return all(_ids(tracks[name], _LETTERS[name]) is not None for name in wanted)


def lay_over(
    database: Path, tracks: TrackSet, *, too_long: TooLong, last_residue: int = 0, limit: int = 0
) -> tuple[TokenTable, EncodeReport]:
    """Return the lazy table of a database's entries in the order of their keys, and the counts of those left out for their length.

    Args:
        database: path without a suffix; `fits` must hold.
        tracks: the tracks to fill; those other than "protein" and "structure" stay empty.
        too_long, last_residue: as for `Encoder`; "crop" keeps whole proteins.
        limit: keep only the first `limit` entries; 0 for all.

    Raises:
        FormatError: for a damaged database, sequences and structures of different lengths, or long entries under "refuse".
    """
    wanted = [name for name in _LETTERS if name in tracks]
    proteins, joined = FoldseekDB(database), dict[str, Any]()
    sources = {"protein": proteins}
    if "structure" in wanted:
        pairs = PairedFoldseekDB(database)
        pairs.require_equal_lengths()
        sources, joined = {"protein": pairs.aa, "structure": pairs.ss}, pairs.joined_rows
    residues = proteins.lengths if joined.get("protein") is None else proteins.lengths[joined["protein"]]
    lengths = {name: residues + np.int32(2 * tracks[name].add_ends) for name in wanted}
    where = partial(entry_place, database)
    places, report = fitting_rows(lengths, tracks, where=where, too_long=too_long, last_residue=last_residue, needed="protein")
    places = places[:limit] if limit else places
    columns: dict[str, Column] = {name: TokenColumn.of(np.zeros(0, np.int32), np.zeros(len(places) + 1, np.int64)) for name in tracks}
    for name in wanted:
        ids, rows = _ids(tracks[name], _LETTERS[name]), joined.get(name)
        assert ids is not None, name
        columns[name] = LetterColumn(
            database=sources[name],
            rows=places if rows is None else rows[places],
            lengths=lengths[name][places],
            track=tracks[name],
            ids=ids,
        )
    known, rows = sources["protein"].names, columns["protein"].rows  # type: ignore[attr-defined]
    has_names = known.headers_at is not None or known.lookup_at is not None
    names = EntryNames(database=sources["protein"], rows=rows) if has_names else None
    return TokenTable(tracks=columns, names=names), report


def _ids(track: Track, letters: str) -> Int32[np.ndarray, " 256"] | None:
    """The token id of each byte, or None if one of the letters is not a token."""
    known = letter_ids(track, replaced=True)
    if known is None or any(known[ord(letter)] < 0 for letter in letters):
        return None
    return np.concatenate([known, np.full(128, -1, np.int32)])


def is_database(path: Path) -> bool:
    """Return whether a path names a Foldseek database: data in one file or in parts, and an `.index`."""
    has_data = find_file(path) is not None or find_file(sibling(path, ".0")) is not None
    return has_data and find_file(sibling(path, ".index")) is not None


def has_structures(path: Path) -> bool:
    """Return whether a database has 3Di letters for its amino acids."""
    return is_database(sibling(path, "_ss"))


def read_database(path: Path) -> Iterator[Record]:
    """Yield the entries of a database in the order of their keys, lazily: "protein", and "structure" (3Di) if it has them.

    Args:
        path: the database without a suffix: "folder/db" for db, db_ss and db_ca.

    Raises:
        FormatError: for missing or damaged files, with file, row and reason.
    """
    if has_structures(path):
        with PairedFoldseekDB(path) as pairs:
            yield from _pairs(path, pairs, np.arange(len(pairs)))
        return
    with FoldseekDB(path) as letters:
        for row, (_, text) in enumerate(letters):
            yield _record(path, letters, row, {"protein": text})


def read_rows(path: Path, rows: Int64[np.ndarray, " b"]) -> Iterator[Record]:
    """Yield the given rows of a database with 3Di, numbered in the order of their keys; see `read_database`."""
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
    """Return the place of an entry for messages; entries are counted from 1 in the order of their keys."""
    return f"{path}: entry {row + 1}"


def entry_name(database: FoldseekDB | PairedFoldseekDB, row: int) -> str:
    """Return the name of the example of an entry: the first word of its header."""
    return database.name(row).split(" ")[0]
