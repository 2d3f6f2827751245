"""The diffusion training loss: draw task and times, add noise, call the denoiser, weight; sums over tokens, reduced by the caller.

`prepare` does everything before the network, on the host; `loss` is the network and a sum. A token's noise depends on (seed, step, global
example index, track, position), never on the rank or the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.diffusion.denoiser import Denoiser, Diffusion, total_noise
from protlig_dd.diffusion.parameterizations import Parameterization, Subs, Weighting
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import NoiseSchedule, SigmaCurriculum
from protlig_dd.diffusion.times import StratifiedTimes, TaskMixture, Times, TimeSampler
from protlig_dd.diffusion.variants import Variant, corrupt, mix_up, twice
from protlig_dd.objective import LossTerms
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import TrackBatch, TrackTokens


@dataclass(frozen=True, kw_only=True)
class NoisedTrack:
    """The inputs of the loss for one noised track; [a] are the tokens whose loss may be non-zero ("active").

    Three counts by task: `num_tokens`, the denominator of the loss; active tokens; and all tokens that could be noised.
    """

    clean: Int[Tensor, " a"]
    noised: Int[Tensor, " a"]
    active: Int[Tensor, " a"]
    alpha: Float[Tensor, " a"]
    alpha_prime: Float[Tensor, " a"]
    weight: Float[Tensor, " a"]
    group: Int[Tensor, " a"]
    num_tokens: Mapping[str, int]
    num_active: Mapping[str, int]
    num_noisable: Mapping[str, int]

    def to(self, device: torch.device) -> NoisedTrack:
        """Return a copy on a device."""
        tensors = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        moved: dict[str, Any] = {k: v.to(device, non_blocking=True) for k, v in tensors.items()}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A noised batch: the denoiser's input and its targets.

    Args:
        batch: the noised tokens; tracks that are not in an example's task are emptied.
        sigma: for each track the total noise of each example [b]; 0 where the track is clean.
        tracks: the noised tracks.
        tasks: the task of each example.
        num_tokens: maskable tokens of noised tracks, the denominator of the loss.
    """

    batch: TrackBatch
    sigma: Mapping[str, Float[Tensor, " b"]]
    tracks: Mapping[str, NoisedTrack]
    tasks: tuple[str, ...]
    num_tokens: int

    def to(self, device: torch.device) -> Prepared:
        """Return a copy on a device."""
        return replace(
            self,
            batch=self.batch.to(device),
            sigma={k: v.to(device, non_blocking=True) for k, v in self.sigma.items()},
            tracks={k: v.to(device) for k, v in self.tracks.items()},
        )

    def describe(self) -> str:
        """Return the names of tasks and tracks, for messages about a failed step."""
        return f"tasks {', '.join(sorted(set(self.tasks)))}; tracks {', '.join(self.tracks)}"


class DiffusionObjective:
    """The diffusion loss over tracks.

    Args:
        diffusion: the meaning of each track's logits, and alpha(t), shared by all tracks.
        tasks: the mixture of tasks.
        times: the time sampler; stratified by default.
        curriculum: scales sigma during the first steps, or None.
        seed: seed of all random draws.
        purpose: a name folded into the draws ("train", "validation"), so that two uses never share noise.
        device: the device of prepared batches.
        condition_dropout: probability of hiding an example's condition, for classifier-free guidance.
        variant: departures from the plain loss, as in the training of DPLM and ESM; none by default.
    """

    def __init__(
        self,
        *,
        diffusion: Diffusion,
        tasks: TaskMixture,
        times: TimeSampler | None = None,
        curriculum: SigmaCurriculum | None = None,
        seed: int = 0,
        purpose: str = "train",
        device: torch.device | str = "cpu",
        condition_dropout: float = 0.1,
        variant: Variant | None = None,
    ) -> None:
        self.diffusion, self.tasks, self.variant = diffusion, tasks, variant or Variant()
        self.times, self.curriculum = times or StratifiedTimes(), curriculum
        self.seed, self.purpose, self.condition_dropout = seed, purpose, condition_dropout
        self.device = torch.device(device)

    def prepare(self, batch: TrackBatch, step: int) -> Prepared:
        """Draw tasks, times and noise for a batch on the host, and move the result to the device.

        Raises:
            ValueError: if an example fits no task.
        """
        shared = Draws.root(self.seed, self.purpose, step)
        if self.variant.coupled:
            batch = twice(batch)
        draws = shared.fold("example").fold_in(batch.example_ids)
        present = {name: [n > 0 for n in track.layout.lengths] for name, track in batch.tracks.items()}
        tasks = self.tasks.draw(draws.fold("task"), present)
        task_of = torch.tensor([self.tasks.names.index(task) for task in tasks], dtype=torch.int64)
        used = {name: [name in self.tasks.tasks[task].tracks for task in tasks] for name in batch.tracks}
        apart = tuple(self.tasks.tasks[task].apart for task in tasks)
        batch = replace(
            batch, tracks={name: track.keep(used[name]) for name, track in batch.tracks.items()}, apart=apart if any(apart) else None
        )
        times = self._times(batch, tasks, draws, shared, step)
        schedule = self.curriculum.at(step, self.diffusion.schedule) if self.curriculum else self.diffusion.schedule
        noisy, sigma, tracks = {}, {}, {}
        for name, track in batch.tracks.items():
            alpha, alpha_prime = _levels(schedule, times[name])
            sigma[name] = total_noise(alpha)
            segment = track.layout.segment
            keys = draws[segment].fold(name).fold_in(track.layout.position)
            candidate = track.maskable & (times[name].t > 0)[segment]
            noisy[name], is_active, seen = self._noise(name, track, candidate, alpha[segment], keys)
            active = is_active.nonzero().squeeze(1)
            at = segment[active]
            counted = is_active if self.variant.count == "masked" else candidate
            tracks[name] = NoisedTrack(
                clean=track.tokens[active],
                noised=seen[active],
                active=active,
                alpha=alpha[at],
                alpha_prime=alpha_prime[at],
                weight=times[name].weight[at],
                group=task_of[at],
                num_tokens=self._by_task(task_of[segment[counted]]),
                num_active=self._by_task(task_of[at]),
                num_noisable=self._by_task(task_of[segment[candidate]]),
            )
        prepared = Prepared(
            batch=self._hide_conditions(batch.with_tokens(**noisy), draws),
            sigma=sigma,
            tracks=tracks,
            tasks=tuple(tasks),
            num_tokens=sum(sum(t.num_tokens.values()) for t in tracks.values()),
        )
        return prepared if self.device.type == "cpu" else prepared.to(self.device)

    def _by_task(self, tasks: Int[Tensor, " a"]) -> dict[str, int]:
        """The number of some tokens of each task."""
        counts = torch.bincount(tasks, minlength=len(self.tasks.names)).tolist()
        return {task: n for task, n in zip(self.tasks.names, counts, strict=True) if n}

    def _noise(self, name: str, track: TrackTokens, candidate: Tensor, alpha: Tensor, keys: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noisy tokens, which of them are in the loss, and the tokens that the loss uses as the noisy ones."""
        param = self.diffusion.parameterizations[name]
        if self.variant.masked_language is not None:
            assert isinstance(param.process, Absorbing)
            noisy, chosen = corrupt(track.tokens, candidate, keys, param.process, self.variant.masked_language)
            return noisy, chosen, torch.full_like(noisy, param.process.mask_id)
        noisy = torch.where(candidate, param.process.sample_xt(track.tokens, alpha, keys), track.tokens)
        if self.variant.self_mixup:
            assert isinstance(param.process, Absorbing)
            return noisy, track.maskable, torch.full_like(noisy, param.process.mask_id)
        return noisy, candidate & param.informative(noisy), noisy

    def _times(self, batch: TrackBatch, tasks: list[str], draws: Draws, shared: Draws, step: int) -> dict[str, Times]:
        """Return t and weight for each track; tracks of one group share them, clean and absent tracks get t = 0."""
        num_groups = max(len(task.noised) for task in self.tasks.tasks.values())
        copies = ((), ("second",)) if self.variant.coupled else ((),)
        one = torch.arange(batch.num_examples // len(copies))

        def draw(*name: str | int) -> Times:
            own, common = draws[one].fold("time", *name), shared.fold("time", *name)
            return self.times.draw(own, common, batch.slots[one], batch.global_size, step)

        drawn = [[draw(group, *copy) for copy in copies] for group in range(num_groups)]
        all_t = torch.stack([torch.cat([d.t for d in group]) for group in drawn])
        all_weights = torch.stack([torch.cat([d.weight for d in group]) for group in drawn])
        if self.variant.num_times:
            all_t = (all_t.double() * self.variant.num_times).ceil().clamp(min=1).float() / self.variant.num_times
        examples = torch.arange(len(tasks))
        times = {}
        for name in batch.tracks:
            # the group that each task noises the track with, -1 where it is not noised
            group_of = {n: next((i for i, own in enumerate(task.noised) if name in own), -1) for n, task in self.tasks.tasks.items()}
            group = torch.tensor([group_of[task] for task in tasks], dtype=torch.int64)
            t, weight = all_t[group, examples], all_weights[group, examples]
            times[name] = Times(torch.where(group >= 0, t, 0.0), torch.where(group >= 0, weight, 1.0))
        return times

    def _hide_conditions(self, batch: TrackBatch, draws: Draws) -> TrackBatch:
        if not batch.conditions:
            return batch
        hidden = draws.fold("condition").uniform() < self.condition_dropout
        return replace(batch, conditions={k: torch.where(hidden, -1, v) for k, v in batch.conditions.items()})

    def loss(self, model: Denoiser, prepared: Prepared) -> LossTerms:
        """Return the summed loss of a prepared batch, and sums by `loss/<task>/<track>`, `nll/...` and `cross_entropy/...`.

        `nll` is the bound in nats per token, masked or not, independent of the loss's weighting and denominator; a curriculum without
        importance weights biases it.
        `cross_entropy` is the unweighted mean over the active tokens; its exponential is a perplexity.
        """
        if self.variant.self_mixup:
            prepared = replace(prepared, batch=mix_up(model, prepared.batch, prepared.sigma, self.diffusion))
        at = {name: track.active for name, track in prepared.tracks.items()}
        logits = model(prepared.batch, prepared.sigma, at=at)
        total = torch.zeros((), device=prepared.batch.device)
        sums: dict[str, Tensor] = {}
        counts: dict[str, float] = {}
        examples: dict[str, tuple[Tensor, Tensor]] = {}
        for name, track in prepared.tracks.items():
            param = self.diffusion.parameterizations[name]
            per_token = param.loss(logits[name], track.clean, track.noised, track.alpha, track.alpha_prime)
            per_token = per_token * track.weight
            total = total + per_token.sum()
            shown = self._shown(param, logits[name], track, per_token.detach())
            if not torch.is_grad_enabled() and "nll" in shown:
                examples[name] = _by_example(shown["nll"], track, prepared.batch.tracks[name], prepared.sigma[name])
            for label, values in shown.items():
                zeros = torch.zeros(len(self.tasks.names), device=total.device)
                by_task = zeros.index_add_(0, track.group, values.float())
                counted = {"nll": track.num_noisable, "cross_entropy": track.num_active}.get(label, track.num_tokens)
                for task, count in counted.items():
                    sums[f"{label}/{task}/{name}"] = by_task[self.tasks.names.index(task)]
                    counts[f"{label}/{task}/{name}"] = float(count)
        return LossTerms(total=total, sums=sums, counts=counts, examples=examples)

    def _shown(self, param: Parameterization, logits: Tensor, track: NoisedTrack, per_token: Tensor) -> dict[str, Tensor]:
        """Per-token values for the log."""
        if param.weighting == "elbo":
            return {"nll": per_token}
        shown = {"loss": per_token}
        if not self.variant.self_mixup and self.variant.masked_language is None:
            shown["nll"] = _reweighed(param, logits, track, "elbo")
        if isinstance(param, Subs):
            shown["cross_entropy"] = _reweighed(param, logits, track, "constant")
        return shown


def _by_example(nats: Tensor, noised: NoisedTrack, track: TrackTokens, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The nats of each example, and its number of tokens that could be noised."""
    segment, zeros = track.layout.segment, nats.new_zeros(track.layout.num_examples)
    counted = track.maskable & (sigma > 0)[segment]
    return zeros.index_add(0, segment[noised.active], nats), zeros.index_add(0, segment, counted.to(nats.dtype))


def _levels(schedule: NoiseSchedule, times: Times) -> tuple[Tensor, Tensor]:
    """alpha and alpha' of each example; t = 0 means clean, so alpha is exactly 1 there for every schedule.

    Computed in float64, since float32 powers and exponentials may differ in the last bit with the position in the batch. Noised examples
    have an alpha below 1, so that weights and ratios are finite.
    """
    t = times.t.double()
    alpha = torch.where(t > 0, schedule.alpha(t).float().clamp(max=1 - 2.0**-24), 1.0)
    return alpha, schedule.alpha_prime(t).float()


def _reweighed(param: Parameterization, logits: Tensor, track: NoisedTrack, weighting: Weighting) -> Tensor:
    with torch.no_grad():
        other = replace(param, weighting=weighting)  # type: ignore[type-var]
        per_token = other.loss(logits, track.clean, track.noised, track.alpha, track.alpha_prime)
        return per_token * track.weight if weighting == "elbo" else per_token
