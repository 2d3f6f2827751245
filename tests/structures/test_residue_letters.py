"""Tests of the letters of residue names: Foldseek's table, and the names of force fields."""

from __future__ import annotations

import pytest

from protlig_dd.structures.residue_letters import THREE_LETTERS, foldseek_letter, parent_letter

pytest.importorskip("gemmi")


def test_foldseeks_letters_are_those_of_its_table() -> None:
    """GemmiWrapper.cpp at d5b1d3d4: modified residues that gemmi lacks, ambiguous ones, and no letter for nucleotides and other names."""
    letters = {
        "4BF": "Y", "B3A": "A", "B3D": "D", "B3K": "K", "B3Y": "Y", "B3E": "E", "BAL": "A", "DBZ": "A", "GPL": "K", "HSK": "H", "HY3": "P",
        "HZP": "P", "KYN": "W", "MGN": "Q", "ASX": "B", "GLX": "Z", "PYL": "O", "SEC": "C", "MSE": "M", "SEP": "S", "CSS": "C", "CSH": "S",
        "ORN": "A", "TRY": "W", "UNK": "X", "BP5": "X", "MLU": "X", "OMZ": "X", "3FG": "X", "GDP": "X", "PSU": "X", "DA": "X", "A": "X",
        "HID": "X", "HSD": "X", "CYX": "X", "XAA": "X", "": "X",
    }  # fmt: skip
    assert {name: foldseek_letter(name) for name in letters} == letters


def test_protonation_states_have_the_letter_of_their_amino_acid() -> None:
    """AMBER's, CHARMM's and OPLS's names; the letters of modified residues are Foldseek's, but selenocysteine is U."""
    states = {"H": "HID HIE HIP HSD HSE HSP", "C": "CYX CYM", "D": "ASH", "E": "GLH", "K": "LYN LYP LSN", "R": "ARN AR0", "Y": "TYM"}
    for letter, names in states.items():
        assert {parent_letter(name) for name in names.split()} == {letter}
    others = {"KYN": "W", "HZP": "P", "SEC": "U", "PYL": "O", "ASX": "X", "GLX": "X", "BP5": "X", "DA": "X", "PSU": "X"}
    assert {name: parent_letter(name) for name in others} == others
    assert {parent_letter(name) for name in THREE_LETTERS.values()} == set(THREE_LETTERS)
