"""Short trainings that compare learning rates and batch sizes: each starts from the same weights and ends its own schedule.

Why not one run whose learning rate grows: its loss at a rate depends on all smaller rates before it, so the steepest point says where a loss
falls fastest, not where a training ends best. `evaluation/sweep.py` reads the result; nothing is written here.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from protlig_dd.data.bundle import load
from protlig_dd.data.loader import Loader
from protlig_dd.device import choose_device, seed_library_draws
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.sweep import Sweep, Trial
from protlig_dd.objective import Objective
from protlig_dd.rng import key
from protlig_dd.runs.experiment import Experiment, Parts
from protlig_dd.runs.train import starting_model, training_loader
from protlig_dd.runs.validation import Validator, by_example
from protlig_dd.training.distributed import launched
from protlig_dd.training.guard import FiniteGuard, NonFiniteLossError
from protlig_dd.training.optim import OptimSettings, lr_at, make_optimizer
from protlig_dd.training.strategies import Single
from protlig_dd.training.update import seconds_per_update, update

log = logging.getLogger(__name__)
_LONGER = 4  # the runs of the second round have this many times the tokens of the first
_ONE_IN = 4  # this share of the candidates comes into the second round
_LEAST_STEPS = 10  # of the largest batch in the first round; fewer say nothing about a learning rate
_TIMED_STEPS = 3  # steps of each batch size that are timed

Validated = tuple[dict[str, float], Float[np.ndarray, " b"], Float[np.ndarray, " b"]]
"""Metrics, and the nats and tokens of each example."""
_NOTHING: Validated = ({}, np.zeros(0), np.zeros(0))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The candidates, and how long they are trained.

    Attributes:
        lrs: learning rates; empty for five around the config's, from a tenth to ten times.
        batches: batch sizes in the config's own unit; empty for the config's, a half and a quarter of it.
        minutes: duration of all trainings and validations together, about.
        steps: instead: steps of the largest batch in the longest trainings; 0 if the duration is given.
    """

    lrs: tuple[float, ...] = ()
    batches: tuple[int, ...] = ()
    minutes: float = 3.0
    steps: int = 0

    def __post_init__(self) -> None:
        for lr in self.lrs:
            if not 0 < lr < math.inf:
                raise ConfigError(f"--lrs: found {lr:g}, expected positive numbers such as 1e-4,1e-3")
        for batch in self.batches:
            if batch < 1:
                raise ConfigError(f"--batches: found {batch}, expected 1 or more")
        if not 0 < self.minutes < math.inf:
            raise ConfigError(f"--minutes: found {self.minutes:g}, expected a positive number")
        if self.steps < 0:
            raise ConfigError(f"--steps: found {self.steps}, expected 1 or more, or 0 to give the duration with --minutes")


@dataclass(frozen=True)
class Batch:
    """A batch size: its number in the config's unit, its loader, and the mean number of tokens of a step."""

    size: int
    loader: Loader
    tokens_per_step: float

    def steps(self, tokens: float) -> int:
        """Return the number of steps in which about so many tokens are seen."""
        return max(1, round(tokens / self.tokens_per_step))


class LrFinder:
    """The sweep of an experiment of a token model: data, model and validation are loaded once.

    Args:
        config: the experiment. Everything but the learning rate, the batch size, the length, the moving average (none) and the number of
            processes (one) is as it is trained.
        grid: the candidates and the budget.
        device: "auto", "cpu", "cuda", "mps" or "xpu".

    Raises:
        ConfigError: for data without a validation part, a batch size that the loader refuses, or a duration that is too short.
    """

    def __init__(self, config: Experiment, grid: Grid, *, device: str = "auto") -> None:
        if launched().world > 1:
            raise ConfigError(f"found WORLD_SIZE={launched().world}: lr-find trains in one process; start it without torchrun")
        self.config, self.grid = config, grid
        self.choice = choose_device(device, precision=config.train.precision)
        self.parts = Parts(config)
        self.bundle = load(config.data, self.parts.tracks, config.seed)
        if not len(self.bundle.validation):
            raise ConfigError(
                "data: has no validation part, on which candidates are compared; set data.split.validation_fraction or data.validation_path"
            )
        self.batches = self._batches()
        self.lrs = tuple(sorted(set(grid.lrs))) or _around(config.train.optim.lr)
        self.validate = Validator(self.parts, self.bundle, self.choice)
        self.model = starting_model(self.parts, config.train, self.choice, Single(self.choice))
        self._trained = [p.detach() for p in self.model.parameters() if p.requires_grad]
        self._start = [p.clone() for p in self._trained]
        self.longer = _LONGER if self.num_kept else 1
        self.untrained = self._validated()[0]
        if not self.untrained:
            raise ConfigError("the validation value of the weights before training is not finite; see train.init_from and train.precision")
        self.tokens = self._first_tokens()

    @property
    def unit(self) -> Literal["tokens", "examples"]:
        """What the config's batch size counts."""
        return "tokens" if isinstance(self.config.train.tokens_per_batch, int) else "examples"

    @property
    def own_size(self) -> int:
        """The config's batch size."""
        size = self.config.train.tokens_per_batch if self.unit == "tokens" else self.config.train.batch_size
        if size is None or size == "auto":
            raise ConfigError(f"train: found batch_size={size} without tokens_per_batch; set exactly one of them")
        return int(size)

    @property
    def num_candidates(self) -> int:
        """The number of points of the grid."""
        return len(self.lrs) * len(self.batches)

    @property
    def num_kept(self) -> int:
        """The number of candidates of the second round; 0 where there is nothing to leave out."""
        kept = max(2, len(self.batches), math.ceil(self.num_candidates / _ONE_IN))
        return kept if kept < self.num_candidates else 0

    def _loader(self, size: int) -> Loader:
        """Return the training batches of a size, with micro-batches no larger than the config's on one of its processes."""
        changes = {"tokens_per_batch": size} if self.unit == "tokens" else {"batch_size": size}
        train = replace(self.config.train, **changes, accumulation=self.accumulation(size))  # type: ignore[arg-type]
        return training_loader(replace(self.config, train=train), self.parts, self.bundle)

    def accumulation(self, size: int) -> int:
        """Return the number of micro-batches of a batch size, of which the config's process would hold one."""
        own = self.config.train.accumulation * max(self.config.train.devices, 1)
        return max(1, math.ceil(own * size / self.own_size))

    def _batches(self) -> list[Batch]:
        """Return the batch sizes, ascending. Of those nobody asked for, the ones that the loader refuses are left out."""
        made, total = [], sum(self.bundle.train.tracks[name].num_tokens for name in self.parts.tracks)
        for size in dict.fromkeys(self.grid.batches or (self.own_size, self.own_size // 2, self.own_size // 4)):
            try:
                loader = self._loader(size)
            except ConfigError as error:
                if self.grid.batches or size == self.own_size:
                    raise
                log.info("batch %d is left out: %s", size, error)
                continue
            steps = loader.steps_per_epoch if self.unit == "tokens" else len(self.bundle.train) / size
            made.append(Batch(size, loader, total / steps))
        return sorted(made, key=lambda batch: batch.size)

    def _first_tokens(self) -> float:
        """Return the tokens of a training of the first round: those of whole steps of the largest batch."""
        largest = max(self.batches, key=lambda batch: batch.tokens_per_step)
        if self.grid.steps:
            return max(1, self.grid.steps // self.longer) * largest.tokens_per_step
        pace = [self._seconds_per_token(batch) for batch in self.batches]
        started = time.perf_counter()
        self._validated()
        validation = (time.perf_counter() - started) * (self.num_candidates + self.num_kept)
        a_token = len(self.lrs) * sum(pace) + self.num_kept * self.longer * max(pace)
        steps = int((self.grid.minutes * 60 - validation) / a_token / largest.tokens_per_step)
        if steps < _LEAST_STEPS:
            needed = (a_token * _LEAST_STEPS * largest.tokens_per_step + validation) / 60
            raise ConfigError(
                f"--minutes {self.grid.minutes:g}: is too short for {self.num_candidates} candidates on {self.choice.device}: {max(steps, 0)} steps "
                f"of the largest batch each, expected {_LEAST_STEPS} or more; give --minutes {math.ceil(needed)}, fewer --lrs or --batches, "
                "or a smaller evaluation.num_examples"
            )
        return steps * largest.tokens_per_step

    def _seconds_per_token(self, batch: Batch) -> float:
        """Return the mean duration of a training token; the weights stay as they are."""
        strategy, objective = self._wrapped(self.config.train.optim, batch), self.parts.objective(self.choice)
        seconds = seconds_per_update(strategy, objective, batch.loader, steps=_TIMED_STEPS, lr=0.0)
        return seconds / batch.tokens_per_step

    def _wrapped(self, optim: OptimSettings, batch: Batch) -> Single:
        """Return a strategy with the model at its first weights, and a new optimiser."""
        with torch.no_grad():
            torch._foreach_copy_(self._trained, self._start)
        self.model.zero_grad(set_to_none=True)
        strategy = Single(self.choice)
        adamw = partial(make_optimizer, settings=optim)
        strategy.wrap(self.model.train(), adamw, clip_norm=optim.clip_norm, accumulation=batch.loader.accumulation)
        return strategy

    def trials(self) -> Iterator[Trial]:
        """Train and yield the trials: every candidate, then the best of them for longer. The second round starts afresh, since schedules end."""
        last = self.tokens * self.longer
        total = self.num_candidates * self.tokens + self.num_kept * last
        with tqdm(total=round(total), unit="token", unit_scale=True, dynamic_ncols=True, disable=None) as bar:
            first = []
            for batch in self.batches:
                for lr in self.lrs:
                    first.append(self._trial(lr, batch, self.tokens, bar))
                    yield first[-1]
            for kept in self._kept(first):
                (batch,) = (one for one in self.batches if one.size == kept.batch)
                yield self._trial(kept.lr, batch, last, bar, is_last=True)

    def _kept(self, first: Sequence[Trial]) -> list[Trial]:
        """Return the best candidates: the best of each batch size, and the best of the rest."""
        good = sorted((trial for trial in first if not trial.diverged), key=lambda trial: trial.nll)
        leading = [next(trial for trial in good if trial.batch == size) for size in dict.fromkeys(trial.batch for trial in good)]
        rest = [trial for trial in good if trial not in leading]
        return [*leading, *rest][: self.num_kept]

    def _trial(self, lr: float, batch: Batch, tokens: float, bar: Any, *, is_last: bool = False) -> Trial:
        """Train one candidate and validate it."""
        steps, seen, started = 0, 0, time.perf_counter()
        found = _NOTHING
        try:
            for num in self._train(lr, batch, batch.steps(tokens)):
                steps, seen = steps + 1, seen + num
                bar.update(num)
            found = self._validated()
        except NonFiniteLossError:
            bar.update(max(round(tokens) - seen, 0))
        made: dict[str, Any] = {"lr": lr, "batch": batch.size, "is_last": is_last, "steps": steps, "tokens": seen}
        trial = Trial(**made, seconds=time.perf_counter() - started, values=found[0], nats=found[1], counts=found[2])
        words = f"{trial}: " + ("diverged" if trial.diverged else f"nll {trial.nll:.4f}")
        bar.set_postfix_str(words)
        if bar.disable:
            log.info("%s, %d steps, %.0f s", words, trial.steps, trial.seconds)
        return trial

    def _train(self, lr: float, batch: Batch, steps: int) -> Iterator[int]:
        """Train from the first weights; yield the tokens of each update."""
        settings, device = self.config.train.optim, self.choice.device
        optim = replace(settings, lr=lr, ema_decay=0.0, warmup_steps=min(settings.warmup_steps, max(1, steps // 10)))
        strategy, objective = self._wrapped(optim, batch), self._objective(batch, steps)
        guard = FiniteGuard(strategy, lambda step: "a candidate of lr-find")
        with closing(batch.loader.prefetch(0, steps)) as stream:  # type: ignore[type-var]
            for step, micro_batches in enumerate(stream):
                seed_library_draws(device, key(self.config.seed, "dropout", step, 0))
                update(strategy, objective, micro_batches, step=step, lr=lr_at(step + 1, optim, steps), guard=guard)
                yield sum(one.num_tokens for one in micro_batches)
        guard.settle()

    def _objective(self, batch: Batch, steps: int) -> Objective:
        """Return the training objective; a curriculum takes the same share of a short training as of the whole one."""
        curriculum = self.config.diffusion.curriculum
        if curriculum is None:
            return self.parts.objective(self.choice)
        whole = self.training_tokens / batch.tokens_per_step
        shorter = replace(curriculum, steps=max(1, round(curriculum.steps * steps / whole)))
        return Parts(replace(self.config, diffusion=replace(self.config.diffusion, curriculum=shorter))).objective(self.choice)

    @property
    def training_tokens(self) -> float:
        """The tokens of the config's own training."""
        train, one = self.config.train, next((batch for batch in self.batches if batch.size == self.own_size), self.batches[-1])
        return train.tokens or train.steps * one.tokens_per_step * self.own_size / one.size

    def _validated(self) -> Validated:
        """Return the metrics, and the nats and tokens of each example; all empty if the value is not finite."""
        strategy = Single(self.choice)
        self.model.eval()
        with torch.no_grad(), strategy.autocast():
            terms = self.validate.terms(self.model)
            values = {name: float(value) for name, value in self.validate.metrics(terms).items()}
        if not math.isfinite(values["nll"]):
            return _NOTHING
        return values, *by_example(terms)

    def sweep(self, trials: Sequence[Trial]) -> Sweep:
        """Return the sweep of the trials made so far."""
        return Sweep(
            unit=self.unit,
            lrs=self.lrs,
            batches=tuple(batch.size for batch in self.batches),
            untrained=self.untrained,
            first=tuple(trial for trial in trials if not trial.is_last),
            last=tuple(trial for trial in trials if trial.is_last),
            length=self.training_tokens / (self.tokens * self.longer),
        )

    def overrides(self, trial: Trial) -> list[str]:
        """Return the settings that train the config as a trial was: with as many tokens in all as before."""
        train = self.config.train
        words = [f"train.optim.lr={trial.lr:g}", f"train.{'tokens_per_batch' if self.unit == 'tokens' else 'batch_size'}={trial.batch}"]
        if trial.batch != self.own_size and train.steps:
            words.append(f"train.steps={max(1, round(train.steps * self.own_size / trial.batch))}")
        fitting = max(1, math.ceil(train.accumulation * trial.batch / self.own_size))
        return [*words, f"train.accumulation={fitting}"] if fitting != train.accumulation else words


def _around(lr: float) -> tuple[float, ...]:
    """Return five learning rates around a guess, from a tenth to ten times, evenly spaced on a log scale."""
    return tuple(float(f"{lr * 10 ** (power / 2):.2g}") for power in range(-2, 3))
