"""Flow matching on points in space: noise, times, and integration from noise to data.

Time is opposite to our convention here, as in the paper: t = 0 is noise, t = 1 is data, x_t = t x_1 + (1 - t) x_0, and the network predicts
the velocity x_1 - x_0. Lengths are in nanometres, so that a protein is about as wide as the noise.

All draws are keyed through `rng`: they depend on the seed and on the chain, never on the batch.
Sources: Lipman et al. 2023; Geffner et al. 2025 (Proteina) for the times and the noise schedule of sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.errors import refuse_unless
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import Layout

_BETA = 1.9  # times follow Beta(1.9, 1): more of them near the data
_UNIFORM_SHARE = 0.02
_G_OFFSET = 0.01  # g(t) = (1 - t) / (t + 0.01)


def standard_normal(draws: Draws) -> Float[Tensor, "*s"]:
    """Return a standard normal number for each key (Box and Muller 1958)."""
    radius = torch.sqrt(-2 * torch.log(draws.fold("radius").uniform()))
    return radius * torch.cos(2 * math.pi * draws.fold("angle").uniform())


def random_rotations(draws: Draws) -> Float[Tensor, "*s 3 3"]:
    """Return a proper rotation for each key, uniform over all of them (a unit quaternion from four normals)."""
    four = standard_normal(Draws(draws.keys[..., None]).fold_in(torch.arange(4, device=draws.keys.device)))
    w, x, y, z = (four / four.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    matrices: Tensor = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    return matrices


def centred(x: Float[Tensor, "n 3"], layout: Layout) -> Float[Tensor, "n 3"]:
    """Return points minus the mean of their chain."""
    counts = torch.tensor(layout.lengths, dtype=x.dtype).clamp(min=1).to(x.device)
    means = x.new_zeros(layout.num_examples, 3).index_add_(0, layout.segment, x) / counts[:, None]
    return x - means.index_select(0, layout.segment)


def centred_noise(draws: Draws, layout: Layout) -> Float[Tensor, "n 3"]:
    """Return normal noise for each residue, minus the mean of its chain.

    Args:
        draws: one key for each chain.
        layout: layout of the chains.
    """
    residues = draws[layout.segment].fold_in(layout.position)
    axes = Draws(residues.keys[:, None]).fold_in(torch.arange(3, device=layout.device))
    return centred(standard_normal(axes), layout)


def training_times(draws: Draws) -> Float[Tensor, " b"]:
    """Return the time of each training example: 98 % Beta(1.9, 1), 2 % uniform."""
    u = draws.fold("time").uniform()
    return torch.where(draws.fold("law").uniform() < _UNIFORM_SHARE, u, u ** (1 / _BETA))


@settings
class FlowSampler:
    """How coordinates are generated from tokens.

    dx = [v + g s w_s] dt + sqrt(2 g w_n) dW with score s = (t x_1 - x) / (1 - t)^2, where x_1 = x + (1 - t) v, and g as above.

    Args:
        method: "exact" keeps the network's prediction x_1 of the data constant during a step, and solves noise and score, then the flow,
            exactly for it: a step may be long, and the last one ends at the prediction. "euler" takes the original's steps, at times
            k / (num_steps - 1): with fewer than 50 the first ones are unstable, and the last one starts at t = 1, so it overshoots the data.
        num_steps: steps, one network call each (two with guidance).
        noise_weight: noise added in a step, 0 or more; 1 keeps the learned distribution, less concentrates it, 0 is deterministic given the
            start.
        score_weight: weight of the score in a step, 0 or more; 0 (with noise_weight 0) is the plain flow.
        guidance: weight of the prediction with tokens against that without; other than 1 needs a model trained with condition_dropout.
        clean_from: the time from which no noise is added; the last step never adds any.
    """

    method: Literal["exact", "euler"] = "exact"
    num_steps: int = 100
    noise_weight: float = 0.45
    score_weight: float = 1.0
    guidance: float = 1.0
    clean_from: float = 0.99

    def __post_init__(self) -> None:
        refuse_unless(self.num_steps >= 1, "num_steps", self.num_steps, "1 or more")
        refuse_unless(self.method != "euler" or self.num_steps >= 2, "num_steps", f"{self.num_steps} with method euler", "2 or more")
        for name in ("noise_weight", "score_weight"):
            refuse_unless(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        refuse_unless(self.score_weight > 0 or not self.noise_weight, "noise_weight", f"{self.noise_weight} with score_weight 0", "0")

    def integrate(
        self, velocity: Callable[[Tensor, float], Tensor], start: Float[Tensor, "n 3"], noise: Callable[[int], Tensor]
    ) -> Float[Tensor, "n 3"]:
        """Return the points at t = 1 of the flow from points at t = 0.

        Args:
            velocity: returns the network's velocity at points and a time.
            start: noise, the points at t = 0.
            noise: returns the noise of a step, given its index.
        """
        solve = self._in_euler_steps if self.method == "euler" else self._in_exact_steps
        return solve(velocity, start, noise)

    def _in_exact_steps(self, velocity: Callable[[Tensor, float], Tensor], x: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        for step in range(self.num_steps):
            t, after = step / self.num_steps, (step + 1) / self.num_steps
            data = x + (1 - t) * velocity(x, t)
            if self.score_weight and t < self.clean_from and step < self.num_steps - 1:
                rate = self.score_weight / ((1 - t) * (t + _G_OFFSET))  # g / (1 - t)^2
                kept = math.exp(-rate * (after - t))
                spread = (1 - t) * math.sqrt(self.noise_weight / self.score_weight * (1 - kept * kept))
                x = t * data + (x - t * data) * kept
                x = x + spread * noise(step) if spread else x
            x = data + (x - data) * ((1 - after) / (1 - t))
        return x

    def _in_euler_steps(self, velocity: Callable[[Tensor, float], Tensor], x: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        length = 1 / (self.num_steps - 1)
        for step in range(self.num_steps):
            t = step / (self.num_steps - 1)
            v = velocity(x, t)
            if t >= self.clean_from or step == self.num_steps - 1:
                x = x + v * length
                continue
            g = (1 - t) / (t + _G_OFFSET)
            score = (t * v - x) / (1 - t)
            moved = x + (v + g * self.score_weight * score) * length
            x = moved + math.sqrt(2 * g * self.noise_weight * length) * noise(step) if self.noise_weight else moved
        return x
