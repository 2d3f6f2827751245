"""Samples drawn while a model trains: their text, their molecules, how many of them are valid and how near they are, at intervals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from protlig_dd.causal_generation import CausalGenerator, agreement, folding_requests
from protlig_dd.data.bundle import DataBundle
from protlig_dd.data.table import TokenTable
from protlig_dd.device import DeviceChoice
from protlig_dd.errors import MissingDependencyError, require
from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit
from protlig_dd.experiment import Parts
from protlig_dd.generation import Generator, example_requests
from protlig_dd.run import Run
from protlig_dd.sampling import CausalDecoding
from protlig_dd.training.distributed import largest_over_ranks
from protlig_dd.training.tracking import Tracking
from protlig_dd.training.trainer import Every, Hook, every


def preview_hooks(folder: Path, parts: Parts, choice: DeviceChoice, bundle: DataBundle) -> list[Every]:
    """Return the hook that samples for a few validation examples, if the config wants previews."""
    settings = parts.config.evaluation
    if not settings.preview_every:
        return []
    table = bundle.validation if len(bundle.validation) else bundle.train
    if parts.is_causal:
        return [every(settings.preview_every, _structure_hook(folder, parts, choice, table))]
    requests = example_requests(parts, table, settings.generate, range(min(settings.preview_samples, len(table))))

    def draw(step: int, model: nn.Module, tracking: Tracking) -> None:
        run = Run(folder=folder, parts=parts, choice=choice, step=step, model=model)
        generator = Generator(run, seed=parts.config.seed, with_likelihood=False)
        texts = [sample.texts.get(settings.generate, "") for sample in generator.generate(requests, 1)]
        tracking.log_text(step, "samples", "\n".join(texts))
        if settings.generate == "ligand":
            _log_molecules(step, texts, tracking)

    return [every(settings.preview_every, draw)]


def _structure_hook(folder: Path, parts: Parts, choice: DeviceChoice, table: TokenTable) -> Hook:
    """Write structures of learned length for some proteins, the likeliest token each, and say how they agree with the true ones.

    All processes write all of them, since a sharded model answers none alone; rank 0's are logged.
    """
    rows = range(min(parts.config.evaluation.preview_samples, len(table)))
    requests, truths = folding_requests(parts, table, rows)
    decoding = CausalDecoding(length="learned")

    def draw(step: int, model: nn.Module, tracking: Tracking) -> None:
        run = Run(folder=folder, parts=parts, choice=choice, step=step, model=model)
        together = partial(largest_over_ranks, device=choice.device)
        generator = CausalGenerator(run, decoding=decoding, with_likelihood=False, together=together)
        texts = [sample.texts["structure"] for sample in generator.generate(requests, 1)]
        found = agreement(texts, truths, parts.tracks["structure"])
        tracking.log(step, {f"samples/{name}": value for name, value in found.items()})
        shown = (f"true {true}\nours {text}" for true, text in zip(truths, texts, strict=True))
        tracking.log_text(step, "samples", "\n\n".join(shown))

    return draw


def _log_molecules(step: int, smiles: Sequence[str], tracking: Tracking) -> None:
    try:
        draw = require("rdkit.Chem.Draw", "drawing molecules", extra="ligand")
    except MissingDependencyError:
        return  # the texts are logged; pictures are an extra
    with silent_rdkit():
        molecules = [m for m in (parse_molecule(s)[0] for s in smiles) if m is not None]
        tracking.log(step, {"samples/valid": len(molecules) / max(len(smiles), 1)})
        if molecules:
            tracking.log_image(step, "molecules", draw.MolsToGridImage(molecules, molsPerRow=4, returnPNG=True))
