"""Ancestral sampling: the reverse step of the process itself, token by token; with remasking of finished tokens; and Euler's method.

For absorbing noise SEDD's analytic (Tweedie) step and MDLM's posterior are the same step, this one. The only error is that the tokens of
one step are drawn independently; it halves when the number of steps doubles.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.errors import ConfigError
from protlig_dd.sampling.loop import Problem, State, grid, write


@settings
class FixedSteps:
    """The settings of samplers that take a fixed number of steps, with one network call each."""

    kind: str = ""
    num_steps: int = 250

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps: found {self.num_steps}, expected 1 or more")

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the number of steps."""
        return self.num_steps


def reverse_step(problem: Problem, state: State, alpha_s: Tensor, name: str) -> State:
    """Return the state with every open token moved from the state's noise level to alpha_s [b]; `name` keys the draws."""
    at, logits = problem.active_logits(state)
    result = state
    for track, index in at.items():
        xt, param = state.batch.tracks[track].tokens[index], problem.diffusion.parameterizations[track]
        alphas = (problem.of_token(alpha, track, index) for alpha in (alpha_s, state.alpha))
        probs = param.reverse_probs(logits[track], xt, *alphas)
        result = write(result, track, index, problem.draws[track][index].fold(name).categorical(probs.log()))
    return State(batch=result.batch, alpha=alpha_s)


@settings
class Ancestral(FixedSteps):
    """The exact reverse step, `num_steps` times.

    Args:
        num_steps: steps, one network call each.
        corrector_steps: rounds of noising forward by one step and reversing it, after each step but the last. They leave the law at that
            noise level unchanged and allow early mistakes to be corrected (Campbell et al. 2022, predictor-corrector).
    """

    kind: Literal["ancestral"] = "ancestral"
    corrector_steps: int = 0
    exact = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corrector_steps < 0:
            raise ValueError(f"corrector_steps: found {self.corrector_steps}, expected 0 or more")

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the number of network calls: each step has one and its correctors, the last step has no correctors."""
        return self.num_steps + (self.num_steps - 1) * self.corrector_steps

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state after one more step or corrector round."""
        main, round_ = divmod(index, 1 + self.corrector_steps)
        alpha_t, alpha_s = grid(problem, state, main, self.num_steps)
        if round_:
            state = _forward(problem, state, alpha_t, f"noise {index}")
        return reverse_step(problem, state, alpha_s, f"step {index}")


def _forward(problem: Problem, state: State, alpha_t: Tensor, name: str) -> State:
    """Noise open tokens from the state's level up to alpha_t."""
    result = state
    for track, is_open in problem.open.items():
        index = is_open.nonzero().squeeze(1)
        keep, draws = problem.of_token(alpha_t / state.alpha, track, index), problem.draws[track][index].fold(name)
        process = problem.diffusion.parameterizations[track].process
        result = write(result, track, index, process.sample_xt(state.batch.tracks[track].tokens[index], keep, draws))
    return State(batch=result.batch, alpha=alpha_t)


def require_absorbing(problem: Problem, sampler: str) -> None:
    """Refuse a sampler that needs masks for a track with uniform noise.

    Raises:
        ConfigError: with the track and the alternative.
    """
    for track in problem.open:
        if not isinstance(problem.diffusion.parameterizations[track].process, Absorbing):
            raise ConfigError(f"sampling.sampler: '{sampler}' opens masks, and track '{track}' has uniform noise; use ancestral or euler")


@settings
class Euler(FixedSteps):
    """Euler's method: p(x_s = y) = d sigma * rate(x_t -> y) for y != x_t, the remaining probability for x_t, `num_steps` times.

    Rates of the reverse jump process are constant during a step. A baseline: ancestral steps solve each token exactly. The last step is the
    analytic one, which leaves no mask (SEDD's denoiser step). Source: Lou, Meng and Ermon 2024, equation 13.

    Args:
        num_steps: steps, one network call each.
    """

    kind: Literal["euler"] = "euler"
    exact = True

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


@settings
class Remasking(FixedSteps):
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
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta: found {self.eta}, expected 0 to 1")

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
