"""The TM-score of two structures with the same residues; the best superposition is searched as in the TM-score program.

Kabsch's superposition minimises squared distances and is far from optimal when domains move; the score is the maximum over superpositions,
and a search finds a lower bound of it. This search starts from many runs of consecutive pairs of several lengths at once (as rows of one
array) and refines each on the pairs within a cutoff. The residue correspondence is given; `tm_align.py` also searches for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from protlig_dd.structures.superpose import Superposition, kabsch_batch, paired

_ROUNDS = 20  # of refinement; most seeds settle in five
_SHORTEST = 4  # pairs in the shortest seed
_LEVELS = 6  # halvings of the seed's length
_ROWS_AT_ONCE = 1 << 19  # seeds times pairs held at once


@dataclass(frozen=True, kw_only=True, eq=False)
class TMScore:
    """A TM-score and the superposition that gives it.

    Attributes:
        value: from 0 to 1; above 0.5 mostly one fold, about 0.17 for unrelated proteins.
        superposition: motion of the mobile structure onto the target.
    """

    value: float
    superposition: Superposition


def tm_d0(length: int) -> float:
    """Return the TM-score's distance scale in Angstrom: 1.24 (L - 15)^(1/3) - 1.8, at least 0.5.

    Source: Zhang and Skolnick 2004, equation 5; the floor as in their program.

    >>> round(tm_d0(100), 2), tm_d0(10)
    (3.65, 0.5)
    """
    return max(0.5, 1.24 * (length - 15) ** (1 / 3) - 1.8) if length > 15 else 0.5


def tm_score(
    mobile: Float[np.ndarray, "l 3"], target: Float[np.ndarray, "m 3"], *, norm_length: int | None = None, max_starts: int = 128
) -> TMScore:
    """Return the TM-score of a structure to a target with the same residues, by C-alphas.

    Args:
        mobile: C-alphas in Angstrom; NaN for missing residues, which contribute 0.
        target: C-alphas of the same residues in Angstrom.
        norm_length: the length that the sum is divided by and d0 depends on; None is the target's number of residues with coordinates.
        max_starts: most seeds of one length; longer chains skip some.

    Raises:
        ValueError: if the shapes differ, or no residue has coordinates in both.

    Source: Zhang and Skolnick 2004, Proteins 57, 702.
    """
    if mobile.shape != target.shape:
        raise ValueError(f"tm_score: found the shapes {mobile.shape} and {target.shape}, expected equal ones")
    there = paired(mobile, target)
    if not there.any():
        raise ValueError("tm_score: found no residue with coordinates in both structures, expected at least one")
    length = int(np.isfinite(target).all(-1).sum()) if norm_length is None else norm_length
    x, y = np.asarray(mobile[there], dtype=np.float64), np.asarray(target[there], dtype=np.float64)
    total, superposition = search(x, y, tm_d0(length), max_starts=max_starts)
    return TMScore(value=total / length, superposition=superposition)


def search(
    mobile: Float[np.ndarray, "l 3"],
    target: Float[np.ndarray, "l 3"],
    d0: float,
    *,
    max_starts: int,
    levels: int = _LEVELS,
    rounds: int = _ROUNDS,
) -> tuple[float, Superposition]:
    """Return the largest sum of 1 / (1 + (d/d0)^2) found over superpositions, and its superposition."""
    seeds = _seeds(len(mobile), max_starts, levels)
    best, found = -1.0, (np.eye(3), np.zeros(3))
    step = max(1, _ROWS_AT_ONCE // len(mobile))
    for start in range(0, len(seeds), step):
        score, rotation, translation = _refine(mobile, target, seeds[start : start + step], d0, rounds)
        if score > best:
            best, found = score, (rotation, translation)
    return best, Superposition(rotation=found[0], translation=found[1])


def _seeds(length: int, max_starts: int, levels: int) -> Float[np.ndarray, "s l"]:
    """Runs of pairs as weights: all pairs, halves, quarters, ... at evenly spaced places."""
    rows = [np.ones((1, length))]
    for level in range(1, levels + 1):
        size = length >> level
        if size < _SHORTEST and level > 1:
            break
        size = min(length, max(size, _SHORTEST))
        starts = np.unique(np.linspace(0, length - size, min(max_starts, length - size + 1)).round().astype(int))
        place = np.arange(length)
        rows.append(((place >= starts[:, None]) & (place < starts[:, None] + size)).astype(np.float64))
    return np.concatenate(rows)


def _refine(
    mobile: Float[np.ndarray, "l 3"], target: Float[np.ndarray, "l 3"], weights: Float[np.ndarray, "s l"], d0: float, rounds: int
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Superpose on each row's pairs, then repeatedly on the pairs within the cutoff, until nothing changes; return the best of all."""
    reach = min(max(d0, 4.5), 8.0)  # the program's d0_search
    best = -1.0
    rotation = translation = np.zeros(0)
    for index in range(rounds + 1):
        rotations, translations = kabsch_batch(mobile, target, weights)
        moved = mobile @ np.swapaxes(rotations, 1, 2) + translations[:, None]
        squared = ((moved - target) ** 2).sum(-1)
        scores = (1 / (1 + squared / d0**2)).sum(-1)
        top = int(scores.argmax())
        if scores[top] > best:
            best, rotation, translation = float(scores[top]), rotations[top], translations[top]
        near = _near(squared, reach - 1 if index == 0 else reach + 1)
        changed = (near != (weights > 0)).any(1)
        if not changed.any():
            break
        # seeds that have become equal are merged: equal rows have equal sums of incommensurable numbers
        _, first = np.unique(near[changed] @ np.modf(np.sqrt(np.arange(2, len(mobile) + 2)))[0], return_index=True)
        weights = near[changed][first].astype(np.float64)
    return best, rotation, translation


def _near(squared: Float[np.ndarray, "s l"], reach: float) -> np.ndarray:
    """Which pairs are within the cutoff, which grows until it includes three pairs (or all, if there are fewer)."""
    third = np.sqrt(np.partition(squared, min(2, squared.shape[1] - 1), axis=1)[:, min(2, squared.shape[1] - 1)])
    steps = np.ceil(np.maximum(third - reach, 0) / 0.5)
    limit = np.maximum(reach + 0.5 * steps, third)
    return np.asarray(squared <= (limit**2)[:, None])
