"""What is left out of an output: counted by kind, and listed with reasons in a file next to it; and the report of what was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from protlig_dd.files import written_whole

SKIPPED_SUFFIX = ".skipped.tsv"
"""Added to the name of the output: the list of what was left out."""

LOST_RESIDUES = "residues without C-alpha"
"""The kind of residues missing from a chain that is kept."""

UNREADABLE = "unreadable files"
"""The kind of files that are no structure, or damaged."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that was left out.

    Attributes:
        what: the file, followed by the chain if only that is left out.
        kind: a few words to count by, such as "too short".
        reason: what was found, and what was expected.
        count: number of files, chains or residues.
    """

    what: str
    kind: str
    reason: str
    count: int = 1


class SkippedList:
    """Counts what is left out, and lists it in a file; a context manager.

    Args:
        path: the file, with tab-separated columns what, kind and reason. It exists after the `with` block if anything was left out and
            there was no error. None only counts.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.num_files = 0  # files read, set by the caller
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, Skipped] = {}
        self._open = ExitStack()
        self._file: IO[str] | None = None

    def __enter__(self) -> SkippedList:
        return self

    def add(self, *several: Skipped) -> None:
        """Count and list some."""
        for skipped in several:
            self.counts[skipped.kind] += skipped.count
            self._examples.setdefault(skipped.kind, skipped)
            if self.path is None:
                continue
            if self._file is None:
                growing = self._open.enter_context(written_whole(self.path))
                self._file = self._open.enter_context(growing.open("w", encoding="utf-8", errors="surrogateescape"))
            words = (skipped.what, skipped.kind, skipped.reason)
            self._file.write("\t".join(" ".join(word.split()) for word in words) + "\n")

    def lines(self) -> list[str]:
        """Return a line for each kind: the count and the first case."""
        firsts = ((n, kind, self._examples[kind]) for kind, n in self.counts.most_common())
        return [f"  {n} {kind}, such as {first.what}: {first.reason}" for n, kind, first in firsts]

    def in_brief(self) -> str:
        """Return the same on one line."""
        return "; ".join(line.strip() for line in self.lines())

    def report(self, *paths: Path, num_chains: int, num_residues: int, skipped_path: Path | None = None) -> ChainReport:
        """Return the report of the chains written to `paths`, and of what was left out."""
        return ChainReport(
            paths=paths,
            num_files=self.num_files,
            num_chains=num_chains,
            num_residues=num_residues,
            skipped=dict(self.counts),
            skipped_path=skipped_path,
            details=tuple(self.lines()),
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)


@dataclass(frozen=True, kw_only=True)
class ChainReport:
    """The chains of structure files that were written, and what was left out.

    Attributes:
        paths: the files written, or the database.
        num_files: structure files read.
        num_chains: chains written.
        num_residues: residues of these chains.
        skipped: files, chains and residues left out, by kind.
        skipped_path: the file that lists them; None if there is none besides `paths`.
        details: a line for each kind.
    """

    paths: tuple[Path, ...]
    num_files: int
    num_chains: int
    num_residues: int
    skipped: dict[str, int]
    skipped_path: Path | None = None
    details: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the report in words."""
        names = " and ".join(str(path) for path in self.paths)
        yield f"{names}: {self.num_chains} chains, {self.num_residues} residues, of {self.num_files} files"
        if self.skipped:
            yield f"left out ({self.skipped_path} lists all):" if self.skipped_path else "left out:"
            yield from self.details
