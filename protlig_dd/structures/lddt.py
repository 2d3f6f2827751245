"""The local distance difference test (lDDT): the fraction of a reference's short distances that a model preserves, without superposition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

THRESHOLDS = (0.5, 1.0, 2.0, 4.0)
"""Differences, in Angstrom, below which a distance counts as preserved."""

_ROWS = 256  # atoms whose distances are held at once


@dataclass(frozen=True, kw_only=True, eq=False)
class LDDT:
    """An lDDT, 0 to 1.

    Attributes:
        value: the fraction of the reference's distances that are preserved, averaged over the thresholds; NaN without any distance.
        per_residue: the same over the distances of each residue's atoms; NaN for a residue without any. Its mean differs from `value`,
            since residues have different numbers of neighbours.
    """

    value: float
    per_residue: Float[np.ndarray, " l"]


def lddt(
    model: Float[np.ndarray, "l *a 3"],
    reference: Float[np.ndarray, "m *c 3"],
    *,
    radius: float = 15.0,
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> LDDT:
    """Return the lDDT of a model to a reference with the same residues.

    The distances between atoms of different residues below `radius` in the reference are counted. An atom without coordinates in the
    reference is left out; one missing only in the model counts as not preserved. A mirror image preserves all distances and so has 1; the
    TM-score detects it. There are no stereochemical checks, and no atoms are interchanged (backbone and C-beta do not need it).

    Args:
        model: C-alphas [l, 3], or the atoms of each residue [l, a, 3], in Angstrom.
        reference: the same atoms.
        radius: the inclusion radius in Angstrom.
        thresholds: differences in Angstrom.

    Raises:
        ValueError: if the shapes differ.

    Source: Mariani, Biasini, Barbato and Schwede 2013, Bioinformatics 29, 2722.

    >>> helix = np.stack([[2.3 * np.cos(1.745 * i), 2.3 * np.sin(1.745 * i), 1.5 * i] for i in range(12)])
    >>> float(lddt(helix + 5, helix).value)
    1.0
    """
    if model.shape != reference.shape:
        raise ValueError(f"lddt: found the shapes {model.shape} and {reference.shape}, expected equal ones")
    length = len(reference)
    x, y = (np.asarray(points, dtype=np.float64).reshape(-1, 3) for points in (model, reference))
    residue = np.repeat(np.arange(length), len(y) // max(length, 1))
    there = np.isfinite(y).all(-1)
    x, y, residue = x[there], y[there], residue[there]
    kept, counted = np.zeros(length), np.zeros(length)
    for start in range(0, len(y), _ROWS):
        rows = slice(start, start + _ROWS)
        true = np.linalg.norm(y[rows, None] - y[None], axis=-1)
        seen = np.linalg.norm(x[rows, None] - x[None], axis=-1)
        near = (true < radius) & (residue[rows, None] != residue[None])
        difference = np.where(np.isfinite(seen), np.abs(seen - true), np.inf)
        share = sum((difference < threshold) & near for threshold in thresholds) / len(thresholds)
        np.add.at(kept, residue[rows], np.asarray(share).sum(1))
        np.add.at(counted, residue[rows], near.sum(1))
    with np.errstate(invalid="ignore"):
        per_residue = kept / counted
    total = counted.sum()
    return LDDT(value=float(kept.sum() / total) if total else float("nan"), per_residue=per_residue)
