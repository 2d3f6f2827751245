"""Conversion of the publishers' files into tables that the readers accept: davis and KIBA, BindingDB, PLINDER."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import logging
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from protlig_dd.data.readers.affinity import AffinityPolicy, Scale, Unit
from protlig_dd.data.readers.complexes import Columns, open_pairs
from protlig_dd.data.readers.files import MAX_LINE
from protlig_dd.data.readers.tables import narrowed, open_table
from protlig_dd.errors import FormatError, require
from protlig_dd.files import written_whole

log = logging.getLogger(__name__)

MOLAR = "neg_log10_affinity_m"
"""The column of affinities as -log10 M, whose name says so."""

_AFFINITIES = ("Kd (nM)", "Ki (nM)", "IC50 (nM)", "EC50 (nM)")  # the closest to a binding constant first
_CHAINS = "Number of Protein Chains in Target (>1 implies a multichain complex)"


@contextmanager
def _table_writer(path: Path, header: Sequence[str]) -> Iterator[Any]:
    """Write a table, whole or not at all; gzipped if the name ends in .gz."""
    with written_whole(path) as growing, ExitStack() as stack:
        out: Any = stack.enter_context(growing.open("wb"))
        if path.suffix == ".gz":  # the name that the archive remembers is the final one
            out = stack.enter_context(gzip.GzipFile(path.stem, "wb", compresslevel=4, fileobj=out))
        text = stack.enter_context(io.TextIOWrapper(out, encoding="utf-8", newline=""))
        writer = csv.writer(text, delimiter="\t" if ".tsv" in path.suffixes else ",", lineterminator="\n")
        writer.writerow(header)
        yield writer


def convert_affinities(raw: Path, path: Path, *, unit: Unit = "as_given", column: str = "affinity", limit: int = 0) -> Path:
    """Write a table of molecules or pairs with the columns smiles, protein and affinity, as far as the raw table has them.

    Args:
        raw: any table that `complexes.open_pairs` reads.
        path: the table to write.
        unit: the unit of its affinities; concentrations become -log10 M.
        column: the name of the column of affinities.
        limit: most rows; 0 for all.
    """
    found, records = open_pairs(raw, Columns(label="none"), needed=("ligand",), affinity=AffinityPolicy(unit=unit))
    if "affinity" not in found.roles and "protein" in found.roles:
        columns = Columns(affinity="Y", label="none")
        found, records = open_pairs(raw, columns, needed=("ligand", "protein"), affinity=AffinityPolicy(unit=unit))
    roles = {"smiles": "ligand", "protein": "protein", column: "affinity"}
    header = [name for name, role in roles.items() if role in found.roles]
    with _table_writer(path, header) as writer:
        for record in itertools.islice(records, limit or None):
            value = record.affinity
            cells = {**record.texts, "affinity": "" if value is None else f"{value:.6g}"}
            writer.writerow([cells.get(roles[name], "") for name in header])
    return path


def convert_bindingdb(archive: Path, path: Path, *, policy: AffinityPolicy | None = None, limit: int = 0) -> Path:
    """Write the single-chain pairs of a BindingDB archive that have an affinity: the first of Kd, Ki, IC50 and EC50, as -log10 M.

    Args:
        archive: the zipped table.
        path: the table to write.
        policy: how affinities are read; by default a limit such as ">10000" is no affinity, as in tables of your own.
        limit: most pairs; 0 for all.

    Raises:
        FormatError: if the archive has no table with BindingDB's columns.
    """
    counts: Counter[str] = Counter()
    scale = Scale(unit="nM", limits=(policy or AffinityPolicy()).limits)
    with _table_writer(path, ("name", "smiles", "protein", MOLAR, "measure")) as writer:
        for row in _bindingdb_rows(archive):
            counts["rows"] += 1
            sequence = row.get("BindingDB Target Chain Sequence 1") or row.get("BindingDB Target Chain Sequence") or ""
            found = next(((m, v) for m in _AFFINITIES if (v := _affinity(scale, row.get(m) or "", counts)) is not None), None)
            if (row.get(_CHAINS) or "1").strip() not in ("", "1"):
                counts["targets of several chains"] += 1
            elif not sequence.strip() or not (row.get("Ligand SMILES") or "").strip():
                counts["without sequence or SMILES"] += 1
            elif found is None:
                counts["without affinity"] += 1
            else:
                counts["kept"] += 1
                name, smiles = row.get("BindingDB Reactant_set_id") or "", row["Ligand SMILES"].strip()
                measure = found[0].split()[0]
                writer.writerow([name, smiles, "".join(sequence.split()), f"{found[1]:.4f}", measure])
                if limit and counts["kept"] >= limit:
                    break
    log.info("%s: %s", path, ", ".join(f"{n} {what}" for what, n in counts.items()))
    return path


def _affinity(scale: Scale, text: str, counts: Counter[str]) -> float | None:
    """The affinity of a cell in -log10 M, None for a limit or other text, which is counted."""
    try:
        value, remark = scale.read(text.strip())
    except ValueError:
        value, remark = None, "cells that are no affinity"
    if remark:
        counts[remark] += 1
    return value


def _bindingdb_rows(archive: Path) -> Iterator[dict[str, str]]:
    try:
        with zipfile.ZipFile(archive) as opened:
            tables = [name for name in opened.namelist() if name.lower().endswith(".tsv")]
            if not tables:
                raise FormatError(f"{archive}: found {', '.join(opened.namelist()[:5])}, expected a .tsv table; download it again")
            with opened.open(tables[0]) as raw:
                text = io.TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="")
                csv.field_size_limit(MAX_LINE)
                reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
                header = next(reader, [])
                if "Ligand SMILES" not in header:
                    raise FormatError(f"{archive}: found no column 'Ligand SMILES' in {tables[0]}; expected BindingDB's table")
                # Columns of further chains repeat some names; the first of a name is that of the first chain.
                places = {name: i for i, name in reversed(list(enumerate(header)))}
                for cells in reader:
                    yield {name: cells[i] for name, i in places.items() if i < len(cells)}
    except (zipfile.BadZipFile, EOFError, csv.Error) as error:
        raise FormatError(f"{archive}: damaged archive ({error}); remove it and download it again") from error


def plinder_archives(split: Path, limit: int = 0) -> list[str]:
    """Return the two-character codes of PLINDER's system archives: all, or the first ones that hold `limit` systems of its split."""
    systems = Counter(str(cells[0])[1:3] for _, cells in narrowed(open_table(split), ["system_id"]).rows)
    codes, held = [], 0
    for code in sorted(systems):
        codes.append(code)
        held += systems[code]
        if limit and held >= limit:
            break
    return codes


def convert_plinder(index: Path, split: Path, archives: Iterable[Path], path: Path, *, limit: int = 0) -> Path:
    """Write PLINDER's pairs: each proper ligand of each system with one protein chain, with affinity and split.

    Systems of several chains are left out and counted, since one sequence would not be the whole receptor.

    Args:
        index: annotation_table.parquet.
        split: split.parquet.
        archives: the zipped systems, each with its sequences.fasta.
        path: the table to write.
        limit: most pairs; 0 for all.

    Raises:
        FormatError: if a file lacks columns or members of PLINDER's format.
    """
    sequences = _plinder_sequences(archives)
    _need(split, open_table(split).header, ("system_id", "split"))
    parts = {str(s): str(p) for _, (s, p) in narrowed(open_table(split), ["system_id", "split"]).rows}
    header = open_table(index).header
    _need(index, header, ("system_id", "ligand_rdkit_canonical_smiles"))
    optional = [name for name in ("ligand_is_proper", "ligand_binding_affinity") if name in header]
    counts: Counter[str] = Counter()
    with _table_writer(path, ("system_id", "smiles", "protein", MOLAR, "split")) as writer:
        for _, cells in narrowed(open_table(index), ["system_id", "ligand_rdkit_canonical_smiles", *optional]).rows:
            row = dict(zip(["system_id", "smiles", *optional], cells, strict=True))
            chains = sequences.get(str(row["system_id"]))
            if chains is None or not row["smiles"]:
                continue
            if len(chains) != 1:
                counts["of several chains"] += 1
                continue
            if row.get("ligand_is_proper") is False:
                counts["not proper ligands"] += 1
                continue
            counts["kept"] += 1
            affinity, part = row.get("ligand_binding_affinity"), parts.get(str(row["system_id"]), "")
            writer.writerow([row["system_id"], row["smiles"], chains[0], "" if affinity is None else affinity, part])
            if limit and counts["kept"] >= limit:
                break
    log.info("%s: %s", path, ", ".join(f"{n} {what}" for what, n in counts.items()))
    return path


def _need(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    absent = [name for name in names if name not in header]
    if absent:
        raise FormatError(f"{path}: found {len(header)} columns without '{absent[0]}', expected PLINDER's table; choose another release")


def _plinder_sequences(archives: Iterable[Path]) -> dict[str, list[str]]:
    """Return the protein sequences of each system, one for each chain."""
    require("pyarrow", "reading PLINDER", extra="data")
    sequences: dict[str, list[str]] = {}
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = [name for name in opened.namelist() if name.endswith("/sequences.fasta")]
                for member in members:
                    text = opened.read(member).decode("utf-8", "replace")
                    chains = ["".join(block.split("\n")[1:]) for block in text.replace("\r", "").split(">")[1:]]
                    sequences[member.split("/")[-2]] = chains
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise FormatError(f"{archive}: damaged archive ({error}); remove it and download it again") from error
        if not members:
            raise FormatError(f"{archive}: found no sequences.fasta, expected one for each system; choose another release")
    return sequences
