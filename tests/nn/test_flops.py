"""Counts of operations of layers; whole models are held against torch's counter beside the models."""

from __future__ import annotations

from types import SimpleNamespace

from torch import nn

from protlig_dd.nn.flops import attention_flops, linear_flops, training_flops


def test_linear_layers_are_counted_by_their_weights() -> None:
    module = nn.ModuleDict({"modulation": nn.Linear(3, 5), "mlp": nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 4))})
    assert linear_flops(module) == 2 * (15 + 56)
    assert linear_flops(module, per_example=("modulation",)) == 2 * 56


def test_layers_that_are_not_trained_are_told_apart() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    module[0].weight.requires_grad_(False)
    assert linear_flops(module, frozen_only=True) == 2 * 15


def test_attention_is_two_products_and_training_three_passes_without_gradients_of_frozen_weights() -> None:
    assert attention_flops(8, 10) == 2 * 2 * 8 * 10
    assert training_flops(SimpleNamespace(forward_flops=lambda batch: 7.0 * batch), 2) == 42.0
    counted = SimpleNamespace(forward_flops=lambda batch: 7.0 * batch, frozen_flops=lambda batch: 5.0 * batch)
    assert training_flops(counted, 2) == 32.0
