"""Samples towards a property by any method: classifier guidance, sequential Monte Carlo, or the best of n.

The laws, where p(x) is the law of the same sampler without the property: smc tends to p(x) exp(weight * property(x)) / Z as the number of
particles grows, classifier guidance approximates it (`tilting` says when it is exact), the best of n has the law
P(x) = p(x) (F(v)^n - F(v-)^n) / P(value = v), with F the distribution function of the value and v the value of x; texts of equal value keep
their proportions. Sample i depends on (seed, i), not on the batch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.diffusion.denoiser import Denoiser, Denoising
from protlig_dd.rng import Draws
from protlig_dd.sampling.loop import State, Stepper, sample
from protlig_dd.sampling.smc import Weighing, Weighted, effective_size
from protlig_dd.sampling.tilting import Property, Tilting, exponents, guided, texts_of
from protlig_dd.tokens.tracks import TrackBatch


@dataclass(frozen=True, kw_only=True)
class TiltedSamples:
    """Finished samples with the property of each.

    Args:
        batch: one example for each sample.
        values: the property of each sample; -inf where no particle had a permitted text.
        num_calls: network calls for the whole batch.
        ess: smc: the effective sample size at the end, 1 to particles; 0 where no particle had a permitted text. None otherwise.
        ess_steps: smc: the same before each step [b, steps], before resampling. None otherwise.
        log_z: smc: the estimate of log E[exp(weight * property)], unbiased before the logarithm. None otherwise.
        num_resamplings: smc: how often each sample's particles were resampled. None otherwise.
    """

    batch: TrackBatch
    values: Float[np.ndarray, " b"]
    num_calls: int
    ess: Float[np.ndarray, " b"] | None = None
    ess_steps: Float[np.ndarray, "b s"] | None = None
    log_z: Float[np.ndarray, " b"] | None = None
    num_resamplings: Int[np.ndarray, " b"] | None = None


def sample_tilted(
    denoising: Denoising,
    batch: TrackBatch,
    *,
    prop: Property,
    tilting: Tilting,
    generate: tuple[str, ...],
    sampler: Stepper,
    seed: int,
    t_start: float = 1.0,
) -> TiltedSamples:
    """Return samples drawn towards a property; with weight 0 the samples that `sample` returns, for every method.

    Raises:
        ConfigError: for uniform noise, a property of a track that is not generated, or values that are no numbers.
    """
    tilting.check(prop, denoising.diffusion, generate)
    track, counted = denoising.tracks[prop.track], _Counted(denoising.denoiser)
    denoising = replace(denoising, denoiser=counted)
    crowd, stepper, last = batch, sampler, deque[State](maxlen=1)
    streams = Draws.root(seed, "particles").fold_in(batch.example_ids.cpu())
    if tilting.weight == 0 or tilting.method == "classifier":
        denoising = guided(denoising, prop=prop, tilting=tilting, generate=generate, seed=seed)
    else:
        crowd = _crowd(batch, tilting.particles, streams)
        if tilting.method == "smc":
            stepper = Weighing(inner=sampler, prop=prop, track=track, tilting=tilting, streams=streams)
    done = sample(
        denoising.denoiser,
        denoising.diffusion,
        crowd,
        generate=generate,
        sampler=stepper,
        seed=seed,
        t_start=t_start,
        trace=lambda _, state: last.append(state),
    ).batch
    values = prop(texts_of(track, done, done.tracks[track.name].tokens))
    if crowd is batch:
        return TiltedSamples(batch=done, values=values, num_calls=counted.calls)
    values = values.reshape(-1, tilting.particles)
    aims = exponents(values, tilting.weight)
    if tilting.method == "best_of":
        return TiltedSamples(**_picked(batch, done, values, aims.argmax(-1)), num_calls=counted.calls)
    return _weighed(batch, done, values, aims, last, streams, counted.calls)


def _weighed(
    batch: TrackBatch,
    done: TrackBatch,
    values: Float[np.ndarray, "b p"],
    aims: Float[np.ndarray, "b p"],
    last: Sequence[State],
    streams: Draws,
    num_calls: int,
) -> TiltedSamples:
    """One particle of each sample, drawn by its weight, in which the property itself replaces the last potential."""
    log_weights, log_z = torch.from_numpy(aims), torch.zeros(len(values), dtype=torch.float64)
    steps, resamplings = np.zeros((len(values), 0)), np.zeros(len(values), dtype=np.int64)
    if last:
        state = last[-1]
        assert isinstance(state, Weighted)
        log_weights, log_z = state.log_weights + log_weights - state.potential, state.log_z
        steps, resamplings = torch.stack(state.ess, dim=1).numpy(), state.num_resamplings.numpy()
    log_z = log_z + log_weights.logsumexp(-1) - math.log(values.shape[1])
    some = (log_weights > -torch.inf).any(-1, keepdim=True)
    best = log_weights.max(-1, keepdim=True).values
    chosen = streams.fold("pick").categorical(torch.where(some, log_weights - best, 0.0))
    return TiltedSamples(
        **_picked(batch, done, values, chosen.numpy()),
        num_calls=num_calls,
        ess=effective_size(log_weights).numpy(),
        ess_steps=steps,
        log_z=log_z.numpy(),
        num_resamplings=resamplings,
    )


@dataclass
class _Counted:
    """A denoiser that counts its calls."""

    denoiser: Denoiser
    calls: int = 0

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        self.calls += 1
        return self.denoiser(batch, sigma, at=at)


def _crowd(batch: TrackBatch, num: int, streams: Draws) -> TrackBatch:
    """The batch with every example `num` times in a row, under ids that are keys of (seed, sample id, particle)."""
    ids = Draws(streams.keys[:, None]).fold_in(torch.arange(num)).bits().flatten()
    crowd = batch.select([i for i in range(batch.num_examples) for _ in range(num)])
    return replace(crowd, example_ids=ids, slots=torch.arange(len(ids)), global_size=len(ids))


def _picked(batch: TrackBatch, done: TrackBatch, values: Float[np.ndarray, "b p"], chosen: Int[np.ndarray, " b"]) -> dict[str, Any]:
    """The chosen particle of each sample, under the sample's own id, and its value."""
    rows = np.arange(len(values))
    picked = done.select((rows * values.shape[1] + chosen).tolist())
    own = replace(picked, example_ids=batch.example_ids, slots=batch.slots, global_size=batch.global_size)
    return {"batch": own, "values": values[rows, chosen]}
