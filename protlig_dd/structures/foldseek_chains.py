"""The chains of a PDB or mmCIF file with the residues, letters and names that Foldseek's createdb uses.

It differs from `structure_io.py`, the general reader of proteins: all models and all chains are read; of the alternative locations of an
atom the last one listed is used, not the one with the highest occupancy, and of residues with one number the first; only residues with a
C-alpha are kept (an atom of that name: also a calcium ion, if the file does not mark polymers); letters are the twenty and X only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from protlig_dd.errors import FormatError, require
from protlig_dd.structures.structure_io import STRUCTURE_SUFFIXES
from protlig_dd.structures.structure_parsing import load_structure
from protlig_dd.structures.threedi import encode_3di

MIN_RESIDUES = 4
"""Foldseek leaves out shorter chains."""

_ATOMS = ("N", "CA", "C", "CB")
_MISSING = [float("nan")] * 3
_LETTERS = frozenset("ACDEFGHIKLMNPQRSTVWY")


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldseekChain:
    """One chain of one model.

    Attributes:
        name: the authors' name of the chain.
        model: number of the model, 1 for the first in the file.
        entry_name: Foldseek's name: the file's name, the model if there are several, the chain if there are several.
        sequence: one of the twenty letters for each residue with a C-alpha, or X; selenomethionine is M, selenocysteine C.
        atoms_angstrom: N, C-alpha, C and C-beta as in the file, float64; NaN for missing atoms.
        b_factors: B-factor of each C-alpha.
        num_without_ca: residues left out because they have no C-alpha.
    """

    name: str
    model: int
    entry_name: str
    sequence: str
    atoms_angstrom: Float[np.ndarray, "l 4 3"]
    b_factors: Float[np.ndarray, " l"]
    num_without_ca: int

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
    """Return a file's name without .gz and without the suffix of a structure file: "d1qd6.1" for "d1qd6.1.ent.gz"."""
    name = path.name
    for suffixes in ((".gz",), STRUCTURE_SUFFIXES):
        for suffix in suffixes:
            if name.lower().endswith(suffix):
                name = name[: -len(suffix)]
                break
    return name


def read_foldseek_chains(path: Path) -> FoldseekFile:
    """Return the chains of all models of a PDB or mmCIF file with Foldseek's residues, letters and names.

    Raises:
        FormatError: if the file does not exist, is not a structure, or has no atoms.
        MissingDependencyError: without gemmi.

    Source: Foldseek's createdb at commit d5b1d3d4. A modified residue has the letter of its parent, as gemmi tabulates it.
    """
    path = Path(path)
    found = load_structure(path)
    stem = structure_stem(path)
    several = sum(len(model) for model in found) > 1
    chains = []
    try:
        for number, model in enumerate(found, 1):
            for chain in model:
                name = stem + (f"_MODEL_{number}" if len(found) > 1 else "") + (f"_{chain.name}" if several else "")
                chains.append(_chain(chain, model=number, entry_name=name))
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: found a name that is no text ({error.reason}), expected PDB or mmCIF") from error
    return FoldseekFile(title=_title(found), num_models=len(found), chains=tuple(chains))


def _title(found: Any) -> str:
    """The file's title on one line; empty if it is not valid text (it is only reported)."""
    try:
        title = dict(found.info.items()).get("_struct.title", "")
    except UnicodeDecodeError:
        return ""
    return " ".join(title.split())


def _chain(chain: Any, *, model: int, entry_name: str) -> FoldseekChain:
    gemmi = require("gemmi", "reading PDB and mmCIF files", extra="structure")
    wanted = (gemmi.EntityType.Polymer, gemmi.EntityType.Unknown)
    letters, coords, b_factors, without = list[str](), list[list[list[float]]](), list[float](), 0
    for residue in chain.first_conformer():
        if residue.entity_type not in wanted:
            continue
        atoms = {atom.name: atom for atom in residue}  # the last alternative location listed
        places = [atoms[name].pos.tolist() if name in atoms else _MISSING for name in _ATOMS]
        if not all(map(math.isfinite, places[1])):
            without += 1
            continue
        letters.append(_letter(residue.name))
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
    )


@cache
def _letter(residue_name: str) -> str:
    gemmi = require("gemmi", "reading PDB and mmCIF files", extra="structure")
    letter = str(gemmi.find_tabulated_residue(residue_name).one_letter_code).upper()
    letter = "C" if letter == "U" else letter
    return letter if letter in _LETTERS else "X"


def threedi_of(chain: FoldseekChain) -> str:
    """Return the 3Di letters of a chain.

    Raises:
        MissingDependencyError: without mini3di.
    """
    n, ca, c, cb = np.moveaxis(chain.atoms_angstrom, 1, 0)
    return encode_3di(n, ca, c, cb)
