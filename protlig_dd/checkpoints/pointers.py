"""Which checkpoints a folder has, and which of them `last.json` and `best.json` name: {"checkpoint": "step_00001000"}.

A damaged pointer is worked out from the checkpoints, or refused by name.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from protlig_dd.documents import read_json_object
from protlig_dd.errors import CheckpointError, FormatError
from protlig_dd.files import write_json

log = logging.getLogger(__name__)
NAME = re.compile(r"step_(\d{8,})")
POINTERS = ("last", "best")
ADVICE = "use the checkpoint before it with --resume=last-good"


def step_of(folder: Path) -> int:
    """Return the step in the name of a checkpoint folder."""
    found = NAME.fullmatch(folder.name)
    assert found is not None, folder
    return int(found[1])


def list_checkpoints(root: Path) -> list[Path]:
    """Return the complete checkpoints under a folder, in the order of their steps."""
    return sorted((p for p in root.glob("step_*") if NAME.fullmatch(p.name)), key=step_of)


def point(root: Path, name: str, target: Path) -> None:
    """Let `last` or `best` name a checkpoint."""
    write_json(root / f"{name}.json", {"checkpoint": target.name}, durable=True)


def pointed_at(root: Path, name: str) -> Path | None:
    """Return the checkpoint that `last` or `best` names; None without such a pointer, or if what it names is gone.

    A damaged pointer is worked out from the checkpoints, and a line of the log says so.

    Raises:
        CheckpointError: for a damaged pointer that they do not tell.
    """
    pointer = root / f"{name}.json"
    if not pointer.is_file():
        return None
    named = _named(pointer)
    if named is not None and named.is_dir():
        return named
    found = _worked_out(root, name)
    if found is None and named is None:
        raise CheckpointError(
            f"{pointer}: damaged, and the checkpoints beside it do not say which is the {name}; name it in there, or remove it"
        )
    if found is not None:
        log.warning(
            "%s: %s; by the checkpoints beside it, it is %s", pointer, "damaged" if named is None else f"{named.name} is gone", found.name
        )
    return found


def _named(pointer: Path) -> Path | None:
    """The checkpoint that a pointer names, whether it is there or not; None for a damaged pointer. A name leads nowhere else."""
    try:
        name = read_json_object(pointer, "").get("checkpoint")
    except FormatError:
        return None
    return pointer.parent / name if isinstance(name, str) and NAME.fullmatch(name) else None


def _worked_out(root: Path, name: str) -> Path | None:
    """The last checkpoint: the newest. The best: the first one whose validation gave the best value that the newest one knows of."""
    found = list_checkpoints(root)
    if name == "last":
        return found[-1] if found else None
    states = {}
    for folder in found:
        with suppress(CheckpointError):
            states[folder] = read_object(folder / "state.json")
    best = next((state.get("best") for state in reversed(states.values())), None)
    for folder, state in states.items():
        metrics = state.get("metrics")
        if best is not None and state.get("best") == best and isinstance(metrics, dict) and best in metrics.values():
            return folder
    return None


def mend_pointers(root: Path) -> None:
    """Write damaged pointers again, as far as the checkpoints tell what they named."""
    for name in POINTERS:
        pointer = root / f"{name}.json"
        named = _named(pointer) if pointer.is_file() else None
        found = _worked_out(root, name)
        if pointer.is_file() and found is not None and (named is None or not named.is_dir()):
            point(root, name, found)
            log.warning("%s: was damaged, or what it named is gone; written again: %s", pointer, found.name)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint.

    Raises:
        CheckpointError: if it is damaged.
    """
    try:
        return read_json_object(path, ADVICE)
    except FormatError as error:
        raise CheckpointError(str(error)) from error


def read_state(folder: Path) -> dict[str, Any]:
    """Return the plain values of a checkpoint.

    Raises:
        CheckpointError: for a state.json that is damaged, or of another checkpoint.
    """
    state = read_object(folder / "state.json")
    if type(state.get("step")) is not int or (NAME.fullmatch(folder.name) and state["step"] != step_of(folder)):
        raise CheckpointError(f"{folder / 'state.json'}: found step {str(state.get('step'))[:20]}, expected that of the folder; {ADVICE}")
    return state
