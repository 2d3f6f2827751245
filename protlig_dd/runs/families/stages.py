"""Stages: trainings that come before that of a config, in the same run folder, such as a ligand's language before pairs.

A config's `stages` map a name to the settings in which that stage differs from the config itself. They run in order, each in
RUN/stages/NAME, which is a run folder like any other; a stage, and at last the config, starts from the weights of all stages before it
that share a track with it, unless its `train.init_from` says otherwise. The same command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protlig_dd.checkpoints.run_folder import absent_data
from protlig_dd.config_files import merged
from protlig_dd.errors import ConfigError

LAST = "last"
"""What `--stage` calls the config itself."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of a command: the name of the stage ("" for the config itself), its run folder and its plain settings."""

    name: str
    folder: Path
    values: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What `--stage` calls it."""
        return self.name or LAST

    def require_data(self, data: Mapping[str, Any]) -> None:
        """Check that the files of the stage's data are there, before an hour is spent on the stages before it.

        Raises:
            ConfigError: naming the setting and what to do.
        """
        for name, value in absent_data(data):
            part = f"stages.{self.name}." if self.name else ""
            skip = f", or leave the stage out: stages.{self.name}=null" if self.name else ""
            raise ConfigError(f"{part}data.{name}: found no '{value}' in {Path.cwd()}; name a file{skip} (public data: protlig download)")


def stages_of(values: Mapping[str, Any], folder: Path) -> list[Stage]:
    """Return the stages of a config's plain values in order, the config itself last; a stage that is null is left out.

    Args:
        values: as `config_files.read_config` returns them.
        folder: the run folder.

    Raises:
        ConfigError: for stages that are no mapping of names to settings.

    >>> values = {"tracks": {"ligand": {}}, "train": {"steps": 9}, "stages": {"first": {"train": {"steps": 5}}}}
    >>> [(stage.name, stage.values["train"]) for stage in stages_of(values, Path("run"))]
    [('first', {'steps': 5}), ('', {'steps': 9, 'init_from': 'run/stages/first'})]
    """
    rest = {name: value for name, value in values.items() if name != "stages"}
    wanted = values.get("stages") or {}
    if not isinstance(wanted, Mapping):
        raise ConfigError(f"stages: found {wanted!r}, expected names with settings, such as ligand: {{train: {{steps: 100}}}}")
    made: list[Stage] = []
    for name, changes in [*wanted.items(), ("", {})]:
        if changes is None:
            continue
        if not isinstance(changes, Mapping):
            raise ConfigError(f"stages.{name}: found {changes!r}, expected settings, such as {{train: {{steps: 100}}}}, or null")
        if name and (Path(name).name != name or name in (".", "..", LAST)):
            raise ConfigError(f"stages: found the name '{name}', expected a plain word other than '{LAST}': it names a folder")
        own = merged(rest, changes)
        place = folder / "stages" / name if name else folder
        made.append(Stage(name=name, folder=place, values=_started(own, made)))
    return made


def _started(values: dict[str, Any], before: list[Stage]) -> dict[str, Any]:
    """The values with `train.init_from` set to the stages before that share a track, unless it is set."""
    train = dict(values.get("train") or {})
    sources = [stage.folder.as_posix() for stage in before if _tracks(stage.values) & _tracks(values)]
    if sources and not train.get("init_from"):
        train["init_from"] = ",".join(sources)
    return {**values, "train": train} if train else values


def _tracks(values: Mapping[str, Any]) -> set[str]:
    """The names of the tracks that plain values describe."""
    tracks = values.get("tracks")
    return {name for name, track in tracks.items() if track is not None} if isinstance(tracks, Mapping) else set()
