"""Backbones made up for tests, as PDB files, and a plain reading of the real Foldseek databases to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tests.support.chains import atom_line

THREE = {"A": "ALA", "G": "GLY", "K": "LYS", "L": "LEU", "S": "SER", "X": "UNK", "M": "MSE", "C": "SEC"}
ATOMS = ("N", "CA", "C", "CB")


def backbone(length: int, *, seed: int = 0, noise: float = 0.15) -> np.ndarray:
    """Return N, C-alpha, C and C-beta [l, 4, 3] of an alpha helix, a little disturbed."""
    turn, rise = np.deg2rad(100) * np.arange(length), 1.5 * np.arange(length)
    atoms = []
    for radius, phase, shift in ((1.55, -28, -0.9), (2.3, 0, 0.0), (1.65, 26, 1.1), (3.3, -15, -0.3)):
        angle = turn + np.deg2rad(phase)
        atoms.append(np.stack([radius * np.cos(angle), radius * np.sin(angle), rise + shift], axis=1))
    coords = np.stack(atoms, axis=1)
    return coords + np.random.default_rng(seed).normal(scale=noise, size=coords.shape)


def chain_lines(
    sequence: str, coords: np.ndarray | None = None, *, chain: str = "A", names: Sequence[str] = ATOMS, numbers: Iterable[str] | None = None
) -> list[str]:
    """Return the lines of a chain in a PDB file; a letter that THREE lacks is its own three-letter name."""
    coords = backbone(len(sequence)) if coords is None else coords
    lines = []
    for i, (letter, number) in enumerate(zip(sequence, numbers or map(str, range(1, len(sequence) + 1)), strict=True)):
        digits, insertion = (number[:-1], number[-1]) if number[-1].isalpha() else (number, " ")
        for name, place in zip(ATOMS, coords[i], strict=True):
            if name in names:
                line = atom_line(name, THREE[letter], int(digits), place, chain=chain, insertion=insertion)
                lines.append(line)
    return lines


def write_lines(path: Path, *parts: Sequence[str]) -> Path:
    """Write the lines of a file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line for part in parts for line in part) + "\n")
    return path


def entries_of(database: Path, suffix: str = "") -> dict[str, bytes]:
    """Return the payloads of a plain database by the names of its lookup, as the format says: key, offset, length, a zero at the end."""
    data = database.with_name(database.name + suffix).read_bytes()
    rows = database.with_name(database.name + suffix + ".index").read_text().splitlines()
    index = {key: (int(offset), int(length)) for key, offset, length in (row.split("\t") for row in rows)}
    names = [line.split("\t") for line in database.with_name(database.name + ".lookup").read_text().splitlines()]
    found = {}
    for key, name, _ in names:
        offset, length = index[key]
        payload = data[offset : offset + length]
        assert len(payload) == length and payload[-1:] == b"\0", (database, suffix, key)
        found[name] = payload[:-1]
    assert len(found) == len(names) == len(index)
    return found
