"""Ancestral sampling: the reverse step of the process itself, token by token.

For absorbing noise SEDD's analytic (Tweedie) step and MDLM's posterior are the same step, this one. The only error is that the tokens of
one step are drawn independently; it halves when the number of steps doubles.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.errors import ConfigError
from protlig_dd.sampling.loop import Problem, State, grid, write


def check_steps(num_steps: int) -> None:
    """Refuse a number of steps below one.

    Raises:
        ValueError: with the number found.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: found {num_steps}, expected 1 or more")


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
class Ancestral:
    """The exact reverse step, `num_steps` times.

    Args:
        num_steps: steps, one network call each.
        corrector_steps: rounds of noising forward by one step and reversing it, after each step but the last. They leave the law at that
            noise level unchanged and allow early mistakes to be corrected (Campbell et al. 2022, predictor-corrector).
    """

    kind: Literal["ancestral"] = "ancestral"
    num_steps: int = 250
    corrector_steps: int = 0
    exact = True

    def __post_init__(self) -> None:
        check_steps(self.num_steps)
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
