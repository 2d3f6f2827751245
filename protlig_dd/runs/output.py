"""Samples as files: CSV, FASTA, SMILES, SDF and JSON lines, ranked, with the settings in OUT.json; and the partial file of a stopped command."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from protlig_dd.errors import ConfigError, FormatError, nearest, one_line, require
from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit
from protlig_dd.files import write_text, written_whole

SUFFIXES = (".csv", ".jsonl", ".fasta", ".smi", ".sdf")
SCORE_SUFFIXES = (".csv", ".jsonl")
"""The forms of rows without texts, such as scores."""

Row = Mapping[str, Any]
_FORMULA = ("=", "+", "-", "@")


def check_output(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Check the ending and the place of an output file, and the package that writes it, before anything is computed.

    Raises:
        ConfigError: for an unknown ending, a folder that does not exist, or a folder in the file's place.
        MissingDependencyError: for SDF without RDKit.
    """
    if path.suffix == ".cif":
        raise ConfigError(f"--out {path}: coordinates are written as .pdb; give that ending")
    if path.suffix not in suffixes:
        more = "; or .pdb for the coordinates of a run with Kanzi's codes (sample)" if suffixes is SUFFIXES else ""
        raise ConfigError(
            f"--out {path}: found '{path.suffix}', expected one of {', '.join(suffixes)}{nearest(path.suffix, suffixes)}{more}"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise ConfigError(f"--out {path}: is a folder, expected the name of a file; give another one")
    if path.suffix == ".sdf":
        require("rdkit.Chem", "writing SDF", extra="ligand")


def check_tracks(path: Path, samples: Iterable[Collection[str]]) -> None:
    """Check that the form of a file can hold the texts of samples: before they are drawn, and when they are written.

    Args:
        path: the file.
        samples: for each sample, or each request, the names of its tracks; other names do not matter.

    Raises:
        FormatError: for FASTA of molecules, or SMILES and SDF of proteins.
    """
    found = list(samples)
    has_proteins = any("protein" in names for names in found)
    track = {
        ".fasta": "protein" if has_proteins or not found or "structure" not in found[0] else "structure",
        ".smi": "ligand",
        ".sdf": "ligand",
    }
    needed = track.get(path.suffix)
    if needed and any(needed not in names for names in found):
        raise FormatError(f"{path.suffix}: the samples have no {needed}; write .csv or .jsonl instead")


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
        try:
            settings, *self.rows = [json.loads(line) for line in kept.decode("utf-8").splitlines()] or [{}]
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{self.path}: is damaged ({error}); remove it, and start the command again") from error
        own = json.loads(json.dumps(self.settings))
        if settings != own:
            changed = [name for name in own if not isinstance(settings, dict) or settings.get(name) != own[name]]
            raise FormatError(
                f"{self.path}: was left by a run with other settings ({', '.join(changed or settings)}); remove it, or start that command "
                f"again to finish it"
            )
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


def write_rows(path: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> list[str]:
    """Write samples in the format of the file's ending, and all settings to OUT.json: all files, or none after an error.

    A FASTA file gets the proteins; their structure tokens, if any, go to NAME.structure.fasta. An SDF file gets the valid molecules; the other
    samples go to OUT.left_out.csv with the reason. Line breaks and other control characters of a name are "_", except in JSON; in CSV a name
    that a spreadsheet would take for a formula (= + - @ in front) gets an apostrophe in front. Texts of tracks are written as they are.

    Returns:
        Lines about the samples that the file does not hold, and about names that are written otherwise.

    Raises:
        ConfigError: for an unknown ending.
        FormatError: if the format cannot hold the rows (FASTA of molecules).
    """
    check_output(path)
    check_tracks(path, rows)
    lines = list[str]()
    if path.suffix != ".jsonl":
        rows, lines = _safe_names(rows, path.suffix)
    left_out = _invalid_molecules(rows) if path.suffix == ".sdf" else []
    beside = path.with_name(f"{path.name}.left_out.csv")
    writers = {".csv": _csv, ".jsonl": _jsonl, ".fasta": _fasta, ".smi": _smiles, ".sdf": _sdf}
    structures = structures_beside(path, rows)
    with ExitStack() as files:  # renamed in reverse order, so that OUT appears last
        writers[path.suffix](files.enter_context(written_whole(path)), rows)
        if structures is not None:
            text = "".join(f">{_title(row)}\n{row['structure']}\n" for row in rows)
            files.enter_context(written_whole(structures)).write_text(text, encoding="utf-8")
        if left_out:
            _csv(files.enter_context(written_whole(beside)), left_out)
        text = json.dumps(dict(settings), indent=1) + "\n"
        files.enter_context(written_whole(path.with_name(path.name + ".json"))).write_text(text, encoding="utf-8")
    if path.suffix == ".sdf" and not left_out:
        beside.unlink(missing_ok=True)  # of an earlier command
    if left_out:
        ids = ", ".join(str(row["id"]) for row in left_out[:8]) + (", ..." if len(left_out) > 8 else "")
        lines.append(f"{len(left_out)} of {len(rows)} samples are no valid molecules and stand in {beside} instead (ids {ids})")
    return lines


def _safe_names(rows: Sequence[Row], suffix: str) -> tuple[list[Row], list[str]]:
    """Return rows whose names stay in their line and are no formulas of a spreadsheet, and a line about those that were changed."""
    safe, changed = list[Row](), dict[str, str]()
    for row in rows:
        name = one_line(str(row["name"]))
        if suffix == ".csv" and name.startswith(_FORMULA):
            name = f"'{name}"
        if name != row["name"]:
            changed[str(row["name"])] = name
        safe.append({**row, "name": name})
    if not changed:
        return safe, []
    shown = ", ".join(list(changed.values())[:5]) + (", ..." if len(changed) > 5 else "")
    return safe, [f"{len(changed)} names with control characters, or that begin like a formula, are written otherwise: {shown}"]


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
    track = "protein" if any("protein" in row for row in rows) else "structure"
    path.write_text("".join(f">{_title(row)}\n{row[track]}\n" for row in rows), encoding="utf-8")


def _smiles(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(f"{row['ligand']} {_title(row)}\n" for row in rows), encoding="utf-8")


def _invalid_molecules(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that SDF cannot hold, with the reason."""
    with silent_rdkit():
        reasons = [parse_molecule(row["ligand"])[1] for row in rows]
    return [{**row, "reason": reason} for row, reason in zip(rows, reasons, strict=True) if reason]


def _sdf(path: Path, rows: Sequence[Row]) -> None:
    """Write the valid molecules with their rows as properties."""
    writer = require("rdkit.Chem", "writing SDF", extra="ligand").SDWriter(str(path))
    with silent_rdkit():
        for row in rows:
            molecule = parse_molecule(row["ligand"])[0]
            if molecule is not None:
                for key, value in row.items():
                    molecule.SetProp(key, one_line(str(value)))
                writer.write(molecule)
    writer.close()
