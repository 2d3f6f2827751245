"""All back-ends that can run on a CPU are one function: they agree, forward and gradients, and examples never see each other."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from protlig_dd.nn import attention as module
from protlig_dd.nn.attention import attention
from protlig_dd.tokens.tracks import Layout

BACKENDS = ["padded", "bucketed", "per_sequence"]
CASES = {
    "self": ((5, 3, 9, 1, 3, 40), None),
    "equal lengths": ((4, 4, 4), None),
    "single tokens": ((1, 1, 1), None),
    "one example": ((7,), None),
    "empty examples": ((0, 5, 0, 3, 0), None),
    "all empty": ((0, 0), None),
    "no examples": ((), None),
    "cross": ((5, 3, 9, 1), (2, 8, 2, 6)),
    "cross, equal keys": ((5, 3, 9, 1), (4, 4, 4, 4)),
    "empty contexts": ((5, 3, 9, 1), (0, 8, 0, 6)),
    "only empty contexts": ((5, 3), (0, 0)),
    "empty queries": ((0, 3, 0, 1), (2, 8, 4, 6)),
    "only empty queries": ((0, 0), (2, 8)),
    "both empty here and there": ((0, 3, 5, 0), (2, 0, 4, 0)),
}
CAUSAL = {
    **{name: case for name, case in CASES.items() if case[1] is None},
    "the next parts": ((2, 3, 1, 1, 4), (5, 3, 9, 1, 4)),
    "one more token each": ((1, 1, 1), (4, 9, 4)),
    "nothing new here and there": ((0, 2, 0), (3, 6, 0)),
}


def inputs(q_lengths: tuple[int, ...], k_lengths: tuple[int, ...] | None, dtype: torch.dtype = torch.float32) -> list:
    generator = torch.Generator().manual_seed(1)
    q_layout = Layout(q_lengths)
    k_layout = q_layout if k_lengths is None else Layout(k_lengths)
    sizes = (q_layout.num_tokens, k_layout.num_tokens, k_layout.num_tokens)
    tensors = [torch.randn(n, 2, 4, generator=generator).to(dtype).requires_grad_() for n in sizes]
    return [*tensors, q_layout, k_layout]


def run(arguments: list, backend: str, *, causal: bool = False) -> list[Tensor]:
    """Return the output and the gradients of q, k and v for one fixed cotangent."""
    out = attention(*arguments, backend=backend, causal=causal)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    gradients = torch.autograd.grad(out, arguments[:3], cotangent, allow_unused=True)
    return [out, *(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, arguments[:3], strict=True))]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_back_ends_agree_with_the_reference(backend: str, case: str) -> None:
    arguments = inputs(*CASES[case])
    for found, expected in zip(run(arguments, backend), run(arguments, "reference"), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_buckets_agree_with_the_reference(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With calls that cost nothing every length gets a block of its own."""
    monkeypatch.setattr(module, "_CALL_COST", 0)
    module._plan.cache_clear()
    arguments = inputs((5, 3, 9, 1, 3, 5, 0), (2, 8, 2, 6, 8, 2, 3))
    results = run(arguments, backend)
    num_blocks = len(module._plan(*arguments[3:], backend).blocks)
    module._plan.cache_clear()
    assert num_blocks == {"padded": 1, "bucketed": 4, "per_sequence": 4}[backend]
    for found, expected in zip(results, run(arguments, "reference"), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_reference_is_the_textbook_formula() -> None:
    q, k, v, *layouts = inputs((3,), (2,))
    weights = torch.einsum("qhd,khd->hqk", q, k).div(2.0).softmax(-1)
    torch.testing.assert_close(attention(q, k, v, *layouts, backend="reference"), torch.einsum("hqk,khd->qhd", weights, v))


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_an_example_without_keys_gets_zeros(backend: str) -> None:
    arguments = inputs((2, 3), (4, 0))
    out = attention(*arguments, backend=backend)
    assert out[2:].abs().max() == 0
    assert out[:2].abs().min() > 0


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_editing_an_example_changes_no_other(backend: str) -> None:
    q, k, v, q_layout, k_layout = inputs((5, 3, 9), (2, 8, 4))
    mine_q, mine_k = slice(0, 5), slice(0, 2)
    out, dq, dk, dv = run([q, k, v, q_layout, k_layout], backend)
    edited = [x.detach().clone() for x in (q, k, v)]
    for x, start in zip(edited, (5, 2, 2), strict=True):
        x[start:] = 100 * torch.randn(x[start:].shape)
    out2, dq2, dk2, dv2 = run([*(x.requires_grad_() for x in edited), q_layout, k_layout], backend)
    torch.testing.assert_close(out[mine_q], out2[mine_q], atol=0, rtol=0)
    torch.testing.assert_close(dq[mine_q], dq2[mine_q], atol=0, rtol=0)
    for a, b in ((dk, dk2), (dv, dv2)):
        torch.testing.assert_close(a[mine_k], b[mine_k], atol=0, rtol=0)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_the_gradient_of_an_example_stays_in_it(backend: str) -> None:
    q, k, v, q_layout, k_layout = inputs((5, 3, 9), (2, 8, 4))
    out = attention(q, k, v, q_layout, k_layout, backend=backend)
    dq, dk, dv = torch.autograd.grad(out[5:8].square().sum(), (q, k, v))
    for g, mine in ((dq, slice(5, 8)), (dk, slice(2, 10)), (dv, slice(2, 10))):
        outside = g.clone()
        outside[mine] = 0
        assert outside.abs().max() == 0
        assert g[mine].abs().min() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_comes_back_as_it_came(backend: str) -> None:
    arguments = inputs((5, 3, 9), None, torch.bfloat16)
    found, expected = (attention(*arguments, backend=name) for name in (backend, "reference"))
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def varlen_on_cpu(*arguments: Tensor | int, causal: bool) -> Tensor:
    """What a varlen kernel computes, read from the seven arguments that it is given; garbage where an example has no keys."""
    q, k, v, cu_q, cu_k, max_q, max_k = arguments
    assert cu_q.dtype == cu_k.dtype == torch.int32, "kernels take int32 offsets"
    outputs = []
    for i in range(len(cu_q) - 1):
        qi, ki, vi = q[cu_q[i] : cu_q[i + 1]], k[cu_k[i] : cu_k[i + 1]], v[cu_k[i] : cu_k[i + 1]]
        assert len(qi) <= max_q and len(ki) <= max_k, "the longest lengths bound the kernel's tiles"
        scores = torch.einsum("qhd,khd->hqk", qi, ki) / q.shape[-1] ** 0.5
        if causal:  # flash-attn aligns the last query with the last key
            scores = scores.masked_fill(torch.ones(len(qi), len(ki)).triu(len(ki) - len(qi) + 1) > 0, -torch.inf)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), vi) if len(ki) else 7.0 * qi)
    return torch.cat(outputs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("backend", "kernel"), [("varlen", "_torch_kernel"), ("flash_attn", "_flash_kernel")])
def test_varlen_kernels_get_what_they_need(backend: str, kernel: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, kernel, varlen_on_cpu)
    arguments = inputs(*CASES[case])
    for found, expected in zip(run(arguments, backend), run(arguments, "reference"), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CAUSAL)
@pytest.mark.parametrize("backend", [*BACKENDS, "varlen", "flash_attn"])
def test_causal_back_ends_agree_with_the_reference(backend: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_torch_kernel", varlen_on_cpu)
    monkeypatch.setattr(module, "_flash_kernel", varlen_on_cpu)
    arguments = inputs(*CAUSAL[case])
    both = (run(arguments, name, causal=True) for name in (backend, "reference"))
    for found, expected in zip(*both, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_a_causal_token_sees_nothing_behind_it(backend: str) -> None:
    """Each token's output is that of the sequence cut off after it."""
    q, k, v, layout, _ = inputs((5, 7, 2), None)
    whole = attention(q, k, v, layout, layout, backend=backend, causal=True)
    for start, length in ((0, 5), (5, 7), (12, 2)):
        for end in range(start + 1, start + length + 1):
            own, cut = slice(start, end), Layout((end - start,))
            alone = attention(q[own], k[own], v[own], cut, cut, backend=backend)
            torch.testing.assert_close(whole[end - 1], alone[-1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_the_parts_of_a_sequence_give_what_the_whole_gives(backend: str) -> None:
    q, k, v, layout, _ = inputs((6,), None)
    whole = attention(q, k, v, layout, layout, backend=backend, causal=True)
    later = attention(q[4:], k, v, Layout((2,)), layout, backend=backend, causal=True)
    torch.testing.assert_close(later, whole[4:], atol=1e-6, rtol=1e-5)


def test_causal_attention_without_keys_for_a_query_is_refused() -> None:
    with pytest.raises(AssertionError, match="queries without keys"):
        attention(*inputs((3,), (2,)), backend="reference", causal=True)


@pytest.mark.parametrize("causal", [False, True])
def test_kernels_are_told_whether_to_be_causal(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of each: a window that ends at the query itself, or a flag."""
    from torch.nn.attention import varlen

    said: list[dict[str, object]] = []

    def kernel(*arguments: Tensor | int, **how: object) -> Tensor:
        said.append(how)
        return arguments[0]  # type: ignore[return-value]

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=kernel))
    for backend in ("varlen", "flash_attn"):
        attention(*inputs((3, 2), None), backend=backend, causal=causal)
    assert said == [{"window_size": (-1, 0)} if causal else {}, {"causal": causal}]
