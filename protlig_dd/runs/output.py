"""Samples as files: CSV, FASTA, SMILES, SDF and JSON lines, ranked, with the settings in OUT.json; and the partial file of a stopped command."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from protlig_dd.errors import ConfigError, FormatError, nearest, require
from protlig_dd.files import write_text, written_whole

SUFFIXES = (".csv", ".jsonl", ".fasta", ".smi", ".sdf")
Row = Mapping[str, Any]


def check_output(path: Path) -> None:
    """Check the ending and the folder of an output file, before anything is generated.

    Raises:
        ConfigError: for an unknown ending, or a folder that does not exist.
    """
    if path.suffix == ".cif":
        raise ConfigError(f"--out {path}: coordinates are written as .pdb; give that ending")
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"--out {path}: found '{path.suffix}', expected one of {', '.join(SUFFIXES)}{nearest(path.suffix, SUFFIXES)}; "
            "or .pdb for the coordinates of a run with Kanzi's codes (sample)"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: the folder {path.parent} does not exist; make it first")


class PartialFile:
    """Rows as they are drawn, one JSON line each, in OUT.partial; a command started again continues from there.

    The first line holds the settings; a partial file with other settings is refused.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.path = out.with_name(out.name + ".partial")
        self.settings = dict(settings)
        self.rows: list[dict[str, Any]] = []
        if self.path.is_file():
            self._read()
        else:
            write_text(self.path, json.dumps(self.settings) + "\n")

    def _read(self) -> None:
        whole = self.path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]  # an incomplete last line is drawn again
        lines = kept.decode("utf-8").splitlines()
        if not lines or json.loads(lines[0]) != json.loads(json.dumps(self.settings)):
            raise FormatError(f"{self.path}: was left by a run with other settings; remove it, or start that command again to finish it")
        self.rows = [json.loads(line) for line in lines[1:]]
        with self.path.open("r+b") as file:
            file.truncate(len(kept))

    def append(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Write each row when it is taken, before the next one is drawn."""
        with self.path.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
                file.flush()
                self.rows.append(dict(row))
                yield row

    def remove(self) -> None:
        """Remove the partial file, once the output is written."""
        self.path.unlink(missing_ok=True)


def rank(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows grouped by request, the most likely first, with their rank from 1.

    >>> rows = [{"name": "a", "id": 0, "nll_per_token": 2.5}, {"name": "a", "id": 1, "nll_per_token": 1.5}]
    >>> [(row["id"], row["rank"]) for row in rank(rows)]
    [(1, 1), (0, 2)]
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    ranked = []
    for name in names:
        own = [row for row in rows if row["name"] == name]
        own.sort(key=lambda row: (row.get("nll_per_token", 0.0), row["id"]))
        ranked += [{**row, "rank": i} for i, row in enumerate(own, start=1)]
    return ranked


def write_rows(path: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Write samples in the format of the file's ending, and all settings to OUT.json: all files, or none after an error.

    A FASTA file gets the proteins; their structure tokens, if any, go to NAME.structure.fasta.

    Raises:
        ConfigError: for an unknown ending.
        FormatError: if the format cannot hold the rows (FASTA of molecules, SDF of invalid SMILES).
    """
    check_output(path)
    writers = {".csv": _csv, ".jsonl": _jsonl, ".fasta": _fasta, ".smi": _smiles, ".sdf": _sdf}
    structures = structures_beside(path, rows)
    with ExitStack() as files:  # renamed in reverse order, so that OUT appears last
        writers[path.suffix](files.enter_context(written_whole(path)), rows)
        if structures is not None:
            text = "".join(f">{_title(row)}\n{row['structure']}\n" for row in rows)
            files.enter_context(written_whole(structures)).write_text(text, encoding="utf-8")
        text = json.dumps(dict(settings), indent=1) + "\n"
        files.enter_context(written_whole(path.with_name(path.name + ".json"))).write_text(text, encoding="utf-8")


def structures_beside(path: Path, rows: Sequence[Row]) -> Path | None:
    """Return the FASTA file of structure tokens that goes with a FASTA file of proteins; None if there are no tokens."""
    if path.suffix == ".fasta" and any("structure" in row and "protein" in row for row in rows):
        return path.with_name(f"{path.stem}.structure.fasta")
    return None


def _csv(path: Path, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _jsonl(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _title(row: Row) -> str:
    score = f" nll_per_token={row['nll_per_token']}" if "nll_per_token" in row else ""
    return f"{row['name']}_{row['id']}{score}"


def _fasta(path: Path, rows: Sequence[Row]) -> None:
    track = "structure" if all("structure" in row and "protein" not in row for row in rows) else "protein"
    _require(rows, track, ".fasta")
    path.write_text("".join(f">{_title(row)}\n{row[track]}\n" for row in rows), encoding="utf-8")


def _smiles(path: Path, rows: Sequence[Row]) -> None:
    _require(rows, "ligand", ".smi")
    path.write_text("".join(f"{row['ligand']} {_title(row)}\n" for row in rows), encoding="utf-8")


def _require(rows: Sequence[Row], track: str, suffix: str) -> None:
    if any(track not in row for row in rows):
        raise FormatError(f"{suffix}: the samples have no {track}; write .csv or .jsonl instead")


def _sdf(path: Path, rows: Sequence[Row]) -> None:
    """Write molecules with their rows as properties. SDF cannot hold an invalid SMILES, so one is an error."""
    _require(rows, "ligand", ".sdf")
    chem = require("rdkit.Chem", "writing SDF", extra="ligand")
    molecules = [chem.MolFromSmiles(row["ligand"]) for row in rows]
    if invalid := [str(row["id"]) for row, molecule in zip(rows, molecules, strict=True) if molecule is None]:
        raise FormatError(
            f".sdf: {len(invalid)} samples are no valid molecules (ids {', '.join(invalid[:8])}); write .csv, which holds all"
        )
    writer = chem.SDWriter(str(path))
    for row, molecule in zip(rows, molecules, strict=True):
        for key, value in row.items():
            molecule.SetProp(key, str(value))
        writer.write(molecule)
    writer.close()
