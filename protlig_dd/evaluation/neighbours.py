"""The nearest training protein of a sequence: a k-mer filter, then the identity of an exact alignment.

Identity here is the fraction of the *sample's* residues that stand opposite an equal residue when the whole sample is placed, with gaps,
somewhere in the training protein. A copy and a copied fragment both have 1; a sequence with nothing in common has the 0.1 to 0.3 that
shuffled sequences have, so a number of this kind says nothing without its null. It is not the identity of BLAST or MMseqs2, which
divide by the aligned part only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from protlig_dd.errors import FormatError

_K = 3
_LETTERS = 26
_NUM_LIKELY_WORDS = 20**_K
_MATCH, _MISMATCH, _GAP = 2, -1, -2
_PAIRS_AT_ONCE = 64
_INT32_LIMIT = 1 << 30  # tables whose numbers stay below it are kept in int32


def encode(sequence: str) -> Int[np.ndarray, " l"]:
    """Return letters A to Z as numbers 0 to 25.

    Raises:
        FormatError: for anything else.
    """
    codes = np.frombuffer(sequence.encode("utf-32-le"), dtype=np.uint32).astype(np.int64) - ord("A")
    if len(codes) and not (codes.min() >= 0 and codes.max() < _LETTERS):
        raise FormatError(
            f"sequence '{_shorten(sequence)}': expected capital letters A to Z only; read it with split_protein, or remove it"
        )
    return codes


def _shorten(sequence: str) -> str:
    return sequence if len(sequence) <= 40 else sequence[:40] + "..."


def kmers(sequence: str, k: int = _K) -> Int[np.ndarray, " m"]:
    """Return a sequence's overlapping words of k letters, each as a number."""
    codes = encode(sequence)
    if len(codes) < k:
        return np.zeros(0, dtype=np.int64)
    return np.lib.stride_tricks.sliding_window_view(codes, k) @ (_LETTERS ** np.arange(k, dtype=np.int64))


@dataclass(frozen=True)
class KmerIndex:
    """Which training sequences hold which 3-letter words.

    `owners[starts[w]:starts[w + 1]]` are the sequences that hold word w, each once; `num_words` is how many words each holds.
    """

    sequences: tuple[str, ...]
    starts: Int[np.ndarray, " w"]
    owners: Int[np.ndarray, " n"]
    num_words: Int[np.ndarray, " s"]

    @staticmethod
    def build(sequences: Sequence[str]) -> KmerIndex:
        """Return the index of some sequences (about 4 bytes a residue)."""
        words = [np.unique(kmers(sequence)) for sequence in sequences]
        num_words = np.array([len(w) for w in words], dtype=np.int64)
        owners = np.repeat(np.arange(len(words), dtype=np.int32), num_words)
        flat = np.concatenate([np.zeros(0, dtype=np.int64), *words])
        starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=_LETTERS**_K))])
        return KmerIndex(tuple(sequences), starts, owners[np.argsort(flat, kind="stable")], num_words)

    def candidates(self, sequence: str, num: int) -> Int[np.ndarray, " c"]:
        """Return up to `num` indexed sequences, first those that share most words with this one beyond what their length gives by chance.

        Sorted by (shared - e) / sqrt(e + 1), where e is the number of words shared by chance; ties in order of the index.
        """
        words = np.unique(kmers(sequence))
        found = [self.owners[self.starts[w] : self.starts[w + 1]] for w in words]
        shared = np.bincount(np.concatenate([np.zeros(0, dtype=np.int32), *found]), minlength=len(self.sequences))
        by_chance = len(words) * self.num_words / _NUM_LIKELY_WORDS
        return np.argsort(-(shared - by_chance) / np.sqrt(by_chance + 1), kind="stable")[:num]


def identities(pairs: Sequence[tuple[str, str]]) -> Float[np.ndarray, " p"]:
    """Return the identity of each pair (sample, target), as this module defines it; 0 for an empty sample or target.

    The whole sample is aligned, the ends of the target are free; match 2, mismatch -1, gap -2 a residue; among the best-scoring
    alignments the one with the most matches counts.

    Source: Needleman and Wunsch 1970, J. Mol. Biol. 48, 443, with free ends in the target.
    """
    # near-equal lengths together waste the least padding
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]))
    result = np.zeros(len(pairs))
    for start in range(0, len(order), _PAIRS_AT_ONCE):
        rows = [i for i in order[start : start + _PAIRS_AT_ONCE] if pairs[i][0] and pairs[i][1]]
        if rows:
            result[rows] = _align([encode(pairs[i][0]) for i in rows], [encode(pairs[i][1]) for i in rows])
    return result


def _pad(codes: list[np.ndarray], filler: int) -> Int[np.ndarray, "p l"]:
    padded = np.full((len(codes), max(map(len, codes))), filler, dtype=np.int8)
    for row, code in zip(padded, codes, strict=True):
        row[: len(code)] = code
    return padded


def _align(samples: list[np.ndarray], targets: list[np.ndarray]) -> Float[np.ndarray, " p"]:
    """Fill the alignment table of all pairs row by row (a row is one residue of every sample).

    Score and matches share one integer, score * unit + matches, so that no path need be traced. The table holds b_j - j * gap in place
    of b_j: a gap in the sample, a step to the right in the same row, then costs nothing and all of them are one running maximum.
    """
    sample_lengths = np.array([len(s) for s in samples])
    target_lengths = np.array([len(t) for t in targets])
    unit = 1 << int(sample_lengths.max()).bit_length()
    dtype = np.int32 if 2 * (sample_lengths.max() + target_lengths.max() + 2) * unit < _INT32_LIMIT else np.int64
    sample, target = _pad(samples, -1), _pad(targets, -2)
    gap = _GAP * unit
    match, mismatch = dtype(_MATCH * unit + 1 - gap), dtype(_MISMATCH * unit - gap)
    columns = np.arange(target.shape[1] + 1)
    table = np.tile((-columns * gap).astype(dtype), (len(samples), 1))  # b_j = 0: any start in the target is free
    matches = np.zeros(len(samples), dtype=np.int64)
    for i in range(sample.shape[1]):
        diagonal = np.where(target == sample[:, i : i + 1], match, mismatch)
        diagonal += table[:, :-1]
        table += dtype(gap)
        np.maximum(table[:, 1:], diagonal, out=table[:, 1:])
        np.maximum.accumulate(table, axis=1, out=table)
        done = np.flatnonzero(sample_lengths == i + 1)
        if len(done):
            inside = columns <= target_lengths[done, None]  # padding lies to the right, where no path comes back from
            matches[done] = np.where(inside, table[done] + columns * gap, np.iinfo(np.int64).min).max(1) % unit
    return np.asarray(matches / sample_lengths)


def nearest_identities(
    samples: Sequence[str], index: KmerIndex, *, num_candidates: int = 8
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return each sample's identity to its nearest indexed sequence, and which one that is.

    Only the `num_candidates` sequences that share the most 3-letter words are aligned, so the identity is a lower bound; it is exact
    when the index is no larger than that, and for a copy of a whole sequence or of a fragment of 3 letters or more, up to ties.

    Raises:
        ValueError: if the index is empty.
    """
    if not index.sequences:
        raise ValueError("nearest_identities: the index holds no sequence, expected at least one training sequence")
    if not samples:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    chosen = np.stack([index.candidates(sample, num_candidates) for sample in samples])
    pairs = [(sample, index.sequences[c]) for sample, row in zip(samples, chosen, strict=True) for c in row]
    table = identities(pairs).reshape(chosen.shape)
    winner = table.argmax(1)
    rows = np.arange(len(samples))
    return table[rows, winner], chosen[rows, winner].astype(np.int64)
