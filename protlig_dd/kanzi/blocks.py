"""The blocks of Kanzi: attention to neighbours with a pair bias in the encoder, adaptive layer norm in the decoder.

All norms of the encoder's blocks except that of the pairs have no parameters (RMS norm), nor have the decoder's (layer norm).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from protlig_dd.kanzi.windowed import Tiles, windowed_attention
from protlig_dd.nn.attention import Backend
from protlig_dd.nn.layers import FeedForward, SelfAttention, zero_init
from protlig_dd.nn.packed import add_gated, common_length, modulate
from protlig_dd.nn.rotary import Rotation, rotate_heads
from protlig_dd.tokens.tracks import Layout

NUM_EDGES = 99
"""Edges of the distance buckets, linear from 0 to 9 square nanometres: 100 buckets. A distance on an edge belongs below it."""

LARGEST_SQUARE_NM2 = 9.0
_MODULATED_EPS = 1e-6  # of the first and the last norm of the decoder; its blocks have torch's 1e-5
NUM_OFFSETS = 128
"""Relative positions -64 .. 63, the query's minus the key's; larger distances are clamped."""


def distance_edges(device: torch.device | str = "cpu") -> Float[Tensor, " k"]:
    """Return the edges of the buckets of squared distances."""
    return torch.linspace(0.0, LARGEST_SQUARE_NM2, NUM_EDGES, device=device)


class PairTable(nn.Module):
    """A vector for each pair of neighbours, from their distance and their relative position.

    Both are discrete, so the vectors of all buckets and offsets are one table, computed once per pass, and a pair is an entry of it. The
    original computes the same for each of the l x l pairs.
    """

    def __init__(self, size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.distances = nn.Embedding(NUM_EDGES + 1, size)
        self.offsets = nn.Embedding(NUM_OFFSETS, size)
        self.norm = nn.LayerNorm(size)
        self.mlp = FeedForward(size, round(size * mlp_ratio))

    def forward(self, points: Float[Tensor, "n 3"], tiles: Tiles) -> tuple[Float[Tensor, "k e"], Int[Tensor, "t w w3"]]:
        """Return the table, and the entry of each query and key place."""
        reach = tiles.reach
        middle = NUM_OFFSETS // 2
        first, last = max(-reach, -middle), min(reach, middle - 1)
        near = self.offsets.weight[middle + first : middle + last + 1]
        table = self.mlp(self.norm(self.distances.weight[:, None] + near)).flatten(0, 1)
        own = tiles.rows(points.float())
        squared = (own[:, :, None] - tiles.around(own)[:, None]).square().sum(-1)
        bucket = torch.bucketize(squared, distance_edges(points.device))
        return table, bucket * len(near) + (-tiles.offset).clamp(first, last) - first


class LocalBlock(nn.Module):
    """A pre-norm block of attention to the neighbours, with a bias for each pair, and feed-forward."""

    def __init__(self, size: int, num_heads: int, inner_size: int, pair_size: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.mlp = FeedForward(size, inner_size)
        self.pair_norm = nn.LayerNorm(pair_size)
        self.pair_bias = nn.Linear(pair_size, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "n e"], tiles: Tiles, by: Rotation, table: Float[Tensor, "k e2"], entry: Int[Tensor, "t w w3"]
    ) -> Float[Tensor, "n e"]:
        """Return the hidden states after the block."""
        q, k, v = rotate_heads(self.qkv(_rms_norm(x)).unflatten(-1, (3 * self.num_heads, -1)), by)
        biases = self.pair_bias(self.pair_norm(table)).squeeze(-1)
        bias = biases.index_select(0, entry.flatten()).view(entry.shape)
        attended = windowed_attention(q, k, v, tiles, bias)
        x = x + self.dropout(self.out(attended.flatten(1)))
        out: Tensor = x + self.dropout(self.mlp(_rms_norm(x)))
        return out


def _rms_norm(x: Float[Tensor, "n e"]) -> Float[Tensor, "n e"]:
    return nn.functional.rms_norm(x, x.shape[-1:])


class ModulatedNorm(nn.Module):
    """Layer norm without parameters, then shift and scale computed from the time, initialised to zero."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.modulation = zero_init(nn.Linear(size, 2 * size))
        self.norm = nn.LayerNorm(size, elementwise_affine=False, eps=_MODULATED_EPS)

    def forward(
        self, x: Float[Tensor, "n e"], condition: Float[Tensor, "b e"], segment: Int[Tensor, " n"], length: int
    ) -> Float[Tensor, "n e"]:
        """Return x normed and modulated; `segment` and `length` are those of `nn.packed.modulate`."""
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        return modulate(self.norm(x), shift, scale, segment, length)


class FlowBlock(nn.Module):
    """An adaLN block (Peebles and Xie 2023) with biases and norms without parameters; the identity when initialised."""

    def __init__(self, size: int, num_heads: int, inner_size: int, dropout: float, backend: Backend, *, normed: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, elementwise_affine=False)
        self.attention = SelfAttention(size, num_heads, backend, bias=True, normed=normed)
        self.mlp = FeedForward(size, inner_size)
        self.modulation = zero_init(nn.Linear(size, 6 * size))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n e"], layout: Layout, by: Rotation, condition: Float[Tensor, "b e"]) -> Float[Tensor, "n e"]:
        """Return the tokens after the block."""
        segment, length = layout.segment, common_length(layout)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        attended = self.attention(modulate(self.norm(x), shift1, scale1, segment, length), layout, by)
        x = add_gated(x, self.dropout(attended), gate1, segment, length)
        inner = self.mlp(modulate(self.norm(x), shift2, scale2, segment, length))
        return add_gated(x, self.dropout(inner), gate2, segment, length)
