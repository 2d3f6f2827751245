"""How alike proteins are: k-mer sets, greedy clusters, and alignment identity of nearest neighbours.

All of it is written for tables of up to about 1e5 distinct proteins, as arrays over many pairs at once. Proteins are arrays of token ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Int64

Protein = Int[np.ndarray, " _"]
Numbers = Int64[np.ndarray, " _"]
_BASE = 64  # more than any protein alphabet has ids
_GAP, _MATCH = -1, 1
_UNIT = 1 << 20  # score in the high bits, identical positions in the low ones


def kmers(protein: Protein, size: int) -> Numbers:
    """Return the distinct k-mers of a protein as sorted numbers; a protein shorter than k has none."""
    if len(protein) < size:
        return np.zeros(0, np.int64)
    weights = _BASE ** np.arange(size, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(protein, dtype=np.int64), size)
    return np.unique(windows @ weights)


def cluster_proteins(proteins: Sequence[Protein], identity: float, *, size: int = 4) -> Numbers:
    """Return a cluster number for each protein, by greedy k-mer clustering.

    From the longest to the shortest, a protein is compared with the representative that shares most of its distinct k-mers. If that
    is at least the fraction identity^k, which random substitutions at that identity leave on average, it joins; if it is at least
    half of that, an alignment decides; otherwise it becomes a representative. This is CD-HIT's scheme with most alignments left out:
    an estimate, good down to about 0.4, where chance matches of 4-mers begin to count. Remote homologs stay apart.

    Args:
        proteins: token ids.
        identity: 0 to 1, of the shorter protein.
        size: k.
    """
    clusters = np.full(len(proteins), -1, np.int64)
    holders: defaultdict[int, list[int]] = defaultdict(list)
    representatives: list[int] = []
    for i in sorted(range(len(proteins)), key=lambda i: (-len(proteins[i]), i)):
        own = kmers(proteins[i], size).tolist()
        hits = [holder for kmer in own if kmer in holders for holder in holders[kmer]]
        votes = np.bincount(hits) if hits else np.zeros(1, np.int64)
        best, expected = int(votes.argmax()), max(identity**size * len(own), 1)
        joins = votes[best] >= expected
        if not joins and votes[best] >= expected / 2:
            joins = align_identity([proteins[i]], [proteins[representatives[best]]])[0] >= identity
        if not joins:
            best = len(representatives)
            representatives.append(i)
            for kmer in own:
                holders[kmer].append(best)
        clusters[i] = best
    return clusters


class KmerIndex:
    """Finds, for a protein, those of a collection that share most k-mers with it."""

    def __init__(self, proteins: Sequence[Protein], *, size: int = 3) -> None:
        self.size, self.count = size, len(proteins)
        sets = [kmers(protein, size) for protein in proteins]
        owners = np.repeat(np.arange(len(sets)), [len(s) for s in sets])
        every = np.concatenate([np.zeros(0, np.int64), *sets])
        order = np.argsort(every, kind="stable")
        self._owners = owners[order]
        self._kmers, self._starts = np.unique(every[order], return_index=True)
        self._stops = np.append(self._starts[1:], len(every))
        self._scale = 1 / np.sqrt(np.maximum([len(s) for s in sets], 1))

    def nearest(self, protein: Protein, count: int) -> Numbers:
        """Return the indices of the `count` proteins that share most k-mers, relative to the root of their length."""
        own = kmers(protein, self.size)
        places = np.searchsorted(self._kmers, own)
        places = places[(places < len(self._kmers)) & (self._kmers[np.minimum(places, len(self._kmers) - 1)] == own)]
        ranges = [self._owners[self._starts[p] : self._stops[p]] for p in places.tolist()]
        votes = np.bincount(np.concatenate([np.zeros(0, np.int64), *ranges]), minlength=self.count) * self._scale
        count = min(count, self.count)
        return np.asarray(np.argpartition(-votes, count - 1)[:count])


def align_identity(queries: Sequence[Protein], targets: Sequence[Protein]) -> Float[np.ndarray, " p"]:
    """Return the identity of each pair: identical positions of a global alignment with free end gaps over the shorter length.

    Match 1, mismatch 0, gap -1; among alignments of the best score, the most identities. Unrelated proteins of equal length reach
    about 0.2 to 0.3 by this measure, so a null belongs beside it.
    """
    assert len(queries) == len(targets)
    identities = np.zeros(len(queries))
    order = np.argsort([len(q) for q in queries], kind="stable")
    for start in range(0, len(order), 64):  # pairs of similar length together: fewer empty rows
        some = order[start : start + 64]
        identities[some] = _align_block([queries[i] for i in some], [targets[i] for i in some])
    return identities


def _align_block(queries: Sequence[Protein], targets: Sequence[Protein]) -> np.ndarray:
    """Align pairs row by row, all pairs at once; a gap along the row is a running maximum of what is left of it."""
    rows = np.array([len(q) for q in queries])
    columns = np.array([len(t) for t in targets])
    wide = int(columns.max(initial=0))
    padded = np.full((len(queries), wide), -1, np.int64)
    letters = np.full((len(queries), int(rows.max(initial=0))), -2, np.int64)
    for i, (query, target) in enumerate(zip(queries, targets, strict=True)):
        letters[i, : len(query)], padded[i, : len(target)] = query, target
    slope = -_GAP * _UNIT * np.arange(wide + 1)
    outside = np.arange(wide + 1)[None] > columns[:, None]
    each = np.arange(len(queries))
    state = np.zeros((len(queries), wide + 1), np.int64)
    best = np.zeros(len(queries), np.int64)
    for row in range(letters.shape[1]):
        step = np.where(letters[:, row, None] == padded, _MATCH * _UNIT + 1, 0)
        fresh = state + _GAP * _UNIT
        fresh[:, 0] = 0
        fresh[:, 1:] = np.maximum(fresh[:, 1:], state[:, :-1] + step)
        state = np.maximum.accumulate(fresh + slope, axis=1) - slope
        best = np.where(row < rows, np.maximum(best, state[each, columns]), best)
        last = rows == row + 1
        if last.any():
            best[last] = np.maximum(best[last], np.where(outside[last], 0, state[last]).max(axis=1))
    # The low bits count identities: best = score * 2^20 + identities, both non-negative.
    shorter = np.maximum(np.minimum(rows, columns), 1)
    return np.asarray((best & (_UNIT - 1)) / shorter)
