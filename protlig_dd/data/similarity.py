"""How similar proteins are: shared k-mers, alignments, the identity to the nearest protein of a collection, and greedy clusters.

Every identity is the number of identical positions of one alignment over a named length. The name also says which ends of the alignment
are free, because residues that the denominator counts must not be skipped at no cost:

    "shorter"  over the shorter protein; the ends of both proteins are free. A copied fragment has 1, whichever of the two it is.
               Match 1, mismatch 0, gap -1 a residue. The data's leakage line and the cluster split use it.
    "query"    over the query, such as a generated sample; all of it is aligned and only the ends of the target are free. A copy and
               a copied fragment have 1, a query twice as long as the target at most 0.5. Match 2, mismatch -1, gap -2 a residue.
               The evaluation of samples uses it.

For the query MKTAYIAK and the target TAYI, "shorter" gives 1.0 and "query" 0.5. Unrelated proteins of equal length reach about 0.2 to 0.3,
so an identity needs a null next to it. BLAST and MMseqs2 differ from both: they divide by the aligned part.

A protein is a string of capital letters or an array of token ids below 64; the proteins of one call have one form. The arrays over many
pairs at once are sized for collections of up to about 1e5 distinct proteins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Int64

from protlig_dd.errors import FormatError

Protein = str | Int[np.ndarray, " _"]
Numbers = Int64[np.ndarray, " _"]
Likeness = Callable[[Numbers, int, Numbers, int], Float[np.ndarray, " N"]]
"""A score of N indexed proteins from the k-mers that each shares with the query, those of the query, those of each, and k."""
Denominator = Literal["shorter", "query"]

_BASE = 64  # more than any protein alphabet has ids
_PAIRS_AT_ONCE = 64
_INT32_LIMIT = 1 << 30  # tables whose numbers stay below it are kept in int32


def letter_codes(sequence: str) -> Numbers:
    """Return letters A to Z as numbers 0 to 25.

    Raises:
        FormatError: for any other character.
    """
    codes = np.frombuffer(sequence.encode("utf-32-le"), dtype=np.uint32).astype(np.int64) - ord("A")
    if len(codes) and not (codes.min() >= 0 and codes.max() < 26):
        shown = sequence if len(sequence) <= 40 else sequence[:40] + "..."
        raise FormatError(f"sequence '{shown}': expected capital letters A to Z only; read it with split_protein, or remove it")
    return codes


def _codes(protein: Protein) -> Numbers:
    return letter_codes(protein) if isinstance(protein, str) else np.asarray(protein, dtype=np.int64)


def kmers(protein: Protein, size: int = 3) -> Numbers:
    """Return a protein's overlapping k-mers in order, each as a number; a protein shorter than k has none."""
    codes = _codes(protein)
    if len(codes) < size:
        return np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, size)
    return np.asarray(windows @ (_BASE ** np.arange(size, dtype=np.int64)))


def per_root_length(shared: Numbers, own: int, sizes: Numbers, k: int) -> Float[np.ndarray, " N"]:
    """Return shared k-mers over the square root of the indexed protein's number of k-mers."""
    return np.asarray(shared * (1 / np.sqrt(np.maximum(sizes, 1))))


def beyond_chance(shared: Numbers, own: int, sizes: Numbers, k: int) -> Float[np.ndarray, " N"]:
    """Return (shared - e) / sqrt(e + 1), where e is the number of k-mers of twenty letters that the two share by chance."""
    by_chance = own * sizes / 20**k
    return np.asarray((shared - by_chance) / np.sqrt(by_chance + 1))


def jaccard(shared: Numbers, own: int, sizes: Numbers, k: int) -> Float[np.ndarray, " N"]:
    """Return the Jaccard index of the two sets of k-mers."""
    return np.asarray(shared / np.maximum(own + sizes - shared, 1))


class KmerIndex:
    """Finds the proteins of a collection that share most k-mers with a query.

    Args:
        proteins: the collection.
        size: k.
    """

    def __init__(self, proteins: Sequence[Protein], *, size: int = 3) -> None:
        self.proteins, self.size = tuple(proteins), size
        sets = [np.unique(kmers(protein, size)) for protein in self.proteins]
        self._sizes = np.array([len(s) for s in sets], dtype=np.int64)
        every = np.concatenate([np.zeros(0, np.int64), *sets])
        order = np.argsort(every, kind="stable")
        self._owners = np.repeat(np.arange(len(sets), dtype=np.int32), self._sizes)[order]
        self._kmers, self._starts = np.unique(every[order], return_index=True)
        self._stops = np.append(self._starts[1:], len(every))

    def nearest(self, protein: Protein, count: int, *, by: Likeness, ordered: bool = True) -> Numbers:
        """Return the indices of the `count` most similar indexed proteins, or of all if there are fewer.

        Args:
            protein: the query.
            count: how many are wanted.
            by: the score that they are ranked by.
            ordered: the most similar first, equal ones in the order of the collection; False is faster, returns them in no particular
                order, and decides a tie at the cut arbitrarily (but always in the same way).
        """
        own = np.unique(kmers(protein, self.size))
        places = np.searchsorted(self._kmers, own)
        inside = places < len(self._kmers)
        places = places[inside][self._kmers[places[inside]] == own[inside]]
        ranges = [self._owners[self._starts[p] : self._stops[p]] for p in places.tolist()]
        shared = np.bincount(np.concatenate([np.zeros(0, np.int32), *ranges]), minlength=len(self.proteins))
        scores, count = by(shared, len(own), self._sizes, self.size), min(count, len(self.proteins))
        if ordered or not count:
            return np.argsort(-scores, kind="stable")[:count]
        return np.asarray(np.argpartition(-scores, count - 1)[:count])


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Scores of an alignment, and whether the ends of the query are free as those of the target always are."""

    match: int
    mismatch: int
    gap: int
    free_query_ends: bool


SCORINGS: Mapping[Denominator, Scoring] = {
    "shorter": Scoring(match=1, mismatch=0, gap=-1, free_query_ends=True),
    "query": Scoring(match=2, mismatch=-1, gap=-2, free_query_ends=False),
}
"""The alignment behind each identity."""


def identity(queries: Sequence[Protein], targets: Sequence[Protein], *, over: Denominator) -> Float[np.ndarray, " p"]:
    """Return the identity of each pair, 0 to 1; 0 if either protein is empty.

    Args:
        queries: the first protein of each pair.
        targets: the second one.
        over: the length that identical positions are divided by, and with it the alignment (see the module).

    >>> [float(identity(["MKTAYIAK"], ["TAYI"], over=length)[0]) for length in ("shorter", "query")]
    [1.0, 0.5]
    """
    whole = np.array([len(q) if over == "query" else min(len(q), len(t)) for q, t in zip(queries, targets, strict=True)])
    return np.asarray(count_identical(queries, targets, SCORINGS[over]) / np.maximum(whole, 1))


def count_identical(queries: Sequence[Protein], targets: Sequence[Protein], scoring: Scoring) -> Numbers:
    """Return the identical positions of each pair's best alignment, the one with the most of them among equal scores.

    Source: Needleman and Wunsch 1970, J. Mol. Biol. 48, 443, with free ends.
    """
    counts = np.zeros(len(queries), np.int64)
    whole = [i for i, (query, target) in enumerate(zip(queries, targets, strict=True)) if len(query) and len(target)]
    whole.sort(key=lambda i: len(targets[i]))  # pairs of similar length together waste the least padding
    for start in range(0, len(whole), _PAIRS_AT_ONCE):
        some = whole[start : start + _PAIRS_AT_ONCE]
        counts[some] = _align([_codes(queries[i]) for i in some], [_codes(targets[i]) for i in some], scoring)
    return counts


def _align(queries: list[Numbers], targets: list[Numbers], scoring: Scoring) -> Numbers:
    """Fill the alignment tables of all pairs row by row (a row is one residue of every query); return the identical positions.

    Score and identities share one integer, score * unit + identities, so no path is traced. The table holds b_j - j * gap instead of
    b_j: a gap in the query, a step to the right in the same row, then costs nothing, and all of them are one running maximum.
    """
    lengths, widths = (np.array([len(one) for one in proteins]) for proteins in (queries, targets))
    unit = 1 << int(lengths.max()).bit_length()
    dtype = np.int32 if 2 * (lengths.max() + widths.max() + 2) * unit < _INT32_LIMIT else np.int64
    query, target = _padded(queries, -1), _padded(targets, -2)
    gap = scoring.gap * unit
    match, mismatch = dtype(scoring.match * unit + 1 - gap), dtype(scoring.mismatch * unit - gap)
    columns, pairs = np.arange(target.shape[1] + 1), np.arange(len(queries))
    table = np.tile((-columns * gap).astype(dtype), (len(queries), 1))  # b_j = 0: any start in the target is free
    best = np.full(len(queries), 0 if scoring.free_query_ends else np.iinfo(np.int64).min)
    for i in range(query.shape[1]):
        diagonal = np.where(target == query[:, i : i + 1], match, mismatch)
        diagonal += table[:, :-1]
        table += dtype(gap)
        if scoring.free_query_ends:
            table[:, 0] = 0
        np.maximum(table[:, 1:], diagonal, out=table[:, 1:])
        np.maximum.accumulate(table, axis=1, out=table)
        if scoring.free_query_ends:  # an alignment may end at the target's last residue in any row
            best = np.where(i < lengths, np.maximum(best, table[pairs, widths] + widths * gap), best)
        done = np.flatnonzero(lengths == i + 1)
        if len(done):
            inside = columns <= widths[done, None]  # padding is on the right, where no path comes back from
            last = np.where(inside, table[done] + columns * gap, np.iinfo(np.int64).min).max(1)
            best[done] = np.maximum(best[done], last)
    return np.asarray(best % unit)


def _padded(proteins: list[Numbers], filler: int) -> Int[np.ndarray, "p l"]:
    padded = np.full((len(proteins), max(map(len, proteins))), filler, dtype=np.int8)
    for row, protein in zip(padded, proteins, strict=True):
        row[: len(protein)] = protein
    return padded


def nearest_identities(
    queries: Sequence[Protein],
    index: KmerIndex,
    *,
    over: Denominator,
    num_candidates: int = 8,
    by: Likeness = beyond_chance,
    ordered: bool = True,
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return each query's identity to its nearest indexed protein, and the index of that protein.

    Only the `num_candidates` proteins that share most k-mers are aligned, so the identity is a lower bound; it is exact when the index is
    no larger than that, and for a copy of a whole protein or of a fragment of k letters or more, up to ties.

    Args:
        queries: the proteins.
        index: the collection to search.
        over: the denominator of the identity.
        num_candidates: proteins aligned with each query.
        by, ordered: how candidates are chosen, as in `KmerIndex.nearest`.

    Raises:
        ValueError: if the index is empty.
    """
    if not index.proteins:
        raise ValueError("nearest_identities: the index holds no sequence, expected at least one training sequence")
    if not len(queries):
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    chosen = np.stack([index.nearest(query, num_candidates, by=by, ordered=ordered) for query in queries])
    pairs = [(query, index.proteins[c]) for query, row in zip(queries, chosen, strict=True) for c in row]
    table = identity([q for q, _ in pairs], [t for _, t in pairs], over=over).reshape(chosen.shape)
    winner, rows = table.argmax(1), np.arange(len(queries))
    return table[rows, winner], chosen[rows, winner]


def cluster_proteins(proteins: Sequence[Protein], threshold: float, *, size: int = 4) -> Numbers:
    """Return a cluster number for each protein, by greedy k-mer clustering.

    From the longest to the shortest, a protein is compared with the representative that shares most of its distinct k-mers. If that is
    at least the fraction threshold^k, which random substitutions at that identity leave on average, it joins; if it is at least half of
    that, an alignment decides; otherwise it becomes a representative. This is CD-HIT's scheme with most alignments left out: an
    estimate, good down to about 0.4, where chance matches of 4-mers begin to count. Remote homologs get clusters of their own.

    Args:
        proteins: what to cluster.
        threshold: least identity to the representative, over the shorter protein, 0 to 1.
        size: k.
    """
    clusters = np.full(len(proteins), -1, np.int64)
    holders: defaultdict[int, list[int]] = defaultdict(list)
    representatives: list[int] = []
    for i in sorted(range(len(proteins)), key=lambda i: (-len(proteins[i]), i)):
        own = np.unique(kmers(proteins[i], size)).tolist()
        hits = [holder for kmer in own if kmer in holders for holder in holders[kmer]]
        votes = np.bincount(hits) if hits else np.zeros(1, np.int64)
        best, expected = int(votes.argmax()), max(threshold**size * len(own), 1)
        joins = votes[best] >= expected
        if not joins and votes[best] >= expected / 2:
            joins = identity([proteins[i]], [proteins[representatives[best]]], over="shorter")[0] >= threshold
        if not joins:
            best = len(representatives)
            representatives.append(i)
            for kmer in own:
                holders[kmer].append(best)
        clusters[i] = best
    return clusters
