"""What a training run is told, and what it is given: its settings, and the shapes of objective, batch and loader."""

from __future__ import annotations

from typing import Any, Literal

from protlig_dd.config import settings
from protlig_dd.device import PrecisionName
from protlig_dd.training.distributed import DistributedName
from protlig_dd.training.optim import OptimSettings
from protlig_dd.training.tracking import TrackingSettings


@settings
class TrainSettings:
    """How long and how a model is trained.

    Args:
        steps: optimiser steps; or 0, and
        tokens: the budget in tokens of all processes, rounded up to whole steps. Exactly one of the two is set.
        batch_size: examples a step, of all processes and micro-batches; or None, and
        tokens_per_batch: tokens a step, likewise; "auto" keeps them and finds the accumulation that fits the memory.
        accumulation: micro-batches a step and process.
        devices: processes that `protlig train` starts on this machine; 0 is one, or what torchrun has started.
        prefetch: steps whose batches are prepared ahead.
        precision: "auto" takes what the device does natively.
        compile: compile the model with torch.compile.
        distributed: "auto" is none for one process and ddp for several.
        deepspeed: keys of DeepSpeed's configuration that replace ours, for zero3.
        checkpoint_every, validate_every, log_every: in steps; 0 is never (the last step always has all three).
        keep: how many checkpoints stay, beside the best; 0 keeps all.
        best_metric: the validation metric that `best` follows; empty for the first one.
        best_is: whether its lowest or its highest value is the best.
        resume: "auto" goes on where the run's folder stands, "last-good" passes damaged checkpoints over, "never" refuses to go on.
        init_from: run folders, with commas, whose weights the model starts from (done by whoever builds the model).
        freeze: regular expressions of parameter names that are not trained (likewise).
        watchdog_seconds: how long a phase of a step may last before the process that holds the run up is named; 0 is never.
    """

    steps: int = 1000
    tokens: int = 0
    batch_size: int | None = 64
    tokens_per_batch: int | Literal["auto"] | None = None
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
    resume: Literal["auto", "never", "last-good"] = "auto"
    watchdog_seconds: float = 900.0
    init_from: str = ""
    freeze: tuple[str, ...] = ()
    optim: OptimSettings = OptimSettings()
    tracking: TrackingSettings = TrackingSettings()

    def __post_init__(self) -> None:
        if (self.steps > 0) == (self.tokens > 0):
            raise ValueError(f"steps: found steps={self.steps} and tokens={self.tokens}, expected exactly one above 0")
        for name in ("checkpoint_every", "validate_every", "log_every", "keep", "watchdog_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 or more")
        for name in ("accumulation", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 1 or more")
        if self.devices < 0:
            raise ValueError(
                f"devices: found {self.devices}, expected 0 (one process, or what torchrun started) or more"
            )


Resume = Literal["auto", "never", "last-good"]
