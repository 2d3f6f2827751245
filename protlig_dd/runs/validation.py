"""Validation during training: the bound of held-out examples with fixed noise, its interval, and the unigram null beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from protlig_dd.data.bundle import DataBundle
from protlig_dd.data.loader import Loader
from protlig_dd.data.table import spread
from protlig_dd.device import DeviceChoice
from protlig_dd.diffusion.objective import DiffusionObjective
from protlig_dd.diffusion.times import StratifiedTimes
from protlig_dd.evaluation.likelihood import Unigrams, per_token
from protlig_dd.objective import LossTerms, Objective
from protlig_dd.runs.experiment import Parts
from protlig_dd.runs.families.models import likelihood_objective, likelihood_track
from protlig_dd.tokens.tracks import TrackBatch

NUM_COUNTED = 1_000_000  # training examples counted for the unigram null, evenly spread over larger data

Sums = dict[str, tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]]
"""For each track the nats and the tokens of each example."""


@dataclass(frozen=True, eq=False)
class Validator:
    """Returns the validation metrics of a model; a function from the model to numbers by name, as the trainer expects.

    Args:
        parts: the parts of the experiment.
        bundle: its data; at most `evaluation.num_examples` validation examples are used.
        choice: the device.
    """

    parts: Parts
    bundle: DataBundle
    choice: DeviceChoice

    @cached_property
    def objective(self) -> Objective:
        """The bound, or the likelihood itself."""
        return validation_objective(self.parts, self.choice, "validation")

    @cached_property
    def batches(self) -> list[TrackBatch]:
        """The examples, always in the same order."""
        rows = min(len(self.bundle.validation), self.parts.config.evaluation.num_examples)
        table = self.bundle.validation.select(list(range(rows)))
        loader = Loader(table, self.parts.tracks, batch_size=min(64, rows), seed=self.parts.config.seed, shuffle=False, conditions=None)
        return [batch for step in range(loader.steps_per_epoch) for batch in loader.micro_batches(step)]

    @cached_property
    def null(self) -> dict[str, float]:
        """The unigram null in nats per token: `unigram_null`, and `unigram_null/<track>` where there are several tracks.

        Tokens are drawn independently from the composition of the training data; the tokens counted are those that a model is scored on.
        """
        unigrams = Unigrams.of(spread(self.bundle.train, NUM_COUNTED), self.parts.tracks)
        ends = self._ends()
        parts: list[Sums] = []
        for batch in self.batches:
            prepared, sums = self.objective.prepare(batch, 0), {}
            for name, track in batch.tracks.items():
                counts = torch.bincount(track.layout.segment[track.maskable], minlength=batch.num_examples).numpy().astype(np.float64)
                used = self._used(name, batch, prepared)
                nats = unigrams.nats(name, track.tokens[track.maskable].numpy(), counts.astype(np.int64))
                if used.any():
                    sums[name] = (
                        (nats - counts * math.log1p(-ends) - (math.log(ends) if ends else 0.0)) * used,
                        (counts + bool(ends)) * used,
                    )
            parts.append(sums)
        return {f"unigram_null{end}": float(a.sum() / b.sum()) for end, (a, b) in _by_track(parts).items()}

    def _used(self, name: str, batch: TrackBatch, prepared: object) -> Float[np.ndarray, " b"]:
        """1 for the examples whose tokens of a track are scored, else 0."""
        learned = likelihood_track(self.parts.config.model)
        if learned is not None:
            return np.full(batch.num_examples, float(name == learned))
        tasks = self.parts.tasks.tasks
        return np.array([float(name in tasks[task].noised_tracks) for task in prepared.tasks])  # type: ignore[attr-defined]

    def _ends(self) -> float:
        """The share of ends among the tokens that a model is trained on by its likelihood; 0 for a denoiser, which learns no ends."""
        learned = likelihood_track(self.parts.config.model)
        if learned is None:
            return 0.0
        lengths = self.bundle.train.tracks[learned].lengths
        return len(lengths) / float(lengths.sum() + len(lengths))

    def told(self) -> str:
        """Return the unigram null in words, for the start of a training."""
        nulls = [f"{name.partition('/')[2] or 'unigram null'} {value:.4f}" for name, value in self.null.items()]
        rest = f" ({', '.join(nulls[1:])})" if nulls[1:] else ""
        num = sum(batch.num_examples for batch in self.batches)
        return f"{nulls[0]} nats per token on the {num} validation examples{rest}: what guessing by frequency costs"

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return `nll` with `nll_low` and `nll_high` (95 %), `perplexity`, the null, and `nll/<task>/<track>`."""
        return self.metrics(self.terms(model))

    def terms(self, model: nn.Module) -> list[LossTerms]:
        """Return the terms of each batch, with the same noise for every model."""
        return [self.objective.loss(model, self.objective.prepare(batch, 0)) for batch in self.batches]

    def metrics(self, terms: list[LossTerms]) -> dict[str, float]:
        """Return the metrics that terms add up to."""
        metrics: dict[str, float] = {}
        for end, (nats, tokens) in _by_track([_examples(one) for one in terms]).items():
            estimate, _ = per_token(nats, tokens)
            metrics |= {f"nll{end}": estimate.value, f"nll_low{end}": estimate.low, f"nll_high{end}": estimate.high}
        metrics |= {"perplexity": math.exp(min(metrics["nll"], 700.0)), "num_examples": float(sum(b.num_examples for b in self.batches))}
        metrics |= self.null
        for name in sorted({name for one in terms for name in one.sums}):
            total = sum(float(one.sums[name]) for one in terms if name in one.sums)
            metrics[name] = total / max(sum(one.counts[name] for one in terms if name in one.counts), 1.0)
        return metrics


def by_example(terms: list[LossTerms]) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Return the nats and the tokens of each example, of all tracks together."""
    return _by_track([_examples(one) for one in terms])[""]


def _examples(terms: LossTerms) -> Sums:
    return {name: (nats.cpu().double().numpy(), tokens.cpu().double().numpy()) for name, (nats, tokens) in terms.examples.items()}


def _by_track(parts: list[Sums]) -> Sums:
    """Nats and tokens of each example over all tracks (""), and where there are several, of each track ("/<track>")."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    whole = {name: [np.concatenate([part[name][i] for part in parts if name in part]) for i in (0, 1)] for name in names}
    both = [np.concatenate([sum(column[i] for column in part.values()) for part in parts if part]) for i in (0, 1)]  # type: ignore[misc]
    found: Sums = {"": (both[0], both[1])}
    if len(names) > 1:
        found |= {f"/{name}": (a[b > 0], b[b > 0]) for name, (a, b) in whole.items()}
    return found


def validation_objective(parts: Parts, choice: DeviceChoice, purpose: str) -> Objective:
    """Return the objective whose value is the likelihood bound: elbo weights, uniform times, no curriculum, no dropped conditions."""
    own = likelihood_objective(parts.config.model, parts.tracks, choice)
    if own is not None:
        return own
    bound = {name: replace(p, weighting="elbo") for name, p in parts.diffusion.parameterizations.items()}  # type: ignore[type-var]
    return DiffusionObjective(
        diffusion=replace(parts.diffusion, parameterizations=bound),
        tasks=parts.tasks,
        times=StratifiedTimes(),
        seed=parts.config.seed,
        purpose=purpose,
        device=choice.device,
        condition_dropout=0.0,
    )
