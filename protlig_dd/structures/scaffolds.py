"""Motif scaffolding: residues of a known structure are kept, with free linkers of random lengths around and between them.

A motif is written as a contig: `5-20,A15-34,10-25,A51-70,5-20` keeps residues 15-34 and 51-70 of chain A (the authors' numbers) and puts 5
to 20 new residues before, 10 to 25 between and 5 to 20 after them. The position of each motif residue is recorded when a template is made,
never recovered from runs of masks, so adjacent segments remain separate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from protlig_dd import rng
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.structures.contigs import Linker, MotifSpec, NumberedSegment, parse_motif
from protlig_dd.structures.scaffold_problems import find_problem
from protlig_dd.structures.structure_io import Chain, Structure, read_structure
from protlig_dd.tokens.protein import AMINO_ACIDS

FREE = "_"
"""The letter of a free position of a template."""

_WORD = 63  # random bits of one draw


def read_motif(text: str, structure: str | Path | Structure, *, total: str | None = None) -> Motif:
    """Return the motif that a text describes in a structure.

    Args:
        text: a motif as `parse_motif` reads it, or the name of a benchmark problem such as "1PRW".
        structure: a PDB or mmCIF file, or a structure from `read_structure`; for a problem one of its PDB entry.
        total: the permitted lengths of the whole sequence, such as "60-90"; replaces that of a problem.

    Raises:
        ConfigError: if the text is invalid, or no linker lengths give a permitted total length.
        FormatError: as `read_structure`, `Problem.check_entry` and `resolve`.
    """
    problem = find_problem(text)
    spec = parse_motif(text, total=total) if problem is None else problem.spec.within(total)
    structure = structure if isinstance(structure, Structure) else read_structure(structure)
    if problem is not None:
        problem.check_entry(structure)
    return resolve(spec, structure)


def resolve(spec: MotifSpec, structure: Structure) -> Motif:
    """Return a motif with its residues, after checking that each exists and is known.

    Raises:
        FormatError: if a chain or a residue is missing, or a segment has a gap, a residue without C-alpha, or one that is not one of the
            twenty amino acids.
        ConfigError: if no linker lengths give a permitted total length.
    """
    pieces: list[Piece | Linker] = []
    for item in spec.items:
        if isinstance(item, Linker):
            pieces.append(item)
            continue
        where = f"{structure.source}: motif segment {item}"
        chain = structure.chain(item.chain, number=item.first if isinstance(item, NumberedSegment) else "")
        first, last = item.locate(chain, where)
        _check(chain, first, last, where)
        at = slice(first, last + 1)
        pieces.append(Piece(letters=chain.sequence[at], numbers=chain.numbers[at], coords_angstrom=chain.coords_angstrom[at]))
    motif = Motif(pieces=tuple(pieces), total=spec.total, text=spec.text)
    if not motif.num_combinations:
        raise ConfigError(
            f"motif '{spec.text}': its {motif.num_residues} residues and linkers give {motif.lengths} residues, never "
            f"the total length {spec.total}; widen the linkers or the total length"
        )
    return motif


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """The residues of one segment: letters, authors' numbers, and coordinates of `structure_io.ATOMS`."""

    letters: str
    numbers: tuple[str, ...]
    coords_angstrom: Float[np.ndarray, "l 5 3"]


@dataclass(frozen=True, kw_only=True)
class Template:
    """The template of a new sequence: letters at motif positions, `_` at positions that the model fills.

    Attributes:
        text: the template.
        segments: for each segment the positions of its residues in the new sequence, from 0.
        linkers: the length of each linker.
    """

    text: str
    segments: tuple[tuple[int, ...], ...]
    linkers: tuple[int, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions of all motif residues, segment by segment, from 0."""
        return tuple(position for segment in self.segments for position in segment)


@dataclass(frozen=True, kw_only=True, eq=False)
class Motif:
    """A motif with its residues, ready to make templates.

    Attributes:
        pieces: segments and linkers in the order of the new sequence.
        total: the permitted lengths of the whole sequence, or None.
        text: the text it was parsed from.
    """

    pieces: tuple[Piece | Linker, ...]
    total: Linker | None = None
    text: str = "motif"

    @property
    def segments(self) -> tuple[Piece, ...]:
        """The kept pieces."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Piece))

    @property
    def linkers(self) -> tuple[Linker, ...]:
        """The free pieces."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Linker))

    @property
    def num_residues(self) -> int:
        """Number of kept residues."""
        return sum(len(piece.letters) for piece in self.segments)

    @property
    def lengths(self) -> Linker:
        """The lengths that the linkers alone permit."""
        low, high = (sum(getattr(linker, end) for linker in self.linkers) for end in ("low", "high"))
        return Linker(low=self.num_residues + low, high=self.num_residues + high)

    @property
    def coords_angstrom(self) -> Float[np.ndarray, "m 5 3"]:
        """Coordinates of all motif residues, in the order of `Template.positions`."""
        return np.concatenate([piece.coords_angstrom for piece in self.segments])

    @cached_property
    def _ways(self) -> tuple[tuple[int, ...], ...]:
        """ways[j][s]: number of choices of linkers j, j+1, ... if those before them have s residues."""
        most = sum(linker.high for linker in self.linkers)
        allowed = self.total or self.lengths
        ways = [tuple(int(allowed.low <= self.num_residues + s <= allowed.high) for s in range(most + 1))]
        for linker in reversed(self.linkers):
            sums = (0, *accumulate(ways[0]))
            row = (sums[min(s + linker.high, most) + 1] - sums[min(s + linker.low, most + 1)] for s in range(most + 1))
            ways.insert(0, tuple(row))
        return tuple(ways)

    @property
    def num_combinations(self) -> int:
        """Number of choices of linker lengths with a permitted total length."""
        return self._ways[0][0]

    def linker_lengths(self, index: int) -> tuple[int, ...]:
        """Return combination `index` of `num_combinations`, in lexicographic order."""
        assert 0 <= index < self.num_combinations, (index, self.num_combinations)
        chosen, before = list[int](), 0
        for j, linker in enumerate(self.linkers):
            for length in range(linker.low, linker.high + 1):
                ways = self._ways[j + 1][before + length]
                if index < ways:
                    break
                index -= ways
            chosen.append(length)
            before += length
        return tuple(chosen)

    def template(self, sample_id: int, *, seed: int = 0) -> Template:
        """Return the template of one sample; its linker lengths are drawn uniformly from all permitted combinations.

        The draw depends on (seed, sample id) only. The benchmark's own script draws the left end and the spacers first and the right end
        from the remaining length, which favours combinations with little room at the right end.
        """
        words = self.num_combinations.bit_length() // _WORD + 2  # the bias of scaling stays below 2^-63
        draws = rng.Draws.root(seed, "motif linkers").fold_in(torch.tensor(sample_id)).fold_in(torch.arange(words))
        number = sum(bits << (_WORD * i) for i, bits in enumerate(draws.bits().tolist()))
        return self.place(self.linker_lengths(number * self.num_combinations >> (_WORD * words)))

    def place(self, linker_lengths: Sequence[int]) -> Template:
        """Return the template with linkers of given lengths."""
        left, text, segments = iter(linker_lengths), "", []
        for piece in self.pieces:
            if isinstance(piece, Piece):
                segments.append(tuple(range(len(text), len(text) + len(piece.letters))))
                text += piece.letters
            else:
                text += FREE * next(left)
        return Template(text=text, segments=tuple(segments), linkers=tuple(linker_lengths))


def _check(chain: Chain, first: int, last: int, where: str) -> None:
    for gap in chain.gaps:
        if first <= gap.after < last:
            missing = f"{gap.num_missing} residues are" if gap.num_missing > 1 else "something is"
            raise FormatError(
                f"{where}: {missing} missing between {chain.numbers[gap.after]} and {chain.numbers[gap.after + 1]} of chain "
                f"{chain.name}; end one segment before the gap and begin another behind it"
            )
    for i in range(first, last + 1):
        name = f"residue {chain.numbers[i]} ({chain.residue_names[i]}) of chain {chain.name}"
        if chain.sequence[i] not in AMINO_ACIDS:
            raise FormatError(f"{where}: {name} is none of the twenty amino acids; leave it out of the segment")
        if not chain.has_ca[i]:
            raise FormatError(f"{where}: {name} has no C-alpha; leave it out of the segment")
