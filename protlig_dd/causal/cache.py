"""The keys and values of sequences that grow by one token at a time, and attention to them.

A cache has a row for each example and a place for each token to come, so nothing is moved or padded anew as the rows grow. It is written
in place: the one piece of state in generation, made and dropped by whoever generates.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.tokens.tracks import Layout


class KeyValueCache:
    """Rows of keys and values, one for each example and block of a model.

    Args:
        layout: the sequences that the cache starts with; `fill` takes their keys and values.
        capacity: tokens a row can hold, those of the start included.
    """

    def __init__(self, layout: Layout, capacity: int) -> None:
        assert capacity >= layout.max_length, (capacity, layout.lengths)
        self.start, self.capacity = layout, capacity
        self.lengths: Int[Tensor, " b"] = torch.tensor(layout.lengths, dtype=torch.int64, device=layout.device)
        self._longest = layout.max_length  # of the rows: known without asking the device
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    @property
    def is_filled(self) -> bool:
        """Whether the start is here, so that what comes next is one token a row."""
        return bool(self._keys)

    def has(self, block: int) -> bool:
        """Whether a block's keys of the start are here."""
        return block in self._keys

    def fill(self, block: int, k: Float[Tensor, "n g d"], v: Float[Tensor, "n g d"]) -> None:
        """Take the packed keys and values of the start."""
        shape = (self.start.num_examples, k.shape[1], self.capacity, k.shape[2])
        for kept, packed in ((self._keys, k), (self._values, v)):
            kept[block] = packed.new_zeros(shape)
            kept[block][self.start.segment, :, self.start.position] = packed

    def grow(self) -> Int[Tensor, " b"]:
        """Make room for one more token in every row, and return its position."""
        self.lengths, self._longest = self.lengths + 1, self._longest + 1
        return self.lengths - 1

    def attend(
        self, block: int, q: Float[Tensor, "b h d"], k: Float[Tensor, "b g d"], v: Float[Tensor, "b g d"]
    ) -> Float[Tensor, "b h d"]:
        """Write the newest token's key and value into each row, and return its attention to the row."""
        rows = torch.arange(len(q), device=q.device)
        for kept, newest in ((self._keys, k), (self._values, v)):
            kept[block][rows, :, self.lengths - 1] = newest
        keys, values = (kept[block][:, :, : self._longest] for kept in (self._keys, self._values))
        return cached_attention(q, keys, values, self.lengths)


def cached_attention(
    q: Float[Tensor, "b h d"], k: Float[Tensor, "b g m d"], v: Float[Tensor, "b g m d"], lengths: Int[Tensor, " b"]
) -> Float[Tensor, "b h d"]:
    """Return attention of one query each to the first `lengths` keys of its row of a cache, in plain products.

    One query a row is bound by reading the cache, so nothing is gained by a kernel. Each of the g key heads serves h / g queries.
    """
    grouped = q.unflatten(1, (k.shape[1], -1))
    scores = (grouped @ k.mT).float() * q.shape[-1] ** -0.5
    hidden = torch.arange(k.shape[2], device=q.device) >= lengths[:, None]
    weights = scores.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1)
    mixed: Tensor = weights.to(v.dtype) @ v
    return mixed.flatten(1, 2).to(q.dtype)
