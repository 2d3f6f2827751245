"""A Foldseek database from a folder of structure files, as createdb makes it; everything left out is counted and listed.

It differs from Foldseek (commit d5b1d3d4) in three points: chains with C-alpha atoms only are left out, since Foldseek rebuilds their
backbone; a chain is masked by its own B-factors, where Foldseek uses those of the file's first chain; hidden files are not read.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from protlig_dd.data.foldseek.structure_files import Reading, choose_workers, read_all, structure_files
from protlig_dd.data.foldseek.writer import CoordStore, DatabaseWriter
from protlig_dd.data.skipped import SKIPPED_SUFFIX, ChainReport, Skipped, SkippedList
from protlig_dd.errors import FormatError


def build_database(
    source: Path, out: Path, *, workers: int = 0, mask_bfactor_threshold: float = 0.0, coord_store: CoordStore = "differences"
) -> ChainReport:
    """Write a Foldseek database (sequences, 3Di, C-alpha, headers) of a folder of structures; OUT.skipped.tsv lists what is left out.

    Memory does not grow with the number of files, except for the names in one folder.

    Args:
        source: a folder, with its subfolders, of PDB and mmCIF files, also .gz; or one such file.
        out: the database, such as "folder/db".
        workers: processes that read structures, 0 for one a core; the order of the entries does not depend on it.
        mask_bfactor_threshold: residues whose C-alpha has a lower B-factor get lower-case letters; 0 masks none.
        coord_store: how C-alpha traces are stored.

    Raises:
        ConfigError: if the folder does not exist, or the database does.
        FormatError: if no file gives an entry; nothing is written then.
        MissingDependencyError: without gemmi or mini3di.
    """
    total = sum(1 for _ in structure_files(source))
    reading = Reading(mask_bfactor_threshold=mask_bfactor_threshold)
    with DatabaseWriter(out, coord_store=coord_store) as writer, SkippedList(out.with_name(out.name + SKIPPED_SUFFIX)) as skipped:
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
    return ChainReport(
        paths=(out,),
        num_files=total,
        num_chains=writer.num_entries,
        num_residues=writer.num_residues,
        skipped=dict(skipped.counts),
        skipped_path=skipped.path if skipped.counts else None,
        details=tuple(skipped.lines()),
    )
