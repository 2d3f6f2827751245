"""What a data file or folder is, found by its names and its content: pairs, sequences or molecules."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from protlig_dd.data.foldseek.table import has_structures, is_database, read_database
from protlig_dd.data.readers.affinity import AffinityPolicy
from protlig_dd.data.readers.complexes import ALIASES, Columns, check_same_columns, open_pairs
from protlig_dd.data.readers.files import MAX_RECORD, data_suffix, read_lines
from protlig_dd.data.readers.folders import open_folder
from protlig_dd.data.readers.molecules import read_smiles
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sequences import FASTA_SUFFIXES, join_structures, read_fasta
from protlig_dd.data.readers.tables import TABLE_SUFFIXES, open_table
from protlig_dd.errors import FormatError


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a file or folder is: its kind ("pairs", "sequences" or "molecules"), the column of each role, and its records.

    Args:
        unused: unused columns.
        scale: how affinities are read, in words.
    """

    kind: str
    records: Iterator[Record]
    roles: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    scale: str = ""


def recognise(
    path: Path, columns: Columns, structures: Path | None = None, *, affinity: AffinityPolicy | None = None, max_record: int = MAX_RECORD
) -> Recognised:
    """Return what a file or folder is, by its content.

    Args:
        path: the file or folder; the parts of a folder follow one another, each record with its split.
        columns: column names that differ from the usual ones.
        structures: a FASTA file of structure tokens, joined by name.
        affinity: how affinities are read.
        max_record: most characters of a record's text.

    Raises:
        FormatError: if the file cannot be read, or is a table with neither proteins nor ligands.
    """

    def again(file: Path) -> Recognised:
        return recognise(file, columns, affinity=affinity, max_record=max_record)

    if structures is not None:
        return dataclasses.replace(again(path), records=join_structures(lambda: again(path).records, structures, max_record=max_record))
    if path.is_dir():
        folder = open_folder(path)
        for part in folder.parts.values():
            check_same_columns(part.files, columns)
        parts = [part.records(lambda file: again(file).records) for part in folder.parts.values()]
        return dataclasses.replace(again(folder.whole.files[0]), records=itertools.chain.from_iterable(parts))
    if is_database(path):
        roles = {"structure": "3Di letters"} if has_structures(path) else {}
        return Recognised(kind="sequences", roles=roles, records=read_database(path))
    if data_suffix(path) not in TABLE_SUFFIXES:
        if _is_fasta(path, max_record):
            return Recognised(kind="sequences", records=read_fasta(path, max_record=max_record))
        return Recognised(kind="molecules", records=read_smiles(path, max_record=max_record))
    understood, records = open_pairs(path, columns, needed=(), affinity=affinity, max_record=max_record)
    kinds = {(True, True): "pairs", (True, False): "sequences", (False, True): "molecules"}
    kind = kinds.get(("protein" in understood.roles, "ligand" in understood.roles))
    if kind is None:
        usual = f"'{ALIASES['protein'][0]}' and '{ALIASES['ligand'][0]}'"
        header = open_table(path).header
        raise FormatError(
            f"{path}: found the columns {', '.join(map(repr, header[:12]))}, none of them a protein or a ligand; rename them to {usual}, "
            f"or set data.columns"
        )
    scale = understood.scale.about
    return Recognised(kind=kind, roles=understood.roles, unused=understood.unused, records=records, scale=scale)


def _is_fasta(path: Path, max_record: int) -> bool:
    """Whether a text file is FASTA: by its name, or by its first line that is neither blank nor a note."""
    if data_suffix(path) in FASTA_SUFFIXES:
        return True
    lines = (line.strip() for _, line in read_lines(path, longest=max_record))
    return next((line for line in lines if line and not line.startswith("#")), "").startswith((">", ";"))
