"""A cache gives one token at a time what attention gives to the whole sequence."""

from __future__ import annotations

import torch

from protlig_dd.causal.cache import KeyValueCache, cached_attention
from protlig_dd.nn.attention import attention
from protlig_dd.tokens.tracks import Layout


def test_a_cached_token_sees_its_own_row_and_shares_key_heads() -> None:
    """Two key heads serve four query heads; what lies behind a row's length is never seen."""
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(shape, generator=generator) for shape in ((3, 4, 8), (3, 2, 6, 8), (3, 2, 6, 8)))
    lengths = (6, 1, 3)
    for row, length in enumerate(lengths):
        k[row, :, length:], v[row, :, length:] = 50.0, 1e3
    found = cached_attention(q, k, v, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        own_k, own_v = (x[row, :, :length].transpose(0, 1).repeat_interleave(2, dim=1) for x in (k, v))
        one = attention(q[row : row + 1], own_k, own_v, Layout((1,)), Layout((length,)), backend="reference")
        torch.testing.assert_close(found[row : row + 1], one, atol=1e-5, rtol=1e-5)


def test_a_growing_cache_gives_what_causal_attention_gives() -> None:
    generator = torch.Generator().manual_seed(4)
    start, end = Layout((3, 1, 2)), Layout((6, 4, 5))
    q, k, v = (torch.randn(end.num_tokens, 2, 4, generator=generator) for _ in range(3))
    whole = attention(q, k, v, end, end, backend="reference", causal=True)
    at = torch.tensor(end.offsets[:-1])
    cache = KeyValueCache(start, 6)
    first = torch.cat([torch.arange(n) + at[i] for i, n in enumerate(start.lengths)])
    assert not cache.has(0)
    cache.fill(0, k[first], v[first])
    assert cache.has(0) and not cache.has(1)
    for _ in range(3):
        place = at + cache.grow()
        torch.testing.assert_close(cache.attend(0, q[place], k[place], v[place]), whole[place], atol=1e-5, rtol=1e-5)
    assert cache.lengths.tolist() == [6, 4, 5]
