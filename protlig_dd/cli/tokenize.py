"""`protlig tokenize`: structures as tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from protlig_dd.cli.common import Commands, add_command, add_device, add_shard, check_workers
from protlig_dd.config import parse_shard
from protlig_dd.errors import ConfigError, FormatError, nearest

if TYPE_CHECKING:
    from protlig_dd.data.foldseek.structure_files import Tokenizer
    from protlig_dd.runs.families.tokenizers import StructureTokenizer

log = logging.getLogger(__name__)

_TOKENIZE = """X.fasta gets the amino acids and X_3di.fasta the tokens, under the same names: a config reads them as data.path and
data.structure_path. X.jsonl gets name, sequence and structure. Without --out the tokens are printed.
  protlig tokenize pdbs/ --track 3di --out train.fasta
  protlig tokenize pdbs/ --track kanzi --tokenizer runs/kanzi_tiny --out train.fasta
Residues and names are those of Foldseek's createdb. X.fasta.skipped.tsv lists what was left out, and why.

A Foldseek database becomes a folder of memory-mapped shards, written once, for training (data.kind=shards). Jobs may share the work:
  protlig tokenize afdb50/afdb50 --track 3di --out cache
  protlig tokenize afdb50/afdb50 --track kanzi --tokenizer runs/kanzi_base --out cache --shard 2/8"""
TRACKS: tuple[Literal["3di", "kanzi"], ...] = ("3di", "kanzi")


@dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """Options of `protlig tokenize`."""

    source: str
    track: str = "3di"
    out: str = ""
    shard: str = "0/1"
    tokenizer: str = ""
    max_length: int | None = None
    device: str = "auto"
    workers: int = 0


def add_tokenize(commands: Commands) -> None:
    """Add `tokenize`."""
    text = "turn structures (PDB and mmCIF, also .gz) into structure tokens, with their sequences"
    sub = add_command(commands, "tokenize", tokenize, TokenizeOptions, text, _TOKENIZE)
    sub.add_argument("source", metavar="SOURCE", help="a structure file, a folder of them and its subfolders, or a Foldseek database")
    sub.add_argument("--track", help="which tokens: 3di or kanzi (%(default)s)")
    sub.add_argument("--out", metavar="X.fasta|X.jsonl", help="the file to write (default: print the tokens); for a database a folder")
    add_shard(sub, "files or entries")
    sub.add_argument("--tokenizer", metavar="RUN_OR_FILE", help="for kanzi: a run, or a published file (.pt)")
    sub.add_argument("--max-length", type=int, help="for a database: leave out longer proteins, and count them (1024 residues)")
    add_device(sub)
    sub.add_argument("--workers", type=int, help="processes that read structures; 0: one for each core (%(default)s)")


def tokenize(options: TokenizeOptions) -> Iterator[str]:
    """Write the tokens of structures, or print them as FASTA."""
    from protlig_dd.data.foldseek.table import is_database

    if options.track not in TRACKS:
        raise ConfigError(f"--track '{options.track}': expected {', '.join(TRACKS)}{nearest(options.track, TRACKS)}")
    check_workers(options.workers)
    if options.tokenizer and options.track == "3di":
        raise ConfigError(f"--tokenizer {options.tokenizer}: is for --track kanzi, found --track {options.track}; leave it out")
    source, shard = Path(options.source), parse_shard(options.shard)
    if is_database(source):
        yield from _cache(options, source, shard)
        return
    if not source.exists():
        raise ConfigError(f"{source}: found no such file, folder or Foldseek database, expected structures to tokenize; check the path")
    if options.max_length is not None:
        raise ConfigError(f"--max-length {options.max_length}: is for a Foldseek database, {source} holds structure files; leave it out")
    yield from _files(options, source, shard)


def _files(options: TokenizeOptions, source: Path, shard: tuple[int, int]) -> Iterator[str]:
    """Write or print the tokens of structure files."""
    from protlig_dd.data.foldseek.build import tokenize_files, write_tokens
    from protlig_dd.data.skipped import SkippedList

    tokenizer = _tokenizer(options)
    workers = 1 if options.track != "3di" else options.workers  # a network stays in one process
    if options.out:
        report = write_tokens(source, Path(options.out), options.track, tokenizer, workers=workers, shard=shard)
        yield from report.lines()
        return
    with SkippedList(None) as skipped:
        nothing = True
        for entry in tokenize_files(source, tokenizer, skipped, workers=workers, shard=shard):
            yield f">{entry.name}\n{entry.structure}"
            nothing = False
        for line in ["left out:", *skipped.lines()] if skipped.counts else []:
            log.info(line)
    if nothing:
        raise FormatError(f"{source}: found no chain to tokenize among {skipped.num_files} files")


def _cache(options: TokenizeOptions, source: Path, shard: tuple[int, int]) -> Iterator[str]:
    """Write the token cache of a Foldseek database."""
    from protlig_dd.runs.token_cache import CacheSettings, cache_tokens

    out = Path(options.out)
    if not options.out or out.suffix in (".fasta", ".jsonl"):
        raise ConfigError(f"--out '{options.out}': a database's tokens go into a folder of shards; name one, such as cache")
    limit: dict[str, Any] = {} if options.max_length is None else {"max_length": options.max_length}
    (track,) = (known for known in TRACKS if known == options.track)
    tokenizer = None if track == "3di" else _open(options)
    settings = CacheSettings(alphabet=track, shard=shard, **limit)
    yield from cache_tokens(source, out, settings, tokenizer).lines()
    yield f"tokens: {out}; train with data.kind=shards data.path={out}"


def _tokenizer(options: TokenizeOptions) -> Tokenizer:
    """Return the function from a chain to its tokens."""
    from protlig_dd.data.foldseek.structure_files import THREEDI, Tokenizer

    if options.track == "3di":
        return THREEDI
    autoencoder = _open(options)
    return Tokenizer(tokens=lambda chain: autoencoder.tokenize(chain.ca), needs_backbone=False)


def _open(options: TokenizeOptions) -> StructureTokenizer:
    from protlig_dd.runs.families.tokenizers import open_structure_tokenizer

    if not options.tokenizer:
        raise ConfigError("--track kanzi: needs --tokenizer, a run of 'protlig train kanzi/tiny' or a published file (.pt)")
    return open_structure_tokenizer(options.track, options.tokenizer, device=options.device)
