"""Protein chains of PDB and mmCIF files as frozen values, and writing them to PDB files.

A chain has the residues of a protein with coordinates, in the order of the file, of the first model. Unresolved residues are not included;
`Chain.gaps` lists where some are missing. Callers select residues for their purpose (those with a C-alpha, those of a motif).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from protlig_dd.errors import FormatError, require
from protlig_dd.structures.residue_letters import THREE_LETTERS, parent_letter
from protlig_dd.structures.structure_parsing import are_alternatives, best_conformer, info_of, load_structure, readable_text

ATOMS = ("N", "CA", "C", "O", "CB")
"""The atoms kept for each residue, in the order of `Chain.coords_angstrom`."""

BLANK = "blank"
"""What a chain without a name is called in messages and on the command line."""

STRUCTURE_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
"""Suffixes of structure files; each may be followed by .gz."""

# Angstrom from C to the next N: 1.33 along the bond, 3 or more across a missing residue.
_LONGEST_BOND = 2.5
# Angstrom from one C-alpha to the next: 3.8 (2.9 in cis), 5 or more across a missing residue.
_LONGEST_STEP = 4.6


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A place where a chain is interrupted.

    Attributes:
        after: the index of the residue before the gap.
        num_missing: residues missing by the numbering, 0 if it does not show any.
    """

    after: int
    num_missing: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain:
    """One protein chain.

    Attributes:
        name: the authors' name of the chain (auth_asym_id; column 22 of a PDB file), which several polymers may share; may be empty.
        label: mmCIF's name (label_asym_id); if the file has none, `name`, and "A_2" for the second polymer called A.
        sequence: one letter for each residue; a modified residue has its parent's (MSE is M), an unknown one X.
        residue_names: the residues' names in the file, such as MSE.
        numbers: the authors' residue numbers with their insertion codes, such as "52" and "52A".
        coords_angstrom: coordinates of `ATOMS`, float32; NaN for missing atoms.
        b_factors: B-factor of each C-alpha (the pLDDT in predicted structures); NaN without one.
        gaps: where residues are missing, by the file's sequence numbers, else the authors' numbers, else distances.
    """

    name: str
    label: str
    sequence: str
    residue_names: tuple[str, ...]
    numbers: tuple[str, ...]
    coords_angstrom: Float[np.ndarray, "l 5 3"]
    b_factors: Float[np.ndarray, " l"]
    gaps: tuple[Gap, ...] = ()

    def __len__(self) -> int:
        """Number of residues with coordinates."""
        return len(self.sequence)

    @property
    def ca(self) -> Float[np.ndarray, "l 3"]:
        """C-alpha coordinates in Angstrom, NaN for missing atoms."""
        return self.coords_angstrom[:, 1]

    @property
    def backbone(self) -> Float[np.ndarray, "l 3 3"]:
        """Coordinates of N, CA and C in Angstrom, NaN for missing atoms."""
        return self.coords_angstrom[:, :3]

    @property
    def has_ca(self) -> Bool[np.ndarray, " l"]:
        """Which residues have a C-alpha."""
        return np.asarray(np.isfinite(self.ca).all(-1))

    @cached_property
    def index_of(self) -> dict[str, int]:
        """The index of each author number ("52A"); the first one of a repeated number."""
        return {number: i for i, number in reversed(list(enumerate(self.numbers)))}

    @staticmethod
    def of_coordinates(
        sequence: str, coords_angstrom: Float[np.ndarray, "l a 3"], *, name: str = "A", b_factors: Float[np.ndarray, " l"] | None = None
    ) -> Chain:
        """Return a chain numbered from 1, from a sequence and the coordinates of a = 1 (C-alpha) or the first a > 1 of `ATOMS`.

        Raises:
            ValueError: unless there is one row for each letter and a is 1, 3, 4 or 5.
        """
        length, num_atoms = coords_angstrom.shape[:2]
        if length != len(sequence) or num_atoms not in (1, 3, 4, 5):
            raise ValueError(
                f"coords_angstrom: found the shape {coords_angstrom.shape} for {len(sequence)} residues, "
                f"expected ({len(sequence)}, 1, 3, 4 or 5, 3)"
            )
        coords = np.full((length, len(ATOMS), 3), np.nan, dtype=np.float32)
        coords[:, slice(1, 2) if num_atoms == 1 else slice(num_atoms)] = coords_angstrom
        return Chain(
            name=name,
            label=name,
            sequence=sequence,
            residue_names=tuple(THREE_LETTERS.get(letter, "UNK") for letter in sequence),
            numbers=tuple(str(i + 1) for i in range(length)),
            coords_angstrom=coords,
            b_factors=np.zeros(length, np.float32) if b_factors is None else np.asarray(b_factors, dtype=np.float32),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """The protein chains of a file.

    Attributes:
        source: the file, or another name at the start of messages.
        chains: protein chains in the order of the file.
        others: the other chains with their content, such as "C (DNA)".
        entry: the name of the entry that the file says, such as "1PRW"; "" if it says none.
    """

    source: str
    chains: tuple[Chain, ...]
    others: tuple[str, ...] = ()
    entry: str = ""

    def chain(self, name: str, *, number: str = "") -> Chain:
        """Return a chain by its authors' name, or else by its label; the chain without a name is also called "blank".

        Args:
            name: the name.
            number: a residue number: of several polymers with the name, the one that has it is returned, else the first.

        Raises:
            FormatError: if it does not exist; the message lists the chains that do.
        """
        for attribute, wanted in (("name", name), ("label", name), ("name", "" if name == BLANK else name)):
            found = [chain for chain in self.chains if getattr(chain, attribute) == wanted]
            if found:
                return next((chain for chain in found if number in chain.index_of), found[0])
        raise FormatError(f"{self.source}: found no protein chain '{name}', expected one of {self.describe()}; name one of them")

    def describe(self) -> str:
        """Return the chains in words, such as "A (141 residues), B (146 residues); no protein: C (DNA)"."""
        parts = []
        for chain in self.chains:
            label = f", label {chain.label}" if chain.label != chain.name else ""
            parts.append(f"{chain.name or BLANK} ({len(chain)} residues{label})")
        text = ", ".join(parts) or "no protein chain"
        return text + (f"; no protein: {', '.join(self.others)}" if self.others else "")


def is_structure_name(path: str | Path) -> bool:
    """Return whether a name has the suffix of a structure file (.pdb, .ent, .cif, .mmcif, each also with .gz)."""
    return str(path).lower().removesuffix(".gz").endswith(STRUCTURE_SUFFIXES)


def read_structure(path: str | Path) -> Structure:
    """Return the protein chains of the first model of a PDB or mmCIF file, gzipped or not, with any suffix.

    Each residue keeps the alternative conformer with the highest occupancy, the first of equals.

    Raises:
        FormatError: if the file does not exist, is not a structure, or has no protein; the message lists its content.
        MissingDependencyError: without gemmi.
    """
    require("gemmi", "reading PDB and mmCIF files", extra="structure")
    path = Path(path)
    found = load_structure(path, split_at_ter=True)
    found.setup_entities()
    with readable_text(path):
        structure = _structure(path, found[0], info_of(found, "_entry.id"))
    if not structure.chains:
        raise FormatError(f"{path}: found {structure.describe()}; expected a protein with coordinates")
    return structure


def _structure(path: Path, model: Any, entry: str) -> Structure:
    chains, others, labels = list[Chain](), list[str](), set[str]()
    contents: dict[str, list[str]] = {}
    for part in model:
        content = contents.setdefault(part.name, [])
        for polymer in part.subchains():
            if polymer[0].entity_type.name != "Polymer":
                continue
            kind = polymer.check_polymer_type().name
            content.append(kind)
            if kind in ("PeptideL", "PeptideD"):
                chains.append(_chain(part.name, polymer, labels, str(path)))
                labels.add(chains[-1].label)
    for name, content in contents.items():
        kinds = [kind.upper() for kind in content if kind not in ("PeptideL", "PeptideD")]
        others += [f"{name or BLANK} ({kind})" for kind in kinds or ["no polymer"] * (not content)]
    return Structure(source=str(path), chains=tuple(chains), others=tuple(others), entry=entry)


def _chain(name: str, polymer: Any, labels: set[str], where: str) -> Chain:
    groups: list[list[Any]] = []  # alternatives at one place: several residues if the sequence is heterogeneous
    for residue in polymer:
        if groups and are_alternatives(groups[-1][0], residue):
            groups[-1].append(residue)
        else:
            groups.append([residue])
    residues = [max(group, key=lambda r: sum(a.occ for a in r) / max(len(r), 1)) for group in groups]
    coords = np.full((len(residues), len(ATOMS), 3), np.nan, dtype=np.float32)
    b_factors = np.full(len(residues), np.nan, dtype=np.float32)
    for i, residue in enumerate(residues):
        chosen = best_conformer(residue, ATOMS, f"{where}: chain {name or BLANK}")
        for j, atom in enumerate(ATOMS):
            if atom in chosen:
                coords[i, j] = chosen[atom].pos.tolist()
        if "CA" in chosen:
            b_factors[i] = chosen["CA"].b_iso
    return Chain(
        name=name,
        label=_label(name, polymer.subchain_id(), labels),
        sequence="".join(parent_letter(residue.name) for residue in residues),
        residue_names=tuple(residue.name for residue in residues),
        numbers=tuple(str(residue.seqid).strip() for residue in residues),
        coords_angstrom=coords,
        b_factors=b_factors,
        gaps=_gaps(residues, coords),
    )


def _label(name: str, label: str, taken: set[str]) -> str:
    """The name of a polymer by which it is told apart: mmCIF's, or one made of the chain's name if gemmi made it up."""
    if label and label != f"{name}xp":
        return label
    return next(own for i in count(1) if (own := name if i == 1 else f"{name}_{i}") not in taken)


def _gaps(residues: Sequence[Any], coords: Float[np.ndarray, "l 5 3"]) -> tuple[Gap, ...]:
    gaps = []
    for i, (a, b) in enumerate(zip(residues[:-1], residues[1:], strict=True)):
        numbered = a.seqid.num is not None and b.seqid.num is not None
        skipped = b.seqid.num - a.seqid.num - 1 if numbered else 0
        bond = float(np.linalg.norm(coords[i + 1, 0] - coords[i, 2]))
        step = float(np.linalg.norm(coords[i + 1, 1] - coords[i, 1]))
        if a.label_seq is not None and b.label_seq is not None:
            skipped = b.label_seq - a.label_seq - 1
            missing = skipped > 0
        elif np.isfinite(bond):
            missing = bond > _LONGEST_BOND
        elif np.isfinite(step):
            missing = step > _LONGEST_STEP
        else:
            missing = skipped > 0
        if missing:
            gaps.append(Gap(after=i, num_missing=max(skipped, 0)))
    return tuple(gaps)


def write_pdb(structure: Structure | Chain, path: str | Path) -> None:
    """Write chains as a PDB file; atoms with NaN coordinates are left out.

    Raises:
        ValueError: if a chain's name has more than two characters, which the format does not allow.
        MissingDependencyError: without gemmi.
    """
    gemmi = require("gemmi", "writing PDB files", extra="structure")
    chains = (structure,) if isinstance(structure, Chain) else structure.chains
    made = gemmi.Structure()
    model = gemmi.Model(1)
    for chain in chains:
        if len(chain.name) > 2:
            raise ValueError(f"{path}: found the chain name '{chain.name}', expected at most 2 characters; rename it")
        model.add_chain(_gemmi_chain(gemmi, chain))
    made.add_model(model)
    made.setup_entities()
    made.write_pdb(str(path))


def _gemmi_chain(gemmi: Any, chain: Chain) -> Any:
    made = gemmi.Chain(chain.name)
    for i, (residue_name, number) in enumerate(zip(chain.residue_names, chain.numbers, strict=True)):
        residue = gemmi.Residue()
        digits, insertion = (number[:-1], number[-1]) if number[-1].isalpha() else (number, " ")
        residue.name, residue.seqid = residue_name, gemmi.SeqId(int(digits), insertion)
        residue.entity_type = gemmi.EntityType.Polymer
        for atom_name, place in zip(ATOMS, chain.coords_angstrom[i].tolist(), strict=True):
            if np.isfinite(place).all():
                atom = gemmi.Atom()
                atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
                atom.pos = gemmi.Position(*place)
                atom.b_iso = float(np.nan_to_num(chain.b_factors[i]))
                atom.occ = 1.0
                residue.add_atom(atom)
        if len(residue):
            made.add_residue(residue)
    return made
