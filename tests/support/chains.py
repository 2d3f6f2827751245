"""Chains made up for tests: a helix, a hairpin of strands, random walks, and PDB text by hand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from protlig_dd.evaluation.trace_pairs import TracePair


def helix(length: int) -> np.ndarray:
    """Return the C-alpha atoms of an ideal alpha helix [l, 3]: 2.3 A radius, 100 degrees and 1.5 A a residue."""
    turn = np.deg2rad(100) * np.arange(length)
    return np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(length)], axis=1)


def strand(length: int) -> np.ndarray:
    """Return the C-alpha atoms of an extended strand [l, 3]."""
    i = np.arange(length)
    return np.stack([3.3 * i, 0.9 * (-1.0) ** i, 0.0 * i], axis=1)


def walk(length: int, seed: int) -> np.ndarray:
    """Return a compact random chain of 3.8 A steps [l, 3], a protein-like blob."""
    draws = np.random.default_rng(seed)
    points = [np.zeros(3)]
    while len(points) < length:
        step = draws.normal(size=3)
        new = points[-1] + 3.8 * step / np.linalg.norm(step)
        far = np.linalg.norm(np.array(points[:-1]) - new, axis=1).min() if len(points) > 1 else 9.0
        if far > 3.5 and np.linalg.norm(new) < 3.2 * length ** (1 / 3) + 6:
            points.append(new)
    return np.array(points)


def rotation(seed: int) -> np.ndarray:
    """Return a proper rotation [3, 3]."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


def moved(coords: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return coordinates rotated and shifted."""
    return coords @ rotation(seed).T + np.array([10.0, -20.0, 5.0])


def atom_line(
    name: str,
    residue: str,
    number: int,
    place: Iterable[float],
    *,
    chain: str = "A",
    insertion: str = " ",
    altloc: str = " ",
    occupancy: float = 1.0,
    record: str = "ATOM",
) -> str:
    """Return one line of a PDB file."""
    x, y, z = place
    return (
        f"{record:<6}{1:>5}  {name:<3}{altloc}{residue:>3} {chain}{number:>4}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{20.0:6.2f}          {name[0]:>2}"
    )


def pdb_text(residues: Iterable[tuple[str, str]], *, chain: str = "A", record: str = "ATOM") -> str:
    """Return PDB text of residues ("ALA", "52A") with backbone atoms along a strand whose bonds hold where numbers follow."""
    lines, x = [], 0.0
    last: int | None = None
    for residue, number in residues:
        digits, insertion = (number[:-1], number[-1]) if number[-1].isalpha() else (number, " ")
        if last is not None and int(digits) - last > 1:
            x += 3.8 * (int(digits) - last - 1)
        for name, shift in (("N", 0.0), ("CA", 1.2), ("C", 2.5), ("O", 2.6), ("CB", 1.3)):
            if name == "CB" and residue == "GLY":
                continue
            place = (x + shift, 1.0 if name in ("O", "CB") else 0.0, 0.0)
            lines.append(atom_line(name, residue, int(digits), place, chain=chain, insertion=insertion, record=record))
        x, last = x + 3.8, int(digits)
    return "\n".join([*lines, "TER", ""])


def traces() -> list[TracePair]:
    draws = np.random.default_rng(0)
    true = helix(20)
    noisy = [true + scale * draws.normal(size=true.shape) for scale in (3.0, 0.1, 1.0)]
    return [TracePair(name=f"c<{i}>", predicted=points, true=true) for i, points in enumerate(noisy)]
