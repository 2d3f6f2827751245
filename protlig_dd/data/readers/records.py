"""A record: what every reader yields for one row, sequence or molecule, still as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One example as it stands in a file.

    Args:
        where: "file:line", the beginning of every message about it.
        texts: the text of each track, such as {"protein": "MKT...", "ligand": "CCO"} ("structure" for structure tokens); an absent track has no entry.
        label: 1 if the pair binds, 0 if it does not, None if the file does not say.
        affinity: the measured value, None if the file does not say. Columns in nM are given as -log10 of the molar value.
        split: "train", "validation" or "test" as the file assigns it, or None.
        name: what the file calls it, or "".
        problem: (the reason in few words, the whole message) if it cannot be used as it stands: refused, or left out and counted.
    """

    where: str
    texts: Mapping[str, str]
    label: int | None = None
    affinity: float | None = None
    split: str | None = None
    name: str = ""
    problem: tuple[str, str] | None = None
