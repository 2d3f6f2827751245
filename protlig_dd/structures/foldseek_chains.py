"""The chains of a PDB or mmCIF file with the residues, letters and names that Foldseek's createdb uses.

It differs from `structure_io.py`, the general reader of proteins: all models and all chains are read; of the alternative locations of an
atom the last one listed is used, not the one with the highest occupancy, and of residues with one number the first; only residues with a
C-alpha are kept (an atom of that name: also a calcium ion, if the file does not mark polymers).

createdb itself leaves out mmCIF files without group_PDB; and where the authors' numbers of an mmCIF file do not tell its residues apart, it
puts residues together that `load_structure` tells apart by mmCIF's own numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from protlig_dd.errors import require
from protlig_dd.structures.residue_letters import foldseek_letter
from protlig_dd.structures.structure_parsing import info_of, load_structure, readable_text
from protlig_dd.structures.threedi import encode_3di

MIN_RESIDUES = 4
"""Foldseek leaves out shorter chains."""

_ATOMS = ("N", "CA", "C", "CB")
_MISSING = [float("nan")] * 3


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldseekChain:
    """One chain of one model.

    Attributes:
        name: the authors' name of the chain.
        model: the file's number of the model; 1 if there is only one without a number.
        entry_name: Foldseek's name: the file's name, the model if there are several, the chain if there are several.
        sequence: a letter for each residue with a C-alpha (`foldseek_letter`); selenomethionine is M, selenocysteine C, an unknown X.
        atoms_angstrom: N, C-alpha, C and C-beta as in the file, float64; NaN for missing atoms.
        b_factors: B-factor of each C-alpha.
        num_without_ca: residues left out because they have no C-alpha.
        num_alike: C-alphas left out because their residue has the number of another one without being marked as an alternative to it.
    """

    name: str
    model: int
    entry_name: str
    sequence: str
    atoms_angstrom: Float[np.ndarray, "l 4 3"]
    b_factors: Float[np.ndarray, " l"]
    num_without_ca: int
    num_alike: int = 0

    @property
    def ca(self) -> Float[np.ndarray, "l 3"]:
        """C-alpha coordinates in Angstrom."""
        return self.atoms_angstrom[:, 1]

    @property
    def has_backbone(self) -> bool:
        """Whether any residue has N and C as well as C-alpha; otherwise there is no 3Di."""
        return bool(np.isfinite(self.atoms_angstrom[:, [0, 2]]).all((1, 2)).any())

    @property
    def problem(self) -> tuple[str, str] | None:
        """Why createdb leaves the chain out, as a few words to count by and a sentence; None if it does not."""
        length = len(self.sequence)
        if not length:
            return "no protein", f"found no residue with a C-alpha atom ({self.num_without_ca} residues without)"
        if length < MIN_RESIDUES:
            return "too short", f"found {length} residues with a C-alpha atom, expected at least {MIN_RESIDUES}"
        if set(self.sequence) == {"X"}:
            return "all residues unknown", f"found {length} residues, none of which is an amino acid that is known"
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldseekFile:
    """The chains of a file.

    Attributes:
        title: its title on one line; often empty.
        num_models: number of models.
        chains: chains of all models, in the order of the file, including those that createdb leaves out (`FoldseekChain.problem`).
    """

    title: str
    num_models: int
    chains: tuple[FoldseekChain, ...]


def structure_stem(path: Path) -> str:
    """Return a file's name as createdb cuts it: without what follows the last dot, and without one more such ending if that was .gz.

    >>> structure_stem(Path("d1qd6.1.ent.gz")), structure_stem(Path("1tim.pdb1")), structure_stem(Path("d1asha_"))
    ('d1qd6.1', '1tim', 'd1asha_')

    Source: structcreatedb.cpp and Util::remove_extension at Foldseek's commit d5b1d3d4.
    """
    name = path.name
    for _ in range(2 if name.endswith((".gz", ".zst", ".zstd")) else 1):
        name = name[: name.rfind(".")] if name.rfind(".") > 0 else name
    return name


def read_foldseek_chains(path: Path) -> FoldseekFile:
    """Return the chains of all models of a PDB or mmCIF file with Foldseek's residues, letters and names.

    Raises:
        FormatError: if the file does not exist, is not a structure, or has no atoms.
        MissingDependencyError: without gemmi.

    Source: Foldseek's createdb at commit d5b1d3d4.
    """
    path = Path(path)
    found = load_structure(path)
    stem = structure_stem(path)
    several = sum(len(model) for model in found) > 1
    chains = []
    with readable_text(path):
        for model in found:
            for chain in model:
                name = stem + (f"_MODEL_{model.num}" if len(found) > 1 else "") + (f"_{chain.name}" if several else "")
                chains.append(_chain(chain, model=model.num, entry_name=name))
    return FoldseekFile(title=info_of(found, "_struct.title"), num_models=len(found), chains=tuple(chains))


def _chain(chain: Any, *, model: int, entry_name: str) -> FoldseekChain:
    gemmi = require("gemmi", "reading PDB and mmCIF files", extra="structure")
    wanted = (gemmi.EntityType.Polymer, gemmi.EntityType.Unknown)
    letters, coords, b_factors, without = list[str](), list[list[list[float]]](), list[float](), 0
    polymer = [residue for residue in chain if residue.entity_type in wanted]
    chosen = [residue for residue in chain.first_conformer() if residue.entity_type in wanted]
    doubled = len(chosen) < len(polymer)
    for residue in chosen:
        atoms = {atom.name: atom for atom in residue}  # the last alternative location listed
        doubled |= len(atoms) < len(residue)
        places = [atoms[name].pos.tolist() if name in atoms else _MISSING for name in _ATOMS]
        if not all(map(math.isfinite, places[1])):
            without += 1
            continue
        letters.append(foldseek_letter(residue.name))
        coords.append(places)
        b_factors.append(atoms["CA"].b_iso)
    return FoldseekChain(
        name=chain.name,
        model=model,
        entry_name=entry_name,
        sequence="".join(letters),
        atoms_angstrom=np.array(coords, dtype=np.float64).reshape(-1, len(_ATOMS), 3),
        b_factors=np.array(b_factors, dtype=np.float64),
        num_without_ca=without,
        num_alike=sum(map(_unmarked, polymer)) - sum(_unmarked(residue) > 0 for residue in chosen) if doubled else 0,
    )


def _unmarked(residue: Any) -> int:
    """The number of C-alphas that are not marked as alternatives: one, or several if residues of one number and name follow each other."""
    return sum(atom.altloc == "\0" for atom in residue["CA"]) if "CA" in residue else 0


def threedi_of(chain: FoldseekChain) -> str:
    """Return the 3Di letters of a chain.

    Raises:
        MissingDependencyError: without mini3di.
    """
    n, ca, c, cb = np.moveaxis(chain.atoms_angstrom, 1, 0)
    return encode_3di(n, ca, c, cb)
