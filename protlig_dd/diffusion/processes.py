"""Forward processes and their exact reversals, one token at a time.

Shapes: `*s` tokens in any layout (packed [n] or [b l]), k rows of the vocabulary. alpha is given per token and broadcasts.
A process knows the emittable ids: noise and reversals live on these (and the mask), never on specials.
Sources: Austin et al. 2021 (D3PM); Lou, Meng and Ermon 2024 (SEDD), equations 7, 13-19; their `transp_rate` and staggered score are
folded into `reverse_from_score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.rng import Draws
from protlig_dd.tokens.vocabulary import Vocabulary


@runtime_checkable
class Process(Protocol):
    """What samplers and losses ask of a forward process."""

    num_rows: int
    emittable_ids: tuple[int, ...]

    def sample_prior(self, like: Int[Tensor, "*s"], draws: Draws) -> Int[Tensor, "*s"]:
        """Return tokens at t = 1."""

    def sample_xt(self, x0: Int[Tensor, "*s"], alpha: Float[Tensor, "*s"], draws: Draws) -> Int[Tensor, "*s"]:
        """Return x0 with noise: each token kept with probability alpha."""

    def posterior(
        self,
        x0_probs: Float[Tensor, "*s k"],
        xt: Int[Tensor, "*s"],
        alpha_s: Float[Tensor, "*s"],
        alpha_t: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s k"]:
        """Return q(x_s | x_t, x0 ~ x0_probs), s < t."""

    def reverse_from_score(
        self,
        score: Float[Tensor, "*s k"],
        xt: Int[Tensor, "*s"],
        alpha_s: Float[Tensor, "*s"],
        alpha_t: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s k"]:
        """Return the analytic reverse step from t to s, from scores p_t(y) / p_t(x_t)."""

    def rate_from_score(self, score: Float[Tensor, "*s k"], xt: Int[Tensor, "*s"]) -> Float[Tensor, "*s k"]:
        """Return the rates of leaving x_t for each y per unit of sigma; 0 at y = x_t."""


class _OnVocabulary:
    """The ids a process lives on."""

    def __init__(self, *, num_rows: int, emittable_ids: Sequence[int], mask_id: int) -> None:
        if not emittable_ids:
            raise ValueError("emittable_ids: found none, expected at least one id that may be drawn")
        self.num_rows = num_rows
        self.emittable_ids = tuple(emittable_ids)
        self.mask_id = mask_id

    @classmethod
    def of(cls, vocabulary: Vocabulary):  # type: ignore[no-untyped-def]
        """Return the process on a vocabulary."""
        return cls(num_rows=vocabulary.num_rows, emittable_ids=vocabulary.emittable_ids, mask_id=vocabulary.mask_id)

    @property
    def num_states(self) -> int:
        """How many ids may be emitted (SEDD's n)."""
        return len(self.emittable_ids)

    def emittable(self, like: Tensor) -> Float[Tensor, " k"]:
        """Return 1 for emittable ids and 0 for the others, in the dtype and on the device of `like`."""
        allowed = torch.zeros(self.num_rows, dtype=like.dtype, device=like.device)
        allowed[list(self.emittable_ids)] = 1
        return allowed

    def _one_hot(self, x: Tensor, like: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(x, self.num_rows).to(like.dtype)


class Absorbing(_OnVocabulary):
    """Each token turns into the mask with probability 1 - alpha and stays there."""

    def sample_prior(self, like: Int[Tensor, "*s"], draws: Draws) -> Int[Tensor, "*s"]:
        """Return masks everywhere."""
        return torch.full_like(like, self.mask_id)

    def sample_xt(self, x0: Int[Tensor, "*s"], alpha: Float[Tensor, "*s"], draws: Draws) -> Int[Tensor, "*s"]:
        """Return x0 with each token masked with probability 1 - alpha."""
        return torch.where(draws.uniform() < 1 - alpha, self.mask_id, x0)

    def posterior(
        self,
        x0_probs: Float[Tensor, "*s k"],
        xt: Int[Tensor, "*s"],
        alpha_s: Float[Tensor, "*s"],
        alpha_t: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s k"]:
        """Return q(x_s | x_t, x0): a mask opens with probability (alpha_s - alpha_t) / (1 - alpha_t), anything else stays."""
        opens = ((alpha_s - alpha_t) / (1 - alpha_t))[..., None]
        mask = self._one_hot(torch.full_like(xt, self.mask_id), x0_probs)
        at_mask = opens * x0_probs + (1 - opens) * mask
        return torch.where((xt == self.mask_id)[..., None], at_mask, self._one_hot(xt, x0_probs))

    def reverse_from_score(
        self,
        score: Float[Tensor, "*s k"],
        xt: Int[Tensor, "*s"],
        alpha_s: Float[Tensor, "*s"],
        alpha_t: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s k"]:
        """Return SEDD's analytic step (equation 19): s_y (e^ds - 1) for each letter, and what is left for the mask.

        With scores of a normalised p(x0 | x_t) this is `posterior`. Scores that sum to too much leave less than nothing for the mask;
        such rows are cut off at 0 there and are unnormalised, as in SEDD. A step to alpha_s = 1 leaves no mask, whatever the sum.
        """
        grow = alpha_s / alpha_t - 1  # e^(sigma_t - sigma_s) - 1
        return self._open(score * grow[..., None], xt, alpha_s)

    def reverse_from_x0(
        self,
        x0_weights: Float[Tensor, "*s k"],
        xt: Int[Tensor, "*s"],
        alpha_s: Float[Tensor, "*s"],
        alpha_t: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s k"]:
        """Return `reverse_from_score` with score = x0_weights alpha_t / (1 - alpha_t), in a form that is finite where alpha_t is 0."""
        opens = (alpha_s - alpha_t) / (1 - alpha_t)
        return self._open(x0_weights * opens[..., None], xt, alpha_s)

    def _open(self, letters: Tensor, xt: Tensor, alpha_s: Tensor) -> Tensor:
        """The letters' probabilities at masks, with what they leave for the mask; what is no mask stays."""
        letters = letters * self.emittable(letters)
        left = torch.where(alpha_s < 1, (1 - letters.sum(-1)).clamp(min=0), 0.0)
        mask = self._one_hot(torch.full_like(xt, self.mask_id), letters)
        return torch.where(
            (xt == self.mask_id)[..., None], letters + left[..., None] * mask, self._one_hot(xt, letters)
        )

    def rate_from_score(self, score: Float[Tensor, "*s k"], xt: Int[Tensor, "*s"]) -> Float[Tensor, "*s k"]:
        """Return s_y for every letter y where x_t is the mask, 0 elsewhere: what is unmasked never moves."""
        return score * self.emittable(score) * (xt == self.mask_id)[..., None]


class Uniform(_OnVocabulary):
    """Each token is redrawn uniformly among the n emittable ids with probability 1 - alpha (it may come out the same)."""

    def _draw(self, like: Tensor, draws: Draws) -> Tensor:
        ids = torch.tensor(self.emittable_ids, dtype=like.dtype, device=like.device)
        return ids[draws.fold("letter").integers(self.num_states)].expand_as(like)

    def sample_prior(self, like: Int[Tensor, "*s"], draws: Draws) -> Int[Tensor, "*s"]:
        """Return uniform emittable ids."""
        return self._draw(like, draws)

    def sample_xt(self, x0: Int[Tensor, "*s"], alpha: Float[Tensor, "*s"], draws: Draws) -> Int[Tensor, "*s"]:
        """Return x0 with each token redrawn with probability 1 - alpha."""
        return torch.where(draws.uniform() < 1 - alpha, self._draw(x0, draws), x0)

    def transition(self, xt: Int[Tensor, "*s"], alpha: Float[Tensor, "*s"], like: Tensor) -> Float[Tensor, "*s k"]:
        """Return q(x_t | y) with survival alpha for every letter y, in the dtype of `like`; symmetric in x_t and y."""
        return alpha[..., None] * self._one_hot(xt, like) + (1 - alpha[..., None]) / self.num_states * self.emittable(
            like
        )

    def posterior(
        self,
        x0_probs: Float[Tensor, "*s k"],
        xt: Int[Tensor, "*s"],
        alpha_s: Float[Tensor, "*s"],
        alpha_t: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s k"]:
        """Return sum over x0 of p(x0) q(x_s | x_t, x0), by Bayes for each x0: Duo's and UDLM's reverse step."""
        back = self.transition(xt, alpha_t / alpha_s, x0_probs)  # q(x_t | x_s = y)
        spread = (1 - alpha_s[..., None]) / self.num_states
        reached = self.transition(xt, alpha_t, x0_probs)  # q(x_t | x0 = y)
        weighted = torch.where(x0_probs > 0, x0_probs / reached.clamp(min=torch.finfo(x0_probs.dtype).tiny), 0)
        return back * (
            alpha_s[..., None] * weighted + spread * weighted.sum(-1, keepdim=True) * self.emittable(x0_probs)
        )

    def reverse_from_score(
        self,
        score: Float[Tensor, "*s k"],
        xt: Int[Tensor, "*s"],
        alpha_s: Float[Tensor, "*s"],
        alpha_t: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s k"]:
        """Return SEDD's analytic (Tweedie) step: the scores carried back by e^ds, times the transition to x_t."""
        keep = alpha_t / alpha_s  # e^-ds
        allowed = self.emittable(score)
        total = (score * allowed).sum(-1, keepdim=True)
        carried = (
            score * allowed / keep[..., None] + ((keep - 1) / (self.num_states * keep))[..., None] * total * allowed
        )
        return (carried * self.transition(xt, keep, score)).clamp(min=0)

    def rate_from_score(self, score: Float[Tensor, "*s k"], xt: Int[Tensor, "*s"]) -> Float[Tensor, "*s k"]:
        """Return s_y / n for every letter y but x_t."""
        return score * self.emittable(score) / self.num_states * (1 - self._one_hot(xt, score))


PROCESSES = {"absorbing": Absorbing, "uniform": Uniform}
