"""`protlig score`, `protlig embed` and `protlig export`: likelihoods, effects of mutations, representations, and published layouts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from protlig_dd.cli.common import MODEL, Commands, add_command, add_device, add_shard
from protlig_dd.errors import ConfigError

if TYPE_CHECKING:
    from protlig_dd.runs.run import Run
    from protlig_dd.tokens.tracks import TrackBatch

_LEVEL = 1.96  # standard errors on each side of a 95 % interval
_SCORE = """Sequences: bound (with its interval), pll (pseudo-log-likelihood, which is no likelihood), chain (exact along random orders; short
sequences). Mutants (a CSV in ProteinGym's format): masked-marginal, wt-marginal, bound; with Spearman and its null if scores are given.
  protlig score --model airkingbd/dplm_150m --protein proteins.fasta --out scores.csv
  protlig score --model airkingbd/dplm_150m --protein wild_type.fasta --mutants assay.csv --method masked-marginal"""
_EMBED = """A stopped command started again continues.
  protlig embed --model airkingbd/dplm_150m --protein proteins.fasta --out means.parquet
  protlig embed --model runs/dplm_tiny --protein proteins.fasta --pool residues --out residues.safetensors"""
_EXPORT = """The folder also gets passport.json: where the weights come from, and the largest difference of logits after reading it back.
  protlig export runs/structure_3di_tiny --out exported
  protlig export runs/dplm_tiny --out exported --licence MIT --push USER/NAME"""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of `protlig score`."""

    model: str
    protein: str = ""
    mutants: str = ""
    method: str = ""
    draws: int = 4
    seed: int = 0
    out: str = ""
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Options of `protlig embed`."""

    model: str
    protein: str
    out: str
    pool: str = "mean"
    tokens: int = 16_384
    shard: str = "0/1"
    too_long: Literal["refuse", "skip"] = "refuse"
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `protlig export`."""

    model: str
    out: str
    licence: str = ""
    push: str = ""


def add_scoring(commands: Commands) -> None:
    """Add `score`, `embed` and `export`."""
    text = "likelihood of sequences, or zero-shot effects of mutants"
    sub = add_command(commands, "score", score, ScoreOptions, text, _SCORE)
    sub.add_argument("--model", required=True, help=MODEL)
    sub.add_argument("--protein", help="a sequence or a FASTA file; with --mutants the wild type")
    sub.add_argument("--mutants", help="a table with the columns mutant and DMS_score")
    sub.add_argument("--method", help="see below (default: bound; for mutants masked-marginal)")
    sub.add_argument("--draws", type=int, help="draws in each stratum of the bound, or orders of the chain (%(default)s)")
    sub.add_argument("--seed", type=int, help="seed of the hidden sets and orders (%(default)s)")
    sub.add_argument("--out", help="the .csv or .jsonl file to write (default: print)")
    add_device(sub)
    sub = add_command(commands, "embed", embed, EmbedOptions, "representations of proteins from an encoder", _EMBED)
    sub.add_argument("--model", required=True, help=MODEL)
    sub.add_argument("--protein", required=True, help="a FASTA file, or a sequence")
    sub.add_argument("--out", required=True, help="NAME.safetensors or NAME.parquet")
    sub.add_argument("--pool", help="residues, mean or begin (%(default)s)")
    sub.add_argument("--tokens", type=int, help="tokens per network call (%(default)s)")
    add_shard(sub, "proteins")
    text = "what happens to proteins longer than the model takes; skip names them (%(default)s)"
    sub.add_argument("--too-long", choices=["refuse", "skip"], help=text)
    add_device(sub)
    text = "write an encoder or a causal model as a folder that stock transformers loads"
    sub = add_command(commands, "export", export, ExportOptions, text, _EXPORT)
    sub.add_argument("model", help=MODEL)
    sub.add_argument("--out", required=True, help="the folder")
    sub.add_argument("--licence", help="licence of the weights, for the passport")
    sub.add_argument("--push", metavar="USER/NAME", help="also upload it to the Hub, as a private repository")


def score(options: ScoreOptions) -> Iterator[str]:
    """Score sequences, or the mutants of a wild type."""
    from protlig_dd.runs.open import open_run
    from protlig_dd.runs.output import check_output, write_rows

    out = Path(options.out) if options.out else None
    if out is not None:
        check_output(out)
    if not options.protein:
        raise ConfigError("--protein: give the sequences to score (a sequence or FASTA), or with --mutants the wild type")
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


def _mutants(options: ScoreOptions, run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each mutant, and the lines about their agreement with the measured scores."""
    import numpy as np

    from protlig_dd.data.readers.conditions import read_proteins
    from protlig_dd.data.readers.mutants import read_mutants
    from protlig_dd.evaluation.fitness import Scorer, agreement

    ((_, wild_type), *others) = read_proteins(options.protein)
    if others:
        raise ConfigError(f"--protein: found {len(others) + 1} sequences, expected the one wild type of {options.mutants}")
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


def _sequences(options: ScoreOptions, run: Run) -> list[dict[str, Any]]:
    """Return a row for each sequence, with its interval if one is known."""
    from protlig_dd.data.readers.conditions import read_proteins

    method = options.method or "bound"
    rows: list[dict[str, Any]] = []
    for number, (name, text) in enumerate(read_proteins(options.protein)):
        batch = run.parts.complete(_one(run, text, number))
        nats, error = _nats(run, batch, method, options)
        length = int(batch.tracks["protein"].maskable.sum())
        row: dict[str, Any] = {"name": name, "id": number, "length": length, "nats": round(nats, 4)}
        if error:
            row |= {"low": round(nats - _LEVEL * error, 4), "high": round(nats + _LEVEL * error, 4)}
        rows.append(row | {"nats_per_residue": round(nats / length, 5), "perplexity": round(math.exp(nats / length), 4)})
    return rows


def _one(run: Run, text: str, number: int) -> TrackBatch:
    """Return a protein as a batch of its own."""
    from protlig_dd.tokens.tracks import pack

    track = run.parts.tracks["protein"]
    ids = track.encode(text, where="--protein")
    if len(ids) > track.max_length:
        raise ConfigError(f"--protein: {len(ids)} tokens, the model takes {track.max_length}; score a part of it")
    return pack([{"protein": ids}], {"protein": track}, example_ids=[number])


def _nats(run: Run, batch: TrackBatch, method: str, options: ScoreOptions) -> tuple[float, float]:
    """Return the negative log-likelihood in nats by a method, and its standard error (0: exact, or unknown)."""
    import numpy as np

    from protlig_dd.diffusion.times import Task
    from protlig_dd.evaluation.any_order import chain_rule_nll, pseudo_log_likelihood, stratified_bound

    alone = Task(noised=(("protein",),))
    if method == "bound":
        found = stratified_bound(run.denoising, batch, alone, seed=options.seed, num_draws=options.draws)
        return float(found.bounds.total[0]), float(found.standard_errors[0])
    if method == "pll":
        return float(pseudo_log_likelihood(run.denoising, batch, alone).total[0]), 0.0
    if method == "chain":
        draws = [float(chain_rule_nll(run.denoising, batch, alone, seed=options.seed + i).total[0]) for i in range(options.draws)]
        error = float(np.std(draws, ddof=1) / math.sqrt(len(draws))) if len(draws) > 1 else 0.0
        return float(np.mean(draws)), error
    raise ConfigError(f"--method: found '{method}', expected bound, pll or chain for sequences; the others are of --mutants")


def embed(options: EmbedOptions) -> Iterator[str]:
    """Write representations of proteins."""
    from protlig_dd.data.readers.conditions import read_proteins
    from protlig_dd.runs.embed import embed_proteins, fitting, numbered
    from protlig_dd.runs.open import open_run

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
    written = embed_proteins(run, proteins, Path(options.out), pool=options.pool, tokens_per_call=options.tokens, shard=options.shard)
    yield f"{written} proteins: {options.out}"


def export(options: ExportOptions) -> Iterator[str]:
    """Write a model as a folder that stock transformers loads."""
    from protlig_dd.runs.export import push_folder
    from protlig_dd.runs.families.tokens import export_run
    from protlig_dd.runs.open import open_run

    run = open_run(options.model, device="cpu")
    passport = export_run(run, Path(options.out), licence=options.licence, source=options.model)
    yield json.dumps(passport, indent=1)
    yield f"exported: {options.out}"
    if options.push:
        push_folder(Path(options.out), options.push)
        yield f"pushed: {options.push}"
