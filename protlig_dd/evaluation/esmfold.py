"""From a sequence to a structure: ESMFold through transformers, or any other callable of the same shape."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from protlig_dd.checkpoints.hub import absent_weights
from protlig_dd.errors import CheckpointError, ProtligError, require
from protlig_dd.structures.structure_io import Chain, Structure

Fold = Callable[[str], Structure]
"""Returns the structure of a sequence: one chain, its pLDDT (0 to 100) as b_factors."""

ESMFOLD = "facebook/esmfold_v1"
"""ESMFold's published weights on the Hugging Face Hub (8.4 GB)."""

_ABSENT = ("the folding weights", "nothing was folded", ESMFOLD)
_CHUNK_ABOVE = 400  # residues; above it attention over pairs is computed in chunks, to bound memory


def esmfold(source: str = ESMFOLD, *, device: torch.device | str = "cpu", local_only: bool = False, chunk_size: int = 64) -> Fold:
    """Return a fold function that runs ESMFold.

    Args:
        source: a local folder in the Hub's layout, or a Hub id.
        device: the device; off the CPU its language model uses half precision, as its authors do.
        local_only: use downloaded files only.
        chunk_size: rows of pair attention computed at once for chains above 400 residues; smaller is slower and needs less memory.

    Raises:
        DownloadError: if the weights are neither downloaded nor reachable; the message says what to do.
        CheckpointError: if the source is not a folding model.
        MissingDependencyError: without transformers.

    Source: Lin et al. 2023, Science 379, 1123; the model as in transformers' EsmForProteinFolding.
    """
    transformers = require("transformers", "folding with ESMFold", extra="hf")
    try:
        config = transformers.AutoConfig.from_pretrained(source, local_files_only=local_only, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise absent_weights(source, error, *_ABSENT) from error
    if not getattr(config, "is_folding_model", False):
        raise CheckpointError(
            f"{source}: found a '{getattr(config, 'model_type', 'model')}' without folding head, expected ESMFold such as {ESMFOLD}"
        )
    try:
        model = transformers.EsmForProteinFolding.from_pretrained(source, local_files_only=local_only)
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise absent_weights(source, error, *_ABSENT) from error
    model = model.eval().to(device)
    if torch.device(device).type != "cpu":
        model.esm = model.esm.half()

    def fold(sequence: str) -> Structure:
        model.trunk.set_chunk_size(chunk_size if len(sequence) > _CHUNK_ABOVE else None)
        with torch.no_grad():
            return _structure(sequence, model.infer([sequence]), source)

    return fold


def find_fold(source: str = ESMFOLD, *, device: torch.device | str = "cpu", local_only: bool = False) -> tuple[Fold | None, str]:
    """Return a fold function and an empty text, or None and one line with the reason and what to do, for reports that go on without structures."""
    try:
        return esmfold(source, device=device, local_only=local_only), ""
    except ProtligError as error:
        return None, str(error)


def _structure(sequence: str, output: Any, source: str) -> Structure:
    """The backbone and C-beta atoms: the first five of each residue's fourteen are N, CA, C, O, CB."""
    coords = output["positions"][-1][0, :, :5].float().cpu().numpy()
    exists = output["atom14_atom_exists"][0, :, :5].float().cpu().numpy() > 0.5
    plddt = 100 * output["plddt"][0, :, 1].float().cpu().numpy()  # of the C-alpha; transformers gives 0 to 1
    chain = Chain.of_coordinates(sequence, np.where(exists[..., None], coords, np.nan), b_factors=plddt)
    return Structure(source=source, chains=(chain,))
