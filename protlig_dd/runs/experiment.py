"""The experiment of a token model: its settings, and the parts that are built from them (tracks, diffusion, model, objective).

Training is in `runs/train.py`; opening and using a trained run in `runs/open.py`, `runs/generate.py` and `runs/evaluate.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from protlig_dd.config import build, settings, to_mapping
from protlig_dd.config_files import read_config
from protlig_dd.data.settings import DataSettings
from protlig_dd.device import DeviceChoice
from protlig_dd.diffusion.denoiser import Diffusion
from protlig_dd.diffusion.objective import DiffusionObjective
from protlig_dd.diffusion.parameterizations import Parameterization, Score, Subs, Weighting
from protlig_dd.diffusion.processes import Absorbing, Uniform
from protlig_dd.diffusion.schedules import LogLinear, NoiseSchedule, SigmaCurriculum
from protlig_dd.diffusion.times import StratifiedTimes, Task, TaskMixture, TimeSampler
from protlig_dd.diffusion.variants import Variant
from protlig_dd.errors import ConfigError, refuse_unless
from protlig_dd.evaluation.settings import EvaluationSettings
from protlig_dd.nn.attention import BackendChoice, choose_backend
from protlig_dd.objective import Objective
from protlig_dd.runs.families.models import Decoding, ModelSettings, build_model, check_model, likelihood_objective, sampled_track
from protlig_dd.runs.spellings import native_overrides
from protlig_dd.sampling import Ancestral, Guidance, SamplerSettings, Tilting
from protlig_dd.tokens.settings import TrackSettings
from protlig_dd.tokens.tracks import Layout, Track, TrackBatch, TrackTokens
from protlig_dd.training.settings import TrainSettings


@settings
class DiffusionSettings:
    """The forward process, the meaning of the network's logits, and the training tasks.

    Args:
        process: forward process, absorbing (masks) or uniform.
        parameterization: "score" (SEDD) or "subs" (MDLM, DPLM; absorbing only).
        weighting: weight of the loss over t; "elbo" gives the likelihood bound.
        scale_by_sigma: normalise the scores as SEDD does (absorbing only).
        schedule: alpha(t), see `diffusion.schedules`.
        times: how t is drawn, see `diffusion.times`.
        curriculum: ramps sigma up over the first steps; None for no curriculum.
        tasks: weight of each task, or a pattern of its own. Guidance needs about a tenth of single-track tasks.
        condition_dropout: probability of hiding a per-example condition (an affinity bin) in training.
        normalise: rows over which the probabilities of a "subs" loss sum to one; DPLM uses "all".
        variant: options of DPLM's and ESM's training: integer times, coupled times, self-mixup, masked language modelling.
    """

    process: Literal["absorbing", "uniform"] = "absorbing"
    parameterization: Literal["score", "subs"] = "score"
    weighting: Weighting = "elbo"
    scale_by_sigma: bool = True
    schedule: NoiseSchedule = LogLinear()
    times: TimeSampler = StratifiedTimes()
    curriculum: SigmaCurriculum | None = None
    tasks: dict[str, float | Task]
    condition_dropout: float = 0.1
    normalise: Literal["emittable", "all"] = "emittable"
    variant: Variant = Variant()

    def __post_init__(self) -> None:
        if self.variant != Variant() and self.parameterization != "subs":
            raise ValueError(f"variant: found {self.variant} with parameterization '{self.parameterization}', expected subs")
        if self.variant.self_mixup and self.weighting == "elbo":
            raise ValueError("variant: self_mixup also trains on clean tracks, where elbo weights are infinite; use linear or constant")
        if self.process == "uniform" and self.parameterization == "subs":
            raise ValueError("parameterization: found 'subs' with uniform noise; subs needs process: absorbing, uniform needs score")
        if self.process == "uniform" and self.weighting != "elbo":
            raise ValueError(f"weighting: found '{self.weighting}' with uniform noise, expected elbo")
        refuse_unless(0 <= self.condition_dropout < 1, "condition_dropout", self.condition_dropout, "0 to below 1")

    def parameterize(self, track: Track) -> Parameterization:
        """Return the parameterization of a track."""
        if self.parameterization == "subs":
            return Subs(
                process=Absorbing.of(track.vocabulary), weighting=self.weighting, normalise=self.normalise, num_times=self.variant.num_times
            )
        process = (Absorbing if self.process == "absorbing" else Uniform).of(track.vocabulary)
        return Score(process=process, weighting=self.weighting, scale_by_sigma=self.scale_by_sigma)


@settings
class SamplingSettings:
    """Default sampling settings of a run.

    Args:
        sampler: sampling method.
        guidance: temperature, top-p, forbidden symbols, classifier-free weight.
        decoding: decoding of a causal model, which has no sampler and no guidance.
        batch_size: samples per network call.
        property: property that `protlig sample` draws towards, and how; None for none.
    """

    sampler: SamplerSettings = Ancestral()
    guidance: Guidance = Guidance()
    decoding: Decoding = Decoding()
    batch_size: int = 64
    property: Tilting | None = None


@settings
class Experiment:
    """The experiment of a token model, as in its YAML file.

    Args:
        name: name of the run; its folder is runs/NAME by default.
        seed: root seed of weights, data order, noise and samples.
        tracks, data, model, diffusion, train, sampling, evaluation: settings of the parts.
        attention: name of an attention back-end, or "auto".
    """

    name: str
    seed: int = 0
    tracks: dict[str, TrackSettings]
    data: DataSettings
    model: ModelSettings
    diffusion: DiffusionSettings
    train: TrainSettings = TrainSettings()
    sampling: SamplingSettings = SamplingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    attention: str = "auto"

    def __post_init__(self) -> None:
        if not self.tracks:
            raise ValueError("tracks: found none, expected at least one, such as protein: {kind: protein}")
        mixture = TaskMixture(self.diffusion.tasks, tuple(self.tracks))
        check_model(self.model, mixture, set(self.tracks), self.train.distributed)
        generated = self.evaluation.generate
        is_default = generated == EvaluationSettings().generate  # nobody named it; a command that needs it says so
        previewed = self.evaluation.preview_every and sampled_track(self.model, generated) == generated
        is_needed = self.evaluation.after_training or previewed
        if generated not in self.tracks and (is_needed or not is_default):
            raise ValueError(f"evaluation.generate: found '{generated}', expected one of {', '.join(self.tracks)}")


def load_experiment(name: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a config file or packaged name, with overrides.

    Some settings have short names: `distributed` for `train.distributed`, `init_from` for `train.init_from`. Names that other projects
    use are understood too (`runs/spellings.py`); `experiment=` names the config.

    Raises:
        ConfigError: for an invalid setting, with its dotted path.

    >>> config = load_experiment("demo/smoke", ["model.hidden_size=8"])
    >>> config.name, config.model.hidden_size, list(config.tracks)
    ('demo_smoke', 8, ['protein', 'ligand'])
    """
    named, native = native_overrides(overrides)
    return experiment_from(read_config(named or name, native))


def experiment_from(values: Mapping[str, Any]) -> Experiment:
    """Return the experiment that plain values describe, without the `stages` before it (`families/stages.py`)."""
    return build(Experiment, {name: value for name, value in values.items() if name != "stages"})


def completed_experiment(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the plain values of an experiment with the defaults of settings that they lack."""
    plain: Mapping[str, Any] = to_mapping(experiment_from(values))
    return plain


@dataclass(frozen=True)
class Parts:
    """The parts of an experiment that need no data, shared by training, sampling and evaluation."""

    config: Experiment

    @cached_property
    def tracks(self) -> dict[str, Track]:
        """The tracks by name."""
        return {name: track.build(name) for name, track in self.config.tracks.items()}

    @cached_property
    def diffusion(self) -> Diffusion:
        """The parameterization of each track, and the schedule."""
        settings = self.config.diffusion
        return Diffusion(
            parameterizations={name: settings.parameterize(track) for name, track in self.tracks.items()}, schedule=settings.schedule
        )

    @property
    def tasks(self) -> TaskMixture:
        """The mixture of tasks."""
        return TaskMixture(self.config.diffusion.tasks, tuple(self.tracks))

    @property
    def fingerprints(self) -> dict[str, str]:
        """The vocabulary fingerprint of each track, as stored in checkpoints."""
        return {name: track.vocabulary.fingerprint for name, track in self.tracks.items()}

    def complete(self, batch: TrackBatch) -> TrackBatch:
        """Return the batch with all tracks of the model; a track that was missing is empty for all examples."""
        nothing = Layout((0,) * batch.num_examples, batch.device)
        none = torch.zeros(0, dtype=torch.int64, device=batch.device)
        empty = TrackTokens(tokens=none, maskable=none.bool(), layout=nothing)
        return replace(batch, tracks={name: batch.tracks.get(name, empty) for name in self.tracks})

    def backend(self, choice: DeviceChoice) -> BackendChoice:
        """Return the attention back-end for a device, with its reason."""
        return choose_backend(self.config.attention, choice.device, choice.dtype)

    def build_model(self, choice: DeviceChoice, *, where: Literal["device", "host", "meta"] = "device") -> nn.Module:
        """Return the model, initialised from the experiment's seed (on the host, so every device starts from the same weights).

        Args:
            choice: the device.
            where: "device"; "host" leaves the model on the host; "meta" builds it without weights, otherwise as other processes do.

        Raises:
            ConfigError: if the config states another number of parameters.
        """
        backend = self.backend(choice).name
        host: Literal["cpu", "meta"] = "meta" if where == "meta" else "cpu"
        model = build_model(self.config.model, self.tracks, backend, seed=self.config.seed, where=host)
        return model.to(choice.device) if where == "device" else model

    def objective(self, choice: DeviceChoice) -> Objective:
        """Return the training objective."""
        settings = self.config.diffusion
        own = likelihood_objective(self.config.model, self.tracks, choice)
        if own is not None:
            return own
        return DiffusionObjective(
            diffusion=self.diffusion,
            tasks=self.tasks,
            times=settings.times,
            curriculum=settings.curriculum,
            seed=self.config.seed,
            device=choice.device,
            condition_dropout=settings.condition_dropout,
            variant=settings.variant,
        )

    def require_guidance(self, guidance: Guidance, generate: tuple[str, ...]) -> None:
        """Check that classifier-free guidance is possible: the model must have been trained on the generated tracks alone.

        Raises:
            ConfigError: if it was not.
        """
        if guidance.weight == 1:
            return
        weights = self.tasks.weights
        alone = sum(w for name, w in weights.items() if set(self.tasks.tasks[name].tracks) == set(generate))
        share = alone / sum(weights.values())
        if share == 0:
            raise ConfigError(
                f"sampling.guidance.weight: found {guidance.weight}, but this run never trained on {' + '.join(generate)} alone; "
                f"expected a task such as {generate[0]}_only under diffusion.tasks, 0.1 or more; use weight 1 or train with it"
            )
