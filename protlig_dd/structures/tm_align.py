"""The TM-score of two chains without known residue correspondence: an alignment is searched as in TM-align.

This is our own procedure, written from the paper, not the TM-align program: initial alignments by gapless threading, by secondary structure,
by both, and by superposed fragments; each is improved by alternating the best superposition of the aligned pairs and dynamic programming
over 1 / (1 + (d/d0)^2). As in TM-align, the score is a lower bound on that of the best alignment, so of two scores the higher is better.

Checked against TM-align's own code (tmtools 0.3.0) on 150 random pairs of the 41 chains of 13 to 266 residues in the Foldseek examples: ours
minus theirs is +0.001 in the mean (0.011 in absolute value), below -0.01 for 14 % and above +0.01 for 23 % of the scores. The worst, -0.08
to -0.16, are fragments of 13 to 40 residues against whole chains. Without `thorough` it is -0.012 in the mean. 0.27 s a pair, 0.09 s without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from protlig_dd.structures.superpose import Superposition, kabsch_batch
from protlig_dd.structures.tm_score import search, tm_d0

_GAP_OPENINGS = (-0.6, 0.0)
_ROUNDS = 30
_FRAGMENT = 20  # residues of a superposed fragment
_FRAGMENT_PAIRS = 400  # pairs of fragments tried
_LEAST = 5  # aligned pairs that a superposition needs


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainAlignment:
    """An alignment of two chains.

    Attributes:
        tm_first: TM-score normalised by the length of the first chain.
        tm_second: TM-score normalised by the length of the second chain.
        pairs: indices of aligned residues in the first and the second chain, increasing.
        rmsd: RMSD of the aligned C-alphas in the superposition that gives the score, in Angstrom.
        superposition: motion of the first chain onto the second.
    """

    tm_first: float
    tm_second: float
    pairs: Int[np.ndarray, "m 2"]
    rmsd: float
    superposition: Superposition

    @property
    def tm(self) -> float:
        """The mean of both scores: symmetric in the chains except for the search."""
        return (self.tm_first + self.tm_second) / 2


def align_chains(first: Float[np.ndarray, "l 3"], second: Float[np.ndarray, "m 3"], *, thorough: bool = True) -> ChainAlignment:
    """Return the best alignment found of two chains by their C-alphas; residues without one are left out.

    Args:
        first: C-alphas of the first chain in Angstrom.
        second: C-alphas of the second chain in Angstrom.
        thorough: try fragments and both gap penalties from every start. False is about three times faster, for comparisons of many
            chains, and gives scores lower by 0.012 in the mean.

    Raises:
        ValueError: if a chain has fewer than 5 residues with coordinates.

    Source: Zhang and Skolnick 2005, Nucleic Acids Res. 33, 2302.
    """
    kept = [np.flatnonzero(np.isfinite(chain).all(-1)) for chain in (first, second)]
    if min(map(len, kept)) < _LEAST:
        raise ValueError(
            f"align_chains: found chains of {len(kept[0])} and {len(kept[1])} residues with coordinates, expected at least {_LEAST}"
        )
    x, y = (np.asarray(chain[rows], dtype=np.float64) for chain, rows in zip((first, second), kept, strict=True))
    d0 = max(tm_d0(min(len(x), len(y))), 1.0)  # the search uses the shorter chain
    best, best_score = np.zeros((0, 2), dtype=np.int64), -1.0
    for pairs in _starts(x, y, d0, thorough):
        for opening in _GAP_OPENINGS if thorough else _GAP_OPENINGS[:1]:
            improved, score = _improve(x, y, pairs, d0, opening)
            if score > best_score:
                best, best_score = improved, score
    return _scored(x, y, best, kept)


def _scored(x: np.ndarray, y: np.ndarray, pairs: np.ndarray, kept: list[np.ndarray]) -> ChainAlignment:
    scores = []
    for length in (len(x), len(y)):
        total, superposition = search(x[pairs[:, 0]], y[pairs[:, 1]], tm_d0(length), max_starts=128)
        scores.append((total / length, superposition))
    motion = scores[int(len(y) < len(x))][1]  # that of the shorter chain
    distances = ((motion.apply(x[pairs[:, 0]]) - y[pairs[:, 1]]) ** 2).sum(-1)
    return ChainAlignment(
        tm_first=scores[0][0],
        tm_second=scores[1][0],
        pairs=np.stack([kept[0][pairs[:, 0]], kept[1][pairs[:, 1]]], axis=1),
        rmsd=float(np.sqrt(distances.mean())),
        superposition=motion,
    )


def _improve(x: np.ndarray, y: np.ndarray, pairs: np.ndarray, d0: float, opening: float) -> tuple[np.ndarray, float]:
    """Alternate superposition of the aligned pairs and alignment by the superposition until the score stops growing."""
    best, best_score = pairs, -1.0
    for _ in range(_ROUNDS):
        score, motion = search(x[pairs[:, 0]], y[pairs[:, 1]], d0, max_starts=4, levels=3, rounds=8)
        if score > best_score + 1e-6:
            best, best_score = pairs, score
        elif score < best_score - 1e-6 or len(pairs) < _LEAST:
            break
        aligned = dynamic_alignment(_closeness(motion.apply(x), y, d0), opening)
        if len(aligned) < _LEAST or (len(aligned) == len(pairs) and (aligned == pairs).all()):
            break
        pairs = aligned
    return best, best_score


def _closeness(moved: np.ndarray, y: np.ndarray, d0: float) -> Float[np.ndarray, "l m"]:
    """1 / (1 + (d/d0)^2) of all pairs."""
    squared = (moved**2).sum(-1)[:, None] + (y**2).sum(-1)[None] - 2 * moved @ y.T
    return np.asarray(1 / (1 + np.maximum(squared, 0) / d0**2))


def dynamic_alignment(scores: Float[np.ndarray, "l m"], opening: float) -> Int[np.ndarray, "p 2"]:
    """Return the alignment with the largest sum of scores plus `opening` for each gap of any length; ends are free.

    Args:
        scores: scores of all pairs, 0 or more: a simultaneous gap in both chains is then never better than pairs and one gap, and is not
            tried.
        opening: score of a gap, 0 or less.

    Source: Needleman and Wunsch 1970, with a constant cost for gaps of any length.
    """
    num, width = scores.shape
    # best[i, j]: the best alignment that ends with the pair (i, j). No predecessor is in row i, so a row is computed as one vector.
    best = np.zeros_like(scores)
    none = np.full(width, -np.inf)
    column_best = previous = none  # best of the rows above the previous one, by column; the previous row
    for i in range(num):
        step = np.zeros(width)  # starting here is free
        if i:
            step[1:] = np.maximum(step[1:], previous[:-1])
            step[2:] = np.maximum(step[2:], np.maximum.accumulate(previous)[:-2] + opening)
            step[1:] = np.maximum(step[1:], column_best[:-1] + opening)
            column_best = np.maximum(column_best, previous)
        best[i] = previous = scores[i] + step
    return _trace(best, scores, opening)


def _trace(best: np.ndarray, scores: np.ndarray, opening: float) -> np.ndarray:
    i, j = divmod(int(best.argmax()), best.shape[1])
    pairs = [(i, j)]
    while i and j:
        before = best[i, j] - scores[i, j]
        options = [(float(best[i - 1, j - 1]), i - 1, j - 1)]
        if j > 1:
            k = int(best[i - 1, : j - 1].argmax())
            options.append((float(best[i - 1, k]) + opening, i - 1, k))
        if i > 1:
            k = int(best[: i - 1, j - 1].argmax())
            options.append((float(best[k, j - 1]) + opening, k, j - 1))
        value, i, j = max(options, key=lambda option: option[0])
        if value < before - 1e-9 or before <= 1e-12:
            break  # the alignment starts here
        pairs.append((i, j))
    return np.array(pairs[::-1], dtype=np.int64)


def _starts(x: np.ndarray, y: np.ndarray, d0: float, thorough: bool) -> list[np.ndarray]:
    """The initial alignments."""
    threaded = _threaded(x, y, d0)
    same = (secondary_structure(x)[:, None] == secondary_structure(y)[None]).astype(np.float64)
    starts = [threaded, dynamic_alignment(same, -1.0)]
    _, motion = search(x[threaded[:, 0]], y[threaded[:, 1]], d0, max_starts=8, levels=3, rounds=8)
    starts.append(dynamic_alignment(_closeness(motion.apply(x), y, d0) + 0.5 * same, -1.0))
    if thorough:
        starts.append(_from_fragments(x, y, d0))
    return [start for start in starts if len(start) >= _LEAST]


def _threaded(x: np.ndarray, y: np.ndarray, d0: float) -> np.ndarray:
    """The gapless alignment with the best score after a quick superposition."""
    least = max(_LEAST, min(len(x), len(y)) // 2)
    shifts = np.arange(least - len(x), len(y) - least + 1)  # x[i] is paired with y[i + shift]
    place = np.arange(len(x))[None] + shifts[:, None]
    inside = (place >= 0) & (place < len(y))
    targets = y[np.clip(place, 0, len(y) - 1)]
    mobile = np.broadcast_to(x, (len(shifts), *x.shape))
    weights = inside.astype(np.float64)
    best = np.zeros(len(shifts))
    for _ in range(3):
        rotations, translations = kabsch_batch(mobile, targets, weights)
        moved = mobile @ np.swapaxes(rotations, 1, 2) + translations[:, None]
        squared = np.where(inside, ((moved - targets) ** 2).sum(-1), np.inf)
        best = np.maximum(best, (1 / (1 + squared / d0**2)).sum(-1))
        nearest = np.sort(squared, axis=1)[:, min(_LEAST, len(x)) - 1]
        weights = (squared <= np.maximum(nearest, max(d0, 4.5) ** 2)[:, None]).astype(np.float64)
    row = int(best.argmax())
    return np.stack([np.flatnonzero(inside[row]), place[row][inside[row]]], axis=1)


def _from_fragments(x: np.ndarray, y: np.ndarray, d0: float) -> np.ndarray:
    """The alignment by the best of many superpositions of pairs of short fragments."""
    size = min(_FRAGMENT, len(x), len(y))
    each = int(_FRAGMENT_PAIRS**0.5)
    begins = [np.unique(np.linspace(0, len(c) - size, min(each, len(c) - size + 1)).round().astype(int)) for c in (x, y)]
    a, b = (grid.ravel() for grid in np.meshgrid(*begins, indexing="ij"))
    window = np.arange(size)
    rotations, translations = kabsch_batch(x[a[:, None] + window], y[b[:, None] + window], np.ones((len(a), size)))
    moved = x @ np.swapaxes(rotations, 1, 2) + translations[:, None]
    scores = [_closeness(coords, y, d0).max(1).sum() for coords in moved]
    return dynamic_alignment(_closeness(moved[int(np.argmax(scores))], y, d0), _GAP_OPENINGS[0])


def secondary_structure(ca: Float[np.ndarray, "l 3"]) -> Int[np.ndarray, " l"]:
    """Return 1 for helix, 2 for strand, 3 for turn and 0 for coil, from the distances among five consecutive C-alphas.

    Source: Zhang and Skolnick 2005, equation 1.
    """
    states = np.zeros(len(ca), dtype=np.int64)
    if len(ca) < 5:
        return states
    windows = np.stack([ca[i : len(ca) - 4 + i] for i in range(5)])

    def apart(i: int, j: int) -> np.ndarray:
        return np.asarray(np.linalg.norm(windows[i] - windows[j], axis=-1))

    distances = {(i, j): apart(i, j) for i in range(5) for j in range(i + 2, 5)}
    for state, tolerance, by_gap in ((1, 2.1, {2: 5.45, 3: 5.18, 4: 6.37}), (2, 1.42, {2: 6.1, 3: 10.4, 4: 13.0})):
        fits = np.all([np.abs(d - by_gap[j - i]) < tolerance for (i, j), d in distances.items()], axis=0)
        states[2:-2][fits & (states[2:-2] == 0)] = state
    states[2:-2][(states[2:-2] == 0) & (distances[0, 4] < 8)] = 3
    return states
