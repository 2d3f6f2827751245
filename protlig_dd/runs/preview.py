"""Samples drawn while a model trains: their text, their molecules, how many of them are valid and how near they are, at intervals.

Structures are compared token by token beside the commonest token, and in Angstrom where `evaluation.coordinates` is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from protlig_dd.causal.decoding import CausalDecoding
from protlig_dd.data.bundle import DataBundle
from protlig_dd.data.table import TokenTable
from protlig_dd.device import DeviceChoice
from protlig_dd.errors import ConfigError, MissingDependencyError, require
from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit
from protlig_dd.evaluation.trace_pairs import best_median_worst, trace_pdb
from protlig_dd.runs.experiment import Parts
from protlig_dd.runs.folding import TrueChains, open_true_chains
from protlig_dd.runs.generate import Generator, example_requests
from protlig_dd.runs.generate_causal import CausalGenerator, agreement
from protlig_dd.runs.held_out import spread
from protlig_dd.runs.run import Run
from protlig_dd.tokens.tracks import Track
from protlig_dd.training.distributed import largest_over_ranks, launched
from protlig_dd.training.tracking import Tracking
from protlig_dd.training.trainer import Every, Hook, every

_COUNTED = 20_000  # training examples that the commonest token is counted in


def preview_hooks(folder: Path, parts: Parts, choice: DeviceChoice, bundle: DataBundle) -> list[Every]:
    """Return the hook that samples for a few validation examples, if the config wants previews.

    Raises:
        ConfigError, FormatError: where structures are to be compared in Angstrom and cannot be; as in `true_chains.open_true_chains`.
    """
    settings = parts.config.evaluation
    if not (settings.preview_every or settings.coordinates):
        return []
    table = bundle.validation if len(bundle.validation) else bundle.train
    track = parts.tracks.get("structure" if parts.is_causal else settings.generate)
    if track is not None and track.aligned_to in parts.tracks:
        hook = _structure_hook(folder, parts, choice, table, track, bundle)
    elif settings.coordinates:
        raise ConfigError(
            f"evaluation.coordinates '{settings.coordinates}': found evaluation.generate '{settings.generate}', expected structure: "
            f"nothing else is compared in Angstrom"
        )
    else:
        hook = _sample_hook(folder, parts, choice, table)
    return [every(settings.preview_every, hook)] if settings.preview_every else []


def _sample_hook(folder: Path, parts: Parts, choice: DeviceChoice, table: TokenTable) -> Hook:
    """Write samples of a track, and draw the molecules among them."""
    settings = parts.config.evaluation
    requests = example_requests(parts, table, settings.generate, range(min(settings.preview_samples, len(table))))

    def draw(step: int, model: nn.Module, tracking: Tracking) -> None:
        run = Run(folder=folder, parts=parts, choice=choice, step=step, model=model)
        generator = Generator(run, seed=parts.config.seed, with_likelihood=False)
        texts = [sample.texts.get(settings.generate, "") for sample in generator.generate(requests, 1)]
        tracking.log_text(step, "samples", "\n".join(texts))
        if settings.generate == "ligand":
            _log_molecules(step, texts, tracking)

    return draw


def _structure_hook(
    folder: Path, parts: Parts, choice: DeviceChoice, table: TokenTable, track: Track, bundle: DataBundle
) -> Hook:
    """Write structures for some proteins and say how they agree with the true ones: token by token, and in Angstrom if that is set.

    A causal model takes the likeliest token each, and decides the length. All processes write all of them, since a sharded model answers
    none alone; rank 0 decodes and logs.
    """
    settings = parts.config.evaluation
    whole = np.all([table.tracks[name].lengths > 0 for name in (track.name, str(track.aligned_to))], axis=0)
    table = table.select(np.flatnonzero(whole)[: settings.preview_samples])
    truths = [track.decode(table.example(i)[track.name].tolist()) for i in range(len(table))]
    requests = example_requests(parts, table, track.name, range(len(table)))
    guess = _commonest(bundle.train, track)
    guesses = [track.separator.join([guess] * len(track.split(true, where="data"))) for true in truths]
    null = {"null_token_accuracy": agreement(guesses, truths, track)["token_accuracy"]}
    is_first = launched().rank == 0
    chains = _true_chains(parts, table, bundle, choice.device.type if is_first else "cpu")  # the others only check

    def draw(step: int, model: nn.Module, tracking: Tracking) -> None:
        run = Run(folder=folder, parts=parts, choice=choice, step=step, model=model)
        texts = [sample.texts.get(track.name, "") for sample in _generator(run).generate(requests, 1)]
        if not is_first:
            return
        found = agreement(texts, truths, track) | null
        if chains is not None:
            with torch.autocast(choice.device.type, enabled=False):  # the trainer's precision is not the autoencoder's
                predicted = chains.decode(texts)
                found |= chains.figures(predicted)
            for word, trace in best_median_worst(chains.traces(predicted)):
                tracking.log_structure(step, f"structures/{word}", trace_pdb(trace))
        tracking.log(step, {f"samples/{name}": value for name, value in found.items()})
        shown = (f"true {true}\nours {text}" for true, text in zip(truths, texts, strict=True))
        tracking.log_text(step, "samples", "\n\n".join(shown))

    return draw


def _true_chains(parts: Parts, table: TokenTable, bundle: DataBundle, device: str) -> TrueChains | None:
    """The true chains of a table, if they are to be compared; those that are evaluated after training are looked for as well."""
    settings = parts.config.evaluation
    if not settings.coordinates:
        return None
    where, names = ("evaluation.coordinates", "evaluation.tokenizer"), (settings.coordinates, settings.tokenizer)
    evaluated = bundle.test if len(bundle.test) else bundle.validation
    if settings.after_training and len(evaluated):
        open_true_chains(parts, spread(evaluated, settings.num_samples), *names, device="cpu", where=where)
    return open_true_chains(parts, table, *names, device=device, where=where)


def _generator(run: Run) -> Generator | CausalGenerator:
    """What draws structures during training: all processes together."""
    if not run.parts.is_causal:
        return Generator(run, seed=run.config.seed, with_likelihood=False)
    together = partial(largest_over_ranks, device=run.choice.device)
    return CausalGenerator(run, decoding=CausalDecoding(length="learned"), with_likelihood=False, together=together)


def _commonest(training: TokenTable, track: Track) -> str:
    """The commonest token of training, of at most so many examples."""
    column = spread(training, _COUNTED).tracks[track.name]
    counts = np.bincount(column.gather(np.arange(len(column))), minlength=track.vocabulary.num_rows)
    emittable = np.asarray(track.vocabulary.emittable_ids)
    return track.vocabulary.symbols[int(emittable[counts[emittable].argmax()])]


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
