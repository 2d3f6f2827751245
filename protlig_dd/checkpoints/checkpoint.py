"""Checkpoints on disk: one folder each, complete or absent, a checksum for every file, never a pickle.

    checkpoints/step_00001000/   weights.safetensors  ema.safetensors  optimizer.safetensors  state.json  manifest.json
    checkpoints/last.json, best.json   {"checkpoint": "step_00001000"}

A folder is written under a temporary name, flushed to the disk, and renamed, so a folder named `step_*` is complete.
Tensors are whole (unsharded) and on the host, so a checkpoint does not depend on the number of processes that write or read it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from protlig_dd.checkpoints.pointers import ADVICE, NAME, POINTERS, list_checkpoints, point, pointed_at, read_object, read_state, step_of
from protlig_dd.errors import CheckpointError
from protlig_dd.files import flush, sha256_of, write_json

log = logging.getLogger(__name__)
_TEMPORARY = ".writing-"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of a checkpoint: tensors by name, and plain JSON values in `state`. `ema` and `optimizer` may be empty."""

    step: int
    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


def save(root: Path, checkpoint: Checkpoint, *, keep: int = 3, best: bool = False) -> Path:
    """Write a checkpoint under `root`, point `last` (and `best`) at it, and remove the oldest beyond `keep`; return its folder.

    Args:
        root: the folder of checkpoints.
        checkpoint: the content.
        keep: number of newest checkpoints to keep; 0 keeps all. The one that `best` points at is never removed.
        best: whether `best` points at this checkpoint too.

    Raises:
        CheckpointError: if it cannot be written (disk full, quota, permissions); earlier checkpoints are not touched.
    """
    final = root / f"step_{checkpoint.step:08d}"
    temporary = root / f"{_TEMPORARY}{final.name}-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write_parts(temporary, checkpoint)
        if final.exists():
            aside = root / f"{_TEMPORARY}replaced-{final.name}-{os.getpid()}"
            os.rename(final, aside)
        os.rename(temporary, final)
        flush(root)
        for name in POINTERS if best else POINTERS[:1]:
            point(root, name, final)
        _prune(root, keep)
        clean(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_explain_failure(root, final, checkpoint, error)) from error
    return final


def _explain_failure(root: Path, final: Path, checkpoint: Checkpoint, error: Exception) -> str:
    groups = (checkpoint.weights, checkpoint.ema, checkpoint.optimizer)
    needed = sum(t.numel() * t.element_size() for group in groups for t in group.values())
    present = root if root.is_dir() else Path()
    good = list_checkpoints(root)
    kept = f"the checkpoint of step {step_of(good[-1])} is intact" if good else "there is no earlier checkpoint"
    return (
        f"{final}: not written ({' '.join(str(error).split())}): it takes {needed / 1e6:.1f} MB, "
        f"{shutil.disk_usage(present).free / 1e6:.1f} MB are free; {kept}; "
        f"make room (or lower train.keep) and start the same command again"
    )


def _write_parts(folder: Path, checkpoint: Checkpoint) -> None:
    tensors = {"weights": checkpoint.weights, "ema": checkpoint.ema, "optimizer": checkpoint.optimizer}
    names = [f"{name}.safetensors" for name, part in tensors.items() if part]
    for name, part in tensors.items():
        if part:
            save_file(_without_shared_memory(part), folder / f"{name}.safetensors")
    state = {"step": checkpoint.step, "torch": torch.__version__, **checkpoint.state}
    write_json(folder / "state.json", state, sort_keys=True)
    names.append("state.json")
    sums = {name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size} for name in names}
    write_json(folder / "manifest.json", {"format": 1, "step": checkpoint.step, "files": sums}, sort_keys=True)
    for name in (*names, "manifest.json"):
        flush(folder / name)
    flush(folder)


def _without_shared_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory (tied weights): the format has no aliases."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if address in seen else tensor.contiguous()
        seen.add(address)
    return separate


def _prune(root: Path, keep: int) -> None:
    try:
        protected = pointed_at(root, "best")
    except CheckpointError as error:
        log.warning("%s; nothing is removed until then", error)
        return
    for folder in list_checkpoints(root)[:-keep] if keep else []:
        if folder != protected:
            # Renamed first: a kill during the removal must not leave an incomplete checkpoint.
            doomed = root / f"{_TEMPORARY}removed-{folder.name}"
            os.rename(folder, doomed)
            shutil.rmtree(doomed)


def clean(root: Path) -> None:
    """Remove temporary files and folders of interrupted writes."""
    for leftover in (*root.glob(f"{_TEMPORARY}*"), *root.glob(".*.writing")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def verify(folder: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises:
        CheckpointError: with the file, the checksum found and the one expected.
    """
    for name, expected in _read_manifest(folder).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, though the manifest lists it; {ADVICE}")
        found = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for kind, value in expected.items():
            if found[kind] != value:
                raise CheckpointError(f"{path}: damaged: found {kind} {found[kind]}, expected {value}; {ADVICE}")


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The checksum and size of each file. Every value is checked, for no checksum protects the manifest itself, and names stay in the folder."""
    path = folder / "manifest.json"
    manifest = read_object(path)
    files = manifest.get("files")
    if not isinstance(files, dict) or not {"weights.safetensors", "state.json"} <= set(files):
        raise CheckpointError(f"{path}: damaged: it lists no weights and state; {ADVICE}")
    wrong = sorted(set(files) - _FILES) + [name for name, entry in files.items() if not isinstance(entry, dict) or set(entry) != _FACTS]
    if wrong or set(manifest) != {"format", "step", "files"} or manifest["format"] != 1:
        raise CheckpointError(f"{path}: damaged: expected format 1, and {' and '.join(sorted(_FACTS))} of each file; {ADVICE}")
    if NAME.fullmatch(folder.name) and manifest["step"] != step_of(folder):
        raise CheckpointError(f"{path}: damaged: found step {str(manifest['step'])[:20]}, expected that of the folder; {ADVICE}")
    return files


_FILES, _FACTS = {"weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}, {"sha256", "bytes"}


def load(folder: Path, *, parts: Sequence[str] = ("weights", "ema", "optimizer")) -> Checkpoint:
    """Return a checkpoint after verifying it; parts that are not requested, or absent, are empty.

    Raises:
        CheckpointError: if it is damaged or incomplete.
    """
    verify(folder)
    listed, state = _read_manifest(folder), read_state(folder)
    tensors: dict[str, dict[str, Tensor]] = {}
    for name in parts:
        path = folder / f"{name}.safetensors"
        try:
            tensors[name] = load_file(path) if path.name in listed else {}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: not readable ({error}); {ADVICE}") from error
    return Checkpoint(step=state["step"], state=state, **{"weights": {}, **tensors})


def find_resumable(root: Path, mode: str = "auto") -> Path | None:
    """Return the checkpoint to resume from, or None if there is none.

    Args:
        root: the folder of checkpoints.
        mode: "auto" takes the newest, and refuses it if damaged; "last-good" takes the newest undamaged one, and renames newer damaged
            ones to `damaged_*`, so that nothing is lost.

    Raises:
        CheckpointError: if the newest is damaged ("auto"), or all are ("last-good").
    """
    found = list_checkpoints(root)
    if mode == "auto":
        if found:
            verify(found[-1])
        return found[-1] if found else None
    assert mode == "last-good", mode
    damaged = []
    for folder in reversed(found):
        try:
            verify(folder)
        except CheckpointError as error:
            log.warning("%s", str(error).removesuffix(f"; {ADVICE}"))
            damaged.append(folder)
            continue
        for bad in damaged:
            aside = bad.with_name(f"damaged_{bad.name}")
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(bad, aside)
            log.warning("%s: set aside as %s", bad, aside.name)
        return folder
    if damaged:
        raise CheckpointError(f"{root}: all {len(damaged)} checkpoints are damaged; start anew in another folder")
    return None


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the first 16 hex digits of a SHA-256 over the tensors' names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model; a packed quantised weight counts with its unpacked shape."""
    states = ((p, getattr(p, "quant_state", None)) for p in model.parameters())
    return sum(p.numel() if state is None else state.shape.numel() for p, state in states)
