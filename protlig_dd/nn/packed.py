"""Operations on packed tokens by example: modulation, restriction to wanted tokens, joint layouts, windows.

Modulation has its own backward pass: autograd's would read every token several times and keep another copy of each chunk, which for small
models costs as much as the matrix products. It is not twice differentiable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from protlig_dd.nn.rotary import Rotation
from protlig_dd.tokens.tracks import Layout


def spans(lengths: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of runs of neighbours that have at most `limit` tokens together; a longer one is a run of its own."""
    start, total = 0, 0
    for i, length in enumerate(lengths):
        if i > start and total + length > limit:
            yield start, i
            start, total = i, 0
        total += length
    if lengths:
        yield start, len(lengths)


def common_length(layout: Layout) -> int:
    """Return the common length of all examples, so that tokens can be viewed as [b, l], or 0 if lengths differ."""
    return layout.lengths[0] if len(set(layout.lengths)) == 1 else 0


def modulate(
    x: Float[Tensor, "n e"], shift: Float[Tensor, "b e"], scale: Float[Tensor, "b e"], segment: Int[Tensor, " n"], length: int = 0
) -> Float[Tensor, "n e"]:
    """Return x (1 + scale) + shift with the shift and scale of each token's example (Peebles and Xie 2023, DiT).

    Args:
        x: hidden states of packed tokens.
        shift, scale: shift and scale of each example.
        segment: the example of each token.
        length: `common_length` of the layout; if it is not 0, `segment` is not read.
    """
    out: Tensor = _Modulate.apply(x, shift, scale, segment, length)
    return out


def add_gated(
    x: Float[Tensor, "n e"], y: Float[Tensor, "n e"], gate: Float[Tensor, "b e"], segment: Int[Tensor, " n"], length: int = 0
) -> Float[Tensor, "n e"]:
    """Return x + gate y with the gate of each token's example, in the dtype of x; the other arguments are those of `modulate`."""
    out: Tensor = _AddGated.apply(x, y, gate, segment, length)
    return out


def _grouped(x: Tensor, length: int) -> Tensor:
    """Packed tokens as [b, l, e] if all examples have one length, otherwise unchanged."""
    return x.unflatten(0, (-1, length)) if length else x


def _each(c: Tensor, segment: Tensor, length: int) -> Tensor:
    """Per-example rows in a shape that broadcasts to `_grouped` tokens."""
    return c[:, None] if length else c.index_select(0, segment)


def _sum_rows(x: Tensor, segment: Tensor, like: Tensor, length: int) -> Tensor:
    """Sums of `_grouped` values over the tokens of each example, accumulated in float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if length:
        return x.sum(1, dtype=dtype).to(like.dtype)
    total = torch.zeros(like.shape, dtype=dtype, device=x.device)
    return total.index_add_(0, segment, x.to(dtype)).to(like.dtype)


class _Modulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, segment: Tensor, length: int) -> Tensor:
        ctx.save_for_backward(x, shift, scale, segment)
        ctx.length = length
        factor = _each(scale.to(x.dtype) + 1, segment, length)
        out = torch.addcmul(_each(shift.to(x.dtype), segment, length), _grouped(x, length), factor)
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, shift, scale, segment = ctx.saved_tensors
        length = ctx.length
        to_x = _grouped(g, length) * _each(scale.to(x.dtype) + 1, segment, length)
        to_shift = _sum_rows(_grouped(g, length), segment, shift, length)
        to_scale = _sum_rows(_grouped(g * x, length), segment, scale, length)
        return to_x.view(x.shape), to_shift, to_scale, None, None


class _AddGated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, gate: Tensor, segment: Tensor, length: int) -> Tensor:
        ctx.save_for_backward(y, gate, segment)
        ctx.length = length
        factor = _each(gate.to(x.dtype), segment, length)
        return torch.addcmul(_grouped(x, length), factor, _grouped(y.to(x.dtype), length)).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        y, gate, segment = ctx.saved_tensors
        length = ctx.length
        to_y = (_grouped(g, length) * _each(gate.to(g.dtype), segment, length)).to(y.dtype)
        to_gate = _sum_rows(_grouped(g * y, length), segment, gate, length)
        return g, to_y.view(y.shape), to_gate, None, None


class Context(NamedTuple):
    """The context of a track's cross-attention: hidden states, their layout, and their rotary angles if positions correspond."""

    hidden: Float[Tensor, "m e"]
    layout: Layout
    by: Rotation | None = None


def turned(by: Rotation, rows: Int[Tensor, " a"]) -> Rotation:
    """Return the rotary angles of some tokens."""
    return Rotation(by.cos.index_select(0, rows), by.sin.index_select(0, rows))


@dataclass(frozen=True)
class Wanted:
    """The tokens of a track that the last block must output, and the tokens it reads for them.

    Args:
        kept: [b] whether each example has a wanted token.
        read: [m] packed positions of all tokens of these examples.
        read_layout: their layout, with length 0 for all other examples.
        queries: [a] indices of the wanted tokens in `read`.
        layout: layout of the wanted tokens.
    """

    kept: Tensor
    read: Int[Tensor, " m"]
    read_layout: Layout
    queries: Int[Tensor, " a"]
    layout: Layout

    def read_of(self, x: Float[Tensor, "n e"], by: Rotation) -> tuple[Tensor, Layout, Rotation]:
        """Return hidden states, layout and rotary angles of the tokens that are read."""
        if len(self.read) == len(x):
            return x, self.read_layout, by
        return x.index_select(0, self.read), self.read_layout, turned(by, self.read)

    def context_of(self, context: Context) -> Context:
        """Return the context of the examples that are kept."""
        rows, layout = rows_of(self.kept, context.layout)
        if len(rows) == len(context.hidden):
            return context
        by = None if context.by is None else turned(context.by, rows)
        return Context(context.hidden.index_select(0, rows), layout, by)


def wanted_tokens(at: Int[Tensor, " a"] | None, layout: Layout) -> Wanted | None:
    """Return the restriction of the last block if only the logits at some packed positions are needed.

    None if a restriction is of no use (nearly all positions), or not possible: positions that do not ascend, or that are on an accelerator,
    where counting them would make the host wait.
    """
    if at is None or at.device.type != "cpu" or 4 * len(at) > 3 * layout.num_tokens or bool((at[1:] < at[:-1]).any()):
        return None
    counts = torch.bincount(layout.segment[at], minlength=layout.num_examples)
    kept = counts > 0
    read, read_layout = rows_of(kept, layout)
    row_of = torch.cumsum(kept[layout.segment], 0) - 1
    return Wanted(kept, read, read_layout, row_of[at], Layout(tuple(counts.tolist())))


def rows_of(kept: Tensor, layout: Layout) -> tuple[Int[Tensor, " m"], Layout]:
    """Return the packed positions of the kept examples, and their layout, in which all other examples have length 0."""
    lengths = tuple(n if k else 0 for n, k in zip(layout.lengths, kept.tolist(), strict=True))
    return kept[layout.segment].nonzero().squeeze(1), Layout(lengths, layout.device)


@lru_cache(maxsize=64)
def joined(layouts: tuple[Layout, ...], apart: tuple[bool, ...] | None = None) -> tuple[Int[Tensor, " n"], Layout]:
    """Return the order that groups concatenated tracks by example, and the joint layout.

    Args:
        layouts: layouts of the tracks, in the order in which they are concatenated.
        apart: examples whose tracks are separate sequences in the joint layout, so that there is no attention between them.
    """
    segment = torch.cat([layout.segment for layout in layouts])
    order = torch.sort(segment, stable=True).indices
    examples = list(zip(*(layout.lengths for layout in layouts), strict=True))
    alone = apart or (False,) * len(examples)
    lengths = tuple(n for own, a in zip(examples, alone, strict=True) for n in (own if a else (sum(own),)))
    return order, Layout(lengths, layouts[0].device)


@lru_cache(maxsize=16)
def window_rows(layout: Layout, width: int) -> Int[Tensor, "n w"]:
    """Return for each token the packed positions of the `width` (odd) tokens around it; n beyond the ends of its example."""
    offsets = torch.arange(-(width // 2), width // 2 + 1, device=layout.device)
    lengths = torch.tensor(layout.lengths, device=layout.device)[layout.segment]
    inside = layout.position[:, None] + offsets
    valid = (inside >= 0) & (inside < lengths[:, None])
    rows = torch.arange(layout.num_tokens, device=layout.device)[:, None] + offsets
    return torch.where(valid, rows, layout.num_tokens)
