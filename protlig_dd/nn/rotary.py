"""Rotary position embedding, half-split ("NeoX") pairing: element i of a head turns with element i + d/2.

Source: Su et al. 2021 (RoFormer). Positions start at 0 in each example and each track.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines of the angles of each token."""

    cos: Float[Tensor, "n 1 d2"]
    sin: Float[Tensor, "n 1 d2"]


def rotation(position: Int[Tensor, " n"], head_size: int, base: float = 10000.0) -> Rotation:
    """Return the rotation of each position: angle = position * base^(-2 k / head_size), k = 0 .. head_size / 2 - 1."""
    exponent = torch.arange(0, head_size, 2, dtype=torch.float32, device=position.device) / head_size
    angle = position[:, None].float() * base**-exponent
    return Rotation(angle.cos()[:, None], angle.sin()[:, None])


def rotate(x: Float[Tensor, "n h d"], by: Rotation) -> Float[Tensor, "n h d"]:
    """Return queries or keys turned by their positions, in the dtype they came in."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * by.cos - second * by.sin, second * by.cos + first * by.sin], dim=-1).to(x.dtype)
