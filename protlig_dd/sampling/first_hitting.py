"""First-hitting sampling: exact for absorbing noise, at most one network call per token.

A mask remains from t to s with probability (1 - alpha_s) / (1 - alpha_t), so with k masks the next one opens where
1 - alpha = (1 - alpha_t) u^(1/k): the time can be drawn first, and the network is called only there. Which mask opens is uniform, so the
order can be drawn first as well, and the head runs on one token per example. Source: Zheng et al. 2024 (arXiv 2409.02908).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.rng import Draws
from protlig_dd.sampling.ancestral import require_absorbing
from protlig_dd.sampling.loop import Problem, State, level, write


@settings
class FirstHitting:
    """One token at a time, at the times at which the reverse process opens it."""

    kind: Literal["first_hitting"] = "first_hitting"
    exact = True

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the largest number of open positions of any example."""
        require_absorbing(problem, self.kind)
        return int(problem.num_open.max()) if state.batch.num_examples else 0

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state with the next token of each unfinished example opened."""
        left = (problem.num_open - index).clamp(min=0)
        u = self._example_draws(problem, state, index)
        shut = (1 - state.alpha) * u ** (1 / left.clamp(min=1))
        ceiling = level(problem.diffusion.schedule, torch.zeros_like(shut))
        alpha = torch.where(left > 0, torch.minimum(1 - shut, ceiling), state.alpha)
        state = State(batch=state.batch, alpha=alpha)
        at = {track: (rank == index).nonzero().squeeze(1) for track, rank in problem.order.items()}
        logits = problem.logits(state, at)
        for track, position in at.items():
            param, xt = problem.diffusion.parameterizations[track], state.batch.tracks[track].tokens[position]
            log_probs = param.x0_log_probs(logits[track], xt, problem.of_token(alpha, track, position))
            state = write(state, track, position, problem.draws[track][position].fold("letter").categorical(log_probs))
        return state

    def _example_draws(self, problem: Problem, state: State, index: int) -> Tensor:
        """One uniform number per example, from the streams of its first token in each generated track."""
        keys = torch.zeros(state.batch.num_examples, dtype=torch.int64, device=state.batch.device)
        for track in problem.open:
            layout = problem.layouts[track]
            first = (layout.position == 0).nonzero().squeeze(1)
            keys = keys.index_add(0, layout.segment[first], problem.draws[track].keys[first])
        return Draws(keys).fold(f"hit {index}").uniform()
