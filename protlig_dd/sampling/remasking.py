"""Ancestral sampling with remasking of finished tokens."""

from __future__ import annotations

from typing import Literal

import torch

from protlig_dd.config import settings
from protlig_dd.sampling.ancestral import check_steps, require_absorbing
from protlig_dd.sampling.loop import Problem, State, grid, write


@settings
class Remasking:
    """Ancestral sampling in which finished tokens may be masked again (ReMDM, Wang et al. 2025, rescaled schedule); absorbing noise only.

    Args:
        num_steps: steps, one network call each.
        eta: fraction of the largest admissible remasking probability, 0 to 1; 0 is ancestral sampling.
    """

    kind: Literal["remasking"] = "remasking"
    num_steps: int = 100
    eta: float = 0.1
    exact = False

    def __post_init__(self) -> None:
        check_steps(self.num_steps)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta: found {self.eta}, expected 0 to 1")

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the number of steps."""
        return self.num_steps

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state after one more step.

        With r = eta min(1, (1 - alpha_s) / alpha_t): a letter is masked with probability r, a mask opens with probability
        (alpha_s - (1 - r) alpha_t) / (1 - alpha_t), which preserves the marginal at every noise level.
        """
        require_absorbing(problem, "remasking")
        alpha_t, alpha_s = grid(problem, state, index, self.num_steps)
        remask = self.eta * ((1 - alpha_s) / alpha_t).clamp(max=1)
        opens = (alpha_s - (1 - remask) * alpha_t) / (1 - alpha_t)
        at, logits = problem.active_logits(state)
        result = state
        for track, is_open in problem.open.items():
            param, before = problem.diffusion.parameterizations[track], state.batch.tracks[track].tokens
            draws = problem.draws[track].fold(f"step {index}")
            level = problem.of_token(state.alpha, track, at[track])
            log_probs = param.x0_log_probs(logits[track], before[at[track]], level)
            letters = draws[at[track]].fold("letter").categorical(log_probs)
            chance, segment = draws.uniform(), problem.layouts[track].segment
            masked = before == param.process.mask_id
            filled = before.index_copy(0, at[track], letters)
            after = torch.where(masked & (chance < opens[segment]), filled, before)
            after = torch.where(~masked & (chance < remask[segment]), param.process.mask_id, after)
            result = write(result, track, is_open.nonzero().squeeze(1), after[is_open])
        return State(batch=result.batch, alpha=alpha_s)
