"""An encoder as a folder that stock `transformers` loads, with a passport; and uploading such folders."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from protlig_dd import __version__
from protlig_dd.checkpoints.finite import require_finite, require_finite_weights
from protlig_dd.config import to_mapping
from protlig_dd.errors import CheckpointError, ConfigError, require
from protlig_dd.models.encoder import Encoder, EncoderSettings
from protlig_dd.models.published.export import save_pretrained
from protlig_dd.models.published.pretrained import read_pretrained
from protlig_dd.runs.open import open_published
from protlig_dd.runs.run import Run
from protlig_dd.tokens.protein import AMINO_ACIDS
from protlig_dd.tokens.tracks import pack

_PROBE = (AMINO_ACIDS, AMINO_ACIDS[::-1] * 2, AMINO_ACIDS[:7])


def require_free(folder: Path) -> None:
    """Refuse to export into a folder that holds anything but an earlier export.

    Raises:
        ConfigError: naming the folder.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "passport.json").is_file():
        raise ConfigError(f"{folder}: is not empty and no earlier export; give a new folder")


def export_encoder(run: Run, folder: Path, *, licence: str, source: str) -> dict[str, Any]:
    """Write a run's encoder as a folder in Hugging Face's layout, read it back, and return its passport.

    Args:
        run: an opened run.
        folder: the folder to write; made if it is absent.
        licence: licence of the weights, for the passport.
        source: where the weights come from, for the passport.

    Raises:
        ConfigError: if the model is no encoder.
        CheckpointError: if no published model has its vocabulary.
    """
    if not isinstance(run.model, Encoder) or not isinstance(run.config.model, EncoderSettings):
        raise ConfigError(
            f"{source}: found model.kind '{run.config.model.kind}', expected encoder or causal: only they have a published layout"
        )
    shape, plain = run.config.model, EncoderSettings()
    for name in ("conv_width", "activation", "qk_norm"):
        if getattr(shape, name) != getattr(plain, name):
            raise ConfigError(
                f"{source}: found model.{name} {getattr(shape, name)}, which the published layout lacks; train without it to export"
            )
    require_finite_weights(run.model, source)
    tracks, diffusion = run.parts.tracks, run.config.diffusion
    protein = tracks["protein"]
    passport = {
        "made_by": f"protlig_dd {__version__}",
        "source": source,
        "source_hash": f"step {run.step}" if (run.folder / "config.yaml").is_file() else read_pretrained(source).source_hash,
        "licence": licence or "not stated",
        "vocabularies": run.parts.fingerprints,
        "schedule": to_mapping(diffusion.schedule),
        "parameterization": diffusion.parameterization,
        "weighting": diffusion.weighting,
        "parity": "not measured",
    }
    arguments = {"num_rows": protein.vocabulary.num_rows, "longest": protein.max_length}
    with tempfile.TemporaryDirectory() as first:
        save_pretrained(Path(first), run.config.model, run.model.state_dict(), passport=passport, **arguments)
        try:
            passport["parity"] = f"largest difference of logits after reading it back: {_difference(run, Path(first)):.1e}"
        except CheckpointError as error:  # such as an encoder of 3Di letters: no published model has this vocabulary
            reason = str(error).replace(first, source)
            raise CheckpointError(f"{reason}; nothing is exported, use the run folder itself") from error
    save_pretrained(folder, run.config.model, run.model.state_dict(), passport=passport, **arguments)
    return passport


@torch.no_grad()
def _difference(run: Run, folder: Path) -> float:
    """Return the largest difference between the logits of a run and those of its export, read back."""
    again = open_published(folder, device="cpu")
    protein = run.parts.tracks["protein"]
    batch = run.parts.complete(pack([{"protein": protein.encode(text)} for text in _PROBE], {"protein": protein}))
    ours, theirs = (one.model(batch)["protein"] for one in (run, again))
    require_finite(ours, str(run.folder))
    return float((ours - theirs).abs().max())


def push_folder(folder: Path, name: str) -> None:
    """Upload an exported folder to the Hub as a private repository.

    Raises:
        ConfigError: if the Hub refuses.
    """
    hub = require("huggingface_hub", f"uploading to '{name}'", extra="hf")
    api = hub.HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--push {name}: {' '.join(str(error).split())[:200]}; log in with: hf auth login") from error
