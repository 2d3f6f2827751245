"""Run folders on disk: config.yaml, data.txt and the checkpoints of one experiment."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from protlig_dd.checkpoints import checkpoint as checkpoints
from protlig_dd.documents import read_yaml
from protlig_dd.errors import CheckpointError, ConfigError, FormatError
from protlig_dd.files import write_text

Which = Literal["last", "best"]
log = logging.getLogger(__name__)


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the plain values of a run's config.yaml.

    Raises:
        ConfigError: if it is missing or not YAML.
    """
    try:
        return read_yaml(path)
    except FormatError as error:
        raise ConfigError(f"{error}; expected a run folder, as 'protlig train' makes it") from error


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


def write_description(folder: Path, config: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Write config.yaml, and what was read of the data as data.txt, into a run folder; it is made if it is absent.

    Raises:
        ConfigError: if the folder holds checkpoints of another experiment.
    """
    path = folder / "config.yaml"
    if path.is_file():
        require_same_experiment(read_config_file(path), config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(dict(config), sort_keys=False))
    write_text(folder / "data.txt", "\n".join(lines) + "\n")


def require_same_experiment(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Check that a folder holds the same experiment. The length of training, and what is logged and evaluated, may change.

    A folder without a checkpoint may be used by any experiment.

    Raises:
        ConfigError: naming the first setting that differs.
    """
    if not any((folder / "checkpoints").glob("step_*")):
        return
    may_change = {"steps", "tokens", "log_every", "validate_every", "checkpoint_every", "keep", "resume", "tracking"}
    may_change |= {"devices", "prefetch", "watchdog_seconds", "distributed", "deepspeed", "compile", "accumulation"}
    for part in ("seed", "tracks", "data", "model", "diffusion", "train"):
        old, new = before.get(part), now.get(part)
        if part == "train" and isinstance(old, Mapping) and isinstance(new, Mapping):
            old = {k: v for k, v in old.items() if k not in may_change}
            new = {k: v for k, v in new.items() if k not in may_change}
        if old != new:
            raise ConfigError(
                f"{folder}: holds another experiment ({part}: found {_first_difference(old, new)}); "
                f"give this one a name of its own with name=..., or remove the folder"
            )


def _first_difference(old: Any, new: Any) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return f"{key} " + _first_difference(old.get(key), new.get(key))
    return f"'{old}' there and '{new}' now"
