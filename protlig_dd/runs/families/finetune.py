"""Fine-tuning of a run on a table of one's own: the run's experiment with other data, started from its weights, in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from protlig_dd.checkpoints.run_folder import read_config_file
from protlig_dd.config import to_mapping
from protlig_dd.config_files import merged, with_overrides
from protlig_dd.errors import ConfigError
from protlig_dd.runs.experiment import Experiment, experiment_from
from protlig_dd.runs.open import open_run
from protlig_dd.runs.train import starting_model
from protlig_dd.runs.validation import Validator
from protlig_dd.runs.vocabularies import own_vocabularies
from protlig_dd.tokens.settings import LigandTrack
from protlig_dd.training.strategies import Single


def finetuned_experiment(source: Path, pairs: Path, *, steps: int, lr: float, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment that trains a run on other pairs, a fifth of whose ligands are held out.

    Args:
        source: the run folder; its tracks, vocabularies, model, tasks and policies of molecules are kept.
        pairs: a table of pairs.
        steps: training steps.
        lr: the peak learning rate; 0 for a quarter of the run's.
        overrides: `key.sub=value` changes.

    Raises:
        ConfigError: for a run of another kind of data, or settings that do not fit.
    """
    values = read_config_file(source / "config.yaml")
    kept = own_vocabularies(experiment_from(values), source)
    if "ligand" not in kept.tracks or "protein" not in kept.tracks:
        raise ConfigError(f"{source}: found the tracks {', '.join(kept.tracks)}, expected a run on protein-ligand pairs")
    data = values["data"] if values["data"].get("kind") == "pairs" else {"kind": "pairs", "unknown": "drop"}
    files = {"path": str(pairs), "validation_path": "", "test_path": "", "limit": 0, "train_limit": 0}
    own = {**data, **files, "split": {"kind": "ligand", "validation_fraction": 0.2}}
    vocabularies = {name: {"vocabulary": t.vocabulary, "merges": t.merges} for name, t in kept.tracks.items() if isinstance(t, LigandTrack)}
    every = max(1, steps // 4)
    train = {"init_from": str(source), "steps": steps, "tokens": 0, "validate_every": every, "checkpoint_every": every, "resume": "auto"}
    optim = {"lr": lr or kept.train.optim.lr / 4, "warmup_steps": max(1, steps // 10)}
    changes: dict[str, Any] = {"name": f"{kept.name}_finetuned", "tracks": vocabularies, "train": {**train, "optim": optim}}
    return experiment_from(with_overrides({**merged(to_mapping(kept), changes), "data": own}, overrides))


def told_before_and_after(config: Experiment, folder: Path, *, device: str = "auto") -> list[str]:
    """Return the bound of the held-out ligands before and after fine-tuning, in words; the noise is the same.

    Args:
        config: the experiment that was trained.
        folder: its run folder.
        device: "auto", "cpu", "cuda", "mps" or "xpu".
    """
    run = open_run(folder, device=device)
    validate = Validator(run.parts, run.data, run.choice)
    before = starting_model(run.parts, config.train, run.choice, Single(run.choice)).eval()
    return [
        f"nats per token of the held-out ligands, {name}: {_told(validate, model)}"
        for name, model in (("before", before), ("after", run.model))
    ]


def _told(validate: Validator, model: nn.Module) -> str:
    with torch.no_grad():
        found = validate(model)
    return f"{found['nll']:.3f} [{found['nll_low']:.3f}, {found['nll_high']:.3f}] on {found['num_examples']:.0f} examples"
