"""A token cache of a Foldseek database: each protein with its structure tokens, computed once for any number of epochs.

3Di letters are in the database; Kanzi's tokens are computed from its C-alphas, which is too slow to repeat for millions of chains in every
epoch. The cache is a folder of memory-mapped shards (`data.kind: shards`), which parallel jobs can write in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from protlig_dd.data.encode import Encoder, EncodeReport, encoded, record_labels
from protlig_dd.data.foldseek.files import database_fingerprint
from protlig_dd.data.foldseek.pairs import FoldseekDB, PairedFoldseekDB
from protlig_dd.data.foldseek.table import has_structures, read_rows
from protlig_dd.data.readers.records import Record
from protlig_dd.data.shards import ShardWriter, part_name
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.runs.families.tokenizers import StructureTokenizer, has_tokenizer
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.structure import Alphabet

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """The content of a cache.

    Args:
        alphabet: "3di" or "kanzi".
        max_length: residues; longer proteins are left out and counted.
        unknown: the letter used for residues outside the alphabet, as in `tracks.protein.unknown`.
        shard: (i, n) uses only every n-th entry, from the i-th.
    """

    alphabet: Alphabet = "3di"
    max_length: int = 1024
    unknown: str = "X"
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ConfigError(f"--max-length {self.max_length}: expected 1 or more residues")


def cache_tokens(database: Path, out: Path, settings: CacheSettings, tokenizer: StructureTokenizer | None = None) -> EncodeReport:
    """Write the token cache of a database, or of one job's part of it, and return the counts of its entries.

    Args:
        database: path without a suffix.
        out: the folder; with n > 1 jobs its subfolder part_i_of_n is written.
        settings: the content.
        tokenizer: the autoencoder of the tokens; not needed for 3Di letters, which the database has.

    Raises:
        ConfigError: if the database lacks 3Di letters or C-alphas, or there is no tokenizer.
        FormatError: for a damaged database, no entry that is kept, or a folder that already has shards.
    """
    index, count = settings.shard
    rows = np.arange(index, _num_entries(database, settings.alphabet), count)
    made_of = database_fingerprint(database)
    structure = StructureTrack(alphabet=settings.alphabet, max_length=settings.max_length + 2).build("structure")
    protein = ProteinTrack(max_length=settings.max_length + 2, unknown=settings.unknown, beside=settings.alphabet)
    tracks = {"protein": protein.build("protein"), "structure": structure}
    encoder = Encoder(tracks, too_long="drop", unknown="drop", needed=list(tracks))
    folder = out / part_name(index, count) if count > 1 else out
    if has_tokenizer(settings.alphabet):
        if tokenizer is None:
            raise ConfigError(f"{settings.alphabet}: found no tokenizer; give a run of 'protlig train kanzi/tiny', or a published file")
        records = _with_tokens(database, rows, tokenizer)
    else:
        records = read_rows(database, rows)
    with ShardWriter(folder, tracks) as writer:
        progress = iter(tqdm(records, total=len(rows), unit="chain", disable=None))
        for record, example in encoded(progress, encoder):
            writer.add(example, labels=record_labels(record), name=record.name)
        report = encoder.report()
        if not report.kept and count == 1:  # of several jobs one may have nothing to do
            reasons = "; ".join(line.strip() for line in report.lines()[1:]) or "it is empty"
            raise FormatError(f"{database}: found no entry to keep among {report.seen}, so no cache is written: {reasons}")
        writer.about = {
            "source": str(database),
            "shard": f"{index}/{count}",
            # what all jobs must have in common
            "track": settings.alphabet,
            "longest": settings.max_length,
            "unknown": settings.unknown,
            "database": made_of,
            "tokenizer": "" if tokenizer is None else tokenizer.fingerprint,
        }
    return report


def _num_entries(database: Path, alphabet: Alphabet) -> int:
    """The number of entries; an error if the database lacks 3Di letters or C-alphas."""
    if alphabet == "3di":
        if not has_structures(database):
            raise ConfigError(f"{database}: has no 3Di letters ({database.name}_ss); make them with: protlig foldseek build")
        with PairedFoldseekDB(database) as pairs:
            return len(pairs)
    with FoldseekDB(database) as letters:
        if not letters.has_calpha:
            raise ConfigError(f"{database}: has no C-alphas ({database.name}_ca), which Kanzi's tokens are made of")
        return len(letters)


def _with_tokens(database: Path, rows: np.ndarray, tokenizer: StructureTokenizer) -> Iterator[Record]:
    """The given rows with Kanzi's tokens; coordinates that do not fit the sequence are an error."""
    with FoldseekDB(database) as letters:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE].tolist()
            chains = [letters.calpha(row) for row in some]
            for row, chain, tokens in zip(some, chains, tokenizer.encode(chains), strict=True):
                text = letters.get_sequence(row)
                where, name = f"{database}: entry {row + 1}", letters.name(row).split(" ")[0]
                if len(chain) != len(text):
                    raise FormatError(f"{where}: found {len(chain)} C-alphas for {len(text)} residues, expected as many")
                yield Record(where=where, texts={"protein": text, "structure": tokenizer.to_text(tokens)}, name=name)
