"""Which letters may come: the rows of logits that are emittable, and top-p."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def restrict(logits: Float[Tensor, "a k"], emittable: Bool[Tensor, " k"]) -> Float[Tensor, "a k"]:
    """Logits in at least float32, with -inf at ids that may not be emitted."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.masked_fill(~emittable.to(wide.device), -torch.inf)


def keep_top_p(logits: Float[Tensor, "a k"], top_p: float) -> Float[Tensor, "a k"]:
    """Return logits with -inf outside the likeliest letters that together reach probability top_p; the rest is left as it is."""
    if top_p == 1:
        return logits
    ordered, index = logits.sort(-1, descending=True)
    probs = ordered.softmax(-1)
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index, probs.cumsum(-1) - probs > top_p)
    return logits.masked_fill(dropped, -torch.inf)
