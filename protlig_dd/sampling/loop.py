"""The sampling loop. Conditional generation, infilling, scaffolding and unconditional generation differ only in their masks.

A `Problem` is constant during a run (denoiser, diffusion, which positions are open, the random streams), a `State` changes (tokens and
noise level); a stepper maps a state to the next one and has no state of its own. Positions that are not open never change. The
draws of an example are keyed by the seed, its id, track, position and step, so batch size and number of devices do not matter.

A generated track has one noise level, shared by its frozen positions. Under absorbing noise masks show where the noise is, so infilling is
exact; under uniform noise the network treats frozen letters as noisy ones, and infilling within a track is approximate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protlig_dd.diffusion.denoiser import Denoiser, Diffusion, total_noise
from protlig_dd.diffusion.schedules import NoiseSchedule, require_noise_at_end
from protlig_dd.errors import ConfigError
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import Layout, TrackBatch

_LEAST_ALPHA = 1e-12
"""A schedule may reach alpha = 0, where scores are 0 and rates infinite; the network's input is bounded here too."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Tokens of all tracks, and alpha [b], the noise level of the generated tracks in each example."""

    batch: TrackBatch
    alpha: Float[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The constants of one sampling run.

    Args:
        denoiser: the callable that returns logits.
        diffusion: the meaning of the logits, and the schedule.
        open: for each generated track, which packed positions are generated [n].
        draws: for each generated track, one random stream per token [n].
        layouts: the layout of each generated track.
        t_start: the time at which the run starts, in (0, 1]; 1 is noise.
    """

    denoiser: Denoiser
    diffusion: Diffusion
    open: Mapping[str, Bool[Tensor, " n"]]
    draws: Mapping[str, Draws]
    layouts: Mapping[str, Layout]
    t_start: float = 1.0

    @cached_property
    def num_open(self) -> Int[Tensor, " b"]:
        """Number of open positions of each example over all generated tracks."""
        return torch.stack([_count(self.layouts[name], is_open) for name, is_open in self.open.items()]).sum(0)

    @cached_property
    def order(self) -> dict[str, Int[Tensor, " n"]]:
        """The rank of each open position in its example's random order over all generated tracks; -1 for frozen ones."""
        is_open = torch.cat(list(self.open.values()))
        segment = torch.cat([self.layouts[name].segment for name in self.open])
        chance = torch.cat([self.draws[name].fold("order").uniform() for name in self.open])
        rank = torch.where(is_open, rank_within(segment, torch.where(is_open, chance, torch.inf)), -1)
        return dict(zip(self.open, rank.split([len(x) for x in self.open.values()]), strict=True))

    def active(self, state: State, track: str) -> Int[Tensor, " a"]:
        """Return the open positions of a track that the process can still change: masks, or all under uniform noise."""
        informative = self.diffusion.parameterizations[track].informative(state.batch.tracks[track].tokens)
        return (self.open[track] & informative).nonzero().squeeze(1)

    def logits(self, state: State, at: Mapping[str, Int[Tensor, " _a"]]) -> dict[str, Float[Tensor, "_a _k"]]:
        """Return the denoiser's logits [a, k] at some positions of the generated tracks: one network call.

        Examples without any of these positions (finished ones) are emptied before the call, so that they cost nothing.
        """
        clean = torch.zeros_like(state.alpha)
        noise = total_noise(state.alpha)
        sigma = {name: noise if name in self.open else clean for name in state.batch.tracks}
        none = torch.zeros(0, dtype=torch.int64, device=state.batch.device)
        asked = torch.zeros(state.batch.num_examples, dtype=torch.bool, device=state.batch.device)
        for name, index in at.items():
            asked[self.layouts[name].segment[index]] = True
        batch, positions = _leave_out(state.batch, ~asked, at)
        return self.denoiser(batch, sigma, at={name: positions.get(name, none) for name in batch.tracks})

    def active_logits(self, state: State) -> tuple[dict[str, Int[Tensor, " _a"]], dict[str, Float[Tensor, "_a _k"]]]:
        """Return the active positions of each generated track and the denoiser's logits there: one network call."""
        at = {track: self.active(state, track) for track in self.open}
        return at, self.logits(state, at)

    def of_token(self, per_example: Float[Tensor, " b"], track: str, at: Int[Tensor, " a"]) -> Float[Tensor, " a"]:
        """Return per-example values at some packed positions of a track."""
        return per_example[self.layouts[track].segment[at]]


@runtime_checkable
class Stepper(Protocol):
    """A sampling method."""

    exact: bool
    """Whether the error vanishes with the step size, given an exact denoiser."""

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the number of steps, and so of network calls, of a run."""

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state after step `index`."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Finished samples, and the number of network calls for the whole batch."""

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
    t_start: float = 1.0,
    trace: Callable[[int, State], None] | None = None,
) -> Sampled:
    """Return samples for the open positions of a batch.

    Args:
        denoiser: a model, or a guided one from `sampling.guidance`.
        diffusion: the meaning of its logits.
        batch: given tokens; positions of the tracks in `generate` with `maskable` set are generated (their tokens are ignored), all
            other positions are frozen. `example_ids` are the keys of the samples.
        generate: the tracks to generate; they share one noise level. All other tracks are clean.
        sampler: the sampling method.
        seed: seed of the random draws; with the samples' keys it determines all of them.
        t_start: 1 generates from noise. Below 1 the given tokens are noised to that time first, and only the masked ones are generated:
            variations on a molecule, closer to it for a smaller t_start.
        trace: called with the index of each step and the state after it.

    Raises:
        ConfigError: for a track that is not in the batch, a time outside (0, 1], or a schedule that does not end in noise.
    """
    require_noise_at_end(diffusion.schedule)
    if not generate:
        raise ConfigError(f"generate: found no track, expected one or more of {', '.join(batch.tracks)}")
    for name in generate:
        if name not in batch.tracks:
            raise ConfigError(f"generate: found track '{name}', expected one of {', '.join(batch.tracks)}")
    if not 0 < t_start <= 1:
        raise ConfigError(f"t_start: found {t_start}, expected 0 < t_start <= 1")
    per_example = Draws.root(seed, "sample").fold_in(batch.example_ids).to(batch.device)
    alpha = level(diffusion.schedule, torch.full((batch.num_examples,), float(t_start), device=batch.device))
    draws, start, open_positions = {}, {}, {}
    for name in generate:
        track = batch.tracks[name]
        draws[name] = per_example[track.layout.segment].fold(name).fold_in(track.layout.position)
        param = diffusion.parameterizations[name]
        if t_start == 1:
            noised = param.process.sample_prior(track.tokens, draws[name].fold("prior"))
        else:
            noised = param.process.sample_xt(track.tokens, alpha[track.layout.segment], draws[name].fold("prior"))
        start[name] = torch.where(track.maskable, noised, track.tokens)
        open_positions[name] = track.maskable & param.informative(start[name])
    layouts = {name: batch.tracks[name].layout for name in generate}
    problem = Problem(denoiser=denoiser, diffusion=diffusion, open=open_positions, draws=draws, layouts=layouts, t_start=t_start)
    state = State(batch=batch.with_tokens(**start), alpha=alpha)
    num_calls = sampler.num_calls(problem, state)
    for index in range(num_calls):
        state = sampler.step(problem, state, index)
        if trace is not None:
            trace(index, state)
    return Sampled(batch=state.batch, num_calls=num_calls)


def grid(problem: Problem, state: State, index: int, num_steps: int) -> tuple[Tensor, Tensor]:
    """Return (alpha_t, alpha_s) [b] of a step on an even grid from t_start to 0; the last step ends at alpha = 1, clean data."""
    schedule = problem.diffusion.schedule
    t = torch.full_like(state.alpha, problem.t_start * (1 - index / num_steps))
    s = torch.full_like(state.alpha, problem.t_start * (1 - (index + 1) / num_steps))
    last = index + 1 == num_steps
    return level(schedule, t), torch.ones_like(t) if last else level(schedule, s)


def level(schedule: NoiseSchedule, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Return alpha at t, at least 1e-12."""
    return schedule.alpha(t).clamp(min=_LEAST_ALPHA)


def rank_within(segment: Int[Tensor, " n"], value: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return the rank of each value among those of its segment, smallest first; ties keep their order."""
    by_value = torch.argsort(value, stable=True)
    order = by_value[torch.argsort(segment[by_value], stable=True)]
    counts = torch.bincount(segment, minlength=1)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(segment), device=segment.device)
    rank = torch.empty_like(segment)
    rank[order] = place - starts[segment[order]]
    return rank


def _count(layout: Layout, chosen: Bool[Tensor, " n"]) -> Int[Tensor, " b"]:
    """Return the number of chosen positions of each example."""
    return torch.bincount(layout.segment[chosen], minlength=layout.num_examples)


def _leave_out(
    batch: TrackBatch, left_out: Bool[Tensor, " b"], at: Mapping[str, Int[Tensor, " _a"]]
) -> tuple[TrackBatch, dict[str, Int[Tensor, " _a"]]]:
    """Return a batch with some examples emptied, and the positions of the rest in it; unchanged if all or none are emptied."""
    kept = (~left_out).tolist()
    if all(kept) or not any(kept):
        return batch, dict(at)
    tracks = {name: track.keep(kept) for name, track in batch.tracks.items()}
    moved = {name: index - left_out[batch.tracks[name].layout.segment].cumsum(0)[index] for name, index in at.items()}
    return replace(batch, tracks=tracks), moved
