"""SELFIES as the notation of a ligand track: every sequence of its symbols is a molecule, so that every sample is valid.

Texts stay SMILES on both sides of the track; the package `selfies` translates. A SMILES and its SELFIES are the same molecule, but the
SMILES that comes back may be written in another way.
Source: Krenn et al. 2020, Mach. Learn.: Sci. Technol. 1, 045024; selfies 2 (Lo et al. 2023).
"""

from __future__ import annotations

from functools import lru_cache

from protlig_dd.errors import FormatError, require, said_by
from protlig_dd.tokens.ligand import ligand_vocabulary
from protlig_dd.tokens.vocabulary import Vocabulary

_ORGANIC = ("C", "N", "O", "S", "P", "F", "Cl", "Br", "I", "B")
_BONDED = {"C": ("=", "#"), "N": ("=", "#"), "O": ("=",), "S": ("=", "#"), "P": ("=", "#"), "B": ("=", "#")}
_CHARGED = (
    "C+1",
    "C-1",
    "CH1-1",
    "N+1",
    "N-1",
    "NH1",
    "NH1+1",
    "NH2+1",
    "NH3+1",
    "NH1-1",
    "O+1",
    "O-1",
    "OH1+1",
    "S+1",
    "S-1",
    "B-1",
    "P+1",
)
_CHIRAL = ("C@", "C@@", "C@H1", "C@@H1", "S@", "S@@", "P@", "P@@", "N@+1", "N@@+1", "N@H1+1", "N@@H1+1")
_TURNED = ("C", "N", "NH1", "NH1+1", "N+1", "O", "O-1", "S", "F", "Cl", "Br", "C@H1", "C@@H1")
_SYMBOLS = (
    *(f"[{atom}]" for atom in _ORGANIC),
    *(f"[{bond}{atom}]" for atom, bonds in _BONDED.items() for bond in bonds),
    *(
        f"[{bond}{kind}{size}]"
        for kind in ("Branch", "Ring")
        for size in (1, 2, 3)
        for bond in ("", "=", "#")
        if (kind, bond) != ("Ring", "#")
    ),
    *(f"[{atom}]" for atom in (*_CHARGED, *_CHIRAL)),
    *(f"[={atom}]" for atom in ("N+1", "N-1", "NH1+1", "NH2+1", "O+1", "S+1", "S@", "S@@", "P@", "P@@")),
    *("[#N+1]", "[#C-1]", "[#O+1]", "[Si]", "[Se]", "[=Se]", "[Si@]", "[Si@@]", "[2H]", "[H]"),
    *(f"[{turn}{atom}]" for atom in _TURNED for turn in "/\\"),
    *("[-/Ring1]", "[-\\Ring1]", "[-/Ring2]", "[-\\Ring2]", "[\\/Ring1]", "[//Ring1]", "[\\\\Ring1]", "[/\\Ring1]"),
    *("[Na+1]", "[K+1]", "[Li+1]", "[Ca+2]", "[Mg+2]", "[Zn+2]", "[Cl-1]", "[Br-1]", "[I-1]", "[F-1]"),
    ".",
)


def selfies_vocabulary(*, num_rows: int = 0) -> Vocabulary:
    """Return the built-in vocabulary of SELFIES symbols: drug-like molecules with stereo, charges, and common salts."""
    return ligand_vocabulary(_SYMBOLS, name="built-in SELFIES", num_rows=num_rows)


@lru_cache(maxsize=1 << 16)
def _symbols(smiles: str) -> tuple[str, ...]:
    selfies = require("selfies", "ligands as SELFIES", extra="ligand")
    return tuple(selfies.split_selfies(selfies.encoder(smiles)))


def split_selfies(smiles: str, *, where: str = "SMILES") -> list[str]:
    """Return the SELFIES symbols of the molecule that a SMILES describes.

    Raises:
        FormatError: for a text that is no molecule, or one with more bonds at an atom than SELFIES allows.

    >>> split_selfies("CC=O")
    ['[C]', '[C]', '[=O]']
    """
    selfies = require("selfies", "ligands as SELFIES", extra="ligand")
    try:
        found = list(_symbols(smiles)) if smiles else []
    except (selfies.EncoderError, IndexError) as error:  # the parser of selfies 2.2 runs past the end of a few malformed texts
        raise FormatError(
            f"{where}: '{smiles[:80]}' cannot be written as SELFIES: {said_by(error)}; correct or remove the record"
        ) from error
    if not found:
        raise FormatError(f"{where}: found an empty string, expected the SMILES of a whole molecule")
    return found


def read_selfies(text: str) -> str:
    """Return the SMILES of SELFIES symbols; a text with masks `_` is returned as it is, since it is no molecule yet.

    >>> read_selfies("[C][C][=O]"), read_selfies("[C]_[=O]")
    ('CC=O', '[C]_[=O]')
    """
    if "_" in text:
        return text
    selfies = require("selfies", "ligands as SELFIES", extra="ligand")
    smiles: str = selfies.decoder(text)
    return smiles
