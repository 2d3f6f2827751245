"""A Foldseek database from a folder of structure files, as createdb makes it, with everything that was left out counted and listed.

It differs from Foldseek (commit d5b1d3d4) in three things: chains of C-alpha atoms only are left out, since Foldseek rebuilds their
backbone; the B-factors that mask a chain are its own, where Foldseek takes those of the file's first chain; hidden files are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from protlig_dd.data.foldseek.structure_files import Reading, choose_workers, read_all, structure_files
from protlig_dd.data.foldseek.writer import CoordStore, DatabaseWriter
from protlig_dd.data.skipped import SKIPPED_SUFFIX, Skipped, SkippedList
from protlig_dd.errors import FormatError


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a database holds, and what was left out.

    Attributes:
        path: the database.
        num_files: how many files were read.
        num_entries: how many chains it holds.
        num_residues: of these chains.
        skipped: how many files, chains and residues were left out, by kind.
        skipped_path: where they are listed; None if there are none.
        details: a line for each kind.
    """

    path: Path
    num_files: int
    num_entries: int
    num_residues: int
    skipped: dict[str, int]
    skipped_path: Path | None
    details: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield the report in words."""
        yield f"{self.path}: {self.num_entries} chains, {self.num_residues} residues, of {self.num_files} files"
        if self.skipped:
            yield f"left out ({self.skipped_path} lists all):"
            yield from self.details


def build_database(
    source: Path,
    out: Path,
    *,
    workers: int = 0,
    mask_bfactor_threshold: float = 0.0,
    coord_store: CoordStore = "differences",
) -> BuildReport:
    """Write a Foldseek database (sequences, 3Di, C-alpha, headers) of the structures of a folder; OUT.skipped.tsv lists the rest.

    Memory does not grow with the number of files, but for the names of one folder.

    Args:
        source: a folder, with its subfolders, of PDB and mmCIF files, also .gz; or one such file.
        out: the database, such as "folder/db".
        workers: processes that read structures, 0 for one a core; the order of the entries is the same for any number.
        mask_bfactor_threshold: residues whose C-alpha has a lower B-factor get lower-case letters; 0 masks none.
        coord_store: how C-alpha traces are stored.

    Raises:
        ConfigError: if there is no such folder, or a database of that name.
        FormatError: if no file gives an entry; nothing is written then.
        MissingDependencyError: without gemmi or mini3di.
    """
    total = sum(1 for _ in structure_files(source))
    reading = Reading(mask_bfactor_threshold=mask_bfactor_threshold)
    with DatabaseWriter(out, coord_store=coord_store) as writer, SkippedList(_beside(out)) as skipped:
        found = read_all(structure_files(source), reading, workers=choose_workers(workers, total))
        for one in tqdm(found, total=total, unit="file", disable=None):
            for left_out in one.skipped:
                skipped.add(left_out)
            for entry in one.entries:
                try:
                    writer.add(entry)
                except FormatError as error:
                    skipped.add(Skipped(what=entry.name, kind="not writable", reason=str(error)))
        if not writer.num_entries:
            reasons = "; ".join(line.strip() for line in skipped.lines()) or "the folder is empty"
            raise FormatError(f"{source}: found no chain for a database among {total} files ({reasons})")
    return BuildReport(
        path=out,
        num_files=total,
        num_entries=writer.num_entries,
        num_residues=writer.num_residues,
        skipped=dict(skipped.counts),
        skipped_path=skipped.path if skipped.counts else None,
        details=tuple(skipped.lines()),
    )


def _beside(out: Path) -> Path:
    return out.with_name(out.name + SKIPPED_SUFFIX)
