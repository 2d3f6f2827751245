"""A trained run, opened for use. Its folder:

RUN/config.yaml  data.txt  lengths.json  metrics.jsonl  checkpoints/  tensorboard/  samples/  evaluation.json  report.html
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from protlig_dd.checkpoints.checkpoint import hash_tensors
from protlig_dd.checkpoints.matching import warn_of_changed_data
from protlig_dd.checkpoints.run_folder import require_data_here
from protlig_dd.config import to_mapping
from protlig_dd.data.bundle import DataBundle, load
from protlig_dd.data.fingerprint import data_fingerprint
from protlig_dd.data.lengths import LengthDistribution
from protlig_dd.device import DeviceChoice
from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.errors import ConfigError
from protlig_dd.runs.experiment import Experiment, Parts
from protlig_dd.tokens.tracks import Track

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A trained run, opened for use.

    Args:
        folder: the run folder.
        parts: tracks, diffusion, tasks.
        choice: device and precision.
        step: training step of the weights.
        model: the model in evaluation mode, with averaged weights where the run keeps them.
        trained_on: the plain values of the checkpoint, with `data`, the fingerprints of its examples; empty if they are not known.
    """

    folder: Path
    parts: Parts
    choice: DeviceChoice
    step: int
    model: nn.Module
    trained_on: Mapping[str, Any] = field(default_factory=dict)

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
        """The data of the config, read again; a line of the log says so if they are not those of training.

        Raises:
            ConfigError: for a relative path of another folder.
            FormatError: as in `data.bundle.load`.
        """
        require_data_here(to_mapping(self.config.data), self.folder)
        bundle = load(self.config.data, self.parts.tracks, self.config.seed)
        if self.trained_on:
            warn_of_changed_data(self.trained_on, data_fingerprint(bundle), str(self.folder))
        return bundle
