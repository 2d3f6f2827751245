"""Samples drawn at intervals during training: texts, molecules, validity, and agreement of structures with the truth.

Structures are compared token by token, with the most common token as the null, and in Angstrom if `evaluation.coordinates` is set.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from protlig_dd.data.bundle import DataBundle
from protlig_dd.data.table import TokenTable, spread
from protlig_dd.device import DeviceChoice
from protlig_dd.errors import CheckpointError, ConfigError, MissingDependencyError, require
from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit
from protlig_dd.evaluation.trace_pairs import best_median_worst, trace_pdb
from protlig_dd.runs.experiment import Parts
from protlig_dd.runs.families.models import sampled_track
from protlig_dd.runs.families.tokens import family_of
from protlig_dd.runs.folding import TrueChains, open_true_chains
from protlig_dd.runs.generate import example_requests
from protlig_dd.runs.run import Run
from protlig_dd.sampling.requests import Request
from protlig_dd.tokens.tracks import Track
from protlig_dd.training.distributed import launched
from protlig_dd.training.tracking import Tracking
from protlig_dd.training.trainer import Every, Hook

log = logging.getLogger(__name__)

_COUNTED = 20_000  # training examples in which tokens are counted for the null


def preview_hooks(folder: Path, parts: Parts, choice: DeviceChoice, bundle: DataBundle) -> list[Every]:
    """Return the hook that samples for a few validation examples, if the config asks for previews.

    Raises:
        ConfigError, FormatError: if structures cannot be compared in Angstrom, as in `folding.open_true_chains`.
    """
    settings = parts.config.evaluation
    if not (settings.preview_every or settings.coordinates):
        return []
    table = bundle.validation if len(bundle.validation) else bundle.train
    track = parts.tracks.get(sampled_track(parts.config.model, settings.generate))
    if track is not None and track.aligned_to in parts.tracks:
        hook = _structure_hook(folder, parts, choice, table, track, bundle)
    elif settings.coordinates:
        raise ConfigError(
            f"evaluation.coordinates '{settings.coordinates}': found evaluation.generate '{settings.generate}', expected structure: "
            f"nothing else is compared in Angstrom"
        )
    else:
        hook = _sample_hook(folder, parts, choice, table)
    return [Every(steps=settings.preview_every, hook=hook)] if settings.preview_every else []


def _sample_hook(folder: Path, parts: Parts, choice: DeviceChoice, table: TokenTable) -> Hook:
    """Return a hook that logs samples of a track, with drawings of the molecules."""
    settings = parts.config.evaluation
    requests = example_requests(parts, table, settings.generate, range(min(settings.preview_samples, len(table))))

    def draw(step: int, model: nn.Module, tracking: Tracking) -> None:
        run = Run(folder=folder, parts=parts, choice=choice, step=step, model=model)
        texts = _drawn(run, requests, settings.generate)
        if texts is None:
            return
        tracking.log_text(step, "samples", "\n".join(texts))
        if settings.generate == "ligand":
            _log_molecules(step, texts, tracking)

    return draw


def _structure_hook(folder: Path, parts: Parts, choice: DeviceChoice, table: TokenTable, track: Track, bundle: DataBundle) -> Hook:
    """Return a hook that predicts structures of some proteins and logs their agreement with the true ones.

    All processes predict together, since a sharded model needs all of them; rank 0 decodes and logs.
    """
    settings = parts.config.evaluation
    whole = np.all([table.tracks[name].lengths > 0 for name in (track.name, str(track.aligned_to))], axis=0)
    table = table.select(np.flatnonzero(whole)[: settings.preview_samples])
    truths = [track.decode(table.example(i)[track.name].tolist()) for i in range(len(table))]
    requests = example_requests(parts, table, track.name, range(len(table)))
    guess = _most_common(bundle.train, track)
    guesses = [track.separator.join([guess] * len(track.split(true, where="data"))) for true in truths]
    null = {"null_token_accuracy": agreement(guesses, truths, track)["token_accuracy"]}
    is_first = launched().rank == 0
    chains = _true_chains(parts, table, bundle, choice.device.type if is_first else "cpu")  # other ranks only check

    def draw(step: int, model: nn.Module, tracking: Tracking) -> None:
        run = Run(folder=folder, parts=parts, choice=choice, step=step, model=model)
        texts = _drawn(run, requests, track.name)
        if texts is None or not is_first:
            return
        found = agreement(texts, truths, track) | null
        if chains is not None:
            with torch.autocast(choice.device.type, enabled=False):  # the autoencoder decodes in float32
                predicted = chains.decode(texts)
                found |= chains.figures(predicted)
            for word, trace in best_median_worst(chains.traces(predicted)):
                tracking.log_structure(step, f"structures/{word}", trace_pdb(trace))
        tracking.log(step, {f"samples/{name}": value for name, value in found.items()})
        shown = (f"true {true}\nours {text}" for true, text in zip(truths, texts, strict=True))
        tracking.log_text(step, "samples", "\n\n".join(shown))

    return draw


def _drawn(run: Run, requests: Sequence[Request], track: str) -> list[str] | None:
    """Return a sample for each request; None, with a warning, if the model's output is not finite: a preview does not end a training."""
    try:
        return [sample.texts.get(track, "") for sample in family_of(run).preview_generator(run).generate(requests, 1)]
    except CheckpointError as error:
        log.warning("no preview at step %d: %s", run.step, error)
        return None


def _true_chains(parts: Parts, table: TokenTable, bundle: DataBundle, device: str) -> TrueChains | None:
    """Return the true chains of a table if they are compared; also check those of the evaluation after training."""
    settings = parts.config.evaluation
    if not settings.coordinates:
        return None
    where, names = ("evaluation.coordinates", "evaluation.tokenizer"), (settings.coordinates, settings.tokenizer)
    evaluated = bundle.test if len(bundle.test) else bundle.validation
    if settings.after_training and len(evaluated):
        open_true_chains(parts, spread(evaluated, settings.num_samples), *names, device="cpu", where=where)
    return open_true_chains(parts, table, *names, device=device, where=where)


def _most_common(training: TokenTable, track: Track) -> str:
    """Return the most common token of the training data (at most 20,000 examples)."""
    column = spread(training, _COUNTED).tracks[track.name]
    counts = np.bincount(column.gather(np.arange(len(column))), minlength=track.vocabulary.num_rows)
    emittable = np.asarray(track.vocabulary.emittable_ids)
    return track.vocabulary.symbols[int(emittable[counts[emittable].argmax()])]


def _log_molecules(step: int, smiles: Sequence[str], tracking: Tracking) -> None:
    try:
        draw = require("rdkit.Chem.Draw", "drawing molecules", extra="ligand")
    except MissingDependencyError:
        return  # pictures are optional; the texts are logged
    with silent_rdkit():
        molecules = [m for m in (parse_molecule(s)[0] for s in smiles) if m is not None]
        tracking.log(step, {"samples/valid": len(molecules) / max(len(smiles), 1)})
        if molecules:
            tracking.log_image(step, "molecules", draw.MolsToGridImage(molecules, molsPerRow=4, returnPNG=True))


def agreement(predicted: Sequence[str], true: Sequence[str], track: Track) -> dict[str, float]:
    """Return how far structures agree with the true ones.

    `token_accuracy` counts over the true length, so what is missing is wrong; `length_match` is the share of structures as long as the
    true ones, `length_ratio` the tokens written over the true ones, `valid_tokens` the share of the alphabet among them.
    """
    known = set(track.vocabulary.ids)
    pairs = [(track.split(a, where="prediction") if a else [], track.split(b, where="truth")) for a, b in zip(predicted, true, strict=True)]
    tokens = sum(len(b) for _, b in pairs)
    written = sum(len(a) for a, _ in pairs)
    return {
        "token_accuracy": sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False)) / max(tokens, 1),
        "length_match": sum(len(a) == len(b) for a, b in pairs) / max(len(pairs), 1),
        "length_ratio": written / max(tokens, 1),
        "valid_tokens": sum(x in known for a, _ in pairs for x in a) / max(written, 1),
    }
