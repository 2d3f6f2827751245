"""Run folders on disk: config.yaml, data.txt and the checkpoints of one experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from protlig_dd.checkpoints import checkpoint as checkpoints
from protlig_dd.errors import CheckpointError, ConfigError

Which = Literal["last", "best"]


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the plain values of a run's config.yaml.

    Raises:
        ConfigError: if it is missing or not YAML.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: not readable ({error}); expected a run folder, as 'protlig train' makes it"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__}, expected the settings of a run")
    return values


def read_checkpoint(folder: Path, which: Which) -> tuple[Path, checkpoints.Checkpoint]:
    """Return the path and the content of the checkpoint that `which` points at, or else of the newest one."""
    root = folder / "checkpoints"
    path = checkpoints.pointed_at(root, which) or next(iter(reversed(checkpoints.list_checkpoints(root))), None)
    if path is None:
        raise CheckpointError(f"{root}: found no checkpoint, expected step_*; train first with: protlig train")
    return path, checkpoints.load(path, parts=("weights", "ema"))


def require_same_experiment(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on in a folder with another experiment. How long to train, and what is logged and evaluated, may change.

    A folder without a checkpoint has nothing to go on from, and is taken over.

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
