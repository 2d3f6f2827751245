"""Forward processes and their exact reversals, one token at a time.

Shapes: `Ids` are tokens in any layout `*s` (packed [n] or [b l]), `PerToken` a number for each, `Rows` a number for each of the k rows of the
vocabulary. alpha is given per token and broadcasts. Noise and reversals are restricted to emittable ids (and the mask), never specials.
Every process has `sample_prior` (tokens at t = 1), `sample_xt`, `posterior`, `reverse_from_score` and `rate_from_score`.
Sources: Austin et al. 2021 (D3PM); Lou, Meng and Ermon 2024 (SEDD), equations 7, 13-19; their `transp_rate` and staggered score are
folded into `reverse_from_score`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.rng import Draws
from protlig_dd.tokens.vocabulary import Vocabulary

Ids = Int[Tensor, "*s"]
PerToken = Float[Tensor, "*s"]
Rows = Float[Tensor, "*s k"]


class _OnVocabulary:
    """The ids of a process: rows of the vocabulary, emittable ids, the mask."""

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
        """Number of ids that may be emitted (SEDD's n)."""
        return len(self.emittable_ids)

    def emittable(self, like: Tensor) -> Float[Tensor, " k"]:
        """Return 1 for emittable ids and 0 for all others, in the dtype and on the device of `like`."""
        allowed = torch.zeros(self.num_rows, dtype=like.dtype, device=like.device)
        allowed[list(self.emittable_ids)] = 1
        return allowed

    def _one_hot(self, x: Tensor, like: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(x, self.num_rows).to(like.dtype)


class Absorbing(_OnVocabulary):
    """Each token becomes the mask with probability 1 - alpha and remains masked."""

    def sample_prior(self, like: Ids, draws: Draws) -> Ids:
        """Return masks everywhere."""
        return torch.full_like(like, self.mask_id)

    def sample_xt(self, x0: Ids, alpha: PerToken, draws: Draws) -> Ids:
        """Return x0 with each token masked with probability 1 - alpha.

        >>> process = Absorbing(num_rows=4, emittable_ids=(0, 1, 2), mask_id=3)
        >>> x0 = torch.tensor([0, 1, 2, 1, 0, 2])
        >>> draws = Draws.root(0, "noise").fold_in(torch.arange(6))
        >>> process.sample_xt(x0, torch.full((6,), 0.5), draws).tolist()
        [0, 1, 3, 3, 0, 3]
        """
        return torch.where(draws.uniform() < 1 - alpha, self.mask_id, x0)

    def posterior(self, x0_probs: Rows, xt: Ids, alpha_s: PerToken, alpha_t: PerToken) -> Rows:
        """Return q(x_s | x_t, x0): a mask opens with probability (alpha_s - alpha_t) / (1 - alpha_t), all other tokens stay."""
        opens = ((alpha_s - alpha_t) / (1 - alpha_t))[..., None]
        mask = self._one_hot(torch.full_like(xt, self.mask_id), x0_probs)
        at_mask = opens * x0_probs + (1 - opens) * mask
        return torch.where((xt == self.mask_id)[..., None], at_mask, self._one_hot(xt, x0_probs))

    def reverse_from_score(self, score: Rows, xt: Ids, alpha_s: PerToken, alpha_t: PerToken) -> Rows:
        """Return SEDD's analytic step (equation 19): s_y (e^ds - 1) for each letter, the rest for the mask.

        With scores of a normalised p(x0 | x_t) this is `posterior`. Scores whose sum is too large would give the mask a negative probability;
        it is set to 0 and such rows are unnormalised, as in SEDD. A step to alpha_s = 1 leaves no mask, whatever the sum.
        """
        grow = alpha_s / alpha_t - 1  # e^(sigma_t - sigma_s) - 1
        return self._open(score * grow[..., None], xt, alpha_s)

    def reverse_from_x0(self, x0_weights: Rows, xt: Ids, alpha_s: PerToken, alpha_t: PerToken) -> Rows:
        """Return `reverse_from_score` with score = x0_weights alpha_t / (1 - alpha_t), in a form that is finite where alpha_t is 0."""
        opens = (alpha_s - alpha_t) / (1 - alpha_t)
        return self._open(x0_weights * opens[..., None], xt, alpha_s)

    def _open(self, letters: Tensor, xt: Tensor, alpha_s: Tensor) -> Tensor:
        """The letters' probabilities at masks, with the rest for the mask; all other tokens stay."""
        letters = letters * self.emittable(letters)
        left = torch.where(alpha_s < 1, (1 - letters.sum(-1)).clamp(min=0), 0.0)
        mask = self._one_hot(torch.full_like(xt, self.mask_id), letters)
        return torch.where((xt == self.mask_id)[..., None], letters + left[..., None] * mask, self._one_hot(xt, letters))

    def rate_from_score(self, score: Rows, xt: Ids) -> Rows:
        """Return s_y for every letter y where x_t is the mask, 0 elsewhere: unmasked tokens never change."""
        return score * self.emittable(score) * (xt == self.mask_id)[..., None]


class Uniform(_OnVocabulary):
    """Each token is redrawn uniformly among the n emittable ids with probability 1 - alpha (it may come out the same)."""

    def _draw(self, like: Tensor, draws: Draws) -> Tensor:
        ids = torch.tensor(self.emittable_ids, dtype=like.dtype, device=like.device)
        return ids[draws.fold("letter").integers(self.num_states)].expand_as(like)

    def sample_prior(self, like: Ids, draws: Draws) -> Ids:
        """Return uniform emittable ids."""
        return self._draw(like, draws)

    def sample_xt(self, x0: Ids, alpha: PerToken, draws: Draws) -> Ids:
        """Return x0 with each token redrawn with probability 1 - alpha."""
        return torch.where(draws.uniform() < 1 - alpha, self._draw(x0, draws), x0)

    def transition(self, xt: Ids, alpha: PerToken, like: Tensor) -> Rows:
        """Return q(x_t | y) with survival alpha for every letter y, in the dtype of `like`; symmetric in x_t and y."""
        return alpha[..., None] * self._one_hot(xt, like) + (1 - alpha[..., None]) / self.num_states * self.emittable(like)

    def posterior(self, x0_probs: Rows, xt: Ids, alpha_s: PerToken, alpha_t: PerToken) -> Rows:
        """Return sum over x0 of p(x0) q(x_s | x_t, x0), by Bayes for each x0: Duo's and UDLM's reverse step."""
        back = self.transition(xt, alpha_t / alpha_s, x0_probs)  # q(x_t | x_s = y)
        spread = (1 - alpha_s[..., None]) / self.num_states
        reached = self.transition(xt, alpha_t, x0_probs)  # q(x_t | x0 = y)
        weighted = torch.where(x0_probs > 0, x0_probs / reached.clamp(min=torch.finfo(x0_probs.dtype).tiny), 0)
        return back * (alpha_s[..., None] * weighted + spread * weighted.sum(-1, keepdim=True) * self.emittable(x0_probs))

    def reverse_from_score(self, score: Rows, xt: Ids, alpha_s: PerToken, alpha_t: PerToken) -> Rows:
        """Return SEDD's analytic (Tweedie) step: the scores carried back by e^ds, times the transition to x_t."""
        keep = alpha_t / alpha_s  # e^-ds
        allowed = self.emittable(score)
        total = (score * allowed).sum(-1, keepdim=True)
        carried = score * allowed / keep[..., None] + ((keep - 1) / (self.num_states * keep))[..., None] * total * allowed
        return (carried * self.transition(xt, keep, score)).clamp(min=0)

    def rate_from_score(self, score: Rows, xt: Ids) -> Rows:
        """Return s_y / n for every letter y but x_t."""
        return score * self.emittable(score) / self.num_states * (1 - self._one_hot(xt, score))
