"""`protlig score`, `protlig embed` and `protlig export`: likelihoods, mutation effects, representations, published folders."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from protlig_dd.data.readers.conditions import read_proteins
from protlig_dd.data.readers.mutants import read_mutants
from protlig_dd.diffusion.times import Task
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.any_order import pseudo_log_likelihood, stratified_bound
from protlig_dd.evaluation.chain_rule import chain_rule_nll
from protlig_dd.evaluation.fitness import Scorer, agreement
from protlig_dd.runs.embed import embed_proteins, fitting, numbered
from protlig_dd.runs.export import export_run, push_folder
from protlig_dd.runs.open import open_run
from protlig_dd.runs.output import check_output, write_rows
from protlig_dd.runs.run import Run
from protlig_dd.tokens.tracks import TrackBatch, pack

_ALONE = Task(noised=(("protein",),))
_LEVEL = 1.96  # standard errors on each side of a 95 % interval


def score(options: Namespace) -> Iterator[str]:
    """Score sequences, or the mutants of a wild type."""
    out = Path(options.out) if options.out else None
    if out is not None:
        check_output(out)
    if not options.protein:
        raise ConfigError(
            "--protein: give the sequences to score (a sequence or FASTA), or with --mutants the wild type"
        )
    run = open_run(options.model, device=options.device)
    if "protein" not in run.parts.tracks:
        raise ConfigError(f"{options.model}: has the tracks {', '.join(run.parts.tracks)}, expected protein among them")
    settings = {"model": options.model, "step": run.step, "seed": options.seed, "method": options.method}
    if options.mutants:
        rows, lines = _mutants(options, run)
    else:
        rows, lines = _sequences(options, run), []
    if out is None:
        for row in rows:
            yield "  ".join(f"{k}={v}" for k, v in row.items())
    else:
        write_rows(out, rows, settings)
        yield f"{len(rows)} scores: {out}"
    yield from lines


def _mutants(options: Namespace, run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    ((_, wild_type), *others) = read_proteins(options.protein)
    if others:
        raise ConfigError(
            f"--protein: found {len(others) + 1} sequences, expected the one wild type of {options.mutants}"
        )
    mutants = read_mutants(Path(options.mutants), wild_type)
    method = options.method or "masked-marginal"
    effects = Scorer(denoising=run.denoising).effects(mutants, method, seed=options.seed)
    measured = mutants.scores if mutants.scores is not None else np.full(len(mutants), math.nan)
    rows: list[dict[str, Any]] = []
    for name, effect, value in zip(mutants.names, effects.tolist(), measured.tolist(), strict=True):
        row: dict[str, Any] = {"name": name, "id": len(rows), "effect": round(effect, 5)}
        rows.append(row if math.isnan(value) else {**row, "measured": value})
    if mutants.scores is None:
        return rows, []
    found = agreement(effects, mutants.scores, seed=options.seed)
    return rows, [str(found), *([f"{mutants.num_dropped} mutants left out: no score"] if mutants.num_dropped else [])]


def _sequences(options: Namespace, run: Run) -> list[dict[str, Any]]:
    method = options.method or "bound"
    rows: list[dict[str, Any]] = []
    for number, (name, text) in enumerate(read_proteins(options.protein)):
        batch = run.parts.complete(_one(run, text, number))
        nats, error = _nats(run, batch, method, options)
        length = int(batch.tracks["protein"].maskable.sum())
        row: dict[str, Any] = {"name": name, "id": number, "length": length, "nats": round(nats, 4)}
        if error:
            row |= {"low": round(nats - _LEVEL * error, 4), "high": round(nats + _LEVEL * error, 4)}
        rows.append(
            row | {"nats_per_residue": round(nats / length, 5), "perplexity": round(math.exp(nats / length), 4)}
        )
    return rows


def _one(run: Run, text: str, number: int) -> TrackBatch:
    track = run.parts.tracks["protein"]
    ids = track.encode(text, where="--protein")
    if len(ids) > track.max_length:
        raise ConfigError(f"--protein: {len(ids)} tokens, the model takes {track.max_length}; score a part of it")
    return pack([{"protein": ids}], {"protein": track}, example_ids=[number])


def _nats(run: Run, batch: TrackBatch, method: str, options: Namespace) -> tuple[float, float]:
    """Minus log-likelihood in nats by a method, and its standard error (0: exact or none known)."""
    if method == "bound":
        found = stratified_bound(run.denoising, batch, _ALONE, seed=options.seed, num_draws=options.draws)
        return float(found.bounds.total[0]), float(found.standard_errors[0])
    if method == "pll":
        return float(pseudo_log_likelihood(run.denoising, batch, _ALONE).total[0]), 0.0
    if method == "chain":
        draws = [
            float(chain_rule_nll(run.denoising, batch, _ALONE, seed=options.seed + i).total[0])
            for i in range(options.draws)
        ]
        error = float(np.std(draws, ddof=1) / math.sqrt(len(draws))) if len(draws) > 1 else 0.0
        return float(np.mean(draws)), error
    raise ConfigError(
        f"--method: found '{method}', expected bound, pll or chain for sequences; the others are of --mutants"
    )


def embed(options: Namespace) -> Iterator[str]:
    """Write representations of proteins."""
    run = open_run(options.model, device=options.device)
    given = read_proteins(options.protein)
    proteins = numbered(given)
    renamed = [new for (old, _), (new, _) in zip(given, proteins, strict=True) if old != new]
    if renamed:
        yield f"{len(renamed)} names stood there before and are numbered: {', '.join(renamed[:5])}{' ...' if len(renamed) > 5 else ''}"
    if options.too_long == "skip" and "protein" in run.parts.tracks:
        proteins, left_out = fitting(run, proteins)
        if left_out:
            longest = run.parts.tracks["protein"].max_length
            yield f"{len(left_out)} proteins over {longest} tokens are left out: {', '.join(left_out[:5])}{' ...' if len(left_out) > 5 else ''}"
    written = embed_proteins(
        run, proteins, Path(options.out), pool=options.pool, tokens_per_call=options.tokens, shard=options.shard
    )
    yield f"{written} proteins: {options.out}"


def export(options: Namespace) -> Iterator[str]:
    """Write a model as a folder that stock transformers loads."""
    run = open_run(options.model, device="cpu")
    passport = export_run(run, Path(options.out), licence=options.licence, source=options.model)
    yield json.dumps(passport, indent=1)
    yield f"exported: {options.out}"
    if options.push:
        push_folder(Path(options.out), options.push)
        yield f"pushed: {options.push}"
