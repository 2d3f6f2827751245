"""The family table: from an experiment's `model.kind` to how it is read, trained, checked, opened and evaluated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from protlig_dd.checkpoints.run_folder import Which, kind_of, read_config_file
from protlig_dd.config import to_mapping
from protlig_dd.config_files import read_config
from protlig_dd.device import choose_device
from protlig_dd.errors import ConfigError
from protlig_dd.kanzi.evaluate import assess_autoencoder
from protlig_dd.kanzi.experiment import (
    AutoencoderExperiment,
    AutoencoderRun,
    autoencoder_from,
    describe_autoencoder,
    open_autoencoder,
    train_autoencoder,
)
from protlig_dd.report.page import write_report
from protlig_dd.report.tracked import track_evaluation
from protlig_dd.runs.check import check_experiment
from protlig_dd.runs.evaluate import evaluate_run, summarise_evaluation
from protlig_dd.runs.experiment import Experiment, experiment_from
from protlig_dd.runs.families.stages import stages_of
from protlig_dd.runs.open import open_run
from protlig_dd.runs.preview import preview_hooks
from protlig_dd.runs.run import Run
from protlig_dd.runs.spellings import native_overrides
from protlig_dd.runs.train import train_experiment
from protlig_dd.training.distributed import launched
from protlig_dd.training.settings import Resume
from protlig_dd.training.trainer import FitResult

log = logging.getLogger(__name__)
AnyExperiment = Experiment | AutoencoderExperiment
AnyRun = Run | AutoencoderRun


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the commands ask of a family.

    Attributes:
        read: returns the experiment that plain values describe.
        train: trains an experiment in a folder: (config, folder, *, device, resume).
        finish: yields the lines printed after training: (config, folder, result, *, device).
        check: yields what a config costs: (config, *, device, devices, folder), the folder for files that training would make.
        open: returns a trained run: (folder, *, device, which).
        evaluate: yields the scores of a run and writes evaluation.json: (folder, *, device, which, split, num, fold, prostt5,
            coordinates, tokenizer).
    """

    read: Callable[[Mapping[str, Any]], Any]
    train: Callable[..., FitResult]
    finish: Callable[..., Iterator[str]]
    check: Callable[..., Iterator[str]]
    open: Callable[..., Any]
    evaluate: Callable[..., Iterator[str]]


def _finish_tokens(config: Experiment, folder: Path, result: FitResult, *, device: str) -> Iterator[str]:
    """Evaluate the run and write its report, if the config says so."""
    if not config.evaluation.after_training:
        return
    run = open_run(folder, device=device)
    for line in evaluate_run(run, split="test" if len(run.data.test) else "validation"):
        log.info("%s", line)
    page = write_report(run.folder)
    yield from summarise_evaluation(run)
    yield f"report: {page}"


def _evaluate_tokens(folder: Path, *, device: str, which: Which, coordinates: str, tokenizer: str, **how: Any) -> Iterator[str]:
    if bool(coordinates) != bool(tokenizer):
        raise ConfigError(
            f"--coordinates '{coordinates}' --tokenizer '{tokenizer}': expected both, a Foldseek database with the true "
            "C-alphas and the autoencoder of the tokens, or neither"
        )
    run = open_run(folder, device=device, which=which)
    yield from evaluate_run(run, coordinates=coordinates, tokenizer=tokenizer, **how)


def _finish_autoencoder(config: AutoencoderExperiment, folder: Path, result: FitResult, *, device: str) -> Iterator[str]:
    yield ", ".join(f"{name} {value:.3f}" for name, value in result.validation.items())


def _check_autoencoder(config: AutoencoderExperiment, *, device: str, devices: str, folder: Path) -> Iterator[str]:
    if devices:
        raise ConfigError(f"--devices {devices}: is for models of tokens; an autoencoder's memory is told without it, leave it out")
    yield from describe_autoencoder(config, choose_device(device, precision=config.train.precision))


def _evaluate_autoencoder(folder: Path, *, device: str, which: Which, num: int, **others: Any) -> Iterator[str]:
    for name in ("coordinates", "tokenizer", "fold", "prostt5"):
        if others.get(name):
            raise ConfigError(
                f"--{name} '{others[name]}': is for runs of structure tokens or proteins, {folder} is an autoencoder's; leave it out"
            )
    run = open_autoencoder(folder, device=device, which=which)
    yield from assess_autoencoder(run, num=num)
    assert run.config is not None, "a run folder has a config"
    track_evaluation(folder, run.config.train.tracking, step=run.step, with_traces=True)


TOKENS = Family(
    read=experiment_from,
    train=partial(train_experiment, make_hooks=preview_hooks),
    finish=_finish_tokens,
    check=check_experiment,
    open=open_run,
    evaluate=_evaluate_tokens,
)
AUTOENCODER = Family(
    read=autoencoder_from,
    train=train_autoencoder,
    finish=_finish_autoencoder,
    check=_check_autoencoder,
    open=open_autoencoder,
    evaluate=_evaluate_autoencoder,
)
FAMILIES: Mapping[str, Family] = {"causal": TOKENS, "dit": TOKENS, "dual_track": TOKENS, "encoder": TOKENS, "kanzi": AUTOENCODER}
"""From `model.kind` to its family. An unknown kind is read as a token model, whose settings name the kinds there are."""


def family_of(values: Mapping[str, Any]) -> Family:
    """Return the family of an experiment's plain values."""
    return FAMILIES.get(kind_of(values), TOKENS)


def family_of_run(folder: Path) -> Family:
    """Return the family of a run folder; of anything else that of token models, which published checkpoints are."""
    path = folder / "config.yaml"
    return family_of(read_config_file(path)) if path.is_file() else TOKENS


def run_folder(name: str) -> Path:
    """Return the folder of a run of this name, runs/NAME.

    Raises:
        ConfigError: for a name that leads elsewhere: a config does not choose among the folders of a machine.
    """
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError(f"name: found '{name}', expected the name of a folder below runs/; give another place with --out")
    return Path("runs") / name


def load(name: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> AnyExperiment:
    """Return the experiment of any family that a config file or packaged name holds, with overrides.

    Raises:
        ConfigError: for anything that does not fit, with its dotted path.
    """
    named, native = native_overrides(overrides)
    return experiment_of(read_config(named or name, native))


def experiment_of(values: Mapping[str, Any]) -> AnyExperiment:
    """Return the experiment of any family that plain values describe, without the stages before it."""
    experiment: AnyExperiment = family_of(values).read(values)
    return experiment


def train(
    config: AnyExperiment | str, folder: Path | str | None = None, *, device: str = "auto", resume: Resume | Literal[""] = ""
) -> FitResult:
    """Train an experiment of any family in a run folder, going on from its last checkpoint if there is one.

    Args:
        config: the experiment, or the name of a packaged config or a YAML file.
        folder: the run folder; runs/NAME by default.
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        resume: overrides `train.resume`; "last-good" skips damaged checkpoints, "never" refuses to go on.

    Raises:
        ConfigError: if the folder holds another experiment, or the settings do not fit together.
        CheckpointError, DeviceError: as in `training.trainer.fit`.
    """
    if isinstance(config, str):
        values = read_config(config)
        place = Path(folder) if folder is not None else run_folder(experiment_of(values).name)
        return train_stages(values, place, device=device, resume=resume)[1]
    place = Path(folder) if folder is not None else run_folder(config.name)
    return FAMILIES[config.model.kind].train(config, place, device=device, resume=resume)


def train_stages(
    values: Mapping[str, Any], folder: Path, *, device: str = "auto", resume: Resume | Literal[""] = "", only: str = ""
) -> tuple[AnyExperiment, FitResult]:
    """Train the stages of a config's plain values in order, each going on from its last checkpoint; stop where a signal stops one.

    Args:
        values: the plain values of a config.
        folder: the run folder.
        device, resume: as for `train`.
        only: train this stage only, "last" for the config itself; "" for all.

    Returns:
        the experiment that was trained last, and its result.

    Raises:
        ConfigError: for a fault of any stage, before the first begins.
        CheckpointError, DeviceError: as in `training.trainer.fit`.
    """
    stages = stages_of(values, folder)
    experiments: list[AnyExperiment] = [experiment_of(stage.values) for stage in stages]
    for stage, experiment in zip(stages, experiments, strict=True):
        if len(stages) > 1:
            stage.require_data(to_mapping(experiment.data))
    names = [stage.label for stage in stages]
    if only and only not in names:
        raise ConfigError(f"--stage {only}: expected one of {', '.join(names)}")
    if len(stages) > 1 and not only and launched().world > 1:
        raise ConfigError(
            f"found WORLD_SIZE={launched().world} and {len(stages)} stages: start each by itself, with --stage {', '.join(names)}"
        )
    for number, (stage, experiment) in enumerate(zip(stages, experiments, strict=True), 1):
        if only and only != stage.label:
            continue
        if len(stages) > 1:
            log.info("stage %d of %d: %s, in %s", number, len(stages), stage.name or experiment.name, stage.folder)
        result = train(experiment, stage.folder, device=device, resume=resume)
        if result.stopped_by:
            break
    return experiment, result
