"""Keyed permutations: as an array, or evaluated at any place without the array, for the order of 67 million rows in no memory.

`permuted` computes each place separately with a Feistel network, whose round function is the package's counter-based generator, on the
smallest even number of bits that can represent the size; a result outside the range is passed through the network again until it is inside
(Black and Rogaway 2002, "cycle walking"), which keeps it a permutation.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64

from protlig_dd.rng import Draws

_ROUNDS = 6
_SMALL = 1 << 12  # below this there are few bits to mix, and the array is small


def keyed_order(seed: int, *names: str | int, size: int) -> Int64[np.ndarray, " {size}"]:
    """Return a permutation of 0 .. size - 1 that depends on the seed and the names only, on every platform and version."""
    bits = Draws.root(seed, *names).fold_in(torch.arange(size)).bits()
    return np.asarray(torch.argsort(bits, stable=True))


def permuted(places: Int64[np.ndarray, " b"], *, size: int, seed: int, names: tuple[str | int, ...]) -> Int64[np.ndarray, " b"]:
    """Return the values at the given places of the permutation of 0 .. size - 1 keyed by a seed and names.

    Args:
        places: numbers from 0 to size - 1.
        size: length of the permutation.
        seed: with the names, the key of the permutation.
        names: such as ("epoch", 3).
    """
    if size <= _SMALL:
        return np.asarray(keyed_order(seed, *names, size=size)[places])
    half = -(-(size - 1).bit_length() // 2)
    rounds = [Draws.root(seed, "feistel", *names, number) for number in range(_ROUNDS)]
    found = _network(torch.from_numpy(places), half, rounds)
    outside = torch.nonzero(found >= size)[:, 0]
    while len(outside):
        found[outside] = _network(found[outside], half, rounds)
        outside = outside[found[outside] >= size]
    return np.asarray(found.numpy())


def _network(values: torch.Tensor, half: int, rounds: list[Draws]) -> torch.Tensor:
    mask = (1 << half) - 1
    left, right = values >> half, values & mask
    for draws in rounds:
        left, right = right, left ^ (draws.fold_in(right).bits() & mask)
    return (left << half) | right
