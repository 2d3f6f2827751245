"""One-letter codes of residues by their names in structure files: a modified residue has the letter of its parent.

The table is gemmi's, with names that it does not have: some modified residues of Foldseek's, and the protonation states of force fields.
"""

from __future__ import annotations

from functools import cache

from protlig_dd.errors import require

THREE_LETTERS = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS", "I": "ILE",
    "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER", "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL",
    "U": "SEC", "O": "PYL", "X": "UNK",
}  # fmt: skip
"""The residue names of letters."""

_MODIFIED = {
    "4BF": "Y", "B3A": "A", "B3D": "D", "B3K": "K", "B3Y": "Y", "BAL": "A", "DBZ": "A", "GPL": "K", "HSK": "H", "HY3": "P", "HZP": "P",
    "KYN": "W", "MGN": "Q",
}  # fmt: skip
# AMBER, CHARMM, OPLS and the programs that prepare files for them; HSE is CHARMM's histidine here, not the PDB's homoserine.
_PROTONATED = {
    "HID": "H", "HIE": "H", "HIP": "H", "HSD": "H", "HSE": "H", "HSP": "H", "CYX": "C", "CYM": "C", "ASH": "D", "GLH": "E", "LYN": "K",
    "LYP": "K", "LSN": "K", "ARN": "R", "AR0": "R", "TYM": "Y",
}  # fmt: skip


@cache
def foldseek_letter(residue_name: str) -> str:
    """Return the letter that Foldseek's createdb writes: one of the twenty, B (ASX), Z (GLX), O (PYL), or X; selenocysteine is C.

    Source: the table in src/strucclustutils/GemmiWrapper.cpp at commit d5b1d3d4, which is gemmi's table of amino acids and 13 names more.
    """
    letter = _tabulated(residue_name)
    return "C" if letter == "U" else letter


@cache
def parent_letter(residue_name: str) -> str:
    """Return one of the twenty letters, U (selenocysteine), O (pyrrolysine), or X; protonation states have the letter of the amino acid."""
    letter = _PROTONATED.get(residue_name) or _tabulated(residue_name)
    return letter if letter in THREE_LETTERS else "X"


def _tabulated(residue_name: str) -> str:
    gemmi = require("gemmi", "reading PDB and mmCIF files", extra="structure")
    found = gemmi.find_tabulated_residue(residue_name)
    letter = found.one_letter_code.upper().strip() if found.is_amino_acid() else ""
    return letter or _MODIFIED.get(residue_name, "X")
