"""`protlig tokenize`: structures as tokens."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from protlig_dd.cli.foldseek_build import check_workers
from protlig_dd.config import parse_shard
from protlig_dd.data.foldseek.structure_files import THREEDI, Tokenizer
from protlig_dd.data.foldseek.table import is_database
from protlig_dd.data.foldseek.token_files import tokenize_files, write_tokens
from protlig_dd.data.skipped import SkippedList
from protlig_dd.errors import ConfigError, FormatError, nearest
from protlig_dd.kanzi.experiment import open_tokenizer
from protlig_dd.kanzi.tokenizer import KanziTokenizer
from protlig_dd.runs.token_cache import CacheSettings, cache_tokens

log = logging.getLogger(__name__)


def _kanzi(options: Namespace) -> Tokenizer:
    tokenizer = _open_kanzi(options)
    assert tokenizer is not None
    return Tokenizer(tokens=lambda chain: tokenizer.tokenize(chain.ca), needs_backbone=False)


def _open_kanzi(options: Namespace) -> KanziTokenizer | None:
    if options.track != "kanzi":
        return None
    if not options.tokenizer:
        raise ConfigError(
            "--track kanzi: needs --tokenizer, a run of 'protlig train kanzi/tiny' or a published file (.pt)"
        )
    return open_tokenizer(options.tokenizer, device=options.device)


TOKENIZERS: Mapping[str, Callable[[Namespace], Tokenizer]] = {"3di": lambda _: THREEDI, "kanzi": _kanzi}
"""What makes the tokens of each track, from the options of the command."""


def tokenize(options: Namespace) -> Iterator[str]:
    """Write the tokens of structures, or give them as FASTA."""
    if options.track not in TOKENIZERS:
        known = ", ".join(TOKENIZERS)
        raise ConfigError(f"--track '{options.track}': expected {known}{nearest(options.track, TOKENIZERS)}")
    check_workers(options.workers)
    if options.tokenizer and options.track != "kanzi":
        raise ConfigError(
            f"--tokenizer {options.tokenizer}: is for --track kanzi, found --track {options.track}; leave it out"
        )
    source, shard = Path(options.source), parse_shard(options.shard)
    if is_database(source):
        yield from _cache(options, source, shard)
        return
    if not source.exists():
        raise ConfigError(
            f"{source}: found no such file, folder or Foldseek database, expected structures to tokenize; check the path"
        )
    if options.max_length is not None:
        raise ConfigError(
            f"--max-length {options.max_length}: is for a Foldseek database, {source} holds structure files; leave it out"
        )
    tokenizer = TOKENIZERS[options.track](options)
    workers = 1 if options.track == "kanzi" else options.workers  # a network stays in one process
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


def _cache(options: Namespace, source: Path, shard: tuple[int, int]) -> Iterator[str]:
    """Write the token cache of a Foldseek database."""
    out = Path(options.out)
    if not options.out or out.suffix in (".fasta", ".jsonl"):
        raise ConfigError(
            f"--out '{options.out}': a database's tokens go into a folder of shards; name one, such as cache"
        )
    limit = {} if options.max_length is None else {"max_length": options.max_length}
    settings = CacheSettings(alphabet=options.track, shard=shard, **limit)
    yield from cache_tokens(source, out, settings, _open_kanzi(options)).lines()
    yield f"tokens: {out}; train with data.kind=shards data.path={out}"
