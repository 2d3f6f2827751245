"""The bound on the negative log-likelihood of each example, its mean per token, and the unigram null.

Everything is in nats and per example, so that any two runs over the same examples are paired: the noise of an example depends only on
(seed, its id, track, position), not on its partner in another track. No curriculum is applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from protlig_dd import rng
from protlig_dd.config import settings
from protlig_dd.data.loader import Loader
from protlig_dd.data.table import Column, TokenTable
from protlig_dd.diffusion.denoiser import Denoiser, Denoising
from protlig_dd.diffusion.objective import DiffusionObjective, Prepared
from protlig_dd.diffusion.times import Task, TaskMixture, Times, UniformTimes
from protlig_dd.errors import refuse_unless
from protlig_dd.evaluation.intervals import Estimate, Score, normal_interval
from protlig_dd.tokens.tracks import Track, TrackBatch, TrackSet

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True, eq=False)
class ExampleBounds:
    """Nats and modelled tokens of each example, by noised track.

    Attributes:
        task: the name of the task.
        example_ids: the id of each example.
        nats: for each track an upper bound on (or, for `chain_rule_nll`, the exact) negative log-likelihood of each example.
        tokens: for each track the modelled token ids of all examples, concatenated.
        num_tokens: for each track the number of modelled tokens of each example.
    """

    task: str
    example_ids: Int[np.ndarray, " b"]
    nats: Mapping[str, Float[np.ndarray, " b"]]
    tokens: Mapping[str, Int[np.ndarray, " _"]]
    num_tokens: Mapping[str, Int[np.ndarray, " b"]]

    @property
    def total(self) -> Float[np.ndarray, " b"]:
        """Nats of each example over all noised tracks."""
        return np.asarray(sum(self.nats.values()))

    @property
    def total_tokens(self) -> Int[np.ndarray, " b"]:
        """Modelled tokens of each example over all noised tracks."""
        return np.asarray(sum(self.num_tokens.values()))

    @staticmethod
    def of_batch(task: str, batch: TrackBatch, nats: Mapping[str, Float[np.ndarray, " b"]]) -> ExampleBounds:
        """Return the nats of a batch together with its modelled tokens."""
        tokens, counts = {}, {}
        for name in nats:
            track = batch.tracks[name]
            tokens[name] = track.tokens[track.maskable].numpy()
            counts[name] = torch.bincount(track.layout.segment[track.maskable], minlength=batch.num_examples).numpy()
        ids = batch.example_ids.numpy()
        return ExampleBounds(task=task, example_ids=ids, nats=nats, tokens=tokens, num_tokens=counts)

    @staticmethod
    def joined(parts: Sequence[ExampleBounds]) -> ExampleBounds:
        """Return the bounds of several batches as one.

        Raises:
            ValueError: if there is no batch.
        """
        if not parts:
            raise ValueError("batches: found no examples, expected at least one")
        columns: dict[str, Any] = {
            name: {track: np.concatenate([getattr(p, name)[track] for p in parts]) for track in parts[0].nats}
            for name in ("nats", "tokens", "num_tokens")
        }
        return ExampleBounds(task=parts[0].task, example_ids=np.concatenate([p.example_ids for p in parts]), **columns)


@settings
class _Strata(UniformTimes):
    """One time for each example in stratum `step` of `num` equal ones: the mean over strata estimates the integral over t with little variance."""

    num: int = 1

    def draw(self, draws: rng.Draws, shared: rng.Draws, slots: Tensor, global_size: int, step: int) -> Times:
        u = ((step + draws.uniform()) / self.num).clamp(2.0**-24, 1 - 2.0**-24)
        return Times(self.t_min + (1 - self.t_min) * u, torch.full_like(u, 1 - self.t_min))


def table_batches(table: TokenTable, tracks: TrackSet, *, batch_size: int) -> Iterator[TrackBatch]:
    """Iterate over a table in its own order; example ids are the row numbers."""
    loader = Loader(table, tracks, batch_size=min(batch_size, len(table)), seed=0, shuffle=False)
    for step in range(loader.steps_per_epoch):
        yield from loader.micro_batches(step)


@torch.no_grad()
def bound(
    denoising: Denoising,
    batches: TrackBatch | Iterable[TrackBatch],
    task: str | Task,
    *,
    num_times: int = 8,
    seed: int = 0,
    t_min: float = 1e-5,
) -> ExampleBounds:
    """Return the negative evidence bound of each example in nats, estimated from `num_times` stratified noise levels.

    The estimate is unbiased up to the part of the integral below `t_min` and above alpha(1), together about (t_min + alpha(1)) times the
    result; the divergence of x_1 from the sampler's prior, which vanishes with alpha(1), is left out, as is usual.

    Args:
        denoising: the model in evaluation mode.
        batches: one batch or many, on the host; every example must have the task's tracks.
        task: the name of one of `named_tasks`, or a custom task.
        num_times: noise levels, and network calls, for each batch.
        seed: seed of the noise, which also depends on the example ids; equal seeds give paired numbers.
        t_min: lower limit of the integral over times.

    Raises:
        ConfigError: for an unknown task.
        ValueError: if there is no example, one lacks a track of the task, or the denoiser is in training mode.

    Source: Lou, Meng and Ermon 2024, equation 11; Sahoo et al. 2024, equation 10.
    """
    refuse_unless(num_times >= 1, "num_times", num_times, "at least 1")
    parts = []
    for batch, mixture in of_task(denoising.denoiser, batches, task):
        objective = DiffusionObjective(
            diffusion=denoising.diffusion,
            tasks=mixture,
            times=_Strata(num=num_times, t_min=t_min),
            seed=seed,
            purpose="likelihood",
            device=denoising.device,
            condition_dropout=0.0,
        )
        noised = mixture.tasks[mixture.names[0]].noised_tracks
        nats = {name: np.zeros(batch.num_examples) for name in noised}
        for step in range(num_times):
            for name, sums in _example_sums(denoising, objective.prepare(batch, step), noised).items():
                nats[name] += sums / num_times
        parts.append(ExampleBounds.of_batch(mixture.names[0], batch, nats))
    return ExampleBounds.joined(parts)


def _example_sums(denoising: Denoising, prepared: Prepared, noised: Sequence[str]) -> dict[str, Float[np.ndarray, " b"]]:
    """The loss of each example at one noise level, with the weights of the bound instead of those of training."""
    logits = denoising.denoiser(prepared.batch, prepared.sigma, at={name: t.active for name, t in prepared.tracks.items()})
    sums = {}
    for name in noised:
        track, own = prepared.tracks[name], denoising.diffusion.parameterizations[name]
        param = replace(own, weighting="elbo")  # type: ignore[type-var]
        loss = param.loss(logits[name], track.clean, track.noised, track.alpha, track.alpha_prime) * track.weight
        segment = prepared.batch.tracks[name].layout.segment[track.active]
        sums[name] = add_up(segment, loss, prepared.batch.num_examples)
    return sums


def add_up(segment: Int[Tensor, " a"], values: Float[Tensor, " a"], num_examples: int) -> Float[np.ndarray, " b"]:
    """Return the sum of the values of each example, in float64 on the host."""
    sums = torch.zeros(num_examples, dtype=torch.float64)
    return sums.index_add(0, segment.cpu(), values.double().cpu()).numpy()


def of_task(denoiser: Denoiser, batches: TrackBatch | Iterable[TrackBatch], task: str | Task) -> Iterator[tuple[TrackBatch, TaskMixture]]:
    """Iterate over batches, each with a mixture of the one task, after checking that every example has the task's tracks.

    Raises:
        ConfigError: for an unknown task.
        ValueError: if an example lacks a track of the task, or the denoiser is in training mode.
    """
    if getattr(denoiser, "training", False):
        raise ValueError("denoiser: found a model in training mode, expected evaluation mode; call model.eval() first")
    own: Mapping[str, Task | float] = {"+".join(task.noised_tracks): task} if isinstance(task, Task) else {task: 1.0}
    for batch in [batches] if isinstance(batches, TrackBatch) else batches:
        mixture = TaskMixture(own, tuple(batch.tracks))
        for name in mixture.tasks[mixture.names[0]].tracks:
            lengths = batch.tracks[name].layout.lengths
            if 0 in lengths:
                lacking = int(batch.example_ids[lengths.index(0)])
                raise ValueError(
                    f"example {lacking}: found no '{name}', which the task '{mixture.names[0]}' needs; leave such examples out"
                )
        yield batch, mixture


@dataclass(frozen=True, kw_only=True, eq=False)
class Unigrams:
    """The null of every likelihood: tokens drawn independently from the composition of the training data, track by track.

    Attributes:
        log_probs: for each track the log frequency of each id [k], with one added to every emittable id's count; -inf for ids that are not emittable.
    """

    log_probs: Mapping[str, Float[np.ndarray, " _"]]

    @staticmethod
    def of(table: TokenTable, tracks: TrackSet) -> Unigrams:
        """Return the composition of a table."""
        return Unigrams(log_probs={name: _log_frequencies(table.tracks[name], track) for name, track in tracks.items()})

    def nats(self, track: str, tokens: Int[np.ndarray, " n"], num_tokens: Int[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
        """Return the -log probability of each example's tokens; `tokens` are those of all examples, concatenated."""
        example = np.repeat(np.arange(len(num_tokens)), num_tokens)
        nats = -self.log_probs[track][tokens]
        return np.bincount(example, weights=nats, minlength=len(num_tokens)).astype(np.float64)


def _log_frequencies(column: Column, track: Track) -> Float[np.ndarray, " k"]:
    emittable = list(track.vocabulary.emittable_ids)
    counts = np.zeros(track.vocabulary.num_rows)
    for start in range(0, len(column), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(column)))
        counts += np.bincount(column.gather(rows), minlength=len(counts))
    log_probs = np.full(len(counts), -np.inf)
    log_probs[emittable] = np.log((counts[emittable] + 1) / (counts[emittable] + 1).sum())
    return log_probs


@dataclass(frozen=True, kw_only=True)
class TrackLikelihood:
    """How well a model predicts one track in one task.

    Attributes:
        task: the task.
        track: the noised track.
        nats_per_token: sum of nats over sum of tokens, with its 95 % interval; `num` counts examples.
        standard_error: standard error of `nats_per_token`, over examples and their noise.
        num_tokens: number of modelled tokens.
        null: nats per token of the same tokens under the training unigrams, or None.
    """

    task: str
    track: str
    nats_per_token: Estimate
    standard_error: float
    num_tokens: int
    null: Estimate | None = None

    @property
    def perplexity(self) -> Estimate:
        """e to the nats per token, with the ends of its interval."""
        return _exp(self.nats_per_token)

    def scores(self) -> list[Score]:
        """Return nats per token and perplexity, each with the unigram null."""
        name = "training unigrams" if self.null is not None else ""
        note = f"standard error {self.standard_error:.2g} over {self.num_tokens} tokens"
        where = f"{self.track} in {self.task}"
        null = None if self.null is None else _exp(self.null)
        nats = Score(name=f"nats per token, {where}", value=self.nats_per_token, null=self.null, null_name=name, note=note)
        return [nats, Score(name=f"perplexity, {where}", value=self.perplexity, null=null, null_name=name)]


def summarise(bounds: ExampleBounds, unigrams: Unigrams | None = None) -> list[TrackLikelihood]:
    """Return nats per token, standard error and null for each noised track.

    Raises:
        ValueError: if a bound is not a finite number.
    """
    summaries = []
    for track, nats in bounds.nats.items():
        counts = bounds.num_tokens[track]
        if not np.isfinite(nats).all():
            worst = int(np.flatnonzero(~np.isfinite(nats))[0])
            raise ValueError(
                f"{bounds.task}/{track}: example {bounds.example_ids[worst]} has the bound {nats[worst]}; the model's weights are damaged"
            )
        estimate, error = per_token(nats, counts)
        null = None if unigrams is None else per_token(unigrams.nats(track, bounds.tokens[track], counts), counts)[0]
        summaries.append(
            TrackLikelihood(
                task=bounds.task, track=track, nats_per_token=estimate, standard_error=error, num_tokens=int(counts.sum()), null=null
            )
        )
    return summaries


def per_token(nats: Float[np.ndarray, " b"], counts: Shaped[np.ndarray, " b"]) -> tuple[Estimate, float]:
    """Return sum(nats) / sum(counts) with the interval and standard error of a ratio of means (delta method)."""
    if counts.sum() == 0:
        return Estimate.missing(), math.nan
    ratio = float(nats.sum() / counts.sum())
    if len(nats) < 2:
        return Estimate.plain(ratio, len(nats)), math.nan
    # se(sum x / sum n) = sqrt(var(x - r n) / b) / mean(n)
    error = float((nats - ratio * counts).std(ddof=1) / math.sqrt(len(nats)) / counts.mean())
    return normal_interval(ratio, error, len(nats)), error


def _exp(estimate: Estimate) -> Estimate:
    """e to an estimate; a NaN end stays NaN."""
    ends = {name: math.exp(getattr(estimate, name)) for name in ("value", "low", "high")}
    return Estimate(num=estimate.num, **ends)
