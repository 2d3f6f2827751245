"""Protein-ligand pairs from tables: columns found by their names; labels and splits parsed.

Formats are read in `tables.py`, affinities in `affinity.py`; records are encoded in `encode.py`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protlig_dd.config import settings
from protlig_dd.data.readers.affinity import MISSING, AffinityPolicy, Scale, Survey, base_of
from protlig_dd.data.readers.files import MAX_RECORD, data_suffix, too_long
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.tables import TABLE_SUFFIXES, Table, narrowed, open_table
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
        *("pec50", "paffinity", "pchembl_value", "pchembl", "neg_log10_affinity", "binding_value", "kd", "ki", "ic50", "ec50"),
        "kiba_score",
    ),
    "split": ("split", "set", "partition", "subset", "fold"),
    "name": (
        *("name", "id", "system_id", "pair_id", "complex_id", "entry_id", "pdb_id", "pdb_name", "cid"),
        *("target_id", "target_name", "target_chembl_id", "uniprot_id", "uniprot", "protein_id", "protein_name"),
        *("drug_id", "drug_name", "ligand_id", "ligand_name", "compound_id", "molecule_chembl_id"),
    ),
}
"""The column names recognised for each role, the preferred first; case, spaces, punctuation and the unit of an affinity are ignored. A pair
without a name of its own has that of its target."""

TEXT_ROLES = ("protein", "ligand", "structure")
"""The roles whose cells are tokenized."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "holdout"), "test"),
}
_POSITIVE = {"1", "1.0", "true", "yes", "active", "positive", "binder", "bind"}
_NEGATIVE = {"0", "0.0", "false", "no", "inactive", "negative", "nonbinder", "non-binder"}
_LABELS = _POSITIVE | _NEGATIVE
_RAGGED = "row shorter than the header"
_EXTENSION = re.compile(r"\s+\|[^|]*\|.*", re.DOTALL)
EXTENSION_CUT = "CXSMILES extension (|...|), cut off"


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


def texts_only(columns: Columns | None, *texts: str) -> Columns:
    """Return the columns of a table of which only the given texts are read, with names and splits."""
    ignored = [role for role in (*TEXT_ROLES, "label", "affinity") if role not in texts]
    return dataclasses.replace(columns or Columns(), **dict.fromkeys(ignored, "none"))


@dataclass(frozen=True, kw_only=True)
class Understood:
    """How a table was interpreted: the column of each role, the unused columns, and how affinities are read."""

    path: Path
    roles: Mapping[str, str]
    unused: tuple[str, ...]
    scale: Scale = Scale(unit="as_given")


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
    without_unit: dict[str, str] = {}
    for column in header:
        without_unit.setdefault(base_of(column), column)
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
        known = {**without_unit, **by_key} if role == "affinity" else by_key
        found = asked or next((known[alias] for alias in aliases if alias in known), None)
        if found is not None:
            roles[role] = found
    for role in needed:
        if role not in roles:
            raise FormatError(
                f"{path}: found the columns {_quoted(header)}, none of them a {role}; "
                f"rename one to '{ALIASES[role][0]}', or set data.columns.{role}=NAME"
            )
    return Understood(path=path, roles=roles, unused=tuple(c for c in header if c not in roles.values()))


def check_same_columns(files: Sequence[Path], columns: Columns) -> None:
    """Raise an error if the tables of one part of a folder do not have the same columns of proteins, ligands, labels and so on."""
    tables = [file for file in files if data_suffix(file) in TABLE_SUFFIXES]
    if len(tables) < 2:
        return
    first, *others = (find_columns(file, open_table(file).header, columns, needed=()) for file in tables)
    for other in others:
        for some, more in ((first, other), (other, first)):
            absent = [column for role, column in more.roles.items() if role != "name" and some.roles.get(role) != column]
            if absent:
                raise FormatError(
                    f"{some.path}: found no column '{absent[0]}' in use, {more.path.name} has it; give all files of one part the same "
                    f"columns, or set data.columns"
                )


def _quoted(header: Sequence[str]) -> str:
    shown = ", ".join(f"'{c[:40]}'" for c in header[:12])
    return shown + (f" and {len(header) - 12} more" if len(header) > 12 else "")


def read_pairs(
    path: Path,
    columns: Columns | None = None,
    *,
    needed: Sequence[str] = ("protein", "ligand"),
    affinity: AffinityPolicy | None = None,
    max_record: int = MAX_RECORD,
) -> Iterator[Record]:
    """Yield the rows of a pair table as records, lazily.

    Args:
        path: CSV, TSV, JSON lines, Parquet or a torch list; text also as .gz or .zst.
        columns: column names that differ from the usual ones.
        needed: roles that the table must have; with "affinity", its unit must not be in doubt. A single row may lack a cell; its record
            then lacks the track.
        affinity: how affinities are read.
        max_record: most characters of a protein, ligand or structure.

    Raises:
        FormatError: for an unreadable file, a missing column, or a text that is too long, with file:line. A record with a cell that is no
            text, label or number has a `problem`.
    """
    _, records = open_pairs(path, columns, needed=needed, affinity=affinity, max_record=max_record)
    yield from records


def open_pairs(
    path: Path,
    columns: Columns | None = None,
    *,
    needed: Sequence[str] = ("protein", "ligand"),
    affinity: AffinityPolicy | None = None,
    max_record: int = MAX_RECORD,
) -> tuple[Understood, Iterator[Record]]:
    """Return how a table was interpreted, and its records; all labels and affinities are looked at before the first record."""
    table = open_table(Path(path))
    found = find_columns(table.path, table.header, columns or Columns(), [role for role in needed if role != "affinity"])
    found = _settled(found, table, affinity or AffinityPolicy(), label_is_named=bool(columns and columns.label))
    if "affinity" in needed and found.scale.in_doubt:
        raise FormatError(f"{path}: {found.scale.about}")
    table = narrowed(table, list(dict.fromkeys(found.roles.values())))
    row = _Row(table=table, places={role: table.place(column) for role, column in found.roles.items()}, scale=found.scale, most=max_record)
    return found, (row.record(where, cells) for where, cells in table.rows)


def _settled(found: Understood, table: Table, policy: AffinityPolicy, *, label_is_named: bool) -> Understood:
    """Return the roles with the scale of affinities, both as all cells of these columns say.

    A column such as "Y" is a label if its cells are labels, else an affinity; a few numbers among labels are wrong labels.
    """
    columns = {role: found.roles[role] for role in ("label", "affinity") if role in found.roles}
    if not columns:
        return found
    surveys, words, numbers = {column: Survey() for column in columns.values()}, 0, 0
    for _, cells in narrowed(table, list(columns.values())).rows:
        texts = list(map(_text, cells))
        for survey, text in zip(surveys.values(), texts, strict=True):
            survey.add(text)
        low = texts[0].lower()
        words += low in _LABELS
        numbers += low not in _LABELS and low not in MISSING and any(c.isdigit() for c in low)
    roles, unused = dict(found.roles), found.unused
    if "label" in roles and not label_is_named and numbers * 10 > words:
        column = roles.pop("label")
        unused = unused if "affinity" not in roles else (*unused, column)
        roles.setdefault("affinity", column)
    scale = surveys[roles["affinity"]].scale(roles["affinity"], policy) if "affinity" in roles else found.scale
    return Understood(path=found.path, roles=roles, unused=unused, scale=scale)


def _text(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


class _Problem(Exception):
    """A cell that cannot be used: the reason in a few words, and the message."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Makes records of the rows of a table: the place of each role, the scale of affinities, and the most characters of a text."""

    table: Table
    places: Mapping[str, int]
    scale: Scale
    most: int

    def record(self, where: str, cells: Sequence[Any]) -> Record:
        """Return the record of a row."""
        given = {role: cells[place] for role, place in self.places.items()}
        texts, remarks, problem = dict[str, str](), list[str](), None
        label = value = None
        if self.table.ragged and None in given.values():
            remarks.append(_RAGGED)
        try:
            texts = {role: text for role in TEXT_ROLES if (text := self._text_of(where, role, given.get(role)))}
            cut = without_extension(texts.get("ligand", ""))
            if cut != texts.get("ligand", ""):
                texts["ligand"] = cut
                remarks.append(EXTENSION_CUT)
            label = self._label(where, _text(given.get("label")))
            value, remark = self._affinity(where, _text(given.get("affinity")))
            remarks += [remark] if remark else []
        except _Problem as error:
            problem = error.args
        return Record(
            where=where,
            texts=texts,
            label=label,
            affinity=value,
            split=split_word(_text(given.get("split"))),
            name=_text(given.get("name")),
            problem=problem,
            remarks=tuple(remarks),
        )

    def _text_of(self, where: str, role: str, value: Any) -> str:
        text = _text(value)
        if text and not isinstance(value, str):
            found = f"{type(value).__name__} {text[:40]}"
            message = f"{where}: found {found} in the column '{self._column(role)}', expected text; save the column as text"
            raise _Problem(f"{role} that is no text", message)
        if len(text) > self.most:
            raise too_long(where, self.most)
        return text

    def _label(self, where: str, text: str) -> int | None:
        low = text.lower()
        if low in MISSING and low != "-":  # which may stand for a negative
            return None
        if low in _POSITIVE or low in _NEGATIVE:
            return int(low in _POSITIVE)
        column = self._column("label")
        raise _Problem(
            "label other than 0 and 1",
            f"{where}: found '{text[:40]}' in the label column '{column}', expected 0 or 1; correct it, or set "
            f"data.columns.affinity={column} data.columns.label=none",
        )

    def _affinity(self, where: str, text: str) -> tuple[float | None, str]:
        try:
            return self.scale.read(text)
        except ValueError:
            column = self._column("affinity")
            raise _Problem(
                "affinity that is no number",
                f"{where}: found '{text[:40]}' in the affinity column '{column}', expected a number; correct or empty the cell",
            ) from None

    def _column(self, role: str) -> str:
        return self.table.header[self.places[role]]


def without_extension(smiles: str) -> str:
    """Return a SMILES without the extension of CXSMILES, which stands behind a blank: "CCO" for "CCO |$;;R1$|"."""
    return _EXTENSION.sub("", smiles)


def split_word(text: str) -> str | None:
    """Return "train", "validation" or "test" for their usual names, another word unchanged, None for an empty text."""
    return SPLIT_WORDS.get(text.lower(), text.lower()) if text else None
