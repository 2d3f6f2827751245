"""The notation for motifs: residues of a structure that are kept, and lengths of free linkers, in the order of the new sequence.

Nothing here reads a structure: `scaffolds.py` finds the residues, checks them and makes templates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.structures.structure_io import Chain

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_SEGMENT = re.compile(r"(-?\d+)([A-Za-z]?)(?:-(-?\d+)([A-Za-z]?))?")


@dataclass(frozen=True, kw_only=True)
class Linker:
    """A linker of `low` to `high` new residues, both included."""

    low: int
    high: int

    def __str__(self) -> str:
        """Return it as it is written."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


@dataclass(frozen=True, kw_only=True)
class NumberedSegment:
    """Residues `first` to `last` of a chain by their authors' numbers, with insertion codes ("52A")."""

    chain: str
    first: str
    last: str

    def __str__(self) -> str:
        """Return it as it is written."""
        colon = "" if self.chain.isalpha() else ":"
        return f"{self.chain}{colon}{self.first}" + ("" if self.first == self.last else f"-{self.last}")

    def locate(self, chain: Chain, where: str) -> tuple[int, int]:
        """Return the indices of the first and the last residue in a chain.

        Raises:
            FormatError: if either is not in the chain, or the last one precedes the first.
        """
        ends = []
        for number in (self.first, self.last):
            if number not in chain.index_of:
                raise FormatError(
                    f"{where}: residue {number} is not in chain {chain.name}, which has {describe_numbers(chain)}; "
                    f"choose residues that are there"
                )
            ends.append(chain.index_of[number])
        if ends[0] > ends[1]:
            raise FormatError(f"{where}: residue {self.last} stands before {self.first}; name the first residue first")
        return ends[0], ends[1]


@dataclass(frozen=True, kw_only=True)
class IndexedSegment:
    """Residues `first` to `last` of a chain by their index among its residues with coordinates, from 0, both included."""

    chain: str
    first: int
    last: int

    def __str__(self) -> str:
        """Return a description such as "chain A, residues 15-34 counted from 0"."""
        return f"chain {self.chain}, residues {self.first}-{self.last} counted from 0"

    def locate(self, chain: Chain, where: str) -> tuple[int, int]:
        """Return the indices of the first and the last residue in a chain.

        Raises:
            FormatError: if the chain is too short.
        """
        if self.last >= len(chain):
            raise FormatError(
                f"{where}: chain {chain.name} has {len(chain)} residues with coordinates, expected at least {self.last + 1}; "
                f"give the structure that the segment was chosen in"
            )
        return self.first, self.last


Segment = NumberedSegment | IndexedSegment


@dataclass(frozen=True, kw_only=True)
class MotifSpec:
    """The kept segments and free linkers of a motif, before any structure is read.

    Attributes:
        items: segments and linkers in the order of the new sequence; segments without a linker between them are adjacent.
        total: the permitted lengths of the whole sequence, or None.
        text: the text it was parsed from, for messages.
    """

    items: tuple[Segment | Linker, ...]
    total: Linker | None = None
    text: str = "motif"

    def within(self, total: str | Linker | None) -> MotifSpec:
        """Return the motif with another permitted total length, such as "60-90"; None keeps the present one."""
        if total is None:
            return self
        return replace(self, total=parse_range(total, "--total-length") if isinstance(total, str) else total)


def parse_range(text: str, where: str) -> Linker:
    """Return the range of lengths in a text such as "5-20" or "20".

    Raises:
        ConfigError: if it is not a range, or the second number is smaller.

    >>> parse_range("5-20", "--motif")
    Linker(low=5, high=20)
    """
    match = _RANGE.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{where}: found '{text}', expected a length such as 20 or a range such as 5-20")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise ConfigError(f"{where}: found '{text}', expected the smaller length first; write {high}-{low}")
    return Linker(low=low, high=high)


def parse_motif(text: str, *, total: str | None = None) -> MotifSpec:
    """Return the motif written as a text such as "5-20,A15-34,10-25,A51-70,5-20".

    Args:
        text: parts separated by commas. `A15-34` is a segment by the authors' numbers (`A52A-60` with an insertion code, `A-3-10` with a
            negative number, `A15` for a single residue); the name of a chain other than letters needs a colon, as in `1:15-34`, and a
            chain without a name is written `:15-34`. `5-20` or `20` is a linker. RFdiffusion's form `[5-20/A15-34/10]` is read too.
        total: the permitted lengths of the whole sequence, such as "60-90".

    Raises:
        ConfigError: for an invalid part, or if there is no segment.

    >>> [type(part).__name__ for part in parse_motif("5-20,A15-34,10").items]
    ['Linker', 'NumberedSegment', 'Linker']
    """
    items: list[Segment | Linker] = []
    for part in (piece.strip() for piece in re.split("[,/]", text.strip().removeprefix("[").removesuffix("]"))):
        if part.startswith("0 "):
            raise ConfigError(f"motif '{text}': found the chain break '/{part}', expected a motif for one new chain; leave the break out")
        if _RANGE.fullmatch(part):
            items.append(parse_range(part, f"motif '{text}'"))
            continue
        letters = re.match(r"[A-Za-z]+", part)
        chain, rest = (letters[0], part[letters.end() :]) if letters else ("", "")
        if ":" in part:
            chain, rest = part.rsplit(":", 1)
        match = _SEGMENT.fullmatch(rest)
        if not match or not (chain or ":" in part):
            raise ConfigError(
                f"motif '{text}': found '{part}', expected a segment such as A15-34 (chain and residue numbers; 1:15-34 for a chain "
                f"called 1, :15-34 for one without a name) or a linker such as 5-20"
            )
        first = match[1] + match[2]
        last = match[3] + match[4] if match[3] else first
        items.append(NumberedSegment(chain=chain, first=first, last=last))
    if all(isinstance(item, Linker) for item in items):
        raise ConfigError(f"motif '{text}': found no segment, expected at least one such as A15-34")
    return MotifSpec(items=tuple(items), text=text).within(total)


def describe_numbers(chain: Chain) -> str:
    """Return the authors' numbers as ranges between the chain's gaps: "1-43, 47-120"."""
    starts = [0, *(gap.after + 1 for gap in chain.gaps)]
    ends = [*(gap.after for gap in chain.gaps), len(chain) - 1]
    return ", ".join(f"{chain.numbers[a]}-{chain.numbers[b]}" for a, b in zip(starts, ends, strict=True))
