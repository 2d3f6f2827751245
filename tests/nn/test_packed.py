"""Modulation against the plain formula, and narrowing to the tokens that are asked for."""

from __future__ import annotations

import pytest
import torch

from protlig_dd.nn.packed import Context, add_gated, common_length, modulate, wanted_tokens, window_rows
from protlig_dd.nn.rotary import rotation
from protlig_dd.tokens.tracks import Layout

LAYOUT = Layout((3, 0, 4, 1))


@pytest.mark.parametrize("layout", [LAYOUT, Layout((2, 2, 2, 2))], ids=["ragged", "equal"])
@pytest.mark.parametrize("narrow", [None, torch.bfloat16], ids=["float32", "autocast"])
def test_modulation_and_gating_are_the_plain_formulas(narrow: torch.dtype | None, layout: Layout) -> None:
    """Under autocast the modulation comes in half precision while the residual stays in float32."""
    x = torch.randn(8, 5, requires_grad=True)
    y, *chunks = (torch.randn(n, 5, dtype=narrow, requires_grad=True) for n in (8, 4, 4, 4))
    shift, scale, gate = chunks
    segment, length, cotangent = layout.segment, common_length(layout), torch.randn(8, 5)
    found = modulate(add_gated(x, y, gate, segment, length), shift, scale, segment, length)
    residual = x + gate.float()[segment] * y.float()
    expected = residual * (1 + scale.float()[segment]) + shift.float()[segment]
    torch.testing.assert_close(found, expected)
    leaves = (x, y, shift, scale, gate)
    for a, b in zip(torch.autograd.grad(found, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)


def test_narrowing_keeps_the_examples_with_wanted_tokens() -> None:
    layout = Layout((3, 4, 0, 2))
    wanted = wanted_tokens(torch.tensor([4, 6, 8]), layout)
    assert wanted is not None
    assert wanted.kept.tolist() == [False, True, False, True]
    assert wanted.read.tolist() == [3, 4, 5, 6, 7, 8]
    assert wanted.read_layout.lengths == (0, 4, 0, 2)
    assert wanted.read[wanted.queries].tolist() == [4, 6, 8]
    assert wanted.layout.lengths == (0, 2, 0, 1)
    x, by = torch.arange(9.0)[:, None], rotation(layout.position, 4)
    read, read_layout, turned = wanted.read_of(x, by)
    assert read.flatten().tolist() == [3, 4, 5, 6, 7, 8]
    torch.testing.assert_close(turned.cos, rotation(read_layout.position, 4).cos)
    context, context_layout, by = wanted.context_of(Context(torch.arange(10.0)[:, None], Layout((5, 2, 2, 1))))
    assert context.flatten().tolist() == [5, 6, 9]
    assert context_layout.lengths == (0, 2, 0, 1) and by is None


@pytest.mark.parametrize(
    "at",
    [None, torch.tensor([6, 4]), torch.arange(8), torch.empty(2, dtype=torch.int64, device="meta")],
    ids=["all", "descending", "nearly all", "not on the host"],
)
def test_nothing_is_narrowed_where_it_cannot_be_or_does_not_pay(at: torch.Tensor | None) -> None:
    assert wanted_tokens(at, Layout((3, 4, 0, 2))) is None


def test_windows_end_with_their_examples() -> None:
    assert window_rows(LAYOUT, 3).tolist() == [
        [8, 0, 1], [0, 1, 2], [1, 2, 8], [8, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 8], [8, 7, 8],
    ]  # fmt: skip
