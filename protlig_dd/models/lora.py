"""LoRA adapters on an encoder, by peft: low-rank updates of the blocks' matrices, everything else of the blocks frozen.

As in DPLM-2's training: rank 16, alpha 32, dropout 0.1 on the attention's and the feed-forward's matrices; embeddings and heads are
trained whole. Merging, W + (alpha / r) B A, is `layouts.merge_lora`; exporting does it. Source: Hu et al. 2021 (LoRA).
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
class LoraSettings:
    """The adapters of an encoder.

    Query, key and value are one matrix here, so they share one adapter, whose A they have in common; the published training gives each
    its own. A block of hidden size e and a feed-forward of 4 e gets 16 e x rank parameters, there 18 e x rank: at 650M and rank 16
    10,813,440 and 12,165,120.

    Args:
        rank: columns of an update.
        alpha: an update counts alpha / rank times.
        dropout: of what goes into an adapter.
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

    def add_to(self, model: nn.Module) -> None:
        """Put adapters into an encoder, in place, that change nothing yet; freeze the rest of its blocks and its last norm.

        Raises:
            MissingDependencyError: without peft.
        """
        peft = require("peft", "model.lora", extra="hf")
        peft.inject_adapter_in_model(
            peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=_ADAPTED),
            model,
        )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(bool(_WHOLE.search(name)))

    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of the plain encoder that computes the same."""
        return merge_lora(weights, "model.lora", alpha=self.alpha)
