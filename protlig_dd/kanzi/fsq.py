"""Finite scalar quantisation: a code is a few numbers, each rounded to one of a few levels; no codebook is learned.

Source: Mentzer et al. 2023. With levels (8, 5, 5, 5) there are 1,000 codes; digit k of a code's index counts in steps of 1, 8, 40, 200.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

LEVELS = (8, 5, 5, 5)
"""Kanzi's levels: 1,000 codes."""

_INWARDS = 1e-3  # how far the outermost levels are drawn in, so that rounding never leaves them


class _Constants(NamedTuple):
    half: Float[Tensor, " c"]
    offset: Float[Tensor, " c"]
    shift: Float[Tensor, " c"]
    width: Float[Tensor, " c"]
    levels: Int[Tensor, " c"]
    basis: Int[Tensor, " c"]


@lru_cache(maxsize=16)
def _constants(levels: tuple[int, ...], device: torch.device) -> _Constants:
    half = [(n - 1) * (1 - _INWARDS) / 2 for n in levels]
    offset = [0.0 if n % 2 else 0.5 for n in levels]
    shift = [math.tan(o / h) for o, h in zip(offset, half, strict=True)]
    basis = [math.prod(levels[:k]) for k in range(len(levels))]
    return _Constants(
        half=torch.tensor(half, device=device),
        offset=torch.tensor(offset, device=device),
        shift=torch.tensor(shift, device=device),
        width=torch.tensor([float(n // 2) for n in levels], device=device),
        levels=torch.tensor(levels, device=device),
        basis=torch.tensor(basis, device=device),
    )


def quantise(z: Float[Tensor, "n c"], levels: tuple[int, ...] = LEVELS) -> Float[Tensor, "n c"]:
    """Return z rounded to levels between -1 and 1, computed in float32, with a straight-through gradient.

    tanh(z + shift) half - offset is between the outermost levels; an even number of levels is half a level off the middle.
    """
    of = _constants(levels, z.device)
    bounded = torch.tanh(z.float() + of.shift) * of.half - of.offset
    return (bounded + (bounded.round() - bounded).detach()) / of.width


def index_of(codes: Float[Tensor, "n c"], levels: tuple[int, ...] = LEVELS) -> Int[Tensor, " n"]:
    """Return the index of each code, from 0: sum over k of digit_k basis_k."""
    of = _constants(levels, codes.device)
    digits = (codes * of.width + of.width).round().to(torch.int64)
    return (digits * of.basis).sum(-1)


def codes_of(index: Int[Tensor, " n"], levels: tuple[int, ...] = LEVELS) -> Float[Tensor, "n c"]:
    """Return the code of each index, the inverse of `index_of`.

    >>> index_of(codes_of(torch.tensor([0, 599, 999]))).tolist()
    [0, 599, 999]
    """
    of = _constants(levels, index.device)
    digits = index[:, None].to(torch.int64) // of.basis % of.levels
    return (digits - of.width) / of.width


class FSQ(nn.Module):
    """Hidden states to codes: a Linear to one number for each entry of `levels`, rounding, and a Linear to the decoder's width."""

    def __init__(self, in_size: int, out_size: int, levels: tuple[int, ...] = LEVELS) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.project_in = nn.Linear(in_size, len(levels))
        self.project_out = nn.Linear(len(levels), out_size)

    @property
    def num_codes(self) -> int:
        """Number of codes."""
        return math.prod(self.levels)

    def forward(self, hidden: Float[Tensor, "n e"]) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """Return the quantised vectors and their indices."""
        codes = quantise(self.project_in(hidden), self.levels)
        return self.project_out(codes), index_of(codes.detach(), self.levels)

    def embed(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Return the quantised vectors of indices."""
        embedded: Tensor = self.project_out(codes_of(index, self.levels))
        return embedded
