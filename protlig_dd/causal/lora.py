"""Adapters on a pretrained causal model: low-rank updates of all its projections, and trained rows for new tokens; the rest is frozen.

The adapters are peft's, so a folder of them loads in stock peft (`causal_export.py`). The new rows stand beside the base's tables instead
of inside: a table of 128,256 rows is neither copied nor trained for three tokens. Source: Hu et al. 2021 (LoRA).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protlig_dd.causal.bases import draw_like
from protlig_dd.config import settings
from protlig_dd.errors import require

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@settings
class CausalLora:
    """The adapters of a causal model, on all projections of attention and feed-forward, without biases.

    A matrix of m rows and n columns gets rank x (m + n) parameters: with rank 64 Llama-3.1-8B gets 167,772,160.

    Args:
        rank: columns of an update.
        alpha: an update counts alpha / rank times.
        dropout: of what goes into an adapter.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"rank: found {self.rank} with alpha {self.alpha} and dropout {self.dropout}, "
                f"expected 1 or more, a positive number, and 0 to below 1"
            )

    def peft_config(self, **more: Any) -> Any:
        """Return peft's description of the adapters.

        Raises:
            MissingDependencyError: without peft.
        """
        peft = require("peft", "model.lora", extra="hf")
        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(PROJECTIONS),
            bias="none",
            task_type="CAUSAL_LM",
            **more,
        )

    def add_to(self, model: nn.Module, llama: nn.Module) -> int:
        """Put adapters that change nothing yet into a model's Llama, in place, and freeze the rest of it; return their parameters.

        What is frozen does not stand in the model's state: checkpoints hold what was trained, and the base is read from where it is.
        """
        peft = require("peft", "model.lora", extra="hf")
        peft.inject_adapter_in_model(self.peft_config(), llama)
        count = 0
        for name, parameter in llama.named_parameters():
            parameter.requires_grad_(".lora_" in name)
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # beside four bits peft makes them bfloat16
                count += parameter.numel()
        kept = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        _keep_only(model, kept)
        return count


def _keep_only(model: nn.Module, kept: frozenset[str]) -> None:
    """Leave everything but some parameters out of a model's state, and do not miss it when a state is loaded."""

    def leave_out(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for name in [name for name in state if name.startswith(prefix) and name.removeprefix(prefix) not in kept]:
            del state[name]

    def miss_nothing(module: nn.Module, found: Any) -> None:
        found.missing_keys[:] = [name for name in found.missing_keys if name in kept]

    model.register_state_dict_post_hook(leave_out)
    model.register_load_state_dict_post_hook(miss_nothing)


class NewRows(nn.Module):
    """The rows of tokens that a frozen model lacks, in its embedding and, unless it is tied to that, in its last matrix.

    Args:
        llama: the model; new rows are drawn like its own.
        first: the id of the first new token. The base's rows from there on, which pad its tables, are not used.
        number: of new tokens.
    """

    def __init__(self, llama: Any, first: int, number: int) -> None:
        super().__init__()
        self.first, size = first, llama.config.hidden_size
        self.embedding = nn.Embedding(number, size)
        self.head = None if llama.config.tie_word_embeddings else nn.Linear(size, number, bias=False)
        tables = (llama.get_input_embeddings(), llama.get_output_embeddings())
        for own, table in zip((self.embedding, self.head), tables, strict=True):
            if own is not None and not table.weight.is_meta:
                own.weight.data = draw_like(table.weight[:first], number)

    def forward(self, x: Tensor, frozen: nn.Module, *, is_head: bool) -> Tensor:
        """Return embeddings of ids, or logits of hidden states, with the base's table for the tokens that it knows."""
        if is_head:
            old = frozen(x)[..., : self.first]
            weight = self.embedding.weight if self.head is None else self.head.weight
            return torch.cat([old, F.linear(x.to(weight.dtype), weight).to(old.dtype)], dim=-1)
        is_new = x >= self.first
        old = frozen(x.masked_fill(is_new, 0))
        own = self.embedding((x - self.first).clamp(min=0)).to(old.dtype)
        return torch.where(is_new[..., None], own, old)
