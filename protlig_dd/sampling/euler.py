"""Euler's method on the reverse jump process: rates are constant during a step. A baseline: ancestral steps solve each token exactly.

Source: Lou, Meng and Ermon 2024, equation 13. The last step is the analytic one, which leaves no mask (SEDD's denoiser step).
"""

from __future__ import annotations

from typing import Literal

import torch

from protlig_dd.config import settings
from protlig_dd.sampling.ancestral import check_steps, reverse_step
from protlig_dd.sampling.loop import Problem, State, grid, write


@settings
class Euler:
    """p(x_s = y) = d sigma * rate(x_t -> y) for y != x_t, the remaining probability for x_t, `num_steps` times.

    Args:
        num_steps: steps, one network call each.
    """

    kind: Literal["euler"] = "euler"
    num_steps: int = 250
    exact = True

    def __post_init__(self) -> None:
        check_steps(self.num_steps)

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the number of steps."""
        return self.num_steps

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state after one more step."""
        alpha_t, alpha_s = grid(problem, state, index, self.num_steps)
        if index + 1 == self.num_steps:
            return reverse_step(problem, state, alpha_s, f"step {index}")
        schedule = problem.diffusion.schedule
        t = torch.full_like(alpha_t, problem.t_start * (1 - index / self.num_steps))
        step_sigma = -schedule.alpha_prime(t) / alpha_t * problem.t_start / self.num_steps  # d sigma / dt * dt
        step_sigma = step_sigma.clamp(min=0)  # the cosine's slope at t = 1 rounds to a negative number
        at, logits = problem.active_logits(state)
        result = state
        for track, position in at.items():
            param, xt = problem.diffusion.parameterizations[track], state.batch.tracks[track].tokens[position]
            score = param.log_score(logits[track], xt, problem.of_token(alpha_t, track, position)).exp()
            moves = param.process.rate_from_score(score, xt) * problem.of_token(step_sigma, track, position)[:, None]
            stays = (1 - moves.sum(-1)).clamp(min=0)
            probs = moves.scatter_add(-1, xt[:, None], stays[:, None])
            drawn = problem.draws[track][position].fold(f"step {index}").categorical(probs.log())
            result = write(result, track, position, drawn)
        return State(batch=result.batch, alpha=alpha_s)
