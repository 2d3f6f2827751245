"""What was left out of something that is written: counted, and listed in a file beside it, with reasons."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

SKIPPED_SUFFIX = ".skipped.tsv"
"""Behind the name of what is written: the list of what was left out."""

LOST_RESIDUES = "residues without C-alpha"
"""The kind of a chain that is there, with fewer residues."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that was left out.

    Attributes:
        what: the file, with the chain behind it where it is one.
        kind: a few words to count by, such as "too short".
        reason: what was found, and what was expected.
        count: how many files, chains or residues.
    """

    what: str
    kind: str
    reason: str
    count: int = 1


class SkippedList:
    """Counts what was left out, and lists it in a file; a context manager.

    Args:
        path: the file, three columns with tabs between them: what, kind and reason. It is there after the `with` block if anything
            was left out and no error came. None counts only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.num_files = 0  # that were read, for who counts them
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, Skipped] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> SkippedList:
        if self.path is not None:
            self._growing = self.path.with_name(f".{self.path.name}.writing")
            self._file = self._growing.open("w", encoding="utf-8", errors="surrogateescape")
        return self

    def add(self, skipped: Skipped) -> None:
        """Count and list one."""
        self.counts[skipped.kind] += skipped.count
        self._examples.setdefault(skipped.kind, skipped)
        if self._file is not None:
            words = (skipped.what, skipped.kind, skipped.reason)
            self._file.write("\t".join(" ".join(word.split()) for word in words) + "\n")

    def lines(self) -> list[str]:
        """Return a line for each kind: how many, and the first of them."""
        found = self.counts.most_common()
        return [
            f"  {n} {kind}, such as {self._examples[kind].what}: {self._examples[kind].reason}" for kind, n in found
        ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None or self.path is None:
            return
        self._file.close()
        if kind is None and self.counts:
            os.replace(self._growing, self.path)
        else:
            self._growing.unlink(missing_ok=True)
