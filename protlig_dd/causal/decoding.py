"""Autoregressive decoding of structure tokens with a key-value cache; only structure tokens and, for a learned length, the end are drawn.

Processes that share one sharded model must call it equally often, or they deadlock: they agree through `together`. A process with fewer
or shorter sequences, or none, keeps calling the model until all are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.causal.cache import KeyValueCache
from protlig_dd.causal.sequences import CausalVocabulary
from protlig_dd.config import settings
from protlig_dd.errors import refuse_unless
from protlig_dd.rng import Draws
from protlig_dd.sampling.guidance import keep_top_p
from protlig_dd.tokens.tracks import Layout

Model = Callable[..., Tensor]
"""A `causal.model.Causal`, or what wraps it."""

Together = Callable[[int], int]
"""Returns the maximum of a number over all processes."""

_LOOK_EVERY = 8  # steps between two checks of whether all sequences have ended: each check waits for the device


@settings
class CausalDecoding:
    """How structure tokens are drawn from a causal model.

    Args:
        temperature: temperature of the tokens' probabilities, 0 or more; 0 takes the likeliest token, 1 draws from the model.
        top_p: keep the smallest set of likeliest tokens with at least this probability, 0 to 1; 1 keeps all.
        length: "given" draws as many tokens as the protein has residues, "learned" stops at the model's end token.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    length: Literal["given", "learned"] = "given"

    def __post_init__(self) -> None:
        refuse_unless(self.temperature >= 0, "temperature", self.temperature, "0 (the likeliest token) or more")
        refuse_unless(0 < self.top_p <= 1, "top_p", self.top_p, "0 < top_p <= 1")

    def draw(self, logits: Float[Tensor, "b k"], draws: Draws) -> Int[Tensor, " b"]:
        """Return a column index for each row; -inf is never drawn."""
        if not self.temperature:
            return logits.argmax(-1)
        return draws.categorical(keep_top_p((logits.float() / self.temperature).log_softmax(-1), self.top_p))


@dataclass(frozen=True)
class Decoded:
    """One drawn sequence: its structure tokens, in the model's ids, and whether the model drew the end token."""

    tokens: tuple[int, ...]
    ended: bool


def alone(number: int) -> int:
    """Return the number unchanged: `together` for a single process."""
    return number


@torch.no_grad()
def decode(
    model: Model,
    vocabulary: CausalVocabulary,
    prompts: Sequence[Sequence[int]],
    *,
    lengths: Sequence[int],
    sample_ids: Sequence[int],
    seed: int = 0,
    decoding: CausalDecoding | None = None,
    device: torch.device | str = "cpu",
    together: Together = alone,
) -> list[Decoded]:
    """Return the structure tokens that a model generates after each prompt.

    Args:
        model: a model in evaluation mode.
        vocabulary: the ids of the model's sequences.
        prompts: token ids that end with the structure's mark, see `CausalVocabulary.prompt`.
        lengths: number of structure tokens of each sequence; the maximum for a learned length.
        sample_ids: ids that, with the seed, key each sequence's draws, independently of the batch.
        seed: seed of the random draws.
        decoding: how tokens are drawn; greedy with the given length by default.
        device: the model's device.
        together: returns the maximum of a number over all processes that share a sharded model.
    """
    how = decoding or CausalDecoding()
    learned = how.length == "learned"
    layout = Layout(tuple(map(len, prompts)), torch.device(device))
    steps = together(max(lengths, default=0) + learned)
    allowed = torch.tensor([*vocabulary.code_ids, vocabulary.end_id], device=layout.device)
    draws = Draws.root(seed, "causal").fold_in(torch.tensor(list(sample_ids), dtype=torch.int64)).to(layout.device)
    cache = KeyValueCache(layout, layout.max_length + steps)
    tokens = torch.tensor([i for prompt in prompts for i in prompt], dtype=torch.int64, device=layout.device)
    rows: Tensor | None = torch.tensor([end - 1 for end in layout.offsets[1:]], dtype=torch.int64, device=layout.device)
    drawn: list[Tensor] = []
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=layout.device)
    for step in range(steps):
        logits = model(tokens, layout, rows=rows, cache=cache)[:, allowed].float()
        if not learned or step == 0:  # a structure has at least one token
            logits[:, -1] = -torch.inf
        tokens = allowed[how.draw(logits, draws.fold_in(torch.tensor(step, device=layout.device)))]
        drawn.append(tokens)
        ended = ended | (tokens == vocabulary.end_id)
        layout, rows = Layout((1,) * len(prompts), layout.device), None
        if learned and step % _LOOK_EVERY == _LOOK_EVERY - 1 and not together(int(not bool(ended.all()))):
            break
    columns = torch.stack(drawn, dim=1).tolist() if drawn else [[] for _ in prompts]
    return [_cut(row, length, vocabulary.end_id) for row, length in zip(columns, lengths, strict=True)]


def _cut(row: list[int], length: int, end: int) -> Decoded:
    """A drawn row up to its end token, or to the requested length."""
    at = row.index(end) if end in row else len(row)
    return Decoded(tuple(row[: min(at, length)]), at <= length and at < len(row))
