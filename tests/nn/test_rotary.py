"""Rotary positions: lengths are kept, products depend on distances only, and the tables are SEDD's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from protlig_dd.nn.rotary import rotate, rotation


def test_products_depend_on_the_distance_only() -> None:
    q, k = torch.randn(1, 2, 8), torch.randn(1, 2, 8)

    def product(i: int, j: int) -> torch.Tensor:
        at_i, at_j = (rotation(torch.tensor([place]), 8) for place in (i, j))
        return (rotate(q, at_i) * rotate(k, at_j)).sum(-1)

    torch.testing.assert_close(product(3, 7), product(100, 104), atol=1e-4, rtol=1e-4)
    assert (product(3, 7) - product(7, 3)).abs().max() > 1e-2, "a rotation knows left from right"


def test_lengths_are_kept_and_position_0_turns_nothing() -> None:
    x = torch.randn(50, 3, 16)
    turned = rotate(x, rotation(torch.arange(50), 16))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[0], x[0], atol=0, rtol=0)


def test_element_i_turns_with_element_i_plus_half() -> None:
    x = torch.zeros(1, 1, 4)
    x[..., 0] = 1.0
    turned = rotate(x, rotation(torch.tensor([1]), 4))[0, 0]
    torch.testing.assert_close(turned, torch.tensor([np.cos(1.0), 0.0, np.sin(1.0), 0.0], dtype=torch.float32))


def test_the_gradient_is_that_of_the_formula() -> None:
    by = rotation(torch.arange(5), 6)
    x = torch.randn(5, 2, 6, requires_grad=True)
    weight = torch.randn(5, 2, 6)
    x1, x2 = x.chunk(2, dim=-1)
    plain = torch.cat([x1 * by.cos - x2 * by.sin, x2 * by.cos + x1 * by.sin], dim=-1)
    torch.testing.assert_close(rotate(x, by), plain)
    (expected,) = torch.autograd.grad(plain, x, weight)
    (found,) = torch.autograd.grad(rotate(x, by), x, weight)
    torch.testing.assert_close(found, expected)


def test_half_precision_is_turned_in_float32() -> None:
    x = torch.randn(2000, 1, 8).bfloat16()
    by = rotation(torch.arange(2000), 8)
    turned = rotate(x, by)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned, rotate(x.float(), by).bfloat16(), atol=0, rtol=0)


@pytest.mark.data
def test_tables_and_turns_are_sedds(shared: Path) -> None:
    golden = np.load(shared / "goldens" / "sedd" / "goldens_model.npz")
    by = rotation(torch.arange(10), 8)
    for table, name in ((by.cos, "rotary_cos"), (by.sin, "rotary_sin")):
        for half in (slice(0, 4), slice(4, 8)):
            np.testing.assert_allclose(table[:, 0], golden[name][0, :, 0, 0, half], atol=1e-6)
    qkv_in, qkv_out = golden["rotary_in"], golden["rotary_out"]
    for example in range(len(qkv_in)):
        for part in (0, 1):
            turned = rotate(torch.from_numpy(qkv_in[example, :, part]), by)
            np.testing.assert_allclose(turned, qkv_out[example, :, part], atol=1e-6)
        np.testing.assert_array_equal(qkv_in[example, :, 2], qkv_out[example, :, 2])
