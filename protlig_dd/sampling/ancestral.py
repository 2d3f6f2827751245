"""Ancestral sampling: the reverse step of the process itself, token by token.

For absorbing noise SEDD's analytic (Tweedie) step and MDLM's posterior are this one step. The only error is that tokens of one step are
drawn independently; it halves when the number of steps doubles.
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
    """Return the state with every open token moved from its noise level to alpha_s [b]; `name` keys the draws."""
    at = {track: problem.active(state, track) for track in problem.open}
    logits = problem.logits(state, at)
    result = state
    for track, index in at.items():
        xt, param = state.batch.tracks[track].tokens[index], problem.diffusion.parameterizations[track]
        probs = param.reverse_probs(
            logits[track],
            xt,
            problem.of_token(alpha_s, state, track, index),
            problem.of_token(state.alpha, state, track, index),
        )
        result = write(result, track, index, problem.draws[track][index].fold(name).categorical(probs.log()))
    return State(batch=result.batch, alpha=alpha_s)


@settings
class Ancestral:
    """The exact reverse step, `num_steps` times.

    Args:
        num_steps: steps, one network call each.
        corrector_steps: after each step but the last, so many rounds of noising forward by one step and reversing it again. They leave
            the law at that noise level unchanged and let early mistakes be taken back (Campbell et al. 2022, predictor-corrector).
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
        """Return the network calls: a step is a predictor and its correctors, the last has none."""
        return self.num_steps + (self.num_steps - 1) * self.corrector_steps

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state one step, or one corrector round, further."""
        main, round_ = divmod(index, 1 + self.corrector_steps)
        if round_ == 0:
            _, alpha_s = grid(problem, state, main, self.num_steps)
            return reverse_step(problem, state, alpha_s, f"step {index}")
        alpha_t, alpha_s = grid(problem, state, main, self.num_steps)
        noised = _forward(problem, state, alpha_t, f"noise {index}")
        return reverse_step(problem, noised, alpha_s, f"step {index}")


def _forward(problem: Problem, state: State, alpha_t: Tensor, name: str) -> State:
    """Noise open tokens from the state's level up to alpha_t."""
    result = state
    for track, is_open in problem.open.items():
        index = is_open.nonzero().squeeze(1)
        keep = problem.of_token(alpha_t / state.alpha, state, track, index)
        process = problem.diffusion.parameterizations[track].process
        noised = process.sample_xt(
            state.batch.tracks[track].tokens[index], keep, problem.draws[track][index].fold(name)
        )
        result = write(result, track, index, noised)
    return State(batch=result.batch, alpha=alpha_t)


def require_absorbing(problem: Problem, sampler: str) -> None:
    """Refuse a sampler that works on masks where a track has uniform noise.

    Raises:
        ConfigError: naming the track and what to use.
    """
    for track in problem.open:
        if not isinstance(problem.diffusion.parameterizations[track].process, Absorbing):
            raise ConfigError(
                f"sampling.sampler: '{sampler}' opens masks, and track '{track}' has uniform noise; use ancestral or euler"
            )
