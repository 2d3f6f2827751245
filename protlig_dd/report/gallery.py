"""The gallery of a report: some samples of `samples.csv`, grouped by what they were generated for, the valid molecules first."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protlig_dd.errors import FormatError, MissingDependencyError
from protlig_dd.evaluation.ligands import canonical_smiles
from protlig_dd.report.drawings import molecule

NUM_SHOWN = 12
_GROUPS, _IN_GROUP = 6, 4
_NEAREST = ("nearest_active", "similarity")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Samples of one name.

    Attributes:
        name: the name of the target, or of what else was given; "" if all samples have names of their own.
        num: number of samples.
        num_valid: number of valid molecules among them; None if they are no molecules, or RDKit is absent.
        shown: some of them, as the template takes them.
    """

    name: str
    num: int
    num_valid: int | None
    shown: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What is shown of a file of samples.

    Attributes:
        groups: the groups that are shown.
        num: number of all samples.
        num_groups: number of all groups.
        num_valid: number of valid molecules among all; None as in `Group`.
        reason: why molecules are not drawn, or "".
    """

    groups: Sequence[Group]
    num: int
    num_groups: int
    num_valid: int | None
    reason: str = ""

    @property
    def note(self) -> str:
        """What is shown and what share is no molecule, in words."""
        shown = sum(len(group.shown) for group in self.groups)
        note = f"{shown:,} of {self.num:,} samples"
        if self.num_groups > 1:
            note += f", for {len(self.groups):,} of {self.num_groups:,} names"
        if self.num_valid is None:
            return f"{note}, in the order of the file."
        invalid = self.num - self.num_valid
        return f"{note}, valid molecules first; {invalid:,} of {self.num:,} ({invalid / self.num:.0%}) are not molecules."


def read_gallery(path: Path) -> Gallery | None:
    """Return what a report shows of a samples.csv; None without a file.

    Raises:
        FormatError: if it is not CSV.
    """
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        try:
            read = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: not readable as CSV: {error}") from error
    rows = [{key: value for key, value in row.items() if isinstance(key, str) and isinstance(value, str)} for row in read]
    valid, reason = _validity(rows)
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.get("name", ""), []).append(i)
    most = _IN_GROUP
    if len(groups) == len(rows):  # a heading for each sample says nothing more than its name
        groups, most = ({"": list(range(len(rows)))} if rows else {}), NUM_SHOWN
    made = []
    for name, places in groups.items():
        places.sort(key=lambda i: valid is not None and not valid[i])
        num_valid = None if valid is None else sum(valid[i] for i in places)
        shown = [_shown(rows[i], is_drawn=not reason, in_group=bool(name)) for i in places[:most]]
        made.append(Group(name=name, num=len(places), num_valid=num_valid, shown=shown))
    made.sort(key=lambda group: group.num_valid == 0)
    num_valid = None if valid is None else sum(valid)
    return Gallery(groups=made[:_GROUPS], num=len(rows), num_groups=len(made), num_valid=num_valid, reason=reason)


def _smiles(row: Mapping[str, str]) -> str:
    return row.get("ligand") or row.get("smiles") or ""


def _validity(rows: Sequence[Mapping[str, str]]) -> tuple[list[bool] | None, str]:
    """Whether each row is a valid molecule, None if the rows are no molecules; and why this is not known, or ""."""
    if not any(map(_smiles, rows)):
        return None, ""
    try:
        return [smiles is not None for smiles in canonical_smiles(list(map(_smiles, rows)))], ""
    except MissingDependencyError as error:
        return None, str(error)


def _shown(row: Mapping[str, str], *, is_drawn: bool, in_group: bool) -> dict[str, Any]:
    """A sample for the template: drawings, whether it matches (None if not known), its texts, and its other short columns."""
    smiles, matched = _smiles(row), row.get("matched", "")
    texts = [(track, _shortened(row[track])) for track in ("protein", "structure") if row.get(track)]
    nearest = row.get("nearest_active", "") if is_drawn else ""
    hidden = {"matched", "id", "ligand", "smiles", *_NEAREST, *(("name",) if in_group else ()), *(track for track, _ in texts)}
    return {
        "drawing": (molecule(smiles) or '<div class="none">not a molecule</div>') if smiles and is_drawn else "",
        "nearest": (molecule(nearest, height=110) or "") if nearest else "",
        "is_match": matched.strip().lower() in ("1", "1.0", "true", "yes") if matched else None,
        "texts": [
            *([("ligand", smiles)] if smiles else []),
            *([("nearest known active", f"{row['nearest_active']}  ({row.get('similarity', '')})")] if row.get("nearest_active") else []),
            *texts,
        ],
        "facts": [(key, value) for key, value in row.items() if key not in hidden and value and len(value) <= 40],
    }


def _shortened(sequence: str, limit: int = 90) -> str:
    return sequence if len(sequence) <= limit else f"{sequence[:40]} \u2026 {sequence[-40:]} ({len(sequence)})"
