"""Structure files as sequences and structure tokens: two FASTA files with equal names, or one of JSON lines.

These are what `data.path` and `data.structure_path` of a config read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from protlig_dd.data.foldseek.skipped import SKIPPED_SUFFIX, Skipped, SkippedList
from protlig_dd.data.foldseek.structure_files import Reading, Tokenizer, choose_workers, read_all, structure_files
from protlig_dd.data.foldseek.writer import Entry
from protlig_dd.errors import ConfigError, FormatError

TOKEN_SUFFIXES = (".fasta", ".jsonl")
"""The forms that tokens are written in."""


@dataclass(frozen=True, kw_only=True)
class TokenReport:
    """What was written, and what was left out.

    Attributes:
        paths: the files that were made.
        num_files: how many structure files were read.
        num_chains: how many chains have tokens.
        num_residues: of these chains.
        skipped: how many files, chains and residues were left out, by kind.
        details: a line for each kind.
    """

    paths: tuple[Path, ...]
    num_files: int
    num_chains: int
    num_residues: int
    skipped: dict[str, int]
    details: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield the report in words."""
        names = " and ".join(str(path) for path in self.paths)
        yield f"{names}: {self.num_chains} chains, {self.num_residues} residues, of {self.num_files} files"
        if self.skipped:
            yield "left out:"
            yield from self.details


def token_paths(out: Path, track: str) -> tuple[Path, ...]:
    """Return the files that stand for one name: X.fasta with the amino acids and X_TRACK.fasta with the tokens, or X.jsonl.

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
    """Yield the chains of structure files with their tokens in `Entry.structure`; names are one word each, and none comes twice.

    Args:
        source: a folder, with its subfolders, of PDB and mmCIF files, also .gz; or one such file.
        tokenizer: what makes tokens of a chain.
        skipped: gets what is left out.
        workers: processes, 0 for one a core.
        shard: (i, n) takes only every n-th file, from the i-th.

    Raises:
        ConfigError: if there is no such folder.
    """

    def mine() -> Iterator[Path]:
        return islice(structure_files(source), shard[0], None, shard[1])

    total = sum(1 for _ in mine())
    found = read_all(mine(), Reading(tokenizer=tokenizer, with_ca=False), workers=choose_workers(workers, total))
    names = set[bytes]()  # 8 bytes of each, not the names themselves
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
) -> TokenReport:
    """Write the tokens of structure files to OUT (FASTA or JSON lines); OUT.skipped.tsv lists what was left out.

    The files get their names when they are whole. Arguments as in `tokenize_files`; `track` is what the tokens are called.

    Raises:
        ConfigError: for a suffix that is not known, or folders that do not exist.
        FormatError: if no file gives tokens; nothing is written then.
    """
    paths = token_paths(out, track)
    chains = residues = 0
    with SkippedList(out.with_name(out.name + SKIPPED_SUFFIX)) as skipped, _Files(paths) as files:
        for entry in tokenize_files(source, tokenizer, skipped, workers=workers, shard=shard):
            if len(paths) == 2:
                files.write(f">{entry.name}\n{entry.sequence}\n", f">{entry.name}\n{entry.structure}\n")
            else:
                row = {"name": entry.name, "sequence": entry.sequence, "structure": entry.structure}
                files.write(json.dumps(row) + "\n")
            chains, residues = chains + 1, residues + len(entry.sequence)
        if not chains:
            reasons = "; ".join(line.strip() for line in skipped.lines()) or "there is no file"
            raise FormatError(f"{source}: found no chain to tokenize among {skipped.num_files} files ({reasons})")
    return TokenReport(
        paths=paths + ((skipped.path,) if skipped.path and skipped.counts else ()),
        num_files=skipped.num_files,
        num_chains=chains,
        num_residues=residues,
        skipped=dict(skipped.counts),
        details=tuple(skipped.lines()),
    )


class _Files:
    """Text files that grow beside their places and get their names together, when all went well."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = paths
        self._growing = [path.with_name(f".{path.name}.writing") for path in paths]

    def __enter__(self) -> _Files:
        self._open = ExitStack()
        self._files = [
            self._open.enter_context(path.open("w", encoding="utf-8", errors="surrogateescape"))
            for path in self._growing
        ]
        return self

    def write(self, *texts: str) -> None:
        for file, text in zip(self._files, texts, strict=True):
            file.write(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._open.close()
            if kind is None:
                for growing, path in zip(self._growing, self._paths, strict=True):
                    os.replace(growing, path)
        finally:
            for growing in self._growing:
                growing.unlink(missing_ok=True)
