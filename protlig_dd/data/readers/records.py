"""A record: one row, sequence or molecule as text, as every reader yields it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One example as text.

    Args:
        where: "file:line", the start of every message about it.
        texts: the text of each track, such as {"protein": "MKT...", "ligand": "CCO"} ("structure" for structure tokens); a missing track
            has no entry.
        label: 1 if the pair binds, 0 if it does not, None if unknown.
        affinity: the measured value, None if unknown; concentrations are converted to -log10 of the molar value.
        split: "train", "validation" or "test" as assigned by the file, or None.
        name: its name in the file, or "".
        problem: (the reason in a few words, the whole message) if it cannot be used; the encoder raises an error, or leaves it out and
            counts it.
        remarks: what the reader changed or left out of it, in a few words each; the encoder counts them.
    """

    where: str
    texts: Mapping[str, str]
    label: int | None = None
    affinity: float | None = None
    split: str | None = None
    name: str = ""
    problem: tuple[str, str] | None = None
    remarks: tuple[str, ...] = ()
