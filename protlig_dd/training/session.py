"""How every training begins and ends: settings, device and processes, initial weights, the description in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from protlig_dd import rng
from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.checkpoints.run_folder import write_description
from protlig_dd.device import DeviceChoice, choose_device
from protlig_dd.errors import ConfigError
from protlig_dd.objective import Loader, Objective
from protlig_dd.training import distributed
from protlig_dd.training.settings import Resume, TrainSettings
from protlig_dd.training.strategies import Single
from protlig_dd.training.trainer import FitResult, fit

Model = TypeVar("Model", bound=nn.Module)
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Session:
    """A training that is about to start in this process.

    Attributes:
        settings: the experiment's training settings, with the caller's `resume`.
        choice: the device of this process, with its precision.
        strategy: how the processes share the work.
    """

    settings: TrainSettings
    choice: DeviceChoice
    strategy: Single

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the process that writes and logs."""
        return self.strategy.rank == 0

    def mourned(self, folder: Path) -> AbstractContextManager[None]:
        """Return the context of everything that the processes do together: the death of one is one message, as in `peers.Peers.mourned`."""
        return self.strategy.peers.mourned(folder / "checkpoints")

    def first_on_rank0(self, work: Callable[[], Result]) -> Result:
        """Do something on rank 0 first, then on the other processes, which find the files that it made."""
        if self.is_first:
            result = work()
            self.strategy.barrier()
            return result
        self.strategy.barrier()
        return work()

    def describe(self, folder: Path, config: Mapping[str, Any], lines: Sequence[str], **known: Any) -> None:
        """Write config.yaml and data.txt into the run folder, on rank 0, as `checkpoints.run_folder.write_description` does.

        Raises:
            ConfigError, CheckpointError: if the folder holds checkpoints of another experiment, other data or other vocabularies.
        """
        if self.is_first:
            write_description(folder, config, lines, **known)

    def fit(
        self, model: nn.Module, objective: Objective, loader: Loader, *, folder: Path, config: Mapping[str, Any], **more: Any
    ) -> FitResult:
        """Train, as `training.trainer.fit` does, and close the processes' group."""
        seed = int(config["seed"])
        result = fit(model, objective, loader, self.settings, strategy=self.strategy, run_folder=folder, seed=seed, config=config, **more)
        self.strategy.close()
        return result


def begin(settings: TrainSettings, *, device: str = "auto", resume: Resume | Literal[""] = "") -> Session:
    """Return the session of a training: the device is chosen and the process group started.

    Args:
        settings: the experiment's.
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        resume: overrides `settings.resume`; "" keeps it.

    Raises:
        DeviceError: for a device that is absent.
    """
    processes = distributed.launched()
    choice = choose_device(device, precision=settings.precision, local_rank=processes.local_rank, processes=processes.world)
    strategy = distributed.start(settings.distributed, choice, overrides=settings.deepspeed)
    return Session(settings=replace(settings, resume=resume) if resume else settings, choice=choice, strategy=strategy)


def initialised(build: Callable[[], Model], *, seed: int, expected: int | None, where: Literal["cpu", "meta"] = "cpu") -> Model:
    """Return a model with weights drawn on the host from a seed, so that every device starts from the same ones.

    Args:
        build: makes the model.
        seed: the experiment's.
        expected: the number of parameters that the config states, or None.
        where: "meta" builds without weights.

    Raises:
        ConfigError: if the model has another number of parameters than expected.
    """
    with torch.random.fork_rng(devices=[]), torch.device(where):
        torch.manual_seed(rng.key(seed, "weights"))
        model = build()
    found = count_parameters(model)
    if expected is not None and expected != found:
        raise ConfigError(f"model.parameters: found {expected:,} in the config, the model has {found:,}; correct or remove the number")
    return model
