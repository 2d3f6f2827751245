"""Protein sequences and structure tokens: FASTA files, and tables with such columns. Two FASTA files are joined in `paired.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from protlig_dd.data.foldseek.table import is_database, read_database
from protlig_dd.data.readers.complexes import Columns, read_pairs, split_word
from protlig_dd.data.readers.files import data_suffix, read_lines
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.tables import TABLE_SUFFIXES
from protlig_dd.errors import FormatError

FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas")
"""The usual suffixes; a file with any other suffix that is not a table's is read as FASTA too."""


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
