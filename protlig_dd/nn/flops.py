"""Floating-point operations, counted from layers and lengths. A multiply-add is two; a backward pass is twice the forward.

Counted: matrix products of Linear layers and of attention (only real query-key pairs: nothing is padded). Not counted: norms,
activations, softmax, rotary, embeddings and the per-example adaLN products, together about 1 % at hidden size 768.
"""

from __future__ import annotations

from torch import nn


def linear_flops(module: nn.Module, *, per_example: tuple[str, ...] = ()) -> int:
    """Return the operations per token of all Linear layers in a module, leaving out those whose name contains a given word."""
    return sum(
        2 * layer.in_features * layer.out_features  # not the weight's elements: where it is sharded it may have none
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and not any(word in name.split(".") for word in per_example)
    )


def attention_flops(hidden_size: int, num_pairs: int) -> int:
    """Return the operations of q k^T and of the weighted sum of v, over all heads, for a number of query-key pairs."""
    return 4 * hidden_size * num_pairs


def training_flops(forward: float) -> float:
    """Return the operations of forward and backward: three times the forward."""
    return 3 * forward
