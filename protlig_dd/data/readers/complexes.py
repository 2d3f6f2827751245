"""Protein-ligand pairs from tables: columns found by their names; labels, affinities and splits parsed.

Formats are read in `tables.py`; records are encoded in `encode.py`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protlig_dd.config import settings
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.tables import Table, narrowed, open_table
from protlig_dd.errors import FormatError, nearest

ALIASES: Mapping[str, tuple[str, ...]] = {
    "protein": (
        *("protein", "protein_sequence", "protein_seq", "sequence", "seq", "target_sequence", "target_seq"),
        *("aa_sequence", "aa_seq", "bindingdb_target_chain_sequence", "bindingdb_target_chain_sequence_1"),
        *("receptor_sequence", "target", "x2"),
    ),
    "ligand": (
        *("smiles", "ligand_smiles", "ligand", "canonical_smiles", "isomeric_smiles", "iso_smiles", "isosmiles"),
        *("compound_iso_smiles", "compound_smiles", "drug_smiles", "ligand_rdkit_canonical_smiles", "drug"),
        *("molecule", "x1"),
    ),
    "structure": (*("structure", "struct_seq", "structure_tokens", "struct_token", "struct_tokens", "di3", "3di", "foldseek"),),
    "label": ("label", "y", "interaction", "binds", "binder", "is_binder", "active", "is_active", "class"),
    "affinity": (
        *("affinity", "binding_affinity", "ligand_binding_affinity", "pkd", "pki", "pic50", "neg_log10_affinity_m"),
        *("binding_value", "kd_nm", "ki_nm", "ic50_nm", "ec50_nm", "kiba_score"),
    ),
    "split": ("split", "set", "partition", "subset", "fold"),
    "name": ("name", "id", "system_id", "pair_id", "complex_id", "entry_id", "pdb_id", "pdb_name", "cid"),
}
"""The column names recognised for each role, the preferred first; case, spaces and punctuation are ignored."""

TEXT_ROLES = ("protein", "ligand", "structure")
"""The roles whose cells are tokenized."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "holdout"), "test"),
}
_POSITIVE = {"1", "1.0", "true", "yes", "active", "positive", "binder", "bind"}
_NEGATIVE = {"0", "0.0", "false", "no", "inactive", "negative", "nonbinder", "non-binder"}
_SNIFFED = 1000


@settings
class Columns:
    """The column of each role: a name in the header, "" to find it by the usual names, "none" to ignore it."""

    protein: str = ""
    ligand: str = ""
    structure: str = ""
    label: str = ""
    affinity: str = ""
    split: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Understood:
    """How a table was interpreted: the column of each role, and the unused columns."""

    path: Path
    roles: Mapping[str, str]
    unused: tuple[str, ...]


def _key(name: str) -> str:
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def find_columns(path: Path, header: Sequence[str], columns: Columns, needed: Sequence[str]) -> Understood:
    """Return the column of each role.

    Raises:
        FormatError: if a named column is missing, or none is found for a needed role.
    """
    by_key: dict[str, str] = {}
    for column in header:
        by_key.setdefault(_key(column), column)
    roles = {}
    for role, aliases in ALIASES.items():
        asked = getattr(columns, role)
        if asked == "none":
            continue
        if asked and asked not in header:
            raise FormatError(
                f"{path}: found the columns {_quoted(header)}, expected '{asked}' for data.columns.{role}{nearest(asked, header)}; "
                f"correct data.columns.{role}"
            )
        found = asked or next((by_key[alias] for alias in aliases if alias in by_key), None)
        if found is not None:
            roles[role] = found
    for role in needed:
        if role not in roles:
            raise FormatError(
                f"{path}: found the columns {_quoted(header)}, none of them a {role}; "
                f"rename one to '{ALIASES[role][0]}', or set data.columns.{role}=NAME"
            )
    return Understood(path=path, roles=roles, unused=tuple(c for c in header if c not in roles.values()))


def _quoted(header: Sequence[str]) -> str:
    shown = ", ".join(f"'{c[:40]}'" for c in header[:12])
    return shown + (f" and {len(header) - 12} more" if len(header) > 12 else "")


def read_pairs(path: Path, columns: Columns | None = None, *, needed: Sequence[str] = ("protein", "ligand")) -> Iterator[Record]:
    """Yield the rows of a pair table as records, lazily.

    Args:
        path: CSV, TSV, JSON lines, Parquet or a torch list; text also as .gz or .zst.
        columns: column names that differ from the usual ones.
        needed: roles that the table must have. A single row may lack a cell; its record then lacks the track.

    Raises:
        FormatError: for an unreadable file, a missing column, or a cell that is not a label or number, with file:line.
    """
    _, records = open_pairs(path, columns, needed=needed)
    yield from records


def open_pairs(
    path: Path, columns: Columns | None = None, *, needed: Sequence[str] = ("protein", "ligand")
) -> tuple[Understood, Iterator[Record]]:
    """Return how a table was interpreted, and its records."""
    table = open_table(Path(path))
    found = find_columns(table.path, table.header, columns or Columns(), needed)
    table = narrowed(table, list(dict.fromkeys(found.roles.values())))
    head = list(itertools.islice(table.rows, _SNIFFED))
    found = _settle_label(found, table, head, explicit=bool(columns and columns.label))
    places = {role: table.header.index(column) for role, column in found.roles.items()}
    return found, (_record(where, cells, places, table) for where, cells in itertools.chain(head, table.rows))


def _settle_label(found: Understood, table: Table, head: Sequence[tuple[str, Sequence[Any]]], *, explicit: bool) -> Understood:
    """A column such as "Y" is a label if its first thousand cells are labels, else an affinity."""
    column = found.roles.get("label")
    if column is None or explicit:
        return found
    place = table.header.index(column)
    cells = [str(row[place]).strip().lower() for _, row in head if row[place] is not None]
    if all(cell in _POSITIVE | _NEGATIVE for cell in cells):
        return found
    roles = {role: name for role, name in found.roles.items() if role != "label"}
    if "affinity" in roles:
        return replace(found, roles=roles, unused=(*found.unused, column))
    return replace(found, roles={**roles, "affinity": column})


def _record(where: str, cells: Sequence[Any], places: Mapping[str, int], table: Table) -> Record:
    def cell(role: str) -> str:
        value = cells[places[role]] if role in places else None
        return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()

    texts = {role: text for role in TEXT_ROLES if (text := cell(role))}
    return Record(
        where=where,
        texts=texts,
        label=_label(where, cell("label"), "label" in places and table.header[places["label"]]),
        affinity=_affinity(where, cell("affinity"), table.header[places["affinity"]] if "affinity" in places else ""),
        split=split_word(cell("split")),
        name=cell("name"),
    )


def _label(where: str, text: str, column: str | bool) -> int | None:
    low = text.lower()
    if not text or low in ("nan", "none", "na"):
        return None
    if low in _POSITIVE or low in _NEGATIVE:
        return int(low in _POSITIVE)
    raise FormatError(
        f"{where}: found '{text[:40]}' in the label column '{column}', expected 0 or 1; correct it, or set data.columns.affinity={column} "
        f"data.columns.label=none"
    )


def _affinity(where: str, text: str, column: str) -> float | None:
    if not text or text.lower() in ("nan", "none", "na"):
        return None
    try:
        value = float(text.lstrip("<>=~ "))  # marks of censored values; the limit is kept as the value
    except ValueError:
        raise FormatError(
            f"{where}: found '{text[:40]}' in the affinity column '{column}', expected a number; correct or empty the cell"
        ) from None
    if not math.isfinite(value):
        return None
    if _key(column).endswith("_nm"):
        return 9 - math.log10(value) if value > 0 else None
    return value


def split_word(text: str) -> str | None:
    """Return "train", "validation" or "test" for their usual names, another word unchanged, None for an empty text."""
    return SPLIT_WORDS.get(text.lower(), text.lower()) if text else None
