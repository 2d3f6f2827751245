"""Entries of letters (amino acids or 3Di) as text and as arrays: the two alphabets, masks, padded codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt8

from protlig_dd.data.foldseek.entries import Entries
from protlig_dd.errors import FormatError

THREE_DI = "ACDEFGHIKLMNPQRSTVWYX"
"""The letters of 3Di, and X for padding."""
AMINO_ACIDS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ*"
"""Letters that an amino-acid entry may have; a vocabulary decides how it encodes the rare ones."""

_CODES = "ACDEFGHIKLMNPQRSTVWYX"  # the residue codes 0 .. 20 of padded databases
_MASKED_FROM = 32  # the code of a masked residue is the code of the residue plus 32
_ILLEGAL = ord("\n")
_END = b"\n\0"

Rows = Int[np.ndarray, " b"] | Sequence[int]


def checked_rows(rows: Rows, count: int, database: Path) -> Int64[np.ndarray, " b"]:
    """Return rows as int64.

    Raises:
        IndexError: if one is outside 0 .. count - 1.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < count:
        raise IndexError(f"{database}: found rows {rows.min()} to {rows.max()}, expected 0 to {count - 1}")
    return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class LetterBatch:
    """The concatenated letters of b entries.

    Attributes:
        letters: ASCII codes, upper case unless the database was opened with `keep_case`.
        offsets: entry i is `letters[offsets[i]:offsets[i + 1]]`.
        masked: which letters are in lower case in the database.
    """

    letters: UInt8[np.ndarray, " n"]
    offsets: Int64[np.ndarray, " b1"]
    masked: Bool[np.ndarray, " n"]

    def texts(self) -> list[str]:
        """Return the entries as strings."""
        text, cuts = self.letters.tobytes().decode("ascii"), self.offsets.tolist()
        return [text[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def _table(alphabet: str, *, padded: bool, keep_case: bool) -> bytes:
    """Return the translation of each byte of an entry: a letter, or a newline for an invalid byte."""
    table = bytearray([_ILLEGAL]) * 256
    for code, letter in enumerate(_CODES if padded else alphabet):
        lower = letter.lower() if keep_case else letter
        table[code if padded else ord(letter)] = ord(letter)
        table[code + _MASKED_FROM if padded else ord(letter.lower())] = ord(lower)
    return bytes(table)


class Letters:
    """The letters of a sub-database.

    Args:
        entries: the sub-database.
        alphabet: valid capital letters.
        keep_case: keep masked letters in lower case.
    """

    def __init__(self, entries: Entries, *, alphabet: str, keep_case: bool) -> None:
        self.entries, self.alphabet = entries, alphabet
        self.table = _table(alphabet, padded=entries.dbtype.padded, keep_case=keep_case)
        self._masked_from = _MASKED_FROM if entries.dbtype.padded else ord("a")
        self.plain = entries.plain
        self._starts, self._lengths = entries.index.starts.data, entries.index.lengths.data
        self._count = len(entries)

    def text(self, row: int) -> str:
        """Return the letters of a row.

        Raises:
            FormatError: if the entry is damaged.
            IndexError: if the row does not exist.
        """
        if not 0 <= row < self._count:
            raise IndexError(f"{self.entries.database}: found the row {row}, expected 0 to {self._count - 1}")
        plain = self.plain
        if plain is None:
            raw, length = self._payload(row), self._lengths[row]
            text = raw.translate(self.table)
            if _ILLEGAL in text:
                raise self._fault(row, raw)
            return text.decode("ascii")
        start: int = self._starts[row]
        length = self._lengths[row]
        raw = plain[start : start + length + 2]
        text = raw.translate(self.table)
        # The first newline of the translation is the entry's terminator, or marks the first invalid byte.
        if text.find(b"\n") != length or not raw.endswith(_END):
            raise self._fault(row, raw)
        return text[:length].decode("ascii")

    def masked(self, row: int) -> Bool[np.ndarray, " l"]:
        """Return which letters of a row are masked (lower case in the database)."""
        self.text(row)
        raw = np.frombuffer(self._payload(row), np.uint8)
        return np.asarray(raw >= self._masked_from)

    def _payload(self, row: int) -> bytes:
        """Return an entry without its terminators, which are checked."""
        raw = self.entries.raw(row)
        if self.entries.dbtype.padded:
            return raw
        if not raw.endswith(_END):
            raise self._fault(row, raw)
        return raw[:-2]

    def batch(self, rows: Rows) -> LetterBatch:
        """Return the letters of many rows, in the order of the rows.

        Raises:
            FormatError: if an entry is damaged.
            IndexError: if a row does not exist.
        """
        rows = checked_rows(rows, self._count, self.entries.database)
        lengths = self.entries.index.lengths[rows].astype(np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        raw = self._joined(rows, lengths)
        letters = raw.translate(self.table)
        bad = letters.find(b"\n")
        if bad >= 0 or len(raw) != offsets[-1]:
            self._refuse(rows, max(0, int(np.searchsorted(offsets, max(bad, 0), side="right")) - 1))
        return LetterBatch(
            letters=np.frombuffer(letters, np.uint8), offsets=offsets, masked=np.asarray(np.frombuffer(raw, np.uint8) >= self._masked_from)
        )

    def _joined(self, rows: Int64[np.ndarray, " b"], lengths: Int64[np.ndarray, " b"]) -> bytearray:
        plain = self.plain
        if plain is None or not len(rows):
            return bytearray().join([self._payload(row) for row in rows.tolist()])
        starts = self.entries.index.starts[rows]
        ends = starts + lengths
        if int(lengths.min()) < 0 or int(ends.max()) + 2 > len(plain):
            self._refuse(rows, 0)
        data = np.frombuffer(plain, np.uint8)
        wrong = (data[ends] != _END[0]) | (data[ends + 1] != _END[1])
        if wrong.any():
            self._refuse(rows, int(np.flatnonzero(wrong)[0]))
        return bytearray().join([plain[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)])

    def _refuse(self, rows: Int64[np.ndarray, " b"], first: int) -> None:
        """Raise the error of the first damaged entry from position `first` on, found by reading entries one by one."""
        for row in (*rows[first:].tolist(), *rows[:first].tolist()):
            self.text(row)
        raise FormatError(f"{self.entries.database}: the index and the data do not agree; copy the database again")

    def _fault(self, row: int, raw: bytes) -> FormatError:
        entries, length = self.entries, int(self._lengths[row])
        wanted = f"{length} letters, a newline and a NUL"
        letters = raw if entries.dbtype.padded else raw[:length]
        illegal = letters.translate(self.table).find(b"\n")
        advice = "the data is damaged: copy it again"
        if not entries.dbtype.given:
            advice = "there is no .dbtype that would say how the data is stored: copy the whole database"
        if illegal >= 0:
            return entries.fault(
                row, f"found {letters[illegal : illegal + 1]!r} at residue {illegal + 1}, expected one of {self.alphabet}; {advice}"
            )
        return entries.fault(row, f"found {entries.quote(raw[length:])} after {length} letters, expected {wanted}; {advice}")


def pair_reader(aa: Letters, ss: Letters) -> Callable[[int], tuple[str, str]]:
    """Return a function that reads a row of two sub-databases with the same keys.

    If both are plain and their indices are equal, as `createdb` writes them, a row is looked up once for both.
    """
    a, s = aa.entries.index, ss.entries.index
    aa_data, ss_data, aa_table, ss_table = aa.plain, ss.plain, aa.table, ss.table
    if aa_data is None or ss_data is None or (a.starts_digest, a.lengths_digest) != (s.starts_digest, s.lengths_digest):
        return lambda row: (aa.text(row), ss.text(row))
    starts, lengths, count = a.starts.data, a.lengths.data, len(a)

    def read(row: int) -> tuple[str, str]:
        if 0 <= row < count:
            start, length = starts[row], lengths[row]
            aa_raw, ss_raw = aa_data[start : start + length + 2], ss_data[start : start + length + 2]
            aa_text, ss_text = aa_raw.translate(aa_table), ss_raw.translate(ss_table)
            if aa_text.find(b"\n") == length == ss_text.find(b"\n") and aa_raw.endswith(_END) and ss_raw.endswith(_END):
                return aa_text[:length].decode("ascii"), ss_text[:length].decode("ascii")
        return aa.text(row), ss.text(row)  # raises the error with its reason

    return read
