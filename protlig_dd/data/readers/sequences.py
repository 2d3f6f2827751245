"""Protein sequences and structure tokens: FASTA files, tables with such columns, and two files joined by the names of their records."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int8, Int64

from protlig_dd.data.foldseek.table import is_database, read_database
from protlig_dd.data.readers.complexes import Columns, read_pairs, split_word
from protlig_dd.data.readers.files import data_suffix, read_lines
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.tables import TABLE_SUFFIXES
from protlig_dd.errors import FormatError
from protlig_dd.rng import key

FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas")
"""The usual suffixes; a file with any other suffix that is not a table's is read as FASTA too."""
_MATCHED, _REPEATED, _LONELY, _SEVERAL = 0, 1, 2, 3


def read_fasta(path: Path, *, track: str = "protein") -> Iterator[Record]:
    """Yield the sequences of a FASTA file, lazily; the name is the first word after ">", `where` its line.

    The words after the name may give the split: SET=train, SET=test, VALIDATION=True (FLIP), or split=train.

    Upper and lower case, blank lines and Windows line ends are accepted; letters are checked on encoding.

    Args:
        path: the file, also .gz or .zst.
        track: the track of the sequences: "protein", or "structure" for 3Di letters or four-digit codes with commas.

    Raises:
        FormatError: if the file is not text, or does not start with ">".
    """
    name, split, line_of_name, pieces = None, None, 0, list[str]()
    for number, line in read_lines(path):
        line = line.strip()
        if line.startswith(">"):
            if name is not None:
                yield Record(where=f"{path}:{line_of_name}", texts={track: "".join(pieces)}, name=name, split=split)
            words = line[1:].split() or [""]
            name, split, line_of_name, pieces = words[0], _split(words[1:]), number, []
        elif name is not None:
            pieces.append(line)
        elif line and not line.startswith(";"):
            raise FormatError(
                f"{path}:{number}: found '{line[:40]}', expected '>' and a name; give a FASTA file, or a table with a sequence column"
            )
    if name is None:
        raise FormatError(f"{path}: found no '>' line, expected a FASTA file; check how it was made or downloaded")
    yield Record(where=f"{path}:{line_of_name}", texts={track: "".join(pieces)}, name=name, split=split)


def _split(words: list[str]) -> str | None:
    """The split given after a name, as FLIP writes it: SET=train VALIDATION=True; None if there is none."""
    given = {key.lower(): value for key, sep, value in (word.partition("=") for word in words) if sep}
    if given.get("validation", "").lower() == "true":
        return "validation"
    return split_word(given.get("set") or given.get("split") or "")


def read_sequences(path: Path, columns: Columns | None = None) -> Iterator[Record]:
    """Yield the proteins of a FASTA file, or the proteins and structure tokens of a table or a Foldseek database."""
    if is_database(path):
        yield from read_database(path)
    elif data_suffix(path) in TABLE_SUFFIXES:
        for record in read_pairs(path, columns, needed=("protein",)):
            texts = {track: text for track, text in record.texts.items() if track != "ligand"}
            yield dataclasses.replace(record, texts=texts, label=None, affinity=None)
    else:
        yield from read_fasta(path)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two sources: how to open it, what its records are, and the status of each record in file order."""

    open: Callable[[], Iterator[Record]]
    what: str
    other: str
    status: Int8[np.ndarray, " _"]

    def marked(self) -> Iterator[Record]:
        """Yield the records; those that cannot be matched have a `problem`."""
        for status, record in zip(self.status.tolist(), self.open(), strict=True):
            if status == _MATCHED:
                yield record
                continue
            what, other, name = self.what, self.other, record.name
            kind, message = {
                _REPEATED: (f"{what} of a repeated name", f"the name '{name}' stands more than once; give each {what} a name of its own"),
                _SEVERAL: (
                    f"{what} without a {other}",
                    f"found several {other}s named '{name}', expected one; give each {other} a name of its own",
                ),
                _LONELY: (f"{what} without a {other}", f"found no {other} named '{name}'; add it, or remove the {what}"),
            }[status]
            yield dataclasses.replace(record, problem=(kind, f"{record.where}: {message}"))


def join_structures(proteins: Callable[[], Iterator[Record]], structures: Path) -> Iterator[Record]:
    """Yield the records of a protein source with the structure tokens of the same name, lazily.

    The names are read first (8 bytes of memory each). If both files have their common names in the same order, they are read in step;
    otherwise the one with fewer records is kept in memory, and the records follow the order of the other. A record whose name is repeated
    or has no partner gets a `problem`: the encoder raises an error, or leaves it out and counts it.

    Args:
        proteins: opens the protein records from the beginning at each call.
        structures: a FASTA file of 3Di letters, or of four-digit codes with commas.

    Raises:
        FormatError: for unreadable files, or files without a common name.
    """

    def opened() -> Iterator[Record]:
        return read_fasta(structures, track="structure")

    left, right = _keys(proteins), _keys(opened)
    common = np.intersect1d(_once(left), _once(right), assume_unique=True)
    if not len(common):
        first, second = next(proteins()), next(opened())
        raise FormatError(
            f"{second.where}: found no name that both files have once (the first are '{second.name}' here and '{first.name}' at "
            f"{first.where}); give each structure the name of its protein"
        )
    sides = [
        _Side(open=source, what=what, other=other, status=_status(keys, common, others))
        for source, what, other, keys, others in (
            (proteins, "protein", "structure", left, right),
            (opened, "structure", "protein", right, left),
        )
    ]
    if np.array_equal(left[sides[0].status == _MATCHED], right[sides[1].status == _MATCHED]):
        yield from _side_by_side(*sides)
    else:
        yield from _held(*sides)


def _keys(source: Callable[[], Iterator[Record]]) -> Int64[np.ndarray, " _"]:
    return np.frombuffer(array("q", (key(0, "name", record.name) for record in source())), np.int64)


def _once(keys: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " c"]:
    distinct, counts = np.unique(keys, return_counts=True)
    return np.asarray(distinct[counts == 1])


def _status(keys: Int64[np.ndarray, " n"], common: Int64[np.ndarray, " c"], others: Int64[np.ndarray, " m"]) -> Int8[np.ndarray, " n"]:
    distinct, counts = np.unique(keys, return_counts=True)
    repeated = np.isin(keys, distinct[counts > 1])
    lonely = np.where(np.isin(keys, others), _SEVERAL, _LONELY)
    return np.where(np.isin(keys, common), _MATCHED, np.where(repeated, _REPEATED, lonely)).astype(np.int8)


def _side_by_side(proteins: _Side, structures: _Side) -> Iterator[Record]:
    others = structures.marked()
    for record in proteins.marked():
        if record.problem is not None:
            yield record
            continue
        for other in others:
            if other.problem is None:
                yield _joined(record, other)
                break
            yield other
    yield from others


def _held(proteins: _Side, structures: _Side) -> Iterator[Record]:
    swap = len(proteins.status) < len(structures.status)
    smaller, larger = (proteins, structures) if swap else (structures, proteins)
    held = dict[str, Record]()
    for record in smaller.marked():
        if record.problem is None:
            held[record.name] = record
        else:
            yield record
    for record in larger.marked():
        if record.problem is None:
            other = held[record.name]
            yield _joined(other, record) if swap else _joined(record, other)
        else:
            yield record


def _joined(protein: Record, structure: Record) -> Record:
    assert protein.name == structure.name, (protein.where, structure.where)
    return dataclasses.replace(
        protein,
        where=f"{protein.where} and {structure.where}",
        texts={**protein.texts, **structure.texts},
        split=protein.split or structure.split,
    )
