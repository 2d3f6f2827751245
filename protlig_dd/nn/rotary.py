"""Rotary position embedding, half-split ("NeoX") pairing: element i of a head is rotated with element i + d/2.

Source: Su et al. 2021 (RoFormer). Positions start at 0 in each example and each track.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


class Rotation(NamedTuple):
    """Cosines and sines of the angles of each token."""

    cos: Float[Tensor, "n 1 d2"]
    sin: Float[Tensor, "n 1 d2"]


def rotation(position: Int[Tensor, " n"], head_size: int, base: float = 10000.0) -> Rotation:
    """Return the rotation of each position: angle = position * base^(-2 k / head_size), k = 0 .. head_size / 2 - 1."""
    exponent = torch.arange(0, head_size, 2, dtype=torch.float32, device=position.device) / head_size
    angle = position[:, None].float() * (1.0 / base**exponent)
    return Rotation(angle.cos()[:, None], angle.sin()[:, None])


def rotate(x: Float[Tensor, "n h d"], by: Rotation) -> Float[Tensor, "n h d"]:
    """Return queries or keys rotated by their positions, in their own dtype. The gradient is the inverse rotation."""
    out: Tensor = _Rotate.apply(x, by.cos, by.sin)
    return out


def rotate_heads(heads: Float[Tensor, "n h3 d"], by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values [n, h, d] of a joint projection, with queries and keys rotated by their positions.

    The backward pass writes one gradient of the joint projection; slicing would allocate and add three.
    """
    q, k, v = _RotateHeads.apply(heads, by.cos, by.sin)
    return q, k, v


def _turn(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    """[x1 cos - x2 sin, x2 cos + x1 sin], computed in float32; direction -1 is the inverse rotation."""
    wide = x.float()
    out = torch.empty(x.shape, dtype=wide.dtype, device=x.device)
    (x1, x2), (out1, out2) = wide.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(x1, cos, out=out1).addcmul_(x2, sin, value=-direction)
    torch.mul(x2, cos, out=out2).addcmul_(x1, sin, value=direction)
    return out.to(x.dtype)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(g, cos, sin, -1), None, None


class _RotateHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        q, k, v = heads.chunk(3, dim=1)
        return _turn(q, cos, sin, 1), _turn(k, cos, sin, 1), v.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_q: Tensor, to_k: Tensor, to_v: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        n, h, d = to_q.shape
        whole = torch.empty(n, 3 * h, d, dtype=to_q.dtype, device=to_q.device)
        for i, part in enumerate((to_q, to_k)):
            whole[:, i * h : (i + 1) * h] = _turn(part, cos, sin, -1)
        whole[:, 2 * h :] = to_v
        return whole, None, None
