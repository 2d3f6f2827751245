"""The settings of a training run."""

from __future__ import annotations

from typing import Any, Literal

from protlig_dd.config import settings
from protlig_dd.device import PrecisionName
from protlig_dd.errors import refuse_unless
from protlig_dd.training.distributed import DistributedName
from protlig_dd.training.optim import OptimSettings
from protlig_dd.training.tracking import TrackingSettings

Resume = Literal["auto", "never", "last-good"]


@settings
class TrainSettings:
    """Length, batches, precision, distribution, checkpoints and optimiser of a training run.

    Args:
        steps: number of optimiser steps; 0 if the budget is given by `tokens`.
        tokens: budget in tokens of all processes, rounded up to whole steps. Exactly one of steps and tokens is above 0.
        batch_size: examples per step, of all processes and micro-batches; null if the size is given by `tokens_per_batch`.
        tokens_per_batch: tokens per step, of all processes and micro-batches; "auto" also finds the accumulation that fits the memory.
        length_window: with `tokens_per_batch`, batches within which examples are sorted by length: similar lengths in a batch cost less where
            attention pads (V100, MPS, XPU); 0 mixes all lengths in every batch.
        accumulation: micro-batches per step and process, 1 or more.
        devices: processes that `protlig train` starts on this machine; 0 is one, or those started by torchrun.
        prefetch: number of steps whose batches are prepared ahead, 1 or more.
        precision: dtype of the forward pass; "auto" takes the device's native one.
        compile: compile the model with torch.compile.
        distributed: the strategy; "auto" is none for one process and ddp for several.
        deepspeed: keys of DeepSpeed's configuration that override ours, for zero3.
        checkpoint_every, validate_every, log_every: interval in steps; 0 is never (the last step always has all three).
        keep: number of checkpoints kept in addition to the best; 0 keeps all.
        best_metric: the validation metric that selects the best checkpoint; empty for the first one.
        best_is: whether the lowest or the highest value is the best.
        resume: "auto" resumes from the run folder, "last-good" skips damaged checkpoints, "never" refuses to resume.
        watchdog_seconds: duration of a phase of a step after which the process that delays the run is reported; 0 is never.
        init_from: run folders, separated by commas, that initialise the model's weights (applied where the model is built).
        freeze: regular expressions of names of parameters that are not trained (applied where the model is built).
        optim: the optimiser.
        tracking: trackers in addition to metrics.jsonl.
    """

    steps: int = 1000
    tokens: int = 0
    batch_size: int | None = 64
    tokens_per_batch: int | Literal["auto"] | None = None
    length_window: int = 32
    accumulation: int = 1
    devices: int = 0
    prefetch: int = 4
    precision: PrecisionName = "auto"
    compile: bool = False
    distributed: DistributedName = "auto"
    deepspeed: dict[str, Any] | None = None
    checkpoint_every: int = 1000
    validate_every: int = 500
    log_every: int = 50
    keep: int = 3
    best_metric: str = ""
    best_is: Literal["lowest", "highest"] = "lowest"
    resume: Resume = "auto"
    watchdog_seconds: float = 900.0
    init_from: str = ""
    freeze: tuple[str, ...] = ()
    optim: OptimSettings = OptimSettings()
    tracking: TrackingSettings = TrackingSettings()

    def __post_init__(self) -> None:
        if (self.steps > 0) == (self.tokens > 0):
            raise ValueError(f"steps: found steps={self.steps} and tokens={self.tokens}, expected exactly one above 0")
        for name in ("checkpoint_every", "validate_every", "log_every", "keep", "watchdog_seconds", "length_window"):
            refuse_unless(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("accumulation", "prefetch"):
            refuse_unless(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        is_whole = self.optim.kind == "adamw" or self.distributed in ("auto", "none", "ddp")
        refuse_unless(is_whole, "optim.kind", f"muon with distributed={self.distributed}", "adamw: Muon needs whole matrices")
        refuse_unless(self.devices >= 0, "devices", self.devices, "0 (one process, or what torchrun started) or more")
