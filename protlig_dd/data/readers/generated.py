"""Generated ligands from files that name the target of each: tables, SMILES files and SDF, as `protlig sample` and other programs write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protlig_dd.data.readers.complexes import Columns, find_columns
from protlig_dd.data.readers.files import data_suffix
from protlig_dd.data.readers.molecules import read_smiles
from protlig_dd.data.readers.tables import TABLE_SUFFIXES, open_table
from protlig_dd.errors import FormatError, nearest, require

_TITLE = re.compile(r"(.*)_\d+(?: nll_per_token=\S+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedLigand:
    """A ligand as text, and the texts that may name its target: a name, a sequence, or the title of a molecule."""

    ligand: str
    targets: tuple[str, ...]


def read_generated(path: Path, *, target: str = "") -> Iterator[GeneratedLigand]:
    """Yield the ligands of a file; what is no valid SMILES is not checked here.

    Args:
        path: a table with a SMILES column; a SMILES file (.smi, .smiles, .txt) whose lines name the target after the SMILES, alone or as
            `protlig sample` writes it (NAME_7); or an SDF file with the target as a property or title.
        target: the column or property that names the target; "" for the protein's, the name's and the title.

    Raises:
        FormatError: if the file is not readable, has no SMILES, or lacks the column.
    """
    suffix = data_suffix(path)
    if suffix in TABLE_SUFFIXES:
        return _rows(path, target)
    return _molecules(path, target) if suffix in (".sdf", ".sd") else _lines(path)


def _rows(path: Path, target: str) -> Iterator[GeneratedLigand]:
    table = open_table(path)
    roles = find_columns(path, table.header, Columns(), needed=("ligand",)).roles
    if target and target not in table.header:
        known = ", ".join(f"'{column}'" for column in table.header[:12])
        raise FormatError(f"{path}: found the columns {known}, expected '{target}'{nearest(target, table.header)}; correct --target")
    named = [target] if target else [roles[role] for role in ("protein", "name") if role in roles]
    if not named:
        raise FormatError(f"{path}: found no column that names the target of a ligand; give it with --target")
    places, own = [table.place(column) for column in named], table.place(roles["ligand"])
    for _, cells in table.rows:
        yield GeneratedLigand(ligand=str(cells[own] or ""), targets=tuple(str(cells[place] or "") for place in places))


def _lines(path: Path) -> Iterator[GeneratedLigand]:
    for record in read_smiles(path):
        found = _TITLE.fullmatch(record.name)
        yield GeneratedLigand(ligand=record.texts["ligand"], targets=(record.name, *(found.groups() if found else ())))


def _molecules(path: Path, target: str) -> Iterator[GeneratedLigand]:
    chem = require("rdkit.Chem", "reading SDF", extra="ligand")
    if not path.is_file():
        raise FormatError(f"{path}: found no such file; check the path")
    with require("rdkit.rdBase", "reading SDF", extra="ligand").BlockLogs():
        for molecule in chem.SDMolSupplier(str(path)):
            if molecule is None:
                yield GeneratedLigand(ligand="", targets=())
                continue
            told = {name: molecule.GetProp(name) for name in molecule.GetPropNames(includePrivate=True)}
            names = (target,) if target else ("protein", "name", "_Name")
            yield GeneratedLigand(
                ligand=told.get("ligand") or chem.MolToSmiles(molecule), targets=tuple(told.get(name, "") for name in names)
            )
