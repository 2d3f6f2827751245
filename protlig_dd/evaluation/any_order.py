"""Likelihoods of masked-diffusion denoisers without a time: the any-order bound, stratified over the number of hidden tokens, the
pseudo-log-likelihood, and the exact likelihood under one order. The bound over times is in `likelihood.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protlig_dd import rng
from protlig_dd.diffusion.denoiser import Denoiser, Denoising, total_noise
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.times import Task
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.intervals import Estimate, normal_interval
from protlig_dd.evaluation.likelihood import ExampleBounds, add_up, of_task
from protlig_dd.evaluation.questions import ask, num_places
from protlig_dd.sampling.loop import rank_within
from protlig_dd.tokens.tracks import TrackBatch


@dataclass(frozen=True, kw_only=True, eq=False)
class StratifiedBounds:
    """Bounds on the negative log-likelihood of examples, with the standard error due to drawing the hidden tokens.

    Attributes:
        bounds: the nats of each example by track, as from `likelihood.bound`.
        standard_errors: standard error of each example's total, in nats.
    """

    bounds: ExampleBounds
    standard_errors: Float[np.ndarray, " b"]

    def interval(self, index: int, *, level: float = 0.95) -> Estimate:
        """Return one example's bound with its interval; `num` counts its tokens."""
        total, num = float(self.bounds.total[index]), int(self.bounds.total_tokens[index])
        return normal_interval(total, float(self.standard_errors[index]), num, level=level)


def stratified_bound(
    denoising: Denoising,
    batches: TrackBatch | Iterable[TrackBatch],
    task: str | Task,
    *,
    num_strata: int = 32,
    num_draws: int = 2,
    seed: int = 0,
    tokens_per_call: int = 16_384,
) -> StratifiedBounds:
    """Return the any-order bound on the negative log-likelihood of each example, stratified over the number of hidden tokens.

    The bound is sum_{k=1..L} 1/k E_S[ sum_{i in S} -log p(x_i | x outside S) ], S uniform among the sets of k tokens: the bound of absorbing
    noise, in which the time has been integrated out exactly (for any schedule) and only the hidden sets are drawn. The counts 1..L are
    split into `num_strata` ranges of equal size; each gives `num_draws` independent draws of (k, S), so that the spread within a range is
    the only noise. With L <= num_strata every count has its own range. Compared with `likelihood.bound` there is no time grid, no part
    is left out, and each example has a standard error. A denoiser that reads the noise level gets the level's mean given k; the bound is
    then one on the model without time.

    Args:
        denoising: the model in evaluation mode; absorbing noise only.
        batches: one batch or many, on the host; every example must have the task's tracks.
        task: as in `likelihood.bound`.
        num_strata: ranges of counts.
        num_draws: draws in each range; at least 2, for the standard error. A count with no more sets than this uses all of them, without error.
        seed: seed of the draws, which also depend on the example ids: examples of one id and one length hide the same places.
        tokens_per_call: as in `ask`.

    Raises:
        ConfigError: for uniform noise, or an unknown task.
        ValueError: for fewer than 2 draws, and as `likelihood.bound`.

    Source: Uria, Murray and Larochelle 2014; Hoogeboom et al. 2022 (ARDM), equation 4; Ou et al. 2024 (RADD).
    """
    if num_strata < 1 or num_draws < 2:
        raise ValueError(f"num_strata, num_draws: found {num_strata} and {num_draws}, expected at least 1 and 2")
    parts, errors = [], []
    for batch, name, noised in _of_one_group(denoising.denoiser, batches, task):
        drawn = _draw_sets(batch, num_places(batch, noised), num_strata, num_draws, rng.Draws.root(seed, "any order"))
        nats = {track: np.zeros(batch.num_examples) for track in noised}
        values = torch.zeros(len(drawn.example), dtype=torch.float64)
        questions = drawn.example.tolist()
        for answer in ask(denoising, batch, noised, questions, drawn.hidden, tokens_per_call=tokens_per_call):
            share = -answer.of_token().double() * drawn.weight[answer.question]
            values.index_add_(0, answer.question, share)
            np.add.at(nats[answer.track], drawn.example[answer.question].numpy(), share.numpy())
        parts.append(ExampleBounds.of_batch(name, batch, nats))
        errors.append(_standard_errors(values, drawn, batch.num_examples))
    return StratifiedBounds(bounds=ExampleBounds.joined(parts), standard_errors=np.concatenate(errors))


def _of_one_group(
    denoiser: Denoiser, batches: TrackBatch | Iterable[TrackBatch], task: str | Task
) -> Iterator[tuple[TrackBatch, str, tuple[str, ...]]]:
    """Batches without the tracks that the task leaves out, the task's name, and its noised tracks, which must share one time."""
    for batch, mixture in of_task(denoiser, batches, task):
        name = mixture.names[0]
        spec = mixture.tasks[name]
        if len(spec.noised) > 1:
            raise ConfigError(
                f"task '{name}': found tracks with times of their own, expected tracks that share one, such as 'joint'; use the bound instead"
            )
        kept = {track: tokens.keep([track in spec.tracks] * batch.num_examples) for track, tokens in batch.tracks.items()}
        yield replace(batch, tracks=kept), name, spec.noised_tracks


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Hidden sets [q]: the example of each, its places, the weight of its nats, its range of counts, and whether that range has all its sets."""

    example: Int[Tensor, " q"]
    hidden: Bool[Tensor, "q p"]
    weight: Float[Tensor, " q"]
    run: Int[Tensor, " q"]
    complete: Bool[Tensor, " q"]


def _draw_sets(batch: TrackBatch, counts: Int[Tensor, " b"], num_strata: int, num_draws: int, draws: rng.Draws) -> _Drawn:
    """Draw the hidden sets of all examples. A range of one count that has no more sets than draws gets each of them once."""
    most = int(counts.max())
    parts: list[tuple[Tensor, ...]] = []
    keys = draws.fold_in(batch.example_ids)
    for example, num in enumerate(counts.tolist()):
        strata = min(num_strata, num)
        for h in range(strata):
            low, high = num * h // strata, num * (h + 1) // strata  # counts low + 1 .. high
            every = high - low == 1 and math.comb(num, high) <= num_draws
            if every:
                sets = _all_sets(num, high, most)
            else:
                own = rng.Draws(keys.keys[example]).fold_in(torch.tensor(h)).fold_in(torch.arange(num_draws))
                sets = _random_sets(own, low + 1, high, num, most)
            of, run, all_sets = (torch.full((len(sets),), value) for value in (example, len(parts), every))
            parts.append((of, sets, (high - low) / sets.sum(1).double() / len(sets), run, all_sets))
    of, hidden, weight, run, complete = map(torch.cat, zip(*parts, strict=True))
    return _Drawn(example=of, hidden=hidden, weight=weight, run=run, complete=complete)


def _all_sets(num: int, size: int, width: int) -> Bool[Tensor, "q p"]:
    """Every set of `size` of the first `num` places."""
    chosen = torch.tensor(list(combinations(range(num), size)))
    return torch.zeros(len(chosen), width, dtype=torch.bool).scatter(1, chosen, True)


def _random_sets(draws: rng.Draws, low: int, high: int, num: int, width: int) -> Bool[Tensor, "q p"]:
    """A uniform set of a uniform number (low to high) of the first `num` places, for each key."""
    size = low + draws.fold("count").integers(high - low + 1)
    place = torch.arange(width)
    chance = rng.Draws(draws.keys[:, None]).fold("place").fold_in(place).uniform()
    order = torch.where(place < num, chance, torch.inf).argsort(dim=1, stable=True)
    rank: Tensor = order.argsort(dim=1, stable=True)
    return rank < size[:, None]


def _standard_errors(values: Float[Tensor, " q"], drawn: _Drawn, num_examples: int) -> Float[np.ndarray, " b"]:
    """Standard errors from the spread of the draws within each range of counts; a range with all its sets has no error."""
    num_runs = int(drawn.run.max()) + 1
    num, first, second = (torch.zeros(num_runs, dtype=torch.float64) for _ in range(3))
    num.index_add_(0, drawn.run, torch.ones_like(values))
    first.index_add_(0, drawn.run, values)
    second.index_add_(0, drawn.run, values.square())
    # values are v/m for m draws, and var(mean v) = var(v)/m = m var(v/m)
    variance = num * (second - first.square() / num).clamp(min=0) / (num - 1).clamp(min=1)
    incomplete = ~torch.zeros(num_runs, dtype=torch.bool).scatter(0, drawn.run, drawn.complete)
    example = torch.zeros(num_runs, dtype=torch.int64).scatter(0, drawn.run, drawn.example)
    total = torch.zeros(num_examples, dtype=torch.float64)
    return np.asarray(total.index_add(0, example[incomplete], variance[incomplete]).sqrt().numpy())


def pseudo_log_likelihood(
    denoising: Denoising, batches: TrackBatch | Iterable[TrackBatch], task: str | Task, *, tokens_per_call: int = 16_384
) -> ExampleBounds:
    """Return minus the pseudo-log-likelihood of each example: -sum_i log p(x_i | all other tokens), one token hidden at a time, in nats.

    It is neither a likelihood nor a bound on one (its exponentials do not sum to one over sequences), but is widely used to compare sequences.

    Args:
        denoising: the model in evaluation mode; absorbing noise only.
        batches: one batch or many, on the host.
        task: as in `likelihood.bound`.
        tokens_per_call: as in `ask`; an example takes one question for each of its tokens.

    Raises:
        ConfigError: for uniform noise, or an unknown task.
        ValueError: as `likelihood.bound`.

    Source: Besag 1975; Salazar et al. 2020, Masked Language Model Scoring.
    """
    parts = []
    for batch, name, noised in _of_one_group(denoising.denoiser, batches, task):
        counts = num_places(batch, noised)
        rows = torch.repeat_interleave(counts)
        hidden = torch.cat([torch.eye(int(counts.max()), dtype=torch.bool)[:n] for n in counts.tolist()])
        nats = {track: np.zeros(batch.num_examples) for track in noised}
        for answer in ask(denoising, batch, noised, rows.tolist(), hidden, tokens_per_call=tokens_per_call):
            np.add.at(nats[answer.track], rows[answer.question].numpy(), -answer.of_token().double().numpy())
        parts.append(ExampleBounds.of_batch(name, batch, nats))
    return ExampleBounds.joined(parts)


@torch.no_grad()
def chain_rule_nll(denoising: Denoising, batches: TrackBatch | Iterable[TrackBatch], task: str | Task, *, seed: int = 0) -> ExampleBounds:
    """Return the exact negative log-likelihood of each example under one random order of its tokens, in nats.

    -log p(x) = -sum_j log p(x_{o_j} | x_{o_1} .. x_{o_{j-1}}): one token is revealed in each network call, so this is for short
    sequences: the number of calls is the number of tokens of the longest example in a batch. The order depends on (seed, example id). Its mean over orders is the
    bound of an absorbing process whose denoiser does not depend on t; a single order may be above or below it.

    Args:
        denoising: the model in evaluation mode; absorbing noise only.
        batches: one batch or many, on the host.
        task: as in `bound`.
        seed: seed of the orders.

    Raises:
        ConfigError: for uniform noise, or an unknown task.
        ValueError: as `bound`.

    Source: Uria, Murray and Larochelle 2014; Ou et al. 2024 (RADD), for the two views of one likelihood.
    """
    parts = []
    for batch, mixture in of_task(denoising.denoiser, batches, task):
        spec = mixture.tasks[mixture.names[0]]
        for name in spec.noised_tracks:
            if not isinstance(denoising.diffusion.parameterizations[name].process, Absorbing):
                raise ConfigError(f"chain rule: track '{name}' has uniform noise, expected absorbing noise; use the bound instead")
        nats = _revealed_one_by_one(denoising, batch, spec, seed)
        parts.append(ExampleBounds.of_batch(mixture.names[0], batch, nats))
    return ExampleBounds.joined(parts)


def _revealed_one_by_one(denoising: Denoising, batch: TrackBatch, task: Task, seed: int) -> dict[str, Float[np.ndarray, " b"]]:
    diffusion, device = denoising.diffusion, torch.device(denoising.device)
    draws = rng.Draws.root(seed, "chain rule").fold_in(batch.example_ids)
    kept = {name: track.keep([name in task.tracks] * batch.num_examples) for name, track in batch.tracks.items()}
    batch, ranks = replace(batch, tracks=kept), _ranks(batch, task.noised_tracks, draws)
    totals = torch.zeros(batch.num_examples)
    for name in task.noised_tracks:
        totals += torch.bincount(batch.tracks[name].layout.segment[ranks[name] >= 0], minlength=batch.num_examples)
    batch = batch.to(device)
    ceiling = diffusion.schedule.alpha(torch.zeros(1))
    nats = {name: np.zeros(batch.num_examples) for name in task.noised_tracks}
    for index in range(int(totals.max())):
        # The mean of alpha given that m of n tokens are masked, for alpha uniform on (0, 1): (n - m + 1) / (n + 2), where n - m = index.
        alpha = torch.minimum((index + 1) / (totals + 2), ceiling).to(device)
        sigma = {n: total_noise(alpha if n in ranks else torch.ones_like(alpha)) for n in batch.tracks}
        at = {n: (ranks[n] == index).nonzero().squeeze(1).to(device) for n in ranks}
        none = torch.zeros(0, dtype=torch.int64, device=device)
        masks = {n: diffusion.parameterizations[n].process.mask_id for n in ranks}
        hidden = {n: torch.where((rank >= index).to(device), masks[n], batch.tracks[n].tokens) for n, rank in ranks.items()}
        logits = denoising.denoiser(batch.with_tokens(**hidden), sigma, at={n: at.get(n, none) for n in batch.tracks})
        for name, position in at.items():
            segment = batch.tracks[name].layout.segment[position]
            param, xt = diffusion.parameterizations[name], hidden[name][position]
            log_probs = param.x0_log_probs(logits[name], xt, alpha[segment])
            own = log_probs.gather(1, batch.tracks[name].tokens[position][:, None])[:, 0]
            nats[name] -= add_up(segment, own, batch.num_examples)
    return nats


def _ranks(batch: TrackBatch, noised: Sequence[str], draws: rng.Draws) -> dict[str, Int[Tensor, " n"]]:
    """The rank of each modelled token in its example's random order over all noised tracks; -1 for tokens that are not modelled."""
    tracks = [batch.tracks[name] for name in noised]
    maskable = torch.cat([track.maskable for track in tracks])
    segment = torch.cat([track.layout.segment for track in tracks])
    chance = torch.cat([draws[t.layout.segment].fold(n).fold_in(t.layout.position).uniform() for n, t in zip(noised, tracks, strict=True)])
    rank = torch.where(maskable, rank_within(segment, torch.where(maskable, chance, torch.inf)), -1)
    return dict(zip(noised, rank.split([t.layout.num_tokens for t in tracks]), strict=True))
