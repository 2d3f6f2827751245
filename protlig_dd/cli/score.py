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
    import numpy as np

    from protlig_dd.runs.run import Run
    from protlig_dd.tokens.tracks import TrackBatch

_LEVEL = 1.96  # standard errors on each side of a 95 % interval
_SCORE = """Sequences: bound (with its interval), pll (pseudo-log-likelihood, which is no likelihood), chain (exact along random orders; short
sequences). All are in nats, of probabilities over the letters that the model may generate (the twenty amino acids); other letters, such as X and U, are
seen by the model but neither scored nor counted in `length`.
Mutants (a CSV in ProteinGym's format): masked-marginal, wt-marginal, bound; with Spearman and its null if scores are given.
  protlig score --model airkingbd/dplm_150m --protein proteins.fasta --out scores.csv
  protlig score --model airkingbd/dplm_150m --protein wild_type.fasta --mutants assay.csv --method masked-marginal
Pairs (a table like that of training): ligands ranked for each target by pmi, the nats that the protein saves in the ligand's bound; with
the AUROC beside nulls that need no model if the table has labels.
  protlig score --model runs/pairs_small --pairs screened.csv --out ranked.csv"""
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
    pairs: str = ""
    method: str = ""
    score_column: str = ""
    draws: int = 4
    seed: int = 0
    out: str = ""
    device: str = "auto"

    def __post_init__(self) -> None:
        is_bound = self.method == "bound" or not (self.method or self.mutants)
        least, why = (2, " for the standard error of the bound") if is_bound else (1, "")
        if self.draws < least:
            raise ConfigError(f"--draws: found {self.draws}, expected {least} or more{why}")
        if self.pairs and (self.protein or self.mutants or self.method):
            raise ConfigError(f"--pairs {self.pairs}: the table has the proteins and ligands; leave --protein, --mutants and --method out")
        if self.score_column and not self.mutants:
            raise ConfigError(f"--score-column {self.score_column}: is of no use without --mutants; leave it out")


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

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ConfigError(f"--tokens: found {self.tokens}, expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `protlig export`."""

    model: str
    out: str
    licence: str = ""
    push: str = ""


def add_scoring(commands: Commands) -> None:
    """Add `score`, `embed` and `export`."""
    text = "likelihood of sequences, zero-shot effects of mutants, or ligands ranked for targets"
    sub = add_command(commands, "score", score, ScoreOptions, text, _SCORE)
    sub.add_argument("--model", required=True, help=MODEL)
    sub.add_argument("--protein", help="a sequence or a FASTA file; with --mutants the wild type")
    sub.add_argument("--mutants", help="a table with a column mutant (A24C:D30E) or mutated_sequence, and perhaps measured scores")
    sub.add_argument("--pairs", help="a table of proteins and ligands, to rank the ligands of each protein")
    sub.add_argument(
        "--score-column", metavar="NAME", help="of --mutants, the column of measured scores (default: DMS_score, if there is one)"
    )
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
    """Score sequences, the mutants of a wild type, or the pairs of a table."""
    from protlig_dd.cli.score_pairs import ranked_pairs
    from protlig_dd.runs.open import open_run
    from protlig_dd.runs.output import SCORE_SUFFIXES, check_output, write_rows

    out = Path(options.out) if options.out else None
    if out is not None:
        check_output(out, SCORE_SUFFIXES)
    if not options.protein and not options.pairs:
        raise ConfigError("--protein: give the sequences to score (a sequence or FASTA), or with --mutants the wild type")
    run = open_run(options.model, device=options.device)
    if "protein" not in run.parts.tracks:
        raise ConfigError(f"{options.model}: has the tracks {', '.join(run.parts.tracks)}, expected protein among them")
    if options.pairs:
        rows, lines = ranked_pairs(run, Path(options.pairs), seed=options.seed)
    elif options.mutants:
        rows, lines = _mutants(options, run)
    else:
        rows, lines = _sequences(options, run), []
    if out is None:
        for row in rows:
            yield "  ".join(f"{k}={v}" for k, v in row.items())
    else:
        settings = {"model": options.model, "step": run.step, "weights": run.weights_hash, "seed": options.seed, "method": options.method}
        lines += write_rows(out, rows, settings | {"draws": options.draws})
        yield f"{len(rows)} scores: {out}"
    yield from lines


def _mutants(options: ScoreOptions, run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each mutant, and the lines about their agreement with the measured scores."""
    import numpy as np

    from protlig_dd.checkpoints.finite import require_finite
    from protlig_dd.data.readers.conditions import read_proteins, tell_proteins
    from protlig_dd.data.readers.mutants import SCORE_COLUMN, read_mutants
    from protlig_dd.data.readers.tables import open_table
    from protlig_dd.evaluation.fitness import Scorer

    ((name, wild_type), *others) = read_proteins(options.protein)
    if others:
        raise ConfigError(f"--protein: found {len(others) + 1} sequences, expected the one wild type of {options.mutants}")
    tell_proteins([(name, wild_type)], run.parts.tracks["protein"])
    header = open_table(Path(options.mutants)).header
    column = options.score_column or (SCORE_COLUMN if SCORE_COLUMN in header else None)
    mutants = read_mutants(Path(options.mutants), wild_type, score_column=column, missing="keep")
    method = options.method or "masked-marginal"
    effects = Scorer(denoising=run.denoising).effects(mutants, method, seed=options.seed, num_draws=options.draws)
    require_finite(effects, options.model)
    measured = mutants.scores if mutants.scores is not None else np.full(len(mutants), math.nan)
    rows: list[dict[str, Any]] = []
    for name, effect, value in zip(mutants.names, effects.tolist(), measured.tolist(), strict=True):
        row: dict[str, Any] = {"name": name, "id": len(rows), "effect": round(effect, 5)}
        rows.append(row if math.isnan(value) else {**row, "measured": value})
    if column is None:
        return rows, [f"no correlation: found the columns {', '.join(header)}, none called {SCORE_COLUMN}; name one with --score-column"]
    return rows, _correlation(effects, measured, seed=options.seed)


def _correlation(effects: np.ndarray, measured: np.ndarray, *, seed: int) -> list[str]:
    """Return the agreement over the mutants that have a measured score, and how many have none."""
    import numpy as np

    from protlig_dd.evaluation.fitness import LEAST_PAIRS, agreement

    known = np.isfinite(measured)
    num = int(known.sum())
    if num < LEAST_PAIRS:
        lines = [f"correlation: none ({num} pair{'s' * (num != 1)}); it takes {LEAST_PAIRS}"]
    else:
        lines = [str(agreement(effects[known], measured[known], seed=seed))]
    return [*lines, *([f"{len(known) - num} mutants without a measured score are not in the correlation"] if num < len(known) else [])]


def _sequences(options: ScoreOptions, run: Run) -> list[dict[str, Any]]:
    """Return a row for each sequence, with its interval if one is known."""
    from protlig_dd.checkpoints.finite import require_finite
    from protlig_dd.data.readers.conditions import read_proteins, tell_proteins

    method = options.method or "bound"
    proteins = read_proteins(options.protein)
    tell_proteins(proteins, run.parts.tracks["protein"])
    batches = [_one(run, name, text) for name, text in proteins]  # all of them are read before the first is scored
    rows: list[dict[str, Any]] = []
    for number, ((name, _), batch) in enumerate(zip(proteins, batches, strict=True)):
        nats, error = _nats(run, run.parts.complete(batch), method, options)
        require_finite(nats, f"{options.model}, {name}")
        length = int(batch.tracks["protein"].maskable.sum())
        row: dict[str, Any] = {"name": name, "id": number, "length": length, "nats": round(nats, 4)}
        if error:
            row |= {"low": round(nats - _LEVEL * error, 4), "high": round(nats + _LEVEL * error, 4)}
        rows.append(row | {"nats_per_residue": round(nats / length, 5), "perplexity": round(math.exp(nats / length), 4)})
    return rows


def _one(run: Run, name: str, text: str) -> TrackBatch:
    """Return a protein as a batch of its own; its random numbers come from its sequence, not from its place in the file."""
    from protlig_dd.sampling.requests import Request, sample_keys
    from protlig_dd.tokens.tracks import pack

    track = run.parts.tracks["protein"]
    ids = track.encode(text, where=f"--protein, {name}")
    if len(ids) > track.max_length:
        raise ConfigError(f"--protein: {name} has {len(ids)} tokens, the model takes {track.max_length}; score a part of it")
    return pack([{"protein": ids}], {"protein": track}, example_ids=sample_keys([Request(name=name, given={"protein": text})], 1))


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
    from protlig_dd.data.readers.conditions import read_proteins, tell_proteins
    from protlig_dd.runs.embed import embed_proteins, fitting, numbered
    from protlig_dd.runs.open import open_run

    run = open_run(options.model, device=options.device)
    given = read_proteins(options.protein)
    if "protein" in run.parts.tracks:
        tell_proteins(given, run.parts.tracks["protein"])
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
