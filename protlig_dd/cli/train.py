"""`protlig train` and `protlig check`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from protlig_dd.cli.common import OVERRIDES, Commands, add_command, add_device
from protlig_dd.config_files import read_config
from protlig_dd.errors import ConfigError
from protlig_dd.runs.spellings import native_overrides, resumed_run

_TRAIN = """The run folder gets the config, checkpoints, metrics, samples, scores and a report. The same command started again continues from
the last checkpoint; Ctrl-C and SIGTERM save a checkpoint first.
  protlig train structure/3di_tiny data.path=db                     # a Foldseek database: proteins and their 3Di letters
  protlig train structure/kanzi_tiny data.path=train.fasta data.structure_path=train_kanzi.fasta
  protlig train kanzi/tiny data.path=pdbs/ --out runs/mine          # an autoencoder of C-alpha traces
  protlig train my_pairs.yaml train.steps=1000 name=longer"""
_CHECK = """Nothing is written.
  protlig check structure/3di_tinyllama data.path=db --devices 8xH100
  protlig check my_pairs.yaml train.batch_size=64"""


@dataclass(frozen=True, kw_only=True)
class ConfigOptions:
    """A config with its overrides, and the device."""

    config: str = "dual_track/demo"
    overrides: tuple[str, ...] = ()
    device: str = "auto"

    def values(self) -> dict[str, Any]:
        """Return the config with its overrides as plain values.

        Raises:
            ConfigError: as in `config_files.read_config`.
        """
        named, native = native_overrides(resumed_run(self.changes)[1])
        return read_config(named or ("dual_track/demo" if "=" in self.config else self.config), native)

    @property
    def changes(self) -> list[str]:
        """The overrides; `protlig train train.steps=5` changes the demo."""
        return [self.config, *self.overrides] if "=" in self.config else list(self.overrides)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(ConfigOptions):
    """Options of `protlig train`."""

    out: str = ""
    resume: Literal["", "auto", "never", "last-good"] = ""
    stage: str = ""

    def folder(self, default: Path) -> Path:
        """Return the run folder: that of --out, or the one that `ckpt_path=` goes on in, or the default.

        Raises:
            ConfigError: if both name one, and they differ.
        """
        resumed = resumed_run(self.changes)[0]
        if resumed is None:
            return Path(self.out) if self.out else default
        if self.out and Path(self.out).resolve() != resumed.resolve():
            raise ConfigError(
                f"ckpt_path={resumed} with --out {self.out}: a training goes on in its own folder; leave --out away, or start from the weights "
                f"with train.init_from={resumed}"
            )
        return resumed


@dataclass(frozen=True, kw_only=True)
class CheckOptions(ConfigOptions):
    """Options of `protlig check`."""

    devices: str = ""


def add_training(commands: Commands) -> None:
    """Add `train` and `check`."""
    text = "train an experiment; without CONFIG the built-in demo"
    sub = with_config(add_command(commands, "train", train, TrainOptions, text, _TRAIN))
    sub.add_argument("--out", help="the run folder (default: runs/NAME)")
    modes = ["", "auto", "never", "last-good"]
    text = "how an existing run folder is continued (default: train.resume of the config)"
    sub.add_argument("--resume", choices=modes, metavar="|".join(modes[1:]), help=text)
    sub.add_argument(
        "--stage", metavar="NAME", help="train only this one of the config's stages; 'last' is the config itself (default: all)"
    )
    text = "validate a config; estimate parameters, FLOPs and memory"
    sub = with_config(add_command(commands, "check", check, CheckOptions, text, _CHECK))
    sub.add_argument("--devices", metavar="8xH100", help="also print the memory by ZeRO stage and the hours on these devices")


def with_config(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add a config with its overrides, and --device."""
    text = "a packaged config, such as structure/3di_tiny (an unknown name lists them all), or a YAML file"
    sub.add_argument("config", nargs="?", help=text)
    sub.add_argument("overrides", nargs="*", metavar="key.sub=value", help=OVERRIDES)
    add_device(sub)
    return sub


def train(options: TrainOptions) -> Iterator[str | int]:
    """Train, then evaluate and report if the config says so; the exit code is 128 + signal if a signal stopped it."""
    from protlig_dd.report.reproduction import write_reproduction
    from protlig_dd.runs.families.stages import LAST
    from protlig_dd.runs.families.table import experiment_of, family_of, run_folder, train_stages
    from protlig_dd.training.distributed import launched

    values = options.values()
    config = experiment_of(values)
    folder = options.folder(run_folder(config.name))
    if config.train.devices > 1 and "RANK" not in os.environ:
        yield from _launch_stages(options, values, folder, config.train.devices)
        return
    config, result = train_stages(values, folder, device=options.device, resume=options.resume, only=options.stage)
    if launched().rank != 0:
        return
    command = " ".join(["protlig train", options.config, *options.overrides])
    write_reproduction(folder, command=command, seed=config.seed)
    if result.stopped_by:
        yield result.exit_code
        return
    yield f"trained {result.steps} steps: {folder}"
    if options.stage in ("", LAST):
        yield from family_of(values).finish(config, folder, result, device=options.device)


def _launch_stages(options: TrainOptions, values: Mapping[str, Any], folder: Path, devices: int) -> Iterator[int]:
    """Train each stage in processes of its own, since a group of processes is not started twice; stop at the first that fails or is stopped."""
    from protlig_dd.runs.families.stages import stages_of
    from protlig_dd.training.launch import launch

    stages = stages_of(values, folder)
    words: list[list[str]] = [[]] if options.stage or len(stages) == 1 else [["--stage", stage.label] for stage in stages]
    for own in words:
        code = launch(devices, [*sys.argv[1:], *own], folder / "checkpoints")
        if code:
            yield code
            return


def check(options: CheckOptions) -> Iterator[str]:
    """Validate a config and estimate its cost."""
    from protlig_dd.runs.families.stages import stages_of
    from protlig_dd.runs.families.table import family_of

    logging.getLogger().setLevel(logging.WARNING)
    values = options.values()
    with TemporaryDirectory() as scratch:  # learned vocabularies are written there
        for stage in stages_of(values, Path(scratch)):
            if stage.name:
                yield f"stage {stage.name}:"
            family = family_of(stage.values)
            yield from family.check(family.read(stage.values), device=options.device, devices=options.devices, folder=stage.folder)
