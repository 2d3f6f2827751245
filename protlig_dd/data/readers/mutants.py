"""Mutants of a protein with their measured scores, from a table in the format of ProteinGym.

Columns: `mutant` ("A24C", several joined by colons as in "A24C:D30E"; numbers count from 1), `mutated_sequence` (the whole sequence),
`DMS_score`. One of the first two is enough; if both are given, they must agree. Only substitutions are accepted: an insertion or deletion
has no position in the wild type at which it could be scored.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from protlig_dd.data.readers.tables import open_table
from protlig_dd.errors import FormatError, nearest
from protlig_dd.tokens.protein import AMINO_ACIDS

_SUBSTITUTION = re.compile(r"([A-Za-z])(-?\d+)([A-Za-z])")
SCORE_COLUMN = "DMS_score"
"""ProteinGym's name of the measured score."""
_MISSING = frozenset({"", "na", "nan", "none", "null", "n/a"})


@dataclass(frozen=True, kw_only=True, order=True)
class Mutation:
    """One substituted residue; `position` counts from 0 in the wild type."""

    position: int
    wild: str
    mutant: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Mutants:
    """Mutants of one wild type.

    Attributes:
        wild_type: its sequence.
        names: the name of each mutant in the table ("A24C:D30E").
        mutations: the mutations of each mutant, in order of position; none for the wild type itself.
        scores: measured scores, NaN for a mutant without one; None if no column of scores was read.
        num_dropped: mutants left out because their score is missing.
    """

    wild_type: str
    names: tuple[str, ...]
    mutations: tuple[tuple[Mutation, ...], ...]
    scores: Float[np.ndarray, " m"] | None = None
    num_dropped: int = 0

    def __len__(self) -> int:
        """Number of mutants."""
        return len(self.names)

    def sequence(self, index: int) -> str:
        """Return the sequence of a mutant."""
        letters = list(self.wild_type)
        for mutation in self.mutations[index]:
            letters[mutation.position] = mutation.mutant
        return "".join(letters)


def read_mutants(
    path: str | Path,
    wild_type: str,
    *,
    offset: int = 0,
    score_column: str | None = SCORE_COLUMN,
    missing: Literal["refuse", "drop", "keep"] = "refuse",
) -> Mutants:
    """Return the mutants of a table, checked residue by residue against the wild type.

    Args:
        path: CSV, TSV, JSON lines or Parquet, with a column `mutant` or `mutated_sequence`.
        wild_type: the sequence that positions refer to.
        offset: subtracted from residue numbers: 23 if the first residue of `wild_type` is number 24.
        score_column: column of the measured score; None reads no scores.
        missing: what happens to a mutant without a score: an error, left out and counted, or kept with the score NaN.

    Raises:
        FormatError: with the row, for a wrong wild-type residue, a position outside the sequence, an insertion or deletion, a letter that
            is not one of the twenty amino acids, a missing or infinite score, or a missing column.
    """
    path, wild_type = Path(path), "".join(wild_type.split()).upper()
    table = open_table(path)
    columns: dict[str, int] = {column: table.place(column) for column in ("mutant", "mutated_sequence") if column in table.header}
    if not columns:
        raise FormatError(f"{path}: found the columns {', '.join(table.header)}, expected 'mutant' or 'mutated_sequence'; rename one")
    if score_column is not None and score_column not in table.header:
        hint = nearest(score_column, table.header)
        raise FormatError(
            f"{path}: found the columns {', '.join(table.header)}, expected the score '{score_column}'{hint}; name the column of scores"
        )
    names, mutations, scores, num_dropped = [], [], list[float](), 0
    for where, cells in table.rows:
        given: dict[str, str] = {column: str(cells[i] or "").strip() for column, i in columns.items()}
        found = _mutations(given, wild_type, offset, where)
        if score_column is not None:
            score = _score(cells[table.place(score_column)], where, score_column, missing)
            if score is None:
                num_dropped += 1
                continue
            scores.append(score)
        names.append(given.get("mutant") or ":".join(f"{m.wild}{m.position + 1 + offset}{m.mutant}" for m in found))
        mutations.append(found)
    if not names:
        reason = f"all {num_dropped} without a score" if num_dropped else "no rows"
        raise FormatError(f"{path}: found {reason}, expected at least one mutant; check the file")
    return Mutants(
        wild_type=wild_type,
        names=tuple(names),
        mutations=tuple(mutations),
        scores=None if score_column is None else np.array(scores),
        num_dropped=num_dropped,
    )


def parse_mutant(text: str, wild_type: str, *, offset: int = 0, where: str = "mutant") -> tuple[Mutation, ...]:
    """Return the mutations of "A24C:D30E", in order of position, checked against the wild type.

    Raises:
        FormatError: as `read_mutants`.
    """
    found: dict[int, Mutation] = {}
    for part in text.split(":"):
        match = _SUBSTITUTION.fullmatch(part.strip())
        if not match:
            raise FormatError(
                f"{where}: found '{part[:40]}' in the mutant '{text[:80]}', expected substitutions such as A24C; insertions, deletions and stop "
                f"signs have no position to be scored at, leave them out"
            )
        wild, mutant = match[1].upper(), match[3].upper()
        position = int(match[2]) - 1 - offset
        if not 0 <= position < len(wild_type):
            raise FormatError(
                f"{where}: '{part[:40]}' lies outside the wild type, whose {len(wild_type)} residues are numbers {1 + offset} to "
                f"{len(wild_type) + offset}; check the sequence and the offset"
            )
        if wild_type[position] != wild:
            raise FormatError(
                f"{where}: '{part[:40]}' says that residue {match[2]} is {wild}, the wild type has {wild_type[position]} there; check the "
                f"sequence and the offset"
            )
        if position in found:
            raise FormatError(f"{where}: found residue {match[2]} twice in the mutant '{text[:80]}', expected it once")
        _known(mutant, text, where)
        _known(wild, text, where)
        found[position] = Mutation(position=position, wild=wild, mutant=mutant)
    return tuple(found[position] for position in sorted(found))


def _known(letter: str, text: str, where: str) -> None:
    if letter not in AMINO_ACIDS:
        raise FormatError(f"{where}: found '{letter}' in the mutant '{text}', expected one of the twenty amino acids")


def compare_sequences(sequence: str, wild_type: str, *, where: str = "sequence") -> tuple[Mutation, ...]:
    """Return the mutations that turn the wild type into a sequence of the same length.

    Raises:
        FormatError: if the lengths differ, or a residue is not one of the twenty amino acids.
    """
    if len(sequence) != len(wild_type):
        raise FormatError(
            f"{where}: found a sequence of {len(sequence)} residues, the wild type has {len(wild_type)}; insertions and deletions "
            f"have no position to be scored at, leave them out"
        )
    residues = enumerate(zip(wild_type, sequence, strict=True))
    found = [Mutation(position=i, wild=w, mutant=m) for i, (w, m) in residues if w != m]
    for mutation in found:
        for letter in (mutation.wild, mutation.mutant):
            _known(letter, f"{mutation.wild}{mutation.position + 1}{mutation.mutant}", where)
    return tuple(found)


def _mutations(given: dict[str, str], wild_type: str, offset: int, where: str) -> tuple[Mutation, ...]:
    if not any(given.values()):
        raise FormatError(f"{where}: found no mutant, expected for example A24C; remove the row")
    sequence, text = given.get("mutated_sequence", "").upper(), given.get("mutant", "")
    by_sequence = compare_sequences(sequence, wild_type, where=where) if sequence else None
    if not text:
        assert by_sequence is not None
        return by_sequence
    by_name = parse_mutant(text, wild_type, offset=offset, where=where)
    changed = tuple(m for m in by_name if m.wild != m.mutant)
    if by_sequence is not None and by_sequence != changed:
        odd = next((m.position for m in sorted({*by_sequence} ^ {*changed})), 0)
        raise FormatError(
            f"{where}: the mutant '{text}' and its mutated_sequence differ at residue {odd + 1 + offset}; correct one of them"
        )
    return by_name


def _score(cell: Any, where: str, column: str, missing: str) -> float | None:
    text = "" if cell is None else str(cell).strip()
    try:
        score = math.nan if text.lower() in _MISSING else float(text)
    except ValueError:
        raise FormatError(f"{where}: found '{text}' in {column}, expected a number") from None
    if math.isfinite(score) or (missing == "keep" and math.isnan(score)):
        return score
    if missing == "drop" and math.isnan(score):
        return None
    raise FormatError(f"{where}: found '{text}' in {column}, expected a finite number; correct it, or remove the row")
