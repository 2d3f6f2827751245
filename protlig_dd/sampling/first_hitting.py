"""First-hitting sampling: exact for absorbing noise, at most one network call a token.

A mask stays shut from t to s with probability (1 - alpha_s) / (1 - alpha_t), so with k masks the next one opens where
1 - alpha = (1 - alpha_t) u^(1/k): the time can be drawn first, and the network is called only there. Which mask opens is uniform, so the
order can be drawn first as well, and the head is run on one token an example. Source: Zheng et al. 2024 (arXiv 2409.02908).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.rng import Draws
from protlig_dd.sampling.ancestral import require_absorbing
from protlig_dd.sampling.loop import Problem, State, write


@settings
class FirstHitting:
    """One token at a time, at the times where the process would have opened it."""

    kind: Literal["first_hitting"] = "first_hitting"
    exact = True

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the largest number of open positions of any example."""
        require_absorbing(problem, self.kind)
        return int(_counts(problem, state).max()) if state.batch.num_examples else 0

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state with the next token of each unfinished example opened."""
        left = (_counts(problem, state) - index).clamp(min=0)
        u = self._example_draws(problem, state, index)
        shut = (1 - state.alpha) * u ** (1 / left.clamp(min=1))
        ceiling = problem.diffusion.schedule.alpha(torch.zeros_like(shut))
        alpha = torch.where(left > 0, torch.minimum(1 - shut, ceiling), state.alpha)
        state = State(batch=state.batch, alpha=alpha)
        order = _order(problem, state)
        at = {track: (rank == index).nonzero().squeeze(1) for track, rank in order.items()}
        logits = problem.logits(state, at)
        for track, position in at.items():
            param, xt = problem.diffusion.parameterizations[track], state.batch.tracks[track].tokens[position]
            log_probs = param.x0_log_probs(logits[track], xt, problem.of_token(alpha, state, track, position))
            state = write(state, track, position, problem.draws[track][position].fold("letter").categorical(log_probs))
        return state

    def _example_draws(self, problem: Problem, state: State, index: int) -> Tensor:
        """One uniform an example, from the streams of its first token in each generated track."""
        keys = torch.zeros(state.batch.num_examples, dtype=torch.int64, device=state.batch.device)
        for track in problem.open:
            layout = state.batch.tracks[track].layout
            first = (layout.position == 0).nonzero().squeeze(1)
            keys = keys.index_add(0, layout.segment[first], problem.draws[track].keys[first])
        return Draws(keys).fold(f"hit {index}").uniform()


def _counts(problem: Problem, state: State) -> Int[Tensor, " b"]:
    """Open positions of each example over all generated tracks."""
    counts = torch.zeros(state.batch.num_examples, dtype=torch.int64, device=state.batch.device)
    for track, is_open in problem.open.items():
        counts = counts.index_add(0, state.batch.tracks[track].layout.segment, is_open.long())
    return counts


def _order(problem: Problem, state: State) -> dict[str, Int[Tensor, " n"]]:
    """The rank of each open position in its example's random order over all generated tracks; -1 for frozen ones."""
    names = list(problem.open)
    is_open = torch.cat([problem.open[t] for t in names])
    segment = torch.cat([state.batch.tracks[t].layout.segment for t in names])
    chance = torch.cat([problem.draws[t].fold("order").uniform() for t in names])
    rank = rank_within(segment, torch.where(is_open, chance, torch.inf))
    rank = torch.where(is_open, rank, -1)
    return dict(zip(names, rank.split([len(problem.open[t]) for t in names]), strict=True))


def rank_within(segment: Int[Tensor, " n"], value: Tensor) -> Int[Tensor, " n"]:
    """Return the rank of each value among those of its segment, smallest first; ties keep their order."""
    by_value = torch.argsort(value, stable=True)
    order = by_value[torch.argsort(segment[by_value], stable=True)]
    counts = torch.bincount(segment, minlength=1)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(segment), device=segment.device)
    rank = torch.empty_like(segment)
    rank[order] = place - starts[segment[order]]
    return rank
