"""Key-value cache of sequences that grow by one token at a time, and attention to it.

A cache has a row for each example and preallocated places for all future tokens, so nothing is copied as the rows grow. It is written in
place: the only mutable state of generation, owned by the decoding function.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.tokens.tracks import Layout


class KeyValueCache:
    """Rows of keys and values, one for each example and block of a model.

    Args:
        layout: layout of the initial sequences, whose keys and values are passed to `fill`.
        capacity: largest number of tokens in a row, the initial ones included.
    """

    def __init__(self, layout: Layout, capacity: int) -> None:
        assert capacity >= layout.max_length, (capacity, layout.lengths)
        self.start, self.capacity = layout, capacity
        self.lengths: Int[Tensor, " b"] = torch.tensor(layout.lengths, dtype=torch.int64, device=layout.device)
        self._longest = layout.max_length  # length of the longest row, known on the host
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    @property
    def is_filled(self) -> bool:
        """Whether the initial sequences are stored, so that the next call has one token per row."""
        return bool(self._keys)

    def has(self, block: int) -> bool:
        """Whether the initial keys of a block are stored."""
        return block in self._keys

    def fill(self, block: int, k: Float[Tensor, "n g d"], v: Float[Tensor, "n g d"]) -> None:
        """Store the packed keys and values of the initial sequences."""
        shape = (self.start.num_examples, k.shape[1], self.capacity, k.shape[2])
        for kept, packed in ((self._keys, k), (self._values, v)):
            kept[block] = packed.new_zeros(shape)
            kept[block][self.start.segment, :, self.start.position] = packed

    def grow(self) -> Int[Tensor, " b"]:
        """Make room for one more token in every row, and return its position."""
        self.lengths, self._longest = self.lengths + 1, self._longest + 1
        return self.lengths - 1

    def attend(self, block: int, q: Float[Tensor, "b h d"], k: Float[Tensor, "b g d"], v: Float[Tensor, "b g d"]) -> Float[Tensor, "b h d"]:
        """Write the newest token's key and value into each row, and return its attention to the row."""
        rows = torch.arange(len(q), device=q.device)
        for kept, newest in ((self._keys, k), (self._values, v)):
            kept[block][rows, :, self.lengths - 1] = newest
        keys, values = (kept[block][:, :, : self._longest] for kept in (self._keys, self._values))
        return cached_attention(q, keys, values, self.lengths)


def cached_attention(
    q: Float[Tensor, "b h d"], k: Float[Tensor, "b g m d"], v: Float[Tensor, "b g m d"], lengths: Int[Tensor, " b"]
) -> Float[Tensor, "b h d"]:
    """Return the attention of one query per row to the first `lengths` keys of the row, by plain matrix products.

    With one query per row the time is spent on reading the cache, so a fused kernel would not help. Each of the g key heads serves h / g
    query heads.
    """
    grouped = q.unflatten(1, (k.shape[1], -1))
    scores = (grouped @ k.mT).float() * q.shape[-1] ** -0.5
    hidden = torch.arange(k.shape[2], device=q.device) >= lengths[:, None]
    weights = scores.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1)
    mixed: Tensor = weights.to(v.dtype) @ v
    return mixed.flatten(1, 2).to(q.dtype)
