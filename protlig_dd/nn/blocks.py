"""Transformer blocks with adaptive layer norm, with or without cross-attention to other tracks.

adaLN (Peebles and Xie 2023): a Linear layer maps the noise-level vector to shift, scale and gate of each branch; it is initialised to zero,
so a new block is the identity. Order of the branches: self-attention, cross-attention, feed-forward.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.nn.attention import Backend
from protlig_dd.nn.layers import Activation, CrossAttention, FeedForward, SelfAttention, check_heads, zero_init
from protlig_dd.nn.packed import Context, Wanted, add_gated, common_length, modulate, turned
from protlig_dd.nn.rotary import Rotation
from protlig_dd.tokens.tracks import Layout


@settings
class BlockSettings:
    """The sizes of adaLN blocks, for the settings of models that are made of them.

    Args:
        kind: the model.
        hidden_size: width e of the hidden state; a multiple of 2 x num_heads.
        num_heads: attention heads h.
        num_blocks: blocks of each track.
        conditioning_size: width c of the noise-level vector.
        mlp_ratio: width of the feed-forward layers, as a multiple of hidden_size.
        dropout: dropout rate of each branch of a block; 0 where runs must be the same on any number of processes.
        activation: activation of the feed-forward layers; `gelu` is the exact form.
    """

    kind: str = ""
    hidden_size: int = 768
    num_heads: int = 12
    num_blocks: int = 8
    conditioning_size: int = 256
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)


class DiTBlock(nn.Module):
    """One block of one track. With `context_size` it also has a cross-attention branch, gated by adaLN as well.

    Args:
        sizes: widths, heads, dropout and activation.
        backend: the attention back-end.
        context_size: width of the context's hidden states; None for a block without cross-attention.
    """

    def __init__(self, sizes: BlockSettings, backend: Backend, *, context_size: int | None = None) -> None:
        super().__init__()
        e = sizes.hidden_size
        self.norm1 = nn.LayerNorm(e, bias=False)
        self.attention = SelfAttention(e, sizes.num_heads, backend)
        self.norm2 = nn.LayerNorm(e, bias=False)
        self.mlp = FeedForward(e, int(e * sizes.mlp_ratio), sizes.activation)
        self.cross: CrossAttention | None = None
        if context_size is not None:
            self.norm_cross = nn.LayerNorm(e, bias=False)
            self.norm_context = nn.LayerNorm(context_size, bias=False)
            self.cross = CrossAttention(e, context_size, sizes.num_heads, backend)
        self.num_chunks = 6 if self.cross is None else 9
        self.modulation = zero_init(nn.Linear(sizes.conditioning_size, self.num_chunks * e))
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(
        self,
        x: Float[Tensor, "n e"],
        layout: Layout,
        by: Rotation,
        condition: Float[Tensor, "b c"],
        context: Context | None = None,
        wanted: Wanted | None = None,
    ) -> Float[Tensor, "a e"]:
        """Return the track's hidden states after the block, of all tokens or of the wanted ones.

        Args:
            x: hidden states of packed tokens.
            layout: their layout.
            by: their rotary angles.
            condition: the noise-level vector of each example in this track.
            context: the hidden states of other tracks; required by a block with cross-attention.
            wanted: the tokens whose output is needed; x, layout, by and context are then restricted to the tokens it reads.
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
    """Logits from hidden states: layer norm, modulation, a Linear layer initialised to zero."""

    def __init__(self, hidden_size: int, num_rows: int, conditioning_size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, bias=False)
        self.modulation = zero_init(nn.Linear(conditioning_size, 2 * hidden_size))
        self.linear = zero_init(nn.Linear(hidden_size, num_rows, bias=bias))

    def forward(
        self, x: Float[Tensor, "n e"], layout: Layout, condition: Float[Tensor, "b c"], at: Tensor | None = None
    ) -> Float[Tensor, "a k"]:
        """Return logits of all tokens, or of the packed positions `at`."""
        segment, length = layout.segment, common_length(layout)
        if at is not None:
            x, segment, length = x.index_select(0, at), segment.index_select(0, at), 0
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        logits: Tensor = self.linear(modulate(self.norm(x), shift, scale, segment, length))
        return logits
