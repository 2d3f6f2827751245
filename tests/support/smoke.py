"""Settings that reduce `demo/smoke` to about a second, and older run folders."""

from __future__ import annotations

import json
from pathlib import Path

from protlig_dd.files import sha256_of

SMOKE = ("train.steps=4", "train.checkpoint_every=2", "train.validate_every=4", "evaluation.after_training=false")


def forget(folder: Path, name: str) -> None:
    """Take a value out of the state of a run's checkpoints: older versions did not write it."""
    for path in (folder / "checkpoints").glob("step_*"):
        state = json.loads((path / "state.json").read_text())
        del state[name]
        (path / "state.json").write_text(json.dumps(state))
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"]["state.json"] = {"sha256": sha256_of(path / "state.json"), "bytes": (path / "state.json").stat().st_size}
        (path / "manifest.json").write_text(json.dumps(manifest))
