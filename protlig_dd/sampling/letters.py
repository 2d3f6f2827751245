"""Which letters may be drawn: emittable ids, and the nucleus (top-p)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def restrict(logits: Float[Tensor, "a k"], emittable: Bool[Tensor, " k"]) -> Float[Tensor, "a k"]:
    """Return logits in float32 or float64, with -inf at ids that may not be emitted."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.masked_fill(~emittable.to(wide.device), -torch.inf)


def keep_top_p(logits: Float[Tensor, "a k"], top_p: float) -> Float[Tensor, "a k"]:
    """Return logits with -inf outside the nucleus: the smallest set of likeliest letters whose probability is at least top_p.

    The letter that reaches top_p is kept, the letters after it are not; of equally likely letters the one with the lower id comes first.

    Args:
        logits: unnormalised log probabilities; -inf is allowed. Kept entries are returned unchanged.
        top_p: above 0 and at most 1; 1 keeps every letter.

    Source: Holtzman et al. 2020.

    >>> keep_top_p(torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log(), 0.6).isfinite().tolist()
    [[False, True, True, False]]
    """
    if top_p == 1:
        return logits
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    probs = ordered.softmax(-1)
    before = probs.cumsum(-1) - probs  # the probability of all likelier letters
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index, before >= top_p)
    return logits.masked_fill(dropped, -torch.inf)
