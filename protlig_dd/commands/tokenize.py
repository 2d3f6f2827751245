"""`protlig tokenize`: structures as tokens."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from protlig_dd.commands.foldseek_build import check_workers
from protlig_dd.data.skipped import SkippedList
from protlig_dd.data.structure_files import THREEDI, Tokenizer
from protlig_dd.data.structure_tokens import tokenize_files, write_tokens
from protlig_dd.errors import ConfigError, FormatError, nearest

log = logging.getLogger(__name__)

TOKENIZERS: Mapping[str, Callable[[Namespace], Tokenizer]] = {"3di": lambda _: THREEDI}
"""What makes the tokens of each track, from the options of the command."""


def tokenize(options: Namespace) -> Iterator[str]:
    """Write the tokens of structures, or give them as FASTA."""
    if options.track not in TOKENIZERS:
        known = ", ".join(TOKENIZERS)
        raise ConfigError(f"--track '{options.track}': expected {known}{nearest(options.track, TOKENIZERS)}")
    check_workers(options.workers)
    tokenizer, source, shard = TOKENIZERS[options.track](options), Path(options.source), _shard(options.shard)
    if options.out:
        report = write_tokens(source, Path(options.out), options.track, tokenizer, workers=options.workers, shard=shard)
        yield from report.lines()
        return
    with SkippedList(None) as skipped:
        nothing = True
        for entry in tokenize_files(source, tokenizer, skipped, workers=options.workers, shard=shard):
            yield f">{entry.name}\n{entry.structure}"
            nothing = False
        for line in ["left out:", *skipped.lines()] if skipped.counts else []:
            log.info(line)
    if nothing:
        raise FormatError(f"{source}: found no chain to tokenize among {skipped.num_files} files")


def _shard(text: str) -> tuple[int, int]:
    index, sep, count = text.partition("/")
    if not (sep and index.isdigit() and count.isdigit() and 0 <= int(index) < int(count)):
        raise ConfigError(f"--shard '{text}': expected i/n with 0 <= i < n, such as 0/4")
    return int(index), int(count)
