"""The one sampling loop. Conditional generation, infilling, scaffolding and unconditional generation are masks over it.

A `Problem` is what stays the same (denoiser, diffusion, which positions are open, the random streams), a `State` what changes (tokens and
noise level); a stepper takes a state and returns the next, and keeps nothing. Positions that are not open never change. Sample i depends
on (seed, i): its draws are keyed by its id, track, position and step, so batch size and number of devices change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protlig_dd.diffusion.denoiser import Denoiser, Diffusion, total_noise
from protlig_dd.diffusion.schedules import require_noise_at_end
from protlig_dd.errors import ConfigError
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import TrackBatch


@dataclass(frozen=True, kw_only=True)
class State:
    """Tokens of all tracks, and alpha [b]: the noise level of the generated tracks in each example."""

    batch: TrackBatch
    alpha: Float[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a run of the sampler holds fixed.

    Args:
        denoiser: the callable that gives logits.
        diffusion: what they mean, and the schedule.
        open: for each generated track, which packed positions are generated [n].
        draws: for each generated track one stream a token [n].
    """

    denoiser: Denoiser
    diffusion: Diffusion
    open: Mapping[str, Bool[Tensor, " n"]]
    draws: Mapping[str, Draws]

    def active(self, state: State, track: str) -> Int[Tensor, " a"]:
        """Return the open positions of a track that the process can still change: masks, or all under uniform noise."""
        informative = self.diffusion.parameterizations[track].informative(state.batch.tracks[track].tokens)
        return (self.open[track] & informative).nonzero().squeeze(1)

    def logits(self, state: State, at: Mapping[str, Int[Tensor, " a"]]) -> dict[str, Float[Tensor, "a k"]]:
        """Return the denoiser's logits at some positions of the generated tracks: one network call."""
        clean = torch.zeros_like(state.alpha)
        noise = total_noise(state.alpha)
        sigma = {name: noise if name in self.open else clean for name in state.batch.tracks}
        none = torch.zeros(0, dtype=torch.int64, device=state.batch.device)
        return self.denoiser(state.batch, sigma, at={name: at.get(name, none) for name in state.batch.tracks})

    def of_token(self, per_example: Float[Tensor, " b"], state: State, track: str, at: Int[Tensor, " a"]) -> Float[Tensor, " a"]:
        """Return a per-example number for each of some positions."""
        return per_example[state.batch.tracks[track].layout.segment[at]]


class Stepper(Protocol):
    """A sampling method."""

    exact: bool
    """Whether the error vanishes with the step size for an exact denoiser."""

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return how many steps, hence network calls, a run takes."""

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state after step `index`."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Finished samples, and how many times the network was called for the whole batch."""

    batch: TrackBatch
    num_calls: int


def write(state: State, track: str, at: Int[Tensor, " a"], tokens: Int[Tensor, " a"]) -> State:
    """Return the state with some tokens of a track replaced."""
    updated = state.batch.tracks[track].tokens.index_copy(0, at, tokens)
    return replace(state, batch=state.batch.with_tokens(**{track: updated}))


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    diffusion: Diffusion,
    batch: TrackBatch,
    *,
    generate: tuple[str, ...],
    sampler: Stepper,
    seed: int,
    trace: Callable[[int, State], None] | None = None,
) -> Sampled:
    """Return samples for the open positions of a batch.

    Args:
        denoiser: a model, or a guided one from `sampling.guidance`.
        diffusion: what its logits mean.
        batch: given tokens; positions of the tracks in `generate` with `maskable` set are generated (their tokens are ignored),
            everything else is frozen. `example_ids` are the sample ids.
        generate: the tracks to generate; they share one noise level. The other tracks are clean.
        sampler: how.
        seed: with the sample ids the root of all draws.
        trace: called with the step and the state after it.

    Raises:
        ConfigError: for a track that is not in the batch, or a schedule that does not end in noise.
    """
    require_noise_at_end(diffusion.schedule)
    for name in generate:
        if name not in batch.tracks:
            raise ConfigError(f"generate: found track '{name}', expected one of {', '.join(batch.tracks)}")
    per_example = Draws.root(seed, "sample").fold_in(batch.example_ids).to(batch.device)
    draws, start = {}, {}
    for name in generate:
        track = batch.tracks[name]
        draws[name] = per_example[track.layout.segment].fold(name).fold_in(track.layout.position)
        prior = diffusion.parameterizations[name].process.sample_prior(track.tokens, draws[name].fold("prior"))
        start[name] = torch.where(track.maskable, prior, track.tokens)
    open_positions = {name: batch.tracks[name].maskable for name in generate}
    problem = Problem(denoiser=denoiser, diffusion=diffusion, open=open_positions, draws=draws)
    ones = torch.ones(batch.num_examples, device=batch.device)
    state = State(batch=batch.with_tokens(**start), alpha=diffusion.schedule.alpha(ones))
    num_calls = sampler.num_calls(problem, state)
    for index in range(num_calls):
        state = sampler.step(problem, state, index)
        if trace is not None:
            trace(index, state)
    return Sampled(batch=state.batch, num_calls=num_calls)


def grid(problem: Problem, state: State, index: int, num_steps: int) -> tuple[Tensor, Tensor]:
    """Return (alpha_t, alpha_s) [b] of step `index` on an even grid of times; the last step goes to alpha = 1, clean data."""
    schedule = problem.diffusion.schedule
    t = torch.full_like(state.alpha, 1 - index / num_steps)
    s = torch.full_like(state.alpha, 1 - (index + 1) / num_steps)
    last = index + 1 == num_steps
    return schedule.alpha(t), torch.ones_like(t) if last else schedule.alpha(s)
