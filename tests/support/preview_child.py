"""A run with previews that other processes can start."""

from __future__ import annotations

from pathlib import Path

from protlig_dd.runs.experiment import load_experiment
from protlig_dd.runs.preview import preview_hooks
from protlig_dd.runs.train import train_experiment


def train_with_previews(folder: Path, overrides: list[str]) -> None:
    """Train on structure tokens, drawing structures on the way, as rank and world of the environment say."""
    train_experiment(load_experiment("structure/kanzi_tiny", overrides), folder, device="cpu", make_hooks=preview_hooks)
