"""Structure files written as sequences and structure tokens: two FASTA files with equal names, or one file of JSON lines.

`data.path` and `data.structure_path` of a config read them.
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
from protlig_dd.data.foldseek.writer import Entry
from protlig_dd.data.skipped import SKIPPED_SUFFIX, ChainReport, Skipped, SkippedList
from protlig_dd.errors import ConfigError, FormatError, one_line
from protlig_dd.files import written_whole

TOKEN_SUFFIXES = (".fasta", ".jsonl")
"""The formats that tokens are written in."""


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
        for left_out in one.skipped:
            skipped.add(left_out)
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
                    file.write(f">{one_line(entry.name, keeps_bytes=True)}\n{text}\n")
            else:
                row = {"name": entry.name, "sequence": entry.sequence, "structure": entry.structure}
                files[0].write(json.dumps(row) + "\n")
            chains, residues = chains + 1, residues + len(entry.sequence)
        if not chains:
            reasons = "; ".join(line.strip() for line in skipped.lines()) or "there is no file"
            raise FormatError(f"{source}: found no chain to tokenize among {skipped.num_files} files ({reasons})")
    return ChainReport(
        paths=paths + ((skipped.path,) if skipped.path and skipped.counts else ()),
        num_files=skipped.num_files,
        num_chains=chains,
        num_residues=residues,
        skipped=dict(skipped.counts),
        details=tuple(skipped.lines()),
    )
