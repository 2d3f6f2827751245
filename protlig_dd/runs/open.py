"""Opening a trained run or a published checkpoint for use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from protlig_dd.checkpoints.matching import require_fingerprints, require_same_shapes, require_trained
from protlig_dd.checkpoints.run_folder import Which, kind_of, read_checkpoint, read_config_file
from protlig_dd.config import build, to_mapping
from protlig_dd.data.settings import SequenceData
from protlig_dd.device import choose_device
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.diffusion.times import Task
from protlig_dd.diffusion.variants import Variant
from protlig_dd.errors import ConfigError
from protlig_dd.models.published.fair_esm import is_fair_esm
from protlig_dd.models.published.pretrained import is_pretrained, read_pretrained
from protlig_dd.models.published.sedd_layout import read_sedd
from protlig_dd.runs.experiment import DiffusionSettings, Experiment, Parts, SamplingSettings, completed_experiment, experiment_from
from protlig_dd.runs.families.models import AUTOENCODERS
from protlig_dd.runs.run import Run
from protlig_dd.runs.vocabularies import keep_missing_vocabularies, own_vocabularies
from protlig_dd.sampling import DPLMUnmasking
from protlig_dd.tokens.settings import ProteinTrack

_UNKNOWN: Mapping[str, Any] = MappingProxyType({})
_TASKS: Mapping[bool, dict[str, float | Task]] = {
    False: {"protein_only": 1.0},
    True: {"apart": 0.25, "structure_given_protein": 0.25, "protein_given_structure": 0.25, "joint": 0.25},
}
_SAMPLERS = {
    "esm2": DPLMUnmasking(),
    "dplm": DPLMUnmasking(),
    "dplm2": DPLMUnmasking(
        strategy="annealing", annealing=(2.0, 0.1), randomness=1.0, top_p={"protein": 0.95, "structure": 0.95}, confidence="log_prob"
    ),
    "dplm2_bit": DPLMUnmasking(strategy="annealing", annealing=(1.1, 0.1), randomness=1.0, top_p={"protein": 0.95}, confidence="kept"),
}
"""Default samplers of the published models, by the layout of the checkpoint."""


def open_published(source: Path | str, *, device: str = "auto", emits: str = "") -> Run:
    """Return a published checkpoint as a run without training data.

    Args:
        source: a Hub id, a folder in Hugging Face's layout, a Lightning .ckpt, ESM-2's own .pt (fair-esm), or a SEDD .pth.
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        emits: letters that may be generated, as in `tokens.settings.ProteinTrack`; "" for the twenty amino acids.

    Raises:
        CheckpointError: as in `models.published.pretrained.read_pretrained`.
    """
    if Path(source).suffix in (".pth", ".pt") and not is_fair_esm(Path(source)):
        return _open_sedd(Path(source), device)
    found = read_pretrained(source)
    several = len(found.tracks) > 1
    tracks = dict(found.tracks)
    if emits:
        tracks["protein"] = build(ProteinTrack, {**to_mapping(tracks["protein"]), "emits": emits}, "--emits")
    config = Experiment(
        name=re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(found.where).name),
        tracks=tracks,
        data=SequenceData(path=""),
        model=found.model,
        diffusion=DiffusionSettings(
            parameterization="subs",
            weighting="linear",
            normalise="all",
            schedule=LogLinear(eps=0.0),
            tasks=_TASKS[several],
            variant=Variant(num_times=500, count="masked"),
        ),
        sampling=SamplingSettings(sampler=_SAMPLERS[found.family]),
    )
    return _opened(config, found.weights, folder=Path(source), device=device)


def _open_sedd(path: Path, device: str) -> Run:
    """Return a SEDD checkpoint on proteins as a run without training data."""
    model_settings, track, weights = read_sedd(path)
    diffusion = DiffusionSettings(tasks={"protein_only": 1.0})
    config = Experiment(name=path.stem, tracks={"protein": track}, data=SequenceData(path=""), model=model_settings, diffusion=diffusion)
    return _opened(config, weights, folder=path, device=device)


def _opened(
    config: Experiment, weights: Mapping[str, Tensor], *, folder: Path, device: str, step: int = 0, trained_on: Mapping[str, Any] = _UNKNOWN
) -> Run:
    """Return a run with these weights, in evaluation mode; in float32 on a CPU."""
    parts = Parts(config)
    choice = choose_device(device, precision="fp32" if device == "cpu" else config.train.precision)
    model = parts.build_model(choice)
    require_same_shapes(weights, {name: tuple(value.shape) for name, value in model.state_dict().items()}, where=str(folder))
    model.load_state_dict(weights)
    return Run(folder=folder, parts=parts, choice=choice, step=step, model=model.eval().requires_grad_(False), trained_on=trained_on)


def open_run(folder: Path | str, *, device: str = "auto", which: Which = "last", averaged: bool = True, emits: str = "") -> Run:
    """Return a trained run, ready for sampling and evaluation.

    Args:
        folder: the run folder; or a published checkpoint, as in `open_published`.
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        which: "last" or "best" (by validation) checkpoint.
        averaged: use the moving average of the weights, if the run has one.
        emits: letters that a published checkpoint may generate; not for run folders, whose config says it.

    Raises:
        ConfigError: if it is not a run folder.
        CheckpointError: if it holds no checkpoint, a damaged one, or one made with other vocabularies.
    """
    if is_pretrained(folder) or Path(folder).suffix in (".pth", ".pt"):
        return open_published(folder, device=device, emits=emits)
    if emits:
        raise ConfigError(f"--emits {emits}: {folder} is a run of yours; its config decides (tracks.protein.emits)")
    folder = Path(folder)
    values = read_config_file(folder / "config.yaml")
    if kind_of(values) in AUTOENCODERS:
        raise ConfigError(
            f"{folder}: is the run of a structure autoencoder, which only makes tokens of coordinates and coordinates of tokens; expected "
            f"a model of tokens. Its uses: --tokenizer {folder}, protlig tokenize --track kanzi, protlig evaluate {folder}"
        )
    config = experiment_from(values)
    path, loaded = read_checkpoint(folder, which)
    require_trained(folder, to_mapping(config), loaded.state, completed_experiment)
    config = own_vocabularies(config, folder)
    require_fingerprints(loaded.state, Parts(config).fingerprints, str(path))
    keep_missing_vocabularies(config, folder)
    weights = {**loaded.weights, **(loaded.ema if averaged else {})}
    return _opened(config, weights, folder=folder, device=device, step=loaded.step, trained_on=loaded.state)


def load_model(source: Path | str, *, device: str = "auto", which: Which = "last") -> nn.Module:
    """Return the network of a run or a published checkpoint, in evaluation mode and without gradients.

    Args:
        source: a run folder, a folder in Hugging Face's layout, a Lightning .ckpt, or a Hub id.
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        which: of a run, the last checkpoint or the best by validation.

    Raises:
        ConfigError, CheckpointError: as in `open_run`, which also gives the tracks and the diffusion.
    """
    return open_run(source, device=device, which=which).model
