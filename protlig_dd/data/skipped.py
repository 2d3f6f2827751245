"""What is left out of an output: counted by kind, and listed with reasons in a file next to it."""

from __future__ import annotations

from collections import Counter
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

    def add(self, skipped: Skipped) -> None:
        """Count and list one."""
        self.counts[skipped.kind] += skipped.count
        self._examples.setdefault(skipped.kind, skipped)
        if self.path is None:
            return
        if self._file is None:
            growing = self._open.enter_context(written_whole(self.path))
            self._file = self._open.enter_context(growing.open("w", encoding="utf-8", errors="surrogateescape"))
        words = (skipped.what, skipped.kind, skipped.reason)
        self._file.write("\t".join(" ".join(word.split()) for word in words) + "\n")

    def lines(self) -> list[str]:
        """Return a line for each kind: the count and the first case."""
        firsts = ((n, kind, self._examples[kind]) for kind, n in self.counts.most_common())
        return [f"  {n} {kind}, such as {first.what}: {first.reason}" for n, kind, first in firsts]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
