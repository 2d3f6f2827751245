"""Attention over packed sequences, with all attention back-ends.

`attention(q, k, v, q_layout, k_layout, backend=...)` takes q [n, h, d] and k, v [m, h, d]; example i of q attends to example i of k, never to
another example. An example without keys gets zeros. Self- and cross-attention are the same call. With `causal=True` each query sees the
keys up to its own position; the last query sees all keys of its example, so fewer queries than keys are the end of a sequence.

| back-end     | how                                                             | where                                  |
|--------------|-----------------------------------------------------------------|----------------------------------------|
| flash_attn   | flash-attn's varlen kernel                                      | CUDA sm80+, half precision, if asked   |
| varlen       | torch.nn.attention.varlen (FlashAttention-2 inside torch)       | CUDA sm80+, half precision             |
| padded       | one padded block, masked SDPA                                   | V100 and older CUDA                    |
| bucketed     | a few padded blocks of similar lengths, masked SDPA             | CPU; CUDA in float32                   |
| per_sequence | blocks of equal lengths, SDPA without any mask                  | MPS, XPU                               |
| reference    | float32 softmax, example by example                             | tests: the oracle                      |

`bucketed`, `padded` and `per_sequence` are one function with three ways of splitting the batch into blocks.
flash-attn is imported only when its back-end is chosen. MPS gets no mask because masked SDPA has silently returned wrong numbers there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from protlig_dd.device import cuda_capability
from protlig_dd.errors import DeviceError
from protlig_dd.tokens.tracks import Layout

Backend = Literal["flash_attn", "varlen", "padded", "bucketed", "per_sequence", "reference"]

_CALL_COST = 4096
"""Cost of an SDPA call in query-key pairs: a bucket is closed when padding would cost more than another call."""


@dataclass(frozen=True)
class BackendChoice:
    """A back-end and the reason for the choice."""

    name: Backend
    reason: str


def has_flash_attn() -> bool:
    """Return whether the flash-attn package is installed, without importing it."""
    return importlib.util.find_spec("flash_attn") is not None


def has_torch_varlen() -> bool:
    """Return whether this torch has `torch.nn.attention.varlen` (2.10 and later)."""
    return importlib.util.find_spec("torch.nn.attention.varlen") is not None


def choose_backend(requested: str, device: torch.device, dtype: torch.dtype) -> BackendChoice:
    """Return the back-end for a device and compute dtype.

    Args:
        requested: "auto", which always finds one, or the name of a back-end.
        device: the device of q, k and v.
        dtype: their dtype in the forward pass (the autocast dtype).

    Raises:
        DeviceError: if a back-end is requested by name and cannot run here, with advice.
    """
    if requested == "auto":
        return _automatic(device, dtype)
    if requested not in get_args(Backend):
        raise DeviceError(f"attention: found '{requested}', expected auto or one of {', '.join(get_args(Backend))}")
    if requested in ("flash_attn", "varlen"):
        obstacle = _kernel_obstacle(device, dtype)
        if requested == "flash_attn" and not has_flash_attn():
            missing = "the flash-attn package is not installed (pip install 'protlig_dd[flash]', needs a CUDA compiler)"
            obstacle = obstacle or missing
        if requested == "varlen" and not has_torch_varlen():
            obstacle = obstacle or f"torch {torch.__version__} has no varlen attention; install torch 2.11 or later"
        if obstacle:
            raise DeviceError(f"attention: '{requested}' cannot run here: {obstacle}; use attention=auto, which chooses what can")
    return BackendChoice(requested, "asked for by name")  # type: ignore[arg-type]


def _kernel_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why fused varlen kernels cannot run, or an empty string."""
    if device.type != "cuda":
        return f"it needs a CUDA device, this is {device.type}"
    capability = cuda_capability(device)
    if capability < (8, 0):
        return f"it needs compute capability 8.0 (A100) or newer, this is {'.'.join(map(str, capability))}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it needs half precision, this run computes in {str(dtype).removeprefix('torch.')}"
    return ""


def _automatic(device: torch.device, dtype: torch.dtype) -> BackendChoice:
    if device.type == "cuda":
        obstacle = _kernel_obstacle(device, dtype)
        if not obstacle and has_torch_varlen():
            return BackendChoice("varlen", "torch's varlen FlashAttention: CUDA sm80 or newer, half precision, no padding")
        if not obstacle and has_flash_attn():
            return BackendChoice("flash_attn", "flash-attn's varlen kernel: this torch has none of its own")
        if cuda_capability(device) < (8, 0):
            return BackendChoice("padded", f"masked SDPA, padded inside attention only: {obstacle}")
        return BackendChoice("bucketed", f"masked SDPA in blocks of similar lengths: {obstacle or 'no varlen kernel is installed'}")
    if device.type == "cpu":
        return BackendChoice("bucketed", "SDPA in blocks of similar lengths: fastest on a CPU, where no varlen kernel exists")
    return BackendChoice("per_sequence", f"SDPA without masks in blocks of equal length: masks have been unsafe on {device.type}")


@dataclass(frozen=True)
class _Block:
    """The examples of one SDPA call: e of them, each with lq places for queries and lk for keys."""

    shape: tuple[int, int, int]  # e, lq, lk
    mask: Tensor | None  # [e, 1, 1, lk] where lengths differ; causal, [e, 1, lq, lk] where queries are fewer than keys
    causal: bool  # each query sees the keys up to its own: SDPA's causal mask, which also hides the padding


@dataclass(frozen=True)
class _Plan:
    """A batch split into blocks with concatenated places. Indices are None where the order does not change."""

    blocks: tuple[_Block, ...]
    q_source: Tensor | None  # the packed token at each place
    k_source: Tensor | None
    q_place: Tensor | None  # the place of each packed query; a query without keys takes the zero row after all places
    empty: bool  # some queries have no keys


@lru_cache(maxsize=64)
def _plan(q_layout: Layout, k_layout: Layout, backend: Backend, causal: bool = False) -> _Plan:
    """Split a batch into blocks. Cached: all layers of a forward pass share one plan."""
    pairs = list(zip(q_layout.lengths, k_layout.lengths, strict=True))
    live = [i for i, (lq, lk) in enumerate(pairs) if lq and lk]
    groups = _groups(sorted(live, key=lambda i: pairs[i]), pairs, backend)
    shapes = [(len(g), max(pairs[i][0] for i in g), max(pairs[i][1] for i in g)) for g in groups]
    order = [i for group in groups for i in group]
    q_places = [lq for e, lq, _ in shapes for _ in range(e)]
    k_places = [lk for e, _, lk in shapes for _ in range(e)]
    q_source, is_query = _sources(q_layout, order, q_places)
    k_source, is_key = _sources(k_layout, order, k_places)
    masks = is_key.to(k_layout.device).split([e * lk for e, _, lk in shapes]) if groups else ()
    blocks = []
    for group, (e, lq, lk), mask in zip(groups, shapes, masks, strict=True):
        own = [pairs[i] for i in group]
        aligned = causal and all(queries == keys for queries, keys in own)
        seen = mask.view(e, 1, 1, lk) if any(keys != lk for _, keys in own) else None
        if causal:
            seen = None if aligned else _causal_mask(own, lq, lk).to(k_layout.device)
        blocks.append(_Block((e, lq, lk), seen, aligned))
    place = torch.full((q_layout.num_tokens,), len(q_source))
    place.index_copy_(0, q_source[is_query], is_query.nonzero().squeeze(1))
    moved = [
        None if len(index) == n and bool((index == torch.arange(n)).all()) else index.to(layout.device)
        for index, n, layout in (
            (q_source, q_layout.num_tokens, q_layout),
            (k_source, k_layout.num_tokens, k_layout),
            (place, len(q_source), q_layout),
        )
    ]
    empty = any(lq and not lk for lq, lk in pairs)
    return _Plan(tuple(blocks), q_source=moved[0], k_source=moved[1], q_place=moved[2], empty=empty)


def _causal_mask(pairs: list[tuple[int, int]], lq: int, lk: int) -> Tensor:
    """Which keys each query of a block sees [e, 1, lq, lk]: query i sees keys up to i + (number of keys - number of queries)."""
    before = torch.tensor([keys - queries for queries, keys in pairs]).view(-1, 1, 1, 1)
    return torch.arange(lq)[:, None] + before >= torch.arange(lk)


def _sources(layout: Layout, order: list[int], places: list[int]) -> tuple[Tensor, Tensor]:
    """The packed token at each place, for the examples in `order` with their numbers of places, and whether it is not padding.

    Padding repeats an example's last token: as keys it is masked, as queries it is discarded.
    """
    spans = torch.tensor(places, dtype=torch.int64)
    lengths = torch.tensor([layout.lengths[i] for i in order], dtype=torch.int64).repeat_interleave(spans)
    starts = torch.tensor([layout.offsets[i] for i in order], dtype=torch.int64).repeat_interleave(spans)
    inside = torch.arange(len(lengths)) - (spans.cumsum(0) - spans).repeat_interleave(spans)
    return starts + torch.minimum(inside, lengths - 1), inside < lengths


def _groups(ordered: list[int], pairs: list[tuple[int, int]], backend: Backend) -> list[list[int]]:
    """Split examples, ordered by lengths, into the groups of one call each."""
    if backend == "padded":
        return [sorted(ordered)] if ordered else []
    groups: list[list[int]] = []
    used = lq = lk = 0  # of the last group: query-key pairs, longest queries, longest keys
    for i in ordered:
        a, b = pairs[i]
        size = len(groups[-1]) + 1 if groups else 0
        if backend == "per_sequence":
            joins = bool(groups) and (lq, lk) == (a, b)
        else:
            joins = bool(groups) and size * max(lq, a) * max(lk, b) - used - a * b <= _CALL_COST * max(1, size // 4)
        if joins:
            groups[-1].append(i)
            used, lq, lk = used + a * b, max(lq, a), max(lk, b)
        else:
            groups.append([i])
            used, lq, lk = a * b, a, b
    return [sorted(group) for group in groups]


def _blockwise(q: Tensor, k: Tensor, v: Tensor, q_layout: Layout, k_layout: Layout, backend: Backend, causal: bool) -> Tensor:
    plan = _plan(q_layout, k_layout, backend, causal)
    if not plan.blocks:  # no example has both queries and keys; the sum keeps the gradients defined
        return torch.zeros_like(q) + 0.0 * (q.sum() + k.sum() + v.sum())
    if plan.q_source is not None:
        q = q.index_select(0, plan.q_source)
    if plan.k_source is not None:
        k, v = k.index_select(0, plan.k_source), v.index_select(0, plan.k_source)
    q_sizes = [e * lq for e, lq, _ in (block.shape for block in plan.blocks)]
    k_sizes = [e * lk for e, _, lk in (block.shape for block in plan.blocks)]
    outputs = []
    for block, *parts in zip(plan.blocks, q.split(q_sizes), k.split(k_sizes), v.split(k_sizes), strict=True):
        qb, kb, vb = (part.unflatten(0, (block.shape[0], -1)).transpose(1, 2) for part in parts)
        out = F.scaled_dot_product_attention(qb, kb, vb, attn_mask=block.mask, is_causal=block.causal)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    if plan.empty:
        outputs.append(q.new_zeros((1, *q.shape[1:])))
    joined = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return joined if plan.q_place is None else joined.index_select(0, plan.q_place)


def _reference(q: Tensor, k: Tensor, v: Tensor, q_layout: Layout, k_layout: Layout, causal: bool) -> Tensor:
    outputs = []
    for i in range(q_layout.num_examples):
        qi = q[q_layout.offsets[i] : q_layout.offsets[i + 1]].float()
        ki = k[k_layout.offsets[i] : k_layout.offsets[i + 1]].float()
        vi = v[k_layout.offsets[i] : k_layout.offsets[i + 1]].float()
        scores = torch.einsum("qhd,khd->hqk", qi, ki) * q.shape[-1] ** -0.5
        if causal and len(ki):
            places = torch.arange(len(ki), device=q.device)
            scores = scores.masked_fill(places > places[len(ki) - len(qi) :, None], -torch.inf)
        weights = scores.softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, vi).to(q.dtype))  # no keys: an empty sum, zeros
    return torch.cat(outputs) if outputs else q + 0.0 * (k.sum() + v.sum())


def _varlen(q: Tensor, k: Tensor, v: Tensor, q_layout: Layout, k_layout: Layout, kernel: Callable[..., Tensor], causal: bool) -> Tensor:
    if not q_layout.num_tokens or not k_layout.num_tokens:
        return q * 0 + k.sum() * 0 + v.sum() * 0
    sizes = (q_layout.cu_seqlens, k_layout.cu_seqlens, q_layout.max_length, k_layout.max_length)
    out = kernel(q, k, v, *sizes, causal=causal)
    if 0 in k_layout.lengths:
        has_keys = torch.tensor([n > 0 for n in k_layout.lengths], device=q.device)[q_layout.segment]
        out = out.masked_fill(~has_keys[:, None, None], 0)
    return out


def _torch_kernel(*arguments: Tensor | int, causal: bool) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    how = {"window_size": (-1, 0)} if causal else {}
    out: Tensor = varlen_attn(*arguments, **how)  # type: ignore[arg-type, assignment]
    return out


def _flash_kernel(*arguments: Tensor | int, causal: bool) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    out: Tensor = flash_attn_varlen_func(*arguments, causal=causal)
    return out


def attention(
    q: Float[Tensor, "n h d"],
    k: Float[Tensor, "m h d"],
    v: Float[Tensor, "m h d"],
    q_layout: Layout,
    k_layout: Layout,
    *,
    backend: Backend,
    causal: bool = False,
) -> Float[Tensor, "n h d"]:
    """Return softmax(q k^T / sqrt d) v within each example.

    Args:
        q: packed queries.
        k, v: packed keys and values.
        q_layout, k_layout: layouts of q and of k and v, with the same number of examples; example i of q sees example i of k.
        backend: a name from `choose_backend`.
        causal: query i of an example with n queries and m keys sees keys 0 to i + m - n.
    """
    pairs = zip(q_layout.lengths, k_layout.lengths, strict=True)
    assert not causal or all(n <= m for n, m in pairs), "queries without keys"
    if backend == "reference":
        return _reference(q, k, v, q_layout, k_layout, causal)
    if backend in ("varlen", "flash_attn"):
        kernel = _torch_kernel if backend == "varlen" else _flash_kernel
        return _varlen(q, k, v, q_layout, k_layout, kernel, causal)
    return _blockwise(q, k, v, q_layout, k_layout, backend, causal)
