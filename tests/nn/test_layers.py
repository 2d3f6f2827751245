"""Layers against torch's own, example by example."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from protlig_dd.nn.attention import attention
from protlig_dd.nn.blocks import BlockSettings, DiTBlock, Head
from protlig_dd.nn.layers import CrossAttention, FeedForward, LocalConvolution, SelfAttention
from protlig_dd.nn.packed import Context
from protlig_dd.nn.rotary import rotate, rotation
from protlig_dd.tokens.tracks import Layout

LAYOUT = Layout((5, 0, 1, 12, 3))


@pytest.mark.parametrize("width", [1, 3, 9])
def test_the_local_convolution_is_torchs_per_example(width: int) -> None:
    layer = LocalConvolution(4, width)
    x = torch.randn(LAYOUT.num_tokens, 4, requires_grad=True)
    weight = layer.mix.weight.view(4, width, 4).permute(0, 2, 1)  # out, in, place
    rows = x.split([n for n in LAYOUT.lengths if n])
    convolved = [F.conv1d(row.T[None], weight, layer.mix.bias, padding=width // 2)[0].T for row in rows]
    expected = x + F.gelu(torch.cat(convolved))
    found = layer(x, LAYOUT)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn(x.shape)
    for a, b in zip(
        torch.autograd.grad(found, [x, layer.mix.weight], cotangent),
        torch.autograd.grad(expected, [x, layer.mix.weight], cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_an_even_width_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="width 4"):
        LocalConvolution(4, 4)


@pytest.mark.parametrize(("activation", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
def test_the_feed_forward_has_the_activation_it_is_told(activation: str, approximate: str) -> None:
    layer, x = FeedForward(4, 8, activation), 3 * torch.randn(5, 4)
    inner, outer = layer[0], layer[2]
    torch.testing.assert_close(layer(x), outer(F.gelu(inner(x), approximate=approximate)))


def test_self_attention_projects_turns_and_attends() -> None:
    layer, x = SelfAttention(8, 2, "bucketed"), torch.randn(LAYOUT.num_tokens, 8)
    by = rotation(LAYOUT.position, 4)
    q, k, v = layer.qkv(x).view(-1, 3, 2, 4).unbind(1)
    attended = attention(rotate(q, by), rotate(k, by), v, LAYOUT, LAYOUT, backend="reference")
    torch.testing.assert_close(layer(x, LAYOUT, by), layer.out(attended.flatten(1)))


def test_self_attention_knows_the_order_and_cross_attention_does_not() -> None:
    layout, order = Layout((6,)), torch.tensor([0, 1, 2, 4, 3, 5])
    x, context = torch.randn(6, 8), torch.randn(6, 8)
    by = rotation(layout.position, 4)
    own, cross = SelfAttention(8, 2, "bucketed"), CrossAttention(8, 8, 2, "bucketed")
    assert (own(x, layout, by)[0] - own(x[order], layout, by)[0]).abs().max() > 1e-4
    torch.testing.assert_close(cross(x, context, layout, layout), cross(x, context[order], layout, layout))


def sizes(dropout: float = 0.0) -> BlockSettings:
    return BlockSettings(hidden_size=8, num_heads=2, mlp_ratio=2.0, conditioning_size=6, dropout=dropout)


@pytest.mark.parametrize("context_size", [None, 8, 12])
def test_a_fresh_block_is_the_identity(context_size: int | None) -> None:
    block = DiTBlock(sizes(), "bucketed", context_size=context_size)
    x, condition = torch.randn(LAYOUT.num_tokens, 8), torch.randn(5, 6)
    context_layout = Layout((2, 3, 0, 4, 1))
    context = () if context_size is None else (Context(torch.randn(10, context_size), context_layout),)
    found = block(x, LAYOUT, rotation(LAYOUT.position, 4), condition, *context)
    torch.testing.assert_close(found, x, atol=0, rtol=0)


def test_a_block_with_cross_attention_insists_on_a_context() -> None:
    with pytest.raises(AssertionError, match="needs a context"):
        DiTBlock(sizes(), "bucketed", context_size=8)(torch.randn(21, 8), LAYOUT, rotation(LAYOUT.position, 4), torch.randn(5, 6))


def test_the_chunks_of_modulation_are_those_of_sedd() -> None:
    """shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp; then the cross-attention's three."""
    block = DiTBlock(sizes(), "bucketed", context_size=8)
    torch.nn.init.normal_(block.modulation.bias)
    x, condition, by = torch.randn(21, 8), torch.zeros(5, 6), rotation(LAYOUT.position, 4)
    context, context_layout = torch.randn(10, 8), Layout((2, 3, 0, 4, 1))
    c = block.modulation.bias.chunk(9)
    h = x + c[2] * block.attention(block.norm1(x) * (1 + c[1]) + c[0], LAYOUT, by)
    assert block.cross is not None
    query = block.norm_cross(h) * (1 + c[7]) + c[6]
    h = h + c[8] * block.cross(query, block.norm_context(context), LAYOUT, context_layout)
    h = h + c[5] * block.mlp(block.norm2(h) * (1 + c[4]) + c[3])
    torch.testing.assert_close(block(x, LAYOUT, by, condition, Context(context, context_layout)), h)


def test_dropout_acts_in_training_only() -> None:
    block = DiTBlock(sizes(dropout=0.5), "bucketed")
    torch.nn.init.ones_(block.modulation.bias)
    arguments = (torch.randn(21, 8), LAYOUT, rotation(LAYOUT.position, 4), torch.zeros(5, 6))
    assert not torch.equal(block(*arguments), block(*arguments))
    block.eval()
    torch.testing.assert_close(block(*arguments), block(*arguments), atol=0, rtol=0)


def test_the_head_starts_at_zero_and_takes_positions() -> None:
    head = Head(8, 11, 6)
    x, condition = torch.randn(21, 8), torch.randn(5, 6)
    assert head(x, LAYOUT, condition).abs().max() == 0
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    at = torch.tensor([0, 7, 20, 7])
    torch.testing.assert_close(head(x, LAYOUT, condition, at), head(x, LAYOUT, condition)[at])
