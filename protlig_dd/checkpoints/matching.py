"""Checks that a checkpoint belongs to a model and its vocabularies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from protlig_dd.errors import CheckpointError


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


def require_same_shapes(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check that weights have the names and shapes of a model.

    Raises:
        CheckpointError: with the first tensor that differs.
    """
    require_names(found, list(expected), "weights.safetensors")
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            raise CheckpointError(
                f"weights.safetensors: '{name}' has shape {tuple(found[name].shape)}, the model expects {shape}; "
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
    found = state.get("fingerprints", {})
    for track, fingerprint in expected.items():
        if found.get(track) != fingerprint:
            raise CheckpointError(
                f"{where}: the vocabulary of track '{track}' has fingerprint '{found.get(track)}', the configured one '{fingerprint}'; "
                f"use the vocabulary it was trained with (tracks.{track}.vocabulary)"
            )
