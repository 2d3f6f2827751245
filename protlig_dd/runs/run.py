"""A trained run, opened for use. Its folder:

RUN/config.yaml  data.txt  lengths.json  metrics.jsonl  checkpoints/  tensorboard/  samples/  evaluation.json  report.html
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from protlig_dd.checkpoints.checkpoint import hash_tensors
from protlig_dd.data.bundle import DataBundle, load
from protlig_dd.data.lengths import LengthDistribution
from protlig_dd.device import DeviceChoice
from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.errors import ConfigError
from protlig_dd.runs.experiment import Experiment, Parts
from protlig_dd.tokens.tracks import Track


@dataclass(frozen=True)
class Run:
    """A trained run, opened for use.

    Args:
        folder: the run folder.
        parts: tracks, diffusion, tasks.
        choice: device and precision.
        step: training step of the weights.
        model: the model in evaluation mode, with averaged weights where the run keeps them.
    """

    folder: Path
    parts: Parts
    choice: DeviceChoice
    step: int
    model: nn.Module

    @property
    def config(self) -> Experiment:
        """The experiment."""
        return self.parts.config

    @property
    def tracks(self) -> dict[str, Track]:
        """The tracks by name."""
        return self.parts.tracks

    @property
    def denoising(self) -> Denoising:
        """The model with its diffusion, tracks and device."""
        return Denoising(self.model, self.parts.diffusion, self.tracks, self.choice.device)

    @cached_property
    def weights_hash(self) -> str:
        """The start of a SHA-256 over the weights, by which results of two models under one name are told apart."""
        return hash_tensors({name: tensor.cpu() for name, tensor in self.model.state_dict().items()})

    @cached_property
    def lengths(self) -> LengthDistribution:
        """The lengths of the training examples."""
        if not (self.folder / "config.yaml").is_file():
            raise ConfigError(f"{self.folder}: a published checkpoint has no training lengths; give --length")
        return LengthDistribution.load(self.folder / "lengths.json")

    @cached_property
    def data(self) -> DataBundle:
        """The data of the config, read again."""
        return load(self.config.data, self.parts.tracks, self.config.seed)
