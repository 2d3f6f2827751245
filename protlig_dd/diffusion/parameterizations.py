"""What a network's logits mean, and the loss per token that follows.

`Subs` (MDLM, DPLM): logits of p(x0 | x_t). `Score` (SEDD): logits of the score p_t(y) / p_t(x_t). Both have the same methods, so samplers and
objectives need not distinguish them. Shapes: `*s` tokens, k rows. Losses are float32 (float64 for float64 logits), per token, unreduced;
they are 0 where x_t has no information about x0.

With lp = log_score - log(alpha / (1 - alpha)), SEDD's absorbing score entropy times d sigma/dt is exactly
    -alpha' / (1 - alpha) * [ sum_y exp(lp_y) - lp_x0 - 1 ],
which is MDLM's weighted NLL if exp(lp) sums to one. We compute that form: it neither overflows as t -> 0 nor loses digits.
Sources: Lou, Meng and Ermon 2024 (SEDD), equations 5 and 10; Sahoo et al. 2024 (MDLM), equations 8-10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from protlig_dd.diffusion.processes import Absorbing, Ids, PerToken, Rows, Uniform

Weighting = Literal["elbo", "constant", "linear"]


def _weight(weighting: Weighting, alpha: Tensor, alpha_prime: Tensor, num_times: int = 0) -> Tensor:
    """elbo: -alpha' / (1 - alpha), the bound; constant: 1; linear: alpha, and with DPLM's T integer times 1 - (t - 1) / T."""
    if weighting == "elbo":
        return -alpha_prime / (1 - alpha)
    return torch.ones_like(alpha) if weighting == "constant" else alpha + (1 / num_times if num_times else 0.0)


def restrict(logits: Float[Tensor, "*s k"], emittable: Bool[Tensor, " k"]) -> Float[Tensor, "*s k"]:
    """Return logits in float32 or float64, with -inf at ids that may not be emitted."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.masked_fill(~emittable.to(wide.device), -torch.inf)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(-1, index[..., None])[..., 0]


@dataclass(frozen=True, kw_only=True)
class Subs:
    """Logits of p(x0 | x_t) under absorbing noise; masks are substituted, everything else is carried over (MDLM's SUBS).

    Args:
        process: absorbing noise.
        weighting: the weighting of the loss.
        normalise: the rows over which the probabilities of the loss sum to one: the emittable ones, or all of them as in DPLM, whose
            networks also learn that masks and special tokens never occur. Samplers draw emittable ids only.
        num_times: DPLM's T, for linear weights over integer times; 0 is continuous time.
    """

    process: Absorbing
    weighting: Weighting = "elbo"
    normalise: Literal["emittable", "all"] = "emittable"
    num_times: int = 0

    def x0_log_probs(self, logits: Rows, xt: Ids, alpha: PerToken) -> Rows:
        """Return log p(x0 | x_t), normalised over emittable ids."""
        return restrict(logits, self.process.emittable(logits) > 0).log_softmax(-1)

    def log_score(self, logits: Rows, xt: Ids, alpha: PerToken) -> Rows:
        """Return log p(x0 | x_t) + log(alpha / (1 - alpha)), and 0 at x_t itself."""
        scores = self.x0_log_probs(logits, xt, alpha) + torch.log(alpha / (1 - alpha))[..., None]
        return scores.scatter(-1, xt[..., None], 0.0)

    def reverse_probs(self, logits: Rows, xt: Ids, alpha_s: PerToken, alpha_t: PerToken) -> Rows:
        """Return the ancestral posterior q(x_s | x_t, x0 ~ p)."""
        return self.process.posterior(self.x0_log_probs(logits, xt, alpha_t).exp(), xt, alpha_s, alpha_t)

    def informative(self, xt: Ids) -> Bool[Tensor, "*s"]:
        """Return where x_t is the mask."""
        return xt == self.process.mask_id

    def loss(self, logits: Rows, x0: Ids, xt: Ids, alpha: PerToken, alpha_prime: PerToken) -> PerToken:
        """Return the weighted cross-entropy at masks, 0 elsewhere."""
        if self.normalise == "all":
            nll = -_pick((logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1), x0)
        else:
            nll = -_pick(self.x0_log_probs(logits, xt, alpha), x0)
        weight = _weight(self.weighting, alpha, alpha_prime, self.num_times)
        return torch.where(self.informative(xt), weight * nll, 0.0)


@dataclass(frozen=True, kw_only=True)
class Score:
    """Logits of the score p_t(y) / p_t(x_t), SEDD's parameterization.

    Args:
        process: absorbing or uniform noise.
        weighting: "elbo" is SEDD's d sigma/dt; the others replace -alpha'/(1 - alpha) in the form above (absorbing only).
        scale_by_sigma: absorbing only; subtracts log(e^sigma - 1) + log n from the logits, so that a zero output means
            "uniform over the n letters". SEDD's published setting.
    """

    process: Absorbing | Uniform
    weighting: Weighting = "elbo"
    scale_by_sigma: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.process, Uniform) and self.weighting != "elbo":
            raise ValueError(f"weighting: found '{self.weighting}' with uniform noise, expected 'elbo'; the others need absorbing noise")

    def _log_ratio(self, logits: Tensor, alpha: Tensor) -> Tensor:
        """lp = log_score - log(alpha / (1 - alpha)) for absorbing noise; scale_by_sigma cancels the second term exactly."""
        scores = restrict(logits, self.process.emittable(logits) > 0)
        if self.scale_by_sigma:
            return scores - torch.log(torch.tensor(float(self.process.num_states), dtype=scores.dtype, device=scores.device))
        return scores - torch.log(alpha / (1 - alpha))[..., None]

    def log_score(self, logits: Rows, xt: Ids, alpha: PerToken) -> Rows:
        """Return log p_t(y) / p_t(x_t), 0 at x_t itself, -inf at ids that are neither emittable nor x_t."""
        if isinstance(self.process, Absorbing):
            scores = self._log_ratio(logits, alpha) + torch.log(alpha / (1 - alpha))[..., None]
        else:
            scores = restrict(logits, self.process.emittable(logits) > 0)
        return scores.scatter(-1, xt[..., None], 0.0)

    def x0_log_probs(self, logits: Rows, xt: Ids, alpha: PerToken) -> Rows:
        """Return log p(x0 | x_t): normalised scores at masks; for uniform noise by Bayes, from the marginal with its noise taken out."""
        if isinstance(self.process, Absorbing):
            return restrict(logits, self.process.emittable(logits) > 0).log_softmax(-1)
        marginal = self.log_score(logits, xt, alpha).softmax(-1)  # p_t(y), since the scores share the denominator p_t(x_t)
        noise = (1 - alpha[..., None]) / self.process.num_states * self.process.emittable(marginal)
        tiny = torch.finfo(marginal.dtype).tiny
        elsewhere = (marginal - noise).clamp(min=0)  # alpha p(x0 | x_t at all other places)
        clean = elsewhere * self.process.transition(xt, alpha, marginal) + tiny * self.process.emittable(marginal)
        return (clean / clean.sum(-1, keepdim=True)).log()

    def reverse_probs(self, logits: Rows, xt: Ids, alpha_s: PerToken, alpha_t: PerToken) -> Rows:
        """Return SEDD's analytic step from the scores."""
        if isinstance(self.process, Absorbing):
            return self.process.reverse_from_x0(self._log_ratio(logits, alpha_t).exp(), xt, alpha_s, alpha_t)
        return self.process.reverse_from_score(self.log_score(logits, xt, alpha_t).exp(), xt, alpha_s, alpha_t)

    def informative(self, xt: Ids) -> Bool[Tensor, "*s"]:
        """Return where x_t is the mask (absorbing), or everywhere (uniform)."""
        if isinstance(self.process, Absorbing):
            return xt == self.process.mask_id
        return torch.ones_like(xt, dtype=torch.bool)

    def loss(self, logits: Rows, x0: Ids, xt: Ids, alpha: PerToken, alpha_prime: PerToken) -> PerToken:
        """Return the weighted score entropy per token; its minimum is 0 for a point-mass posterior."""
        if isinstance(self.process, Uniform):
            return -alpha_prime / alpha * self._uniform_entropy(logits, x0, xt, alpha)
        lp = self._log_ratio(logits, alpha)
        entropy = lp.exp().sum(-1) - _pick(lp, x0) - 1
        return torch.where(self.informative(xt), _weight(self.weighting, alpha, alpha_prime) * entropy, 0.0)

    def _uniform_entropy(self, logits: Tensor, x0: Tensor, xt: Tensor, alpha: Tensor) -> Tensor:
        """(1/n) sum_{y != x} [ s_y - rho_y log s_y + rho_y (log rho_y - 1) ], rho_y = q(y | x0) / q(x | x0)."""
        n = self.process.num_states
        ls = self.log_score(logits, xt, alpha)
        others = self.process.emittable(ls) * (1 - torch.nn.functional.one_hot(xt, self.process.num_rows).to(ls.dtype))
        ls = torch.where(others > 0, ls, 0.0)
        kept = alpha + (1 - alpha) / n  # q(x0 | x0)
        moved = (1 - alpha) / n  # q(y | x0), y != x0
        unchanged = xt == x0
        base = torch.where(unchanged, moved / kept, 1.0)
        to_x0 = kept / moved
        positive = (ls.exp() * others).sum(-1)
        crossed = base * ls.sum(-1) + torch.where(unchanged, 0.0, (to_x0 - 1) * _pick(ls, x0))
        same = (n - 1) * base * (base.log() - 1)
        different = -(n - 2.0) + to_x0 * (to_x0.log() - 1)
        return (positive - crossed + torch.where(unchanged, same, different)) / n


Parameterization = Subs | Score
"""Objectives and samplers use what both classes have. SEDD's code calls `log_score` its `score`."""
