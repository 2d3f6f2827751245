"""Protein sequences: FASTA files, and tables with a sequence column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from protlig_dd.data.complexes import Columns, read_pairs
from protlig_dd.data.files import data_suffix, read_lines
from protlig_dd.data.records import Record
from protlig_dd.data.tables import TABLE_SUFFIXES
from protlig_dd.errors import FormatError


def read_fasta(path: Path) -> Iterator[Record]:
    """Yield the sequences of a FASTA file, lazily; the name is the first word behind ">", `where` its line.

    Upper and lower case, blank lines and Windows line ends are accepted; letters are checked when tokens are made.

    Raises:
        FormatError: if the file is not text, or does not begin with ">".
    """
    name, line_of_name, pieces = None, 0, list[str]()
    for number, line in read_lines(path):
        line = line.strip()
        if line.startswith(">"):
            if name is not None:
                yield Record(where=f"{path}:{line_of_name}", texts={"protein": "".join(pieces)}, name=name)
            name, line_of_name, pieces = (line[1:].split() or [""])[0], number, []
        elif name is not None:
            pieces.append(line)
        elif line and not line.startswith(";"):
            raise FormatError(
                f"{path}:{number}: found '{line[:40]}', expected '>' and a name; give a FASTA file, or a table with a sequence column"
            )
    if name is None:
        raise FormatError(f"{path}: found no '>' line, expected a FASTA file; check how it was made or downloaded")
    yield Record(where=f"{path}:{line_of_name}", texts={"protein": "".join(pieces)}, name=name)


def read_sequences(path: Path, columns: Columns | None = None) -> Iterator[Record]:
    """Yield the protein sequences of a FASTA file, or of a table with a sequence column, by the suffix of the name."""
    if data_suffix(path) in TABLE_SUFFIXES:
        for record in read_pairs(path, columns, needed=("protein",)):
            yield Record(
                where=record.where,
                texts={k: v for k, v in record.texts.items() if k == "protein"},
                split=record.split,
                name=record.name,
            )
    else:
        yield from read_fasta(path)
