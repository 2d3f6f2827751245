"""LoRA adapters of an encoder, by peft: low-rank updates of the blocks' matrices; all other parameters of the blocks are frozen.

As in DPLM-2's training: rank 16, alpha 32, dropout 0.1 on the matrices of attention and feed-forward; embeddings and heads are trained
fully. `layouts.merge_lora` merges adapters, W + (alpha / r) B A; export calls it. Source: Hu et al. 2021 (LoRA).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.errors import require
from protlig_dd.models.published.layouts import merge_lora

_ADAPTED = r"blocks\.\d+\.(attention\.(qkv|out)|mlp\.(0|2))"
_WHOLE = re.compile(r"\.lora_[AB]\.|^(embedding|head|bits|bit_head)\.")


@settings
class LowRank:
    """Low-rank updates (alpha / rank) B A of matrices.

    Args:
        rank: rank of an update, 1 or more.
        alpha: scale of an update, as a multiple of 1 / rank; above 0.
        dropout: dropout rate of an adapter's input, 0 to below 1.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"rank: found {self.rank} with alpha {self.alpha} and dropout {self.dropout}, "
                f"expected 1 or more, a positive number, and 0 to below 1"
            )


@settings
class LoraSettings(LowRank):
    """The adapters of an encoder.

    Query, key and value are one matrix here, so they share one adapter and its A; in the published training each has its own. A block of
    hidden size e and a feed-forward of 4 e gets 16 e x rank parameters, in the published training 18 e x rank: at 650M and rank 16
    10,813,440 and 12,165,120.
    """

    def add_to(self, model: nn.Module) -> None:
        """Add adapters to an encoder, in place, without changing its output; freeze the rest of its blocks and its last norm.

        Raises:
            MissingDependencyError: without peft.
        """
        peft = require("peft", "model.lora", extra="hf")
        peft.inject_adapter_in_model(
            peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=_ADAPTED), model
        )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(bool(_WHOLE.search(name)))

    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of the equivalent encoder without adapters."""
        return merge_lora(weights, "model.lora", alpha=self.alpha)
