"""Merges of neighbouring symbols that occur together often, learned from molecules: fewer and larger tokens, such as a whole ring.

Byte-pair encoding over symbols instead of bytes. Sources: Sennrich, Haddow and Birch 2016; for SMILES, Li and Fourches 2021.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

Pair = tuple[str, str]


def learn_merges(texts: Iterable[Sequence[str]], number: int, *, min_count: int = 2) -> list[Pair]:
    """Return the merges of the most frequent pair of neighbours, again and again; of equally frequent ones the first in order.

    Args:
        texts: molecules as symbols.
        number: merges at most.
        min_count: a pair seen fewer times is not merged.

    >>> learn_merges([list("abcabc"), list("abd")], 2)
    [('a', 'b'), ('ab', 'c')]
    """
    words = [(list(word), count) for word, count in Counter(tuple(text) for text in texts).items()]
    counts, where = Counter[Pair](), defaultdict[Pair, set[int]](set)
    for i, (word, count) in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += count
            where[pair].add(i)
    merges: list[Pair] = []
    while counts and len(merges) < number:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < min_count:
            break
        merges.append(best)
        for i in where.pop(best):
            word, count = words[i]
            for pair in zip(word, word[1:], strict=False):
                counts[pair] -= count
            words[i] = (merged := _joined(word, best), count)
            for pair in zip(merged, merged[1:], strict=False):
                counts[pair] += count
                where[pair].add(i)
        counts = +counts  # pairs that are gone
    return merges


def merge(symbols: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Return symbols with the merges applied in the order in which they were learned.

    Args:
        symbols: the symbols of one molecule.
        ranks: the place of each merge.

    >>> merge(list("abcab"), {("a", "b"): 0, ("ab", "c"): 1})
    ['abc', 'ab']
    """
    word = list(symbols)
    while known := [(ranks[pair], pair) for pair in zip(word, word[1:], strict=False) if pair in ranks]:
        word = _joined(word, min(known)[1])
    return word


class MergedSplit:
    """Cuts a text into merged symbols: a function like the `split` of a track, which remembers what it has cut.

    Args:
        split: cuts a text into symbols.
        merges: the merges in order.
    """

    def __init__(self, split: Callable[..., list[str]], merges: Iterable[Pair]) -> None:
        self._split, self._ranks = split, {pair: i for i, pair in enumerate(merges)}
        self._merged = lru_cache(maxsize=1 << 16)(lambda symbols: tuple(merge(symbols, self._ranks)))

    def __call__(self, text: str, *, where: str = "") -> list[str]:
        """Return the merged symbols of a text; errors are those of `split`."""
        return list(self._merged(tuple(self._split(text, where=where))))


def _joined(word: Sequence[str], pair: Pair) -> list[str]:
    """The word with every occurrence of the pair, from the left, as one symbol."""
    joined, i = list[str](), 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            joined.append(word[i] + word[i + 1])
            i += 2
        else:
            joined.append(word[i])
            i += 1
    return joined
