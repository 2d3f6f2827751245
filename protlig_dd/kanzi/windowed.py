"""Windowed attention with a bias for each pair: cost linear in the length, for chains of any length.

Packed tokens are arranged in tiles with as many residues as the window reaches; a tile attends to itself and the tiles on both sides, so
every product is dense and no [l, l] matrix is needed. The plan of a batch is cached and shared by all layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protlig_dd.tokens.tracks import Layout


@dataclass(frozen=True)
class Tiles:
    """A batch arranged in t tiles of w places each.

    Args:
        source: [t w] the packed token at each place; padding repeats an example's last token.
        place: [n] the place of each packed token.
        visible: [t, w, 3w] which keys each query sees: those of its example within reach; padding sees itself.
        offset: [w, 3w] position of each key minus that of each query, clamped to the reach.
        reach: w, the number of residues to either side that a query sees.
    """

    source: Int[Tensor, " tw"]
    place: Int[Tensor, " n"]
    visible: Bool[Tensor, "t w w3"]
    offset: Int[Tensor, "w w3"]
    reach: int

    def rows(self, x: Float[Tensor, "n *e"]) -> Float[Tensor, "t w *e"]:
        """Return packed values in tiles."""
        tiled: Tensor = x.index_select(0, self.source).unflatten(0, (-1, self.reach))
        return tiled

    def around(self, tiled: Float[Tensor, "t w *e"]) -> Float[Tensor, "t w3 *e"]:
        """Return for each tile the tile before it, itself and the one after it."""
        return _around(tiled, 0)

    def packed(self, tiled: Float[Tensor, "t w *e"]) -> Float[Tensor, "n *e"]:
        """Return tiled values packed again."""
        return tiled.flatten(0, 1).index_select(0, self.place)


@lru_cache(maxsize=32)
def tiles_of(layout: Layout, reach: int) -> Tiles:
    """Return the tiles of a batch for queries that see `reach` (from 1) residues to either side."""
    assert reach >= 1, reach
    counts = [-(-length // reach) for length in layout.lengths]
    example = torch.repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    firsts = torch.tensor([k * reach for count in counts for k in range(count)], dtype=torch.int64)
    position = firsts[:, None] + torch.arange(reach)
    lengths = torch.tensor(layout.lengths, dtype=torch.int64)[example][:, None]
    starts = torch.tensor(layout.offsets[:-1], dtype=torch.int64)[example][:, None]
    real = position < lengths
    source = starts + torch.minimum(position, lengths - 1)
    place = torch.zeros(layout.num_tokens, dtype=torch.int64)
    place[source[real]] = torch.arange(source.numel()).view_as(source)[real]
    gap = torch.arange(3 * reach) - reach - torch.arange(reach)[:, None]
    key_example = _around(example[:, None].expand(-1, reach), -1)
    key_real = _around(real, False)
    visible = key_real[:, None] & (key_example == example[:, None])[:, None] & (gap.abs() <= reach)
    visible |= gap == 0
    source, place, visible, offset = (x.to(layout.device) for x in (source.flatten(), place, visible, gap.clamp(-reach, reach)))
    return Tiles(source=source, place=place, visible=visible, offset=offset, reach=reach)


def _around(tiled: Tensor, edge: int | bool) -> Tensor:
    """For each tile the tile before it, itself and the one after it; `edge` is the value beyond the first and last tile."""
    outside = torch.full_like(tiled[:1], edge)
    return torch.cat([torch.cat([outside, tiled[:-1]]), tiled, torch.cat([tiled[1:], outside])], dim=1)


def windowed_attention(
    q: Float[Tensor, "n h d"], k: Float[Tensor, "n h d"], v: Float[Tensor, "n h d"], tiles: Tiles, bias: Float[Tensor, "t w w3"]
) -> Float[Tensor, "n h d"]:
    """Return softmax(q k^T / sqrt d + bias) v over the visible neighbours of each token.

    Args:
        q, k, v: packed queries, keys and values.
        tiles: the tiles of their layout.
        bias: a bias for each query and key place, the same for all heads; values at invisible keys are ignored.
    """
    if not len(q):
        return q + k + v
    queries = tiles.rows(q).transpose(1, 2)
    keys, values = (tiles.around(tiles.rows(x)).transpose(1, 2) for x in (k, v))
    logits = (queries * q.shape[-1] ** -0.5) @ keys.transpose(-1, -2) + bias[:, None]
    weights = logits.float().masked_fill(~tiles.visible[:, None], -torch.inf).softmax(-1)
    return tiles.packed((weights.to(values.dtype) @ values).transpose(1, 2))
