"""Structure files written as a Foldseek database, or as sequences and structure tokens; everything left out is counted and listed.

Tokens go into two FASTA files with equal names, or one file of JSON lines: `data.path` and `data.structure_path` of a config read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from protlig_dd.data.foldseek.structure_files import Reading, Tokenizer, choose_workers, read_all, structure_files
from protlig_dd.data.foldseek.writer import CoordStore, DatabaseWriter, Entry
from protlig_dd.data.skipped import SKIPPED_SUFFIX, ChainReport, Skipped, SkippedList
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.files import written_whole

TOKEN_SUFFIXES = (".fasta", ".jsonl")
"""The formats that tokens are written in."""


def build_database(
    source: Path, out: Path, *, workers: int = 0, mask_bfactor_threshold: float = 0.0, coord_store: CoordStore = "differences"
) -> ChainReport:
    """Write a Foldseek database (sequences, 3Di, C-alpha, headers) of a folder of structures; OUT.skipped.tsv lists what is left out.

    Memory does not grow with the number of files, except for the names in one folder.

    It differs from Foldseek's createdb (commit d5b1d3d4) in three points: chains with C-alpha atoms only are left out, since Foldseek
    rebuilds their backbone; a chain is masked by its own B-factors, where Foldseek uses those of the file's first chain; hidden files are
    not read.

    Args:
        source: a folder, with its subfolders, of PDB and mmCIF files, also .gz; or one such file.
        out: the database, such as "folder/db".
        workers: processes that read structures, 0 for one a core; the order of the entries does not depend on it.
        mask_bfactor_threshold: residues whose C-alpha has a lower B-factor get lower-case letters; 0 masks none.
        coord_store: how C-alpha traces are stored.

    Raises:
        ConfigError: if the folder does not exist, or the database does.
        FormatError: if no file gives an entry; nothing is written then.
        MissingDependencyError: without gemmi or mini3di.
    """
    total = sum(1 for _ in structure_files(source))
    reading = Reading(mask_bfactor_threshold=mask_bfactor_threshold)
    with DatabaseWriter(out, coord_store=coord_store) as writer, SkippedList(out.with_name(out.name + SKIPPED_SUFFIX)) as skipped:
        skipped.num_files = total
        found = read_all(structure_files(source), reading, workers=choose_workers(workers, total))
        for one in tqdm(found, total=total, unit="file", disable=None):
            skipped.add(*one.skipped)
            for entry in one.entries:
                try:
                    writer.add(entry)
                except FormatError as error:
                    skipped.add(Skipped(what=entry.name, kind="not writable", reason=str(error)))
        if not writer.num_entries:
            reasons = skipped.in_brief() or "the folder is empty"
            raise FormatError(f"{source}: found no chain for a database among {total} files ({reasons})")
    listed = skipped.path if skipped.counts else None
    return skipped.report(out, num_chains=writer.num_entries, num_residues=writer.num_residues, skipped_path=listed)


def token_paths(out: Path, track: str) -> tuple[Path, ...]:
    """Return the files to write for one name: X.fasta with the amino acids and X_TRACK.fasta with the tokens, or X.jsonl.

    Raises:
        ConfigError: for another suffix, or a folder that does not exist.
    """
    if out.suffix not in TOKEN_SUFFIXES:
        raise ConfigError(f"--out {out}: found '{out.suffix}', expected one of {', '.join(TOKEN_SUFFIXES)}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    return (out, out.with_name(f"{out.stem}_{track}.fasta")) if out.suffix == ".fasta" else (out,)


def tokenize_files(
    source: Path, tokenizer: Tokenizer, skipped: SkippedList, *, workers: int = 0, shard: tuple[int, int] = (0, 1)
) -> Iterator[Entry]:
    """Yield the chains of structure files with their tokens in `Entry.structure`; names are single words, each used once.

    Args:
        source: a folder, with its subfolders, of PDB and mmCIF files, also .gz; or one such file.
        tokenizer: makes the tokens of a chain.
        skipped: collects what is left out.
        workers: number of processes, 0 for one a core.
        shard: (i, n) reads only every n-th file, from the i-th.

    Raises:
        ConfigError: if the folder does not exist.
    """

    def mine() -> Iterator[Path]:
        return islice(structure_files(source), shard[0], None, shard[1])

    total = sum(1 for _ in mine())
    found = read_all(mine(), Reading(tokenizer=tokenizer, with_ca=False), workers=choose_workers(workers, total))
    names = set[bytes]()  # 8-byte digests, not the names themselves
    for one in tqdm(found, total=total, unit="file", disable=None):
        skipped.add(*one.skipped)
        for entry in one.entries:
            name = "_".join(entry.name.split())
            brief = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
            if brief in names:
                reason = f"found the name '{name}' a second time, and names join sequences to tokens; rename the file"
                skipped.add(Skipped(what=f"{entry.source} ({name})", kind="repeated names", reason=reason))
                continue
            names.add(brief)
            yield Entry(name=name, sequence=entry.sequence, structure=entry.structure)
    skipped.num_files += total


def write_tokens(
    source: Path, out: Path, track: str, tokenizer: Tokenizer, *, workers: int = 0, shard: tuple[int, int] = (0, 1)
) -> ChainReport:
    """Write the tokens of structure files to OUT (FASTA or JSON lines); OUT.skipped.tsv lists what was left out.

    The files get their names together, when all of them are complete.

    Args:
        source, tokenizer, workers, shard: as in `tokenize_files`.
        out: the file to write, ending in .fasta or .jsonl.
        track: the name of the tokens, such as "3di".

    Raises:
        ConfigError: for another suffix, or folders that do not exist.
        FormatError: if no file gives tokens; nothing is written then.
    """
    paths = token_paths(out, track)
    chains = residues = 0
    with SkippedList(out.with_name(out.name + SKIPPED_SUFFIX)) as skipped, ExitStack() as stack:
        growing = [stack.enter_context(written_whole(path)) for path in paths]
        files = [stack.enter_context(path.open("w", encoding="utf-8", errors="surrogateescape")) for path in growing]
        for entry in tokenize_files(source, tokenizer, skipped, workers=workers, shard=shard):
            if len(files) == 2:
                for file, text in zip(files, (entry.sequence, entry.structure), strict=True):
                    file.write(f">{entry.name}\n{text}\n")
            else:
                row = {"name": entry.name, "sequence": entry.sequence, "structure": entry.structure}
                files[0].write(json.dumps(row) + "\n")
            chains, residues = chains + 1, residues + len(entry.sequence)
        if not chains:
            reasons = skipped.in_brief() or "there is no file"
            raise FormatError(f"{source}: found no chain to tokenize among {skipped.num_files} files ({reasons})")
    listed = (skipped.path,) if skipped.path and skipped.counts else ()
    return skipped.report(*paths, *listed, num_chains=chains, num_residues=residues)
