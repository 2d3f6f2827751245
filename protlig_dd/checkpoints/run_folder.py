"""Run folders on disk: config.yaml, data.txt and the checkpoints of one experiment."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml

from protlig_dd.checkpoints import checkpoint as checkpoints
from protlig_dd.checkpoints.matching import Complete, completed, require_fingerprints, require_same_data, require_same_experiment
from protlig_dd.documents import read_yaml
from protlig_dd.errors import CheckpointError, ConfigError, FormatError
from protlig_dd.files import write_text

Which = Literal["last", "best"]
_NONE: Mapping[str, Any] = MappingProxyType({})
log = logging.getLogger(__name__)


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the plain values of a run's config.yaml.

    Raises:
        ConfigError: if it is missing or not YAML.
    """
    try:
        values = read_yaml(path)
    except FormatError as error:
        raise ConfigError(f"{error}; expected a run folder, as 'protlig train' makes it") from error
    if not values:
        raise ConfigError(f"{path}: found nothing, expected the settings of a run")
    return values


def kind_of(values: Mapping[str, Any]) -> str:
    """Return `model.kind` of the plain values of a config; "" where there is none."""
    model = values.get("model")
    return str(model.get("kind", "")) if isinstance(model, Mapping) else ""


def read_checkpoint(folder: Path, which: Which) -> tuple[Path, checkpoints.Checkpoint]:
    """Return the path and the content of the checkpoint that `which` points at; of the newest one in a run without a best one.

    Raises:
        CheckpointError: if there is none, or it is damaged, or gone.
    """
    root = folder / "checkpoints"
    path = checkpoints.pointed_at(root, which)
    if path is None and which == "best":
        if (root / "best.json").is_file():
            raise CheckpointError(f"{root / 'best.json'}: the checkpoint that it names is gone; use the last one (--which last)")
        log.warning("%s: has no best checkpoint, since nothing was validated; the last one is used", folder)
    path = path or next(iter(reversed(checkpoints.list_checkpoints(root))), None)
    if path is None:
        raise CheckpointError(f"{root}: found no checkpoint, expected step_*; train first with: protlig train")
    return path, checkpoints.load(path, parts=("weights", "ema"))


def require_data_here(data: Mapping[str, Any], folder: Path) -> None:
    """Check that the relative paths of a run's data lead somewhere: they are those of the folder where its training was started.

    Args:
        data: the plain values of the run's data.
        folder: the run folder.

    Raises:
        ConfigError: naming the path.
    """
    for name, value in absent_data(data):
        if not Path(value).is_absolute():
            raise ConfigError(
                f"{folder / 'config.yaml'}: data.{name}: found no '{value}' in {Path.cwd()}, though training found it from where it was started; "
                f"start the command there, or write into this file where the data are now"
            )


def absent_data(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings of a run's data that name a place where nothing is, with the place; "db" is there if "db.index" is."""
    for name, value in data.items():
        place = Path(value) if (name == "path" or name.endswith("_path")) and value else None
        if place is not None and not any(place.parent.glob(f"{glob.escape(place.name)}*")):
            yield name, value


def write_description(
    folder: Path,
    config: Mapping[str, Any],
    lines: Sequence[str],
    *,
    complete: Complete = dict,
    vocabularies: Mapping[str, str] = _NONE,
    data: Mapping[str, Any] = _NONE,
) -> None:
    """Write config.yaml, and what was read of the data as data.txt, into a run folder; it is made if it is absent.

    Args:
        folder: the run folder.
        config: the experiment.
        lines: about the data.
        complete: returns the plain values of an experiment with the defaults of settings that they lack.
        vocabularies: the fingerprint of each track's vocabulary.
        data: the number and the fingerprint of the examples of each part.

    Raises:
        ConfigError: if the folder holds checkpoints of another experiment, or of other data.
        CheckpointError: if it holds checkpoints made with other vocabularies.
    """
    path = folder / "config.yaml"
    found = checkpoints.list_checkpoints(folder / "checkpoints")
    if found:
        state = newest_state(folder)
        kept = state.get("config")
        before = kept if kept and isinstance(kept, Mapping) else read_config_file(path) if path.is_file() else {}
        if before:
            require_same_experiment(completed(before, complete), config, folder, knows_data="data" in state)
        if state:
            require_fingerprints(state, vocabularies, str(found[-1]))
            require_same_data(state, data, str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(dict(config), sort_keys=False))
    write_text(folder / "data.txt", "\n".join(lines) + "\n")


def newest_state(folder: Path) -> dict[str, Any]:
    """Return the plain values of the newest checkpoint of a run whose state can be read; empty without one."""
    for path in reversed(checkpoints.list_checkpoints(folder / "checkpoints")):
        with suppress(CheckpointError):
            return checkpoints.read_state(path)
    return {}
