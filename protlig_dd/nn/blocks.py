"""Transformer blocks with adaptive layer norm: one track alone, or one track that reads another.

adaLN (Peebles and Xie 2023): a Linear from the noise-level vector gives shift, scale and gate for each branch, and starts at zero, so a
fresh block is the identity. Order of the branches: self-attention, cross-attention, feed-forward.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from protlig_dd.nn.attention import Backend
from protlig_dd.nn.layers import Activation, CrossAttention, FeedForward, SelfAttention, zero_init
from protlig_dd.nn.packed import Context, Wanted, add_gated, common_length, modulate, turned
from protlig_dd.nn.rotary import Rotation
from protlig_dd.tokens.tracks import Layout


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Sizes of a block: hidden e, heads h, feed-forward, noise-level vector c, dropout of each branch."""

    hidden_size: int
    num_heads: int
    inner_size: int
    conditioning_size: int
    dropout: float
    activation: Activation
    backend: Backend


class DiTBlock(nn.Module):
    """One block of one track. With `context_size` it has a cross-attention branch, gated by adaLN like the others."""

    def __init__(self, shape: BlockShape, *, context_size: int | None = None) -> None:
        super().__init__()
        e = shape.hidden_size
        self.norm1 = nn.LayerNorm(e, bias=False)
        self.attention = SelfAttention(e, shape.num_heads, shape.backend)
        self.norm2 = nn.LayerNorm(e, bias=False)
        self.mlp = FeedForward(e, shape.inner_size, shape.activation)
        self.cross: CrossAttention | None = None
        if context_size is not None:
            self.norm_cross = nn.LayerNorm(e, bias=False)
            self.norm_context = nn.LayerNorm(context_size, bias=False)
            self.cross = CrossAttention(e, context_size, shape.num_heads, shape.backend)
        self.num_chunks = 6 if self.cross is None else 9
        self.modulation = zero_init(nn.Linear(shape.conditioning_size, self.num_chunks * e))
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self,
        x: Float[Tensor, "n e"],
        layout: Layout,
        by: Rotation,
        condition: Float[Tensor, "b c"],
        context: Context | None = None,
        wanted: Wanted | None = None,
    ) -> Float[Tensor, "a e"]:
        """Return the track's tokens after the block: all of them, or those wanted.

        Args:
            x: packed tokens.
            layout: their layout.
            by: their rotary angles.
            condition: the noise-level vector of each example in this track.
            context: the other tracks' tokens; needed if the block has a cross-attention branch.
            wanted: the tokens whose output is asked for; x, layout, by and the context are then what it says is read.
        """
        chunks = self.modulation(condition).chunk(self.num_chunks, dim=-1)
        segment, length = layout.segment, common_length(layout)
        shift, scale, gate = chunks[:3]
        attended = self.attention(modulate(self.norm1(x), shift, scale, segment, length), layout, by, wanted)
        if wanted is not None:
            x, layout, by = x.index_select(0, wanted.queries), wanted.layout, turned(by, wanted.queries)
            segment, length = layout.segment, common_length(layout)
        x = add_gated(x, self.dropout(attended), gate, segment, length)
        if self.cross is not None:
            assert context is not None, "a block with cross-attention needs a context"
            shift, scale, gate = chunks[6:]
            query = modulate(self.norm_cross(x), shift, scale, segment, length)
            both = None if context.by is None else (by, context.by)
            read = self.cross(query, self.norm_context(context.hidden), layout, context.layout, both)
            x = add_gated(x, self.dropout(read), gate, segment, length)
        shift, scale, gate = chunks[3:6]
        inner = self.mlp(modulate(self.norm2(x), shift, scale, segment, length))
        return add_gated(x, self.dropout(inner), gate, segment, length)


class Head(nn.Module):
    """Logits from hidden states: layer norm, modulation, a Linear that starts at zero."""

    def __init__(self, hidden_size: int, num_rows: int, conditioning_size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, bias=False)
        self.modulation = zero_init(nn.Linear(conditioning_size, 2 * hidden_size))
        self.linear = zero_init(nn.Linear(hidden_size, num_rows, bias=bias))

    def forward(
        self, x: Float[Tensor, "n e"], layout: Layout, condition: Float[Tensor, "b c"], at: Tensor | None = None
    ) -> Float[Tensor, "a k"]:
        """Return logits of all tokens, or only of the packed positions `at`."""
        segment, length = layout.segment, common_length(layout)
        if at is not None:
            x, segment, length = x.index_select(0, at), segment.index_select(0, at), 0
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        logits: Tensor = self.linear(modulate(self.norm(x), shift, scale, segment, length))
        return logits
