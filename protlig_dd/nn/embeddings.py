"""Embeddings of noise levels and of per-example conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

NUM_FEATURES = 256


def sigma_features(sigma: Float[Tensor, " b"]) -> Float[Tensor, "b 256"]:
    """Return [cos(sigma f_k), sin(sigma f_k)] with f_k = exp(-ln(10000) k / 128), k = 0 .. 127 (SEDD's timestep embedding of sigma)."""
    half = NUM_FEATURES // 2
    k = torch.arange(half, dtype=torch.float32, device=sigma.device)
    angle = sigma.float()[:, None] * torch.exp(-math.log(10000.0) * k / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class NoiseLevelEmbedding(nn.Module):
    """A vector for each example's noise level in one track: features, Linear, SiLU, Linear, and a final SiLU by default."""

    def __init__(self, size: int, *, final_silu: bool = True) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(NUM_FEATURES, size), nn.SiLU(), nn.Linear(size, size))
        self.final_silu = final_silu

    def forward(self, sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """Return the conditioning vector of each example."""
        embedded = self.mlp(sigma_features(sigma))
        return nn.functional.silu(embedded) if self.final_silu else embedded


class ConditionEmbedding(nn.Module):
    """The sum of learned vectors of class labels, such as affinity bins; label -1 ("not given") has its own vector."""

    def __init__(self, classes: Mapping[str, int], size: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(num + 1, size) for name, num in classes.items()})
        for table in self.tables.values():
            assert isinstance(table, nn.Embedding)
            nn.init.zeros_(table.weight)

    def forward(self, labels: Mapping[str, Int[Tensor, " b"]], like: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Return the vector of each example; a label that is not in the batch counts as not given."""
        total = torch.zeros_like(like)
        for name, table in self.tables.items():
            given = labels.get(name)
            index = torch.zeros(len(like), dtype=torch.int64, device=like.device) if given is None else given + 1
            total = total + table(index)
        return total
