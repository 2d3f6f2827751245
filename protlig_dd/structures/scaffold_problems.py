"""The 24 motif-scaffolding problems over 16 structures of the FrameFlow and EvoDiff benchmark, which DPLM also uses.

Segments are indices into the residues with coordinates of one chain, from 0, both ends included, in the order of the new sequence
(1BCF, 4JHW, 5IUS and 1QJG are permuted). They were chosen in cleaned files of that chain: a file with more residues at its start, or
with other gaps, has other residues at these indices, so check the letters that are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.structures.contigs import IndexedSegment, Linker, MotifSpec, Segment, parse_range
from protlig_dd.structures.structure_io import Structure

_ENTRY = re.compile("[0-9][A-Za-z0-9]{3}")
# name, chain, segments, linkers (left, between, right), total length ("" is free)
_TABLE = (
    ("1PRW", "A", "15-34 51-70", "5-20 10-25 5-20", ""),
    ("1BCF", "A", "90-98 122-129 46-53 17-24", "8-15 16-30 16-30 16-30 8-15", ""),
    ("5TPN", "A", "108-126", "10-40 10-40", "50-75"),
    ("5IUS", "A", "88-109 34-53", "0-30 15-40 0-30", ""),
    ("3IXT", "P", "0-23", "10-40 10-40", "50-75"),
    ("5YUI", "A", "89-93 114-116 194-196", "5-30 5-20 10-35 10-30", "50-100"),
    ("1QJG", "A", "37-37 13-13 98-98", "10-20 15-30 15-30 10-20", ""),
    ("1YCR", "B", "2-10", "10-40 10-40", "40-100"),
    ("2KL8", "A", "0-6 27-78", "0-0 20-20 0-0", ""),
    ("7MRX_60", "B", "25-46", "0-38 0-38", "60-60"),
    ("7MRX_85", "B", "25-46", "0-63 0-63", "85-85"),
    ("7MRX_128", "B", "25-46", "0-122 0-122", "128-128"),
    ("4JHW", "F", "144-159 37-43", "10-25 15-30 10-25", "60-90"),
    ("4ZYP", "A", "357-371", "10-40 10-40", "30-50"),
    ("5WN9", "A", "1-20", "10-40 10-40", "35-50"),
    ("5TRV_short", "A", "45-69", "0-35 0-35", "56-56"),
    ("5TRV_med", "A", "45-69", "0-65 0-65", "86-86"),
    ("5TRV_long", "A", "45-69", "0-95 0-95", "116-116"),
    ("6E6R_short", "A", "22-34", "0-35 0-35", "48-48"),
    ("6E6R_med", "A", "22-34", "0-65 0-65", "78-78"),
    ("6E6R_long", "A", "22-34", "0-95 0-95", "108-108"),
    ("6EXZ_short", "A", "25-39", "0-35 0-35", "50-50"),
    ("6EXZ_med", "A", "25-39", "0-65 0-65", "80-80"),
    ("6EXZ_long", "A", "25-39", "0-95 0-95", "110-110"),
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One benchmark problem.

    Attributes:
        name: such as "1PRW" or "7MRX_60".
        pdb_id: the PDB entry, in lower case.
        spec: its segments, linkers and total length.
    """

    name: str
    pdb_id: str
    spec: MotifSpec

    def check_entry(self, structure: Structure) -> None:
        """Check that a structure is of the problem's PDB entry: its segments are other residues anywhere else.

        The entry is the one that the file says, else the one in the file's name: cleaned files have only the name, as in "1prw_clean.pdb".

        Raises:
            FormatError: if it is another entry, or nothing says which.
        """
        entry = structure.entry.lower() if _ENTRY.fullmatch(structure.entry) else ""
        if self.pdb_id == entry or (not entry and self.pdb_id in Path(structure.source).name.lower()):
            return
        found = f"the entry {entry.upper()}" if entry else "no name of a PDB entry, in the file or in its name"
        raise FormatError(
            f"{structure.source}: found {found}, expected {self.pdb_id.upper()}, since the motif '{self.name}' counts the residues of that "
            f"entry; give {self.pdb_id}.pdb, or write the motif with residue numbers, such as 5-20,A15-34,5-20"
        )


def _problem(name: str, chain: str, segments: str, linkers: str, total: str) -> Problem:
    left, *others = (parse_range(linker, name) for linker in linkers.split())
    items: list[Segment | Linker] = [left]
    for segment, linker in zip(segments.split(), others, strict=True):
        first, last = segment.split("-")
        items += [IndexedSegment(chain=chain, first=int(first), last=int(last)), linker]
    spec = MotifSpec(items=tuple(items), total=parse_range(total, name) if total else None, text=name)
    return Problem(name=name, pdb_id=name[:4].lower(), spec=spec)


PROBLEMS: tuple[Problem, ...] = tuple(_problem(*row) for row in _TABLE)
"""All problems, in the benchmark's order."""


def find_problem(name: str) -> Problem | None:
    """Return the problem with a name, in upper or lower case, or None if there is none.

    Raises:
        ConfigError: if the name is one of several, such as "7MRX".
    """
    wanted = name.strip().upper()
    found = [problem for problem in PROBLEMS if problem.name.upper() == wanted]
    family = [problem.name for problem in PROBLEMS if problem.name.split("_")[0] == wanted]
    if not found and family:
        raise ConfigError(f"motif '{name}': found several problems of that name, expected one of {', '.join(family)}")
    return found[0] if found else None
