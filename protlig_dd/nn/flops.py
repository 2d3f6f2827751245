"""Floating-point operations, counted from layers and lengths. A multiply-add is two; a backward pass is twice the forward.

Counted: matrix products of Linear layers and of attention (only real query-key pairs: nothing is padded). Not counted: norms,
activations, softmax, rotary, embeddings and the per-example adaLN products, together about 1 % at hidden size 768.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def linear_flops(module: nn.Module, *, per_example: tuple[str, ...] = (), frozen_only: bool = False) -> int:
    """Return the operations per token of all Linear layers in a module.

    Args:
        module: whose layers are counted, by their sizes: a weight may be packed, or sharded away.
        per_example: layers whose name contains one of these words are left out.
        frozen_only: count only those whose weights are not trained.
    """
    return sum(
        2 * layer.in_features * layer.out_features
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        and not any(word in name.split(".") for word in per_example)
        and not (frozen_only and layer.weight.requires_grad)
    )


def attention_flops(hidden_size: int, num_pairs: int) -> int:
    """Return the operations of q k^T and of the weighted sum of v, over all heads, for a number of query-key pairs."""
    return 4 * hidden_size * num_pairs


def training_flops(model: Any, batch: Any) -> float:
    """Return the operations of forward and backward on a batch: three times the forward, less the gradients of frozen weights.

    Args:
        model: has `forward_flops(batch)`; one that trains beside frozen products also `frozen_flops(batch)`, their forward operations.
        batch: what the two take.
    """
    frozen = float(model.frozen_flops(batch)) if hasattr(model, "frozen_flops") else 0.0
    return 3 * float(model.forward_flops(batch)) - frozen
