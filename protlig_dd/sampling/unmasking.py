"""Unmasking in an order: at the times of the process itself (first hitting), or the most confident predictions first."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.rng import Draws
from protlig_dd.sampling.ancestral import FixedSteps, require_absorbing
from protlig_dd.sampling.loop import Problem, State, grid, level, rank_within, write


@settings
class ConfidenceUnmasking(FixedSteps):
    """Draw a letter for every mask, keep the most confident ones, and leave as many masks as the schedule has at that time.

    Not exact, often better with a trained network; its law has less entropy than the model's.
    Source: Chang et al. 2022 (MaskGIT); GenMol and DPLM sample this way.

    Args:
        num_steps: steps, one network call each; an example with fewer masks finishes in effect earlier.
        randomness: weight of Gumbel noise on the confidences, 0 or more, falling to zero with the noise level; 0 is greedy.
    """

    kind: Literal["confidence"] = "confidence"
    num_steps: int = 32
    randomness: float = 0.0
    exact = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.randomness < 0:
            raise ValueError(f"randomness: found {self.randomness}, expected 0 or more")

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the number of steps."""
        require_absorbing(problem, self.kind)
        return self.num_steps

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state with the most confident tokens of each example unmasked."""
        _, alpha_s = grid(problem, state, index, self.num_steps)
        at, logits = problem.active_logits(state)
        letters, confidence, segment = [], [], []
        for track, position in at.items():
            param, xt = problem.diffusion.parameterizations[track], state.batch.tracks[track].tokens[position]
            log_probs = param.x0_log_probs(logits[track], xt, problem.of_token(state.alpha, track, position))
            draws = problem.draws[track][position].fold(f"step {index}")
            drawn = draws.categorical(log_probs)
            noise = draws.fold("confidence").gumbel() * problem.of_token(1 - alpha_s, track, position)
            letters.append(drawn)
            confidence.append(log_probs.gather(-1, drawn[:, None])[:, 0] + self.randomness * noise)
            segment.append(problem.layouts[track].segment[position])
        owner = torch.cat(segment)
        rank = rank_within(owner, -torch.cat(confidence))
        opens = rank < self._number_to_open(problem, state, owner, alpha_s)[owner]
        parts = opens.split([len(position) for position in at.values()])
        for (track, position), drawn, kept in zip(at.items(), letters, parts, strict=True):
            state = write(state, track, position[kept], drawn[kept])
        return State(batch=state.batch, alpha=alpha_s)

    def _number_to_open(self, problem: Problem, state: State, owner: Tensor, alpha_s: Tensor) -> Int[Tensor, " b"]:
        """The number of masks now minus the number that the schedule leaves at the next time (rounded to nearest)."""
        now = torch.bincount(owner, minlength=state.batch.num_examples)
        start = level(problem.diffusion.schedule, torch.full_like(alpha_s, problem.t_start))
        leave = torch.round(problem.num_open * ((1 - alpha_s) / (1 - start))).long()
        return (now - leave).clamp(min=0)


@settings
class FirstHitting:
    """One token at a time, at the times at which the reverse process opens it. Exact for absorbing noise, at most one call per token.

    A mask remains from t to s with probability (1 - alpha_s) / (1 - alpha_t), so with k masks the next one opens where
    1 - alpha = (1 - alpha_t) u^(1/k): the time can be drawn first, and the network is called only there. Which mask opens is uniform, so
    the order can be drawn first as well, and the head runs on one token per example. Source: Zheng et al. 2024 (arXiv 2409.02908).
    """

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
