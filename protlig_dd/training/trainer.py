"""The training loop, one function for every model family.

It gets a model, an objective, a loader and settings, and handles steps, precision, processes, checkpoints, metrics and signals. Batches and
noise are pure functions of the step, so resuming needs only the weights, the optimiser's state and the step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any

import torch
from torch import Tensor, nn

from protlig_dd.device import reset_peak_memory, seed_library_draws
from protlig_dd.errors import ConfigError
from protlig_dd.objective import Loader, Objective, Validate
from protlig_dd.rng import key
from protlig_dd.training.guard import FiniteGuard, StopRequest, Watchdog, catch_signals, describe_batch
from protlig_dd.training.metrics import FlopsPerToken, Meter
from protlig_dd.training.optim import EMA, lr_at, make_optimizer
from protlig_dd.training.out_of_memory import explained
from protlig_dd.training.progress import Progress
from protlig_dd.training.resume import RunState, restore, store
from protlig_dd.training.settings import TrainSettings
from protlig_dd.training.strategies import Single
from protlig_dd.training.tracking import Tracking, start_tracking
from protlig_dd.training.validation import in_words, on_plateau, plateau_advice

log = logging.getLogger(__name__)
Hook = Callable[[int, nn.Module, Tracking], None]
_PLATEAU_AFTER = 0.1  # share of the run after which a model should know more than frequencies
_PROBED_STEPS = 16  # steps that are measured to convert a budget of tokens into steps


@dataclass(frozen=True, kw_only=True)
class Every:
    """Calls `hook(step, model, tracking)` after every `steps` steps, with averaged weights, in evaluation mode, on all processes."""

    steps: int
    hook: Hook


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """The end of a run: steps done, the signal that stopped it (0: none), the last validation, the best value, the last checkpoint."""

    steps: int
    total_steps: int
    stopped_by: int
    validation: Mapping[str, float]
    best: float | None
    checkpoint: Path | None

    @property
    def exit_code(self) -> int:
        """The exit code of the process: 0, or 128 + the signal that stopped it."""
        return 128 + self.stopped_by if self.stopped_by else 0


def fit(
    model: nn.Module,
    objective: Objective,
    loader: Loader,
    settings: TrainSettings,
    *,
    strategy: Single,
    run_folder: Path,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    data: Mapping[str, Any] | None = None,
    validate: Validate | None = None,
    hooks: Sequence[Every] = (),
    flops_per_token: FlopsPerToken | None = None,
) -> FitResult:
    """Train a model to the end of its budget, or until a signal, resuming from the last checkpoint in the run's folder.

    Args:
        model: the model, on any device; the strategy moves it.
        objective: see `Objective`.
        loader: built for the strategy's rank and world, and the settings' accumulation.
        settings: see `TrainSettings`.
        strategy: the strategy, from `distributed.start`.
        run_folder: the folder of checkpoints/, metrics.jsonl, tensorboard/ and heartbeats/.
        seed: seed of dropout.
        config: the whole configuration, stored in each checkpoint.
        fingerprints: fingerprints of the vocabularies by track; a checkpoint with other ones is refused.
        data: the number and the fingerprint of the examples of each part, stored in each checkpoint; rank 0's are used.
        validate: returns unbiased metrics of the model with averaged weights; called on all processes, rank 0's result is used.
        hooks: functions called at intervals.
        flops_per_token: training FLOPs per token of a batch, for speed and MFU.

    Raises:
        CheckpointError: if the checkpoint is damaged, belongs to another model, or cannot be written.
        NonFiniteLossError: if the loss is not finite, before the update.
        DeviceError: if memory runs out.
        ConfigError: if `best_metric` is not among the metrics, or there are checkpoints and resume is "never".
    """
    if settings.compile:
        model.compile()
    adamw = partial(make_optimizer, settings=settings.optim)
    strategy.wrap(model, adamw, clip_norm=settings.optim.clip_norm, accumulation=settings.accumulation)
    state = RunState(
        folder=run_folder,
        ema=EMA(strategy.shards(), settings.optim.ema_decay),
        config=dict(config or {}),
        fingerprints=dict(fingerprints or {}),
        data=dict(data or {}),
    )
    first = restore(state, strategy, settings.resume)
    run = _Run(objective, loader, settings, strategy, state, seed, validate, hooks, flops_per_token)
    if strategy.rank == 0:
        log.info("device: %s; %d of %d steps done", strategy.choice.reason, first, run.total_steps)
    with catch_signals() as stop, closing(run.tracking), run.watchdog, run.progress, strategy.peers.mourned(state.root):
        for step, batches in enumerate(loader.prefetch(first, run.total_steps), start=first):
            stopping = run.train_step(step, batches, stop)
            run.report()
            improved = run.check_validation()
            run.call_hooks()
            run.save_if_due(improved or stopping, best=improved)
            if stopping:
                break
    return run.result(stop)


@dataclass(eq=False)
class _Run:
    """The parts of a run, and the work of each step."""

    objective: Objective
    loader: Loader
    settings: TrainSettings
    strategy: Single
    state: RunState
    seed: int
    validate: Validate | None
    hooks: Sequence[Every]
    flops_per_token: FlopsPerToken | None

    def __post_init__(self) -> None:
        settings, strategy, state = self.settings, self.strategy, self.state
        self.total_steps = settings.steps or steps_for(self.loader, settings.tokens, strategy)
        rank, world = strategy.rank, strategy.world
        self.meter = Meter(strategy, self.flops_per_token)
        self.guard = FiniteGuard(strategy, partial(describe_batch, self.objective, self.loader))
        self.watchdog = Watchdog(
            state.folder / "heartbeats",
            rank=rank,
            world=world,
            seconds=settings.watchdog_seconds,
            died=partial(strategy.peers.report, state.root),
        )
        self.progress = Progress(state.step, self.total_steps, rank=rank)
        self.tracking = start_tracking(state.folder, settings.tracking, rank=rank, resumed_step=state.step, config=state.config)
        self.validation: dict[str, float] = {}
        self.stopped = self.warned = False
        reset_peak_memory(strategy.device)

    def train_step(self, step: int, batches: list[Any], stop: StopRequest) -> bool:
        """Make one update from the micro-batches of a step (from 0); return whether a stop was requested, the same on all ranks."""
        strategy, beat = self.strategy, self.watchdog.beat
        with explained(strategy, step, batches):
            beat(step + 1, "prepare")
            seed_library_draws(strategy.device, key(self.seed, "dropout", step, strategy.rank))
            prepared = [self.objective.prepare(batch, step) for batch in batches]
            own_tokens = sum(p.num_tokens for p in prepared)
            beat(step + 1, "exchange")
            seen = sum(batch.num_tokens for batch in batches)
            tokens, all_seen, asked = strategy.sum_over_ranks([own_tokens, seen, float(stop.signal != 0)])
            beat(step + 1, "forward and backward")
            loss = self._accumulate(prepared, strategy.world / max(tokens, 1.0))
            beat(step + 1, "update")
            skip = self.guard.check(step, loss, strategy.clip())
            strategy.step(lr_at(step + 1, self.settings.optim, self.total_steps), skip)
            self.state.ema.update()
        self.meter.add("loss", loss, own_tokens)
        self.meter.add_step(batches[0], all_seen)
        self.progress.advance()
        self.state.step, self.state.tokens = step + 1, self.state.tokens + all_seen
        self.stopped = bool(asked) or (strategy.world == 1 and stop.signal != 0)
        beat(step + 2, "data")
        return self.stopped

    def _accumulate(self, prepared: list[Any], scale: float) -> Tensor:
        """Accumulate the gradients of the micro-batches; return the sum of the loss over this process's tokens."""
        totals = []
        for index, one in enumerate(prepared):
            with self.strategy.micro_step(last=index == len(prepared) - 1):
                with self.strategy.autocast():
                    terms = self.objective.loss(self.strategy.model, one)
                self.strategy.backward(terms.total * scale)
            totals.append(terms.total.detach())
            for name, total in terms.sums.items():
                self.meter.add(name, total, terms.counts[name])
        return totals[0] if len(totals) == 1 else torch.stack(totals).sum()

    def _due(self, every_steps: int) -> bool:
        """Whether an interval ends at the current step; always true at the last step."""
        done = self.state.step
        return bool(every_steps and done % every_steps == 0) or done == self.total_steps

    def report(self) -> None:
        """Log the metrics, if they are due."""
        if not self._due(self.settings.log_every):
            return
        self.guard.settle()
        metrics = self.meter.read()
        metrics["train/tokens"] = self.state.tokens
        metrics["train/lr"] = lr_at(self.state.step, self.settings.optim, self.total_steps)
        if self.strategy.grad_norm is not None:
            metrics["train/grad_norm"] = float(self.strategy.grad_norm)
        self.tracking.log(self.state.step, metrics)
        self.progress.show(self.state.step, metrics)

    def check_validation(self) -> bool:
        """Validate with averaged weights, if due; return whether the result is the best so far, the same on all ranks."""
        if self.validate is None or not self._due(self.settings.validate_every):
            return False
        self._evaluate("validation", self._validate)
        if self.state.ema and "nll" in self.validation:
            self._evaluate("validation of raw weights", self._validate_raw, averaged=False)
        self.tracking.log(self.state.step, {f"validation/{name}": value for name, value in self.validation.items()})
        if self.strategy.rank == 0:
            log.info("step %d: validation %s", self.state.step, in_words(self.validation))
            self._warn_of_plateau()
        value = self._best_value()
        sign = 1 if self.settings.best_is == "lowest" else -1
        improved = math.isfinite(value) and (self.state.best is None or sign * value < sign * self.state.best)
        if improved:
            self.state.best = value
        return improved

    def _validate(self, model: nn.Module) -> None:
        assert self.validate is not None
        self.validation = self.strategy.broadcast({name: float(v) for name, v in self.validate(model).items()})

    def _validate_raw(self, model: nn.Module) -> None:
        assert self.validate is not None
        self.validation["nll_raw"] = self.strategy.broadcast(float(self.validate(model)["nll"]))

    def _warn_of_plateau(self) -> None:
        """Say once, after a tenth of the run, that the model has learned no more than frequencies."""
        done = self.state.step / self.total_steps
        tracks = on_plateau(self.validation)
        if tracks and done >= _PLATEAU_AFTER and not self.warned:
            self.warned = True
            log.warning("%s", plateau_advice(tracks, self.validation, done=done))

    def _best_value(self) -> float:
        name = self.settings.best_metric or next(iter(self.validation), "")
        if name not in self.validation:
            raise ConfigError(
                f"train.best_metric: found '{name}', which validation does not give; expected one of: {', '.join(self.validation)}"
            )
        return float(self.validation[name])

    def call_hooks(self) -> None:
        """Call the hooks that are due, with averaged weights."""
        for one in self.hooks:
            if one.steps and self.state.step % one.steps == 0:
                self._evaluate("hooks", partial(self._call_hook, one.hook))

    def _call_hook(self, hook: Hook, model: nn.Module) -> None:
        hook(self.state.step, model, self.tracking)

    def _evaluate(self, phase: str, work: Callable[[nn.Module], None], *, averaged: bool = True) -> None:
        """Run `work` on the model in evaluation mode, by default with averaged weights, with the clock stopped."""
        self.watchdog.beat(self.state.step, phase)
        model = self.strategy.evaluated
        model.eval()
        weights = self.strategy.averaged(self.state.ema) if averaged else nullcontext()
        with self.meter.paused(), torch.no_grad(), weights, self.strategy.autocast():
            work(model)
        model.train()

    def save_if_due(self, now: bool, *, best: bool) -> None:
        """Write a checkpoint, if one is due or `now`."""
        if not now and not self._due(self.settings.checkpoint_every):
            return
        self.guard.settle()
        with self.meter.paused():
            self.watchdog.beat(self.state.step, "checkpoint")
            store(self.state, self.strategy, metrics=self.validation, keep=self.settings.keep, best=best)

    def result(self, stop: StopRequest) -> FitResult:
        """Return the result of the run, and log how to resume if it was stopped."""
        number = (stop.signal or int(SIGTERM)) if self.stopped else 0
        if number and self.strategy.rank == 0:
            text = "stopped by %s after step %d of %d, saved as %s; start the same command again to go on"
            log.warning(text, Signals(number).name, self.state.step, self.total_steps, self.state.saved)
        return FitResult(
            steps=self.state.step,
            total_steps=self.total_steps,
            stopped_by=number,
            validation=self.validation,
            best=self.state.best,
            checkpoint=self.state.saved,
        )


def steps_for(loader: Loader, tokens: int, strategy: Single) -> int:
    """Return the number of steps for a budget of tokens, from the mean size of the first batches of all processes."""
    own = sum(int(batch.num_tokens) for step in range(_PROBED_STEPS) for batch in loader.micro_batches(step))
    (seen,) = strategy.sum_over_ranks([own])
    return max(1, math.ceil(tokens * _PROBED_STEPS / max(seen, 1.0)))
