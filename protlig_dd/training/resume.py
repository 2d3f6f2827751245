"""Saving and restoring the state of a run, on any number of processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from protlig_dd.checkpoints import checkpoint as checkpoints
from protlig_dd.checkpoints.checkpoint import Checkpoint
from protlig_dd.checkpoints.matching import require_fingerprints
from protlig_dd.checkpoints.pointers import ADVICE, mend_pointers
from protlig_dd.errors import CheckpointError, ConfigError, ProtligError
from protlig_dd.training.optim import EMA
from protlig_dd.training.strategies import Single

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(kw_only=True)
class RunState:
    """The state of a run that is saved in addition to weights and optimiser.

    Args:
        folder: the run's folder; checkpoints go to `checkpoints/` in it.
        ema: the averaged weights.
        config: the whole configuration, stored for readers of the checkpoint.
        fingerprints: fingerprints of the vocabularies by track.
        data: the number and the fingerprint of the examples of each part.
        step: number of steps done.
        tokens: number of tokens seen by all processes.
        best: the best validation value so far.
        saved: the last checkpoint written or read.
    """

    folder: Path
    ema: EMA
    config: dict[str, Any] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    tokens: float = 0.0
    best: float | None = None
    saved: Path | None = None

    @property
    def root(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"


def on_rank0(strategy: Single, work: Callable[[], T]) -> T:
    """Return the result of rank 0's work on all processes; if it raises a `ProtligError`, all processes raise the same error."""
    found: tuple[T | None, str, type[ProtligError] | None] = (None, "", None)
    if strategy.rank == 0:
        try:
            found = (work(), "", None)
        except ProtligError as error:
            found = (None, str(error), type(error))
    value, message, kind = strategy.broadcast(found)
    if kind is not None:
        raise kind(message)
    return value  # type: ignore[no-any-return]


def restore(state: RunState, strategy: Single, resume: str) -> int:
    """Load the run's last checkpoint into a wrapped model, its optimiser and `state`; return the number of steps done.

    Raises:
        CheckpointError: if the checkpoint is damaged, or made for another model or other vocabularies.
        ConfigError: if there is a checkpoint and `resume` is "never".
    """
    read: list[Checkpoint] = []

    def look() -> Mapping[str, Any] | None:
        folder = _resumable(state, resume)
        if folder is None:
            return None
        read.append(checkpoints.load(folder))
        require_fingerprints(read[0].state, state.fingerprints, str(folder))
        _require_resumable(read[0].state, folder)
        return {**read[0].state, "folder": str(folder), "has_ema": bool(read[0].ema)}

    found = on_rank0(strategy, look)
    if found is None:
        return 0
    loaded = read[0] if read else None
    if state.ema and found["has_ema"]:
        strategy.load_full_state_dict(loaded.ema if loaded else None)
        state.ema.reset(int(found["ema_updates"]))
    strategy.load_full_state_dict(loaded.weights if loaded else None)
    if state.ema and not found["has_ema"]:
        state.ema.reset()
    strategy.load_optimizer_state(loaded.optimizer if loaded else None)
    strategy.scaler.load_state_dict(found["scaler"])
    state.step, state.tokens, state.best = int(found["step"]), float(found["tokens"]), found["best"]
    state.saved = Path(found["folder"])
    if strategy.rank == 0:
        log.info("resuming after step %d from %s", state.step, state.saved)
    return state.step


_NEEDED = {"tokens": int | float, "ema_updates": int, "scaler": dict, "best": int | float | None}


def _require_resumable(values: Mapping[str, Any], folder: Path) -> None:
    """Refuse a checkpoint without the plain values that training goes on with."""
    for name, form in _NEEDED.items():
        if name not in values or not isinstance(values[name], form):
            raise CheckpointError(f"{folder / 'state.json'}: {name}: found '{values.get(name)}', expected what training wrote; {ADVICE}")


def _resumable(state: RunState, resume: str) -> Path | None:
    if resume == "never":
        present = checkpoints.list_checkpoints(state.root)
        if present:
            raise ConfigError(
                f"train.resume: found 'never', but {state.root} holds checkpoints up to step {checkpoints.step_of(present[-1])}; "
                f"use another run folder, or resume=auto to go on"
            )
        return None
    checkpoints.clean(state.root)
    found = checkpoints.find_resumable(state.root, resume)
    mend_pointers(state.root)
    return found


def store(state: RunState, strategy: Single, *, metrics: Mapping[str, float | int], keep: int, best: bool) -> Path:
    """Write a checkpoint of the run, and return its folder. All processes must call it.

    Raises:
        CheckpointError: if it cannot be written; on all processes.
    """
    weights, optimizer = strategy.full_state_dict(), strategy.optimizer_state()
    averaged = {}
    if state.ema:
        with strategy.averaged(state.ema):
            averaged = strategy.full_state_dict()
    plain = {
        "config": state.config,
        "fingerprints": state.fingerprints,
        "data": state.data,
        "metrics": dict(metrics),
        "tokens": state.tokens,
        "best": state.best,
        "ema_updates": state.ema.num_updates,
        "scaler": strategy.scaler.state_dict(),
        "distributed": strategy.name,
        "world": strategy.world,
    }
    made = Checkpoint(step=state.step, weights=weights, ema=averaged, optimizer=optimizer, state=plain)
    state.saved = on_rank0(strategy, lambda: checkpoints.save(state.root, made, keep=keep, best=best))
    return state.saved
