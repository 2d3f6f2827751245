"""The loss of a causal model: the next token's negative log-likelihood, of structure tokens and ends only."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from protlig_dd.causal.model import TASK
from protlig_dd.causal.sequences import CausalBatch, CausalVocabulary, pack_sequences
from protlig_dd.objective import LossTerms
from protlig_dd.tokens.tracks import TrackBatch


class CausalObjective:
    """The likelihood of structure tokens given the protein, in nats.

    Args:
        vocabulary: the ids of the model's sequences.
        device: the device of prepared batches.
    """

    def __init__(self, vocabulary: CausalVocabulary, *, device: torch.device | str = "cpu") -> None:
        self.vocabulary = vocabulary
        self.device = torch.device(device)

    def prepare(self, batch: TrackBatch, step: int) -> CausalBatch:
        """Return a batch as sequences, on the device. Nothing is random.

        Raises:
            ValueError: if an example lacks a track.
        """
        packed = pack_sequences(batch, self.vocabulary)
        return packed if self.device.type == "cpu" else packed.to(self.device)

    def loss(self, model: Callable[..., Tensor], prepared: CausalBatch) -> LossTerms:
        """Return the summed loss, and sums by `nll/...` and `accuracy/...` (the likeliest token, given the true ones before it)."""
        logits = model(prepared.tokens, prepared.layout, rows=prepared.rows)
        per_token = token_nll(logits, prepared)
        hits = (logits.detach().argmax(-1) == prepared.targets).sum()
        total = per_token.sum()
        name, count = f"{TASK}/structure", float(prepared.num_tokens)
        examples = {} if torch.is_grad_enabled() else {"structure": _by_example(per_token, prepared)}
        sums = {f"nll/{name}": total.detach(), f"accuracy/{name}": hits.float()}
        return LossTerms(total=total, sums=sums, counts=dict.fromkeys(sums, count), examples=examples)

    @torch.no_grad()
    def nll(self, model: Callable[..., Tensor], batch: TrackBatch) -> Float[Tensor, " b"]:
        """Return the negative log-likelihood of each example in nats per learned token, including its end."""
        prepared = self.prepare(batch, 0)
        nats, tokens = _by_example(token_nll(model(prepared.tokens, prepared.layout, rows=prepared.rows), prepared), prepared)
        return nats / tokens


def _by_example(per_token: Float[Tensor, " a"], prepared: CausalBatch) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """The nats and the number of learned tokens of each example."""
    segment = prepared.layout.segment[prepared.rows]
    zeros = per_token.new_zeros(prepared.layout.num_examples)
    return zeros.index_add(0, segment, per_token), zeros.index_add(0, segment, torch.ones_like(per_token))


def token_nll(logits: Float[Tensor, "a k"], prepared: CausalBatch) -> Float[Tensor, " a"]:
    """Return the negative log-likelihood of each learned token in nats, in float32."""
    return F.cross_entropy(logits.float(), prepared.targets, reduction="none")
