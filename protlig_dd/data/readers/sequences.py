"""Protein sequences and structure tokens: FASTA files, and tables with such columns. Two FASTA files are joined in `paired.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from protlig_dd.data.foldseek.table import is_database, read_database
from protlig_dd.data.readers.complexes import Columns, read_pairs, split_word, texts_only
from protlig_dd.data.readers.files import MAX_RECORD, data_suffix, read_lines, too_long
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.tables import TABLE_SUFFIXES
from protlig_dd.errors import FormatError

_CHAI = ("ligand", "glycan", "rna", "dna")
_BOLTZ = ("smiles", "ccd", "rna", "dna")
_PIR = re.compile(r"(P1|F1|D[LC]|R[LC]|N[13]|XX);")

FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas")
"""The usual suffixes; a file with any other suffix that is not a table's is read as FASTA too."""


def read_fasta(path: Path, *, track: str = "protein", max_record: int = MAX_RECORD) -> Iterator[Record]:
    """Yield the sequences of a FASTA file, lazily; the name is the first word after ">", `where` its line.

    The words after the name may give the split: SET=train, SET=test, VALIDATION=True (FLIP), or split=train.

    Upper and lower case, blank lines, Windows line ends and comments (lines that begin with ";" or "#") are accepted; letters are checked
    on encoding. A record whose header says that it is a ligand or a nucleic acid (Chai's, Boltz's and the PDB's files) has a `problem`.

    Args:
        path: the file, also .gz or .zst.
        track: the track of the sequences: "protein", or "structure" for 3Di letters or four-digit codes with commas.
        max_record: most characters of a sequence.

    Raises:
        FormatError: if the file is not text, or does not start with ">"; for a record that is too long, as soon as it is.
    """
    header, line_of_header, pieces, size = None, 0, list[str](), 0
    for number, line in read_lines(path, longest=max_record):
        line = line.strip()
        if line.startswith((";", "#")):
            continue
        if line.startswith(">"):
            if header is not None:
                yield _record(f"{path}:{line_of_header}", header, pieces, track)
            header, line_of_header, pieces, size = line[1:], number, [], 0
            if _PIR.match(header):
                raise FormatError(f"{path}:{number}: found '{line[:40]}', the header of a PIR file, expected FASTA; convert the file")
        elif header is not None:
            pieces.append(line)
            size += len(line)
            if size > max_record:
                raise too_long(f"{path}:{line_of_header}", max_record)
        elif line:
            raise FormatError(
                f"{path}:{number}: found '{line[:40]}', expected '>' and a name; give a FASTA file, or a table with a sequence column"
            )
    if header is None:
        raise FormatError(f"{path}: found no '>' line, expected a FASTA file; check how it was made or downloaded")
    yield _record(f"{path}:{line_of_header}", header, pieces, track)


def _record(where: str, header: str, pieces: list[str], track: str) -> Record:
    words = header.split() or [""]
    other = _other_molecule(words) if track == "protein" else ""
    problem = (
        (f"{other} by the header", f"{where}: the header '>{header[:40]}' says {other}, expected a protein; remove it") if other else None
    )
    return Record(where=where, texts={track: "".join(pieces)}, name=words[0], split=_split(words[1:]), problem=problem)


def _other_molecule(words: list[str]) -> str:
    """The molecule that a header names if it is no protein: Chai's >ligand|name=GDP, Boltz's >B|smiles, the PDB's mol:na; else ""."""
    fields = words[0].lower().split("|")
    if len(fields) > 1:
        for field, known in zip(fields, (_CHAI, _BOLTZ), strict=False):
            if field in known:
                return f"'{field}'"
    return "'mol:na'" if "mol:na" in words else ""


def _split(words: list[str]) -> str | None:
    """The split given after a name, as FLIP writes it: SET=train VALIDATION=True; None if there is none."""
    given = {key.lower(): value for key, sep, value in (word.partition("=") for word in words) if sep}
    if given.get("validation", "").lower() == "true":
        return "validation"
    return split_word(given.get("set") or given.get("split") or "")


def read_sequences(path: Path, columns: Columns | None = None, *, max_record: int = MAX_RECORD) -> Iterator[Record]:
    """Yield the proteins of a FASTA file, or the proteins and structure tokens of a table or a Foldseek database."""
    if is_database(path):
        yield from read_database(path)
    elif data_suffix(path) in TABLE_SUFFIXES:
        yield from read_pairs(path, texts_only(columns, "protein", "structure"), needed=("protein",), max_record=max_record)
    else:
        yield from read_fasta(path, max_record=max_record)
