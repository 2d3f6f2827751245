"""Checks that a checkpoint belongs to a model, its vocabularies, its data and its settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from protlig_dd.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)
Complete = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Returns the plain values of an experiment with the defaults of settings that they lack."""


def require_names(found: Mapping[str, Any], expected: Sequence[str], where: str) -> None:
    """Check that a state has exactly the expected names.

    Args:
        found: the state by name.
        expected: the names.
        where: the file, for the message.

    Raises:
        CheckpointError: with the first differences.
    """
    missing, extra = [n for n in expected if n not in found], sorted(set(found) - set(expected))
    if missing or extra:
        raise CheckpointError(
            f"{where}: made for another model: {len(missing)} tensors missing {missing[:3]}, {len(extra)} not expected {extra[:3]}; "
            f"use the configuration it was trained with"
        )


def require_same_shapes(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], where: str = "weights.safetensors") -> None:
    """Check that weights have the names and shapes of a model.

    Args:
        found: the weights by name.
        expected: the model's shapes by name.
        where: the file or run, for the message.

    Raises:
        CheckpointError: with the first tensor that differs.
    """
    require_names(found, list(expected), where)
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            raise CheckpointError(
                f"{where}: '{name}' has shape {tuple(found[name].shape)}, the model expects {shape}; "
                f"use the configuration and vocabulary it was trained with"
            )


def require_fingerprints(state: Mapping[str, Any], expected: Mapping[str, str], where: str) -> None:
    """Check that a checkpoint was made with the configured vocabularies.

    Args:
        state: the checkpoint's state, with `fingerprints` by track.
        expected: the fingerprint of each track's configured vocabulary.
        where: the checkpoint, for the message.

    Raises:
        CheckpointError: with the track that differs.
    """
    found = state.get("fingerprints")
    found = found if isinstance(found, Mapping) else {}
    for track, fingerprint in expected.items():
        if found.get(track) != fingerprint:
            raise CheckpointError(
                f"{where}: the vocabulary of track '{track}' was {found.get(track)} in training and is {fingerprint} now; "
                f"use the vocabulary it was trained with (tracks.{track}.vocabulary), or train anew"
            )


def require_same_data(state: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Check that a run goes on with the examples it was trained on; a state of an older version does not tell.

    Args:
        state: the checkpoint's state.
        now: the number and the fingerprint of the examples of each part, as they are read now.
        where: the run folder, for the message.

    Raises:
        ConfigError: with the part that differs.
    """
    changed = changed_data(state, now)
    if changed:
        raise ConfigError(
            f"{where}: {changed}; restore them, or train on the changed ones in a folder of its own: name=... (its weights can be the start: "
            f"train.init_from={where})"
        )


def warn_of_changed_data(state: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Log that a run is evaluated on data that are not those of its training; arguments as in `require_same_data`."""
    changed = changed_data(state, now)
    if changed:
        log.warning("%s: %s; the split may have moved, so that examples of validation and test were trained on", where, changed)


def changed_data(state: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how the data differ from those of a checkpoint, in words; "" if they do not, or it does not tell."""
    before = state.get("data")
    if not isinstance(before, Mapping) or not before:
        return ""
    for part in {**before, **now}:
        if before.get(part) != now.get(part):
            then = f"the data are not those of step {state.get('step')}"
            return f"{then}: {part} had {_described(before.get(part))}, now {_described(now.get(part))}"
    return ""


def _described(part: Any) -> str:
    return f"{part.get('examples')} examples, fingerprint {part.get('fingerprint')}" if isinstance(part, Mapping) else "no examples"


def completed(values: Mapping[str, Any], complete: Complete) -> Mapping[str, Any]:
    """Return settings with the defaults that they lack, or as they are if this version does not know them all."""
    with suppress(ConfigError):
        return complete(values)
    return values


_MAY_CHANGE = {"steps", "tokens", "log_every", "validate_every", "checkpoint_every", "keep", "resume", "tracking"} | {
    *("devices", "prefetch", "watchdog_seconds", "distributed", "deepspeed", "compile", "accumulation")
}
"""Settings of training that do not decide what is learned."""


def require_same_experiment(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path, *, knows_data: bool = False) -> None:
    """Check that a folder holds the same experiment. The length of training, and what is logged and evaluated, may change.

    Args:
        before: the experiment that the folder holds.
        now: the one that is to be trained there.
        folder: the run folder.
        knows_data: whether the checkpoints know their data, so that these may lie elsewhere now.

    Raises:
        ConfigError: naming the first setting that differs.
    """
    for part in (*_LEARNED, "train"):
        old, new = (
            _without_places(part, values.get(part)) if knows_data or part != "data" else values.get(part) for values in (before, now)
        )
        if part == "train" and isinstance(old, Mapping) and isinstance(new, Mapping):
            old, new = ({k: v for k, v in values.items() if k not in _MAY_CHANGE} for values in (old, new))
        if old != new:
            place, there, here = _first_difference(old, new)
            raise ConfigError(
                f"{folder}: holds another experiment ({part}: found {' '.join([*place, ''])}'{there}' there and '{here}' now); "
                f"give this one a name of its own with name=..., or remove the folder"
            )


_LEARNED = ("seed", "tracks", "data", "model", "diffusion", "condition_dropout")
"""The parts of an experiment that decide what its weights mean, and on which examples they were trained."""


def require_trained(folder: Path, values: Mapping[str, Any], state: Mapping[str, Any], complete: Complete) -> None:
    """Check that a run's config.yaml says what its checkpoint was trained with: edited by hand, weights would be taken for others.

    Sampling, evaluation, logging and the places of files may be changed there. A state of an older version may not have the settings.

    Args:
        folder: the run folder.
        values: the settings of its config.yaml, defaults included.
        state: the checkpoint's state.
        complete: as in `write_description`.

    Raises:
        ConfigError: naming the first setting that differs.
    """
    trained = state.get("config")
    if not isinstance(trained, Mapping) or not trained:
        return
    trained = completed(trained, complete)
    for part in _LEARNED:
        old, new = _without_places(part, trained.get(part)), _without_places(part, values.get(part))
        if old != new:
            place, there, here = _first_difference(old, new)
            raise ConfigError(
                f"{folder / 'config.yaml'}: {'.'.join([part, *place])}: found '{here}', and the checkpoint was trained with '{there}'; undo the "
                f"change, or train anew with it (what may be changed here: sampling, evaluation, train, and the places of files)"
            )


def _without_places(part: str, values: Any) -> Any:
    """A part of an experiment without the names of its files, which may move: their content has fingerprints."""
    if not isinstance(values, Mapping):
        return values
    if part == "tracks":
        return {name: _without_places("track", track) for name, track in values.items()}
    if part == "track":
        return {k: v for k, v in values.items() if k != "vocabulary"}
    if part == "data":
        return {k: v for k, v in values.items() if k != "path" and not k.endswith("_path")}
    base = values.get("base")
    return {**values, "base": Path(base).name} if part == "model" and isinstance(base, str) else values


def _first_difference(old: Any, new: Any) -> tuple[list[str], Any, Any]:
    """The keys that lead to the first difference, and the two values there."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                place, there, here = _first_difference(old.get(key), new.get(key))
                return [str(key), *place], there, here
    return [], old, new
