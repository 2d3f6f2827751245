"""Floating-point operations, counted from layers and lengths. A multiply-add counts as two; a backward pass as two forward passes.

Counted: matrix products of Linear layers and of attention (only real query-key pairs: nothing is padded). Not counted: norms,
activations, softmax, rotary, embeddings and the per-example adaLN products, together about 1 % at hidden size 768.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def linear_flops(module: nn.Module, *, per_example: tuple[str, ...] = (), frozen_only: bool = False) -> int:
    """Return the operations per token of all Linear layers in a module.

    Args:
        module: the module whose layers are counted, by their sizes, since a weight may be packed or sharded.
        per_example: layers with one of these words in their dotted name are not counted.
        frozen_only: count only layers whose weights are not trained.
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
    """Return the operations of forward and backward on a batch: three times the forward, minus the gradients of frozen weights.

    Args:
        model: has `forward_flops(batch)`; with frozen weights also `frozen_flops(batch)`, the forward operations of these.
        batch: the argument of both.
    """
    frozen = float(model.frozen_flops(batch)) if hasattr(model, "frozen_flops") else 0.0
    return 3 * float(model.forward_flops(batch)) - frozen
