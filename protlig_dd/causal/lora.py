"""Adapters of a pretrained causal model: low-rank updates of all its projections, and trained rows for new tokens; the rest is frozen.

The adapters are peft's, so an exported folder loads in stock peft (`causal/export.py`). The new rows are separate from the base's tables:
a table of 128,256 rows is neither copied nor trained for three tokens. Source: Hu et al. 2021 (LoRA).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.errors import require
from protlig_dd.models.lora import LowRank
from protlig_dd.models.transfer import draw_like

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@settings
class CausalLora(LowRank):
    """The adapters of a causal model, on all projections of attention and feed-forward, without biases.

    A matrix of m rows and n columns gets rank x (m + n) parameters: with rank 64 Llama-3.1-8B gets 167,772,160.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.05

    def peft_config(self, **more: Any) -> Any:
        """Return peft's description of the adapters.

        Raises:
            MissingDependencyError: without peft.
        """
        peft = require("peft", "model.lora", extra="hf")
        own = {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout}
        return peft.LoraConfig(**own, target_modules=list(PROJECTIONS), bias="none", task_type="CAUSAL_LM", **more)

    def add_to(self, model: nn.Module, llama: nn.Module) -> int:
        """Add adapters to a model's Llama, in place, without changing its output, and freeze the rest; return their number of parameters.

        Frozen parameters are not in the model's state dict: checkpoints have the trained ones, and the base is read from its own folder.
        """
        peft = require("peft", "model.lora", extra="hf")
        peft.inject_adapter_in_model(self.peft_config(), llama)
        count = 0
        for name, parameter in llama.named_parameters():
            parameter.requires_grad_(".lora_" in name)
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # for a 4-bit base peft makes them bfloat16
                count += parameter.numel()
        kept = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        _keep_only(model, kept)
        return count


def _keep_only(model: nn.Module, kept: frozenset[str]) -> None:
    """Restrict a model's state dict to some parameters, on saving and on loading."""

    def leave_out(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for name in [name for name in state if name.startswith(prefix) and name.removeprefix(prefix) not in kept]:
            del state[name]

    def miss_nothing(module: nn.Module, found: Any) -> None:
        found.missing_keys[:] = [name for name in found.missing_keys if name in kept]

    model.register_state_dict_post_hook(leave_out)
    model.register_load_state_dict_post_hook(miss_nothing)


class NewRows(nn.Module):
    """Rows for new tokens of a frozen model, in its embedding and, unless tied, in its output matrix.

    Args:
        llama: the model; new rows are drawn from the distribution of its own.
        first: the id of the first new token. The base's rows from there on, which are padding, are not used.
        number: number of new tokens.
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
        """Return embeddings of ids, or logits of hidden states, using the base's table for its own tokens."""
        if is_head:
            old = frozen(x)[..., : self.first]
            weight = self.embedding.weight if self.head is None else self.head.weight
            return torch.cat([old, F.linear(x.to(weight.dtype), weight).to(old.dtype)], dim=-1)
        is_new = x >= self.first
        old = frozen(x.masked_fill(is_new, 0))
        own = self.embedding((x - self.first).clamp(min=0)).to(old.dtype)
        return torch.where(is_new[..., None], own, old)
