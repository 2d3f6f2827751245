"""3Di letters of a chain's backbone: Foldseek's twenty states for the geometry of a residue and its nearest neighbour in space.

The encoder is mini3di's (with Foldseek's network and centroids). `foldseek_chains.py` selects the residues of a chain; these functions use
coordinates only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from protlig_dd.errors import require

_NO_STATE = "D"
# mini3di allocates several l x l matrices of float64; above this length partners are searched in blocks, with the same result.
_LONG, _BLOCK = 4096, 512


def encode_3di(
    n: Float[np.ndarray, "l 3"], ca: Float[np.ndarray, "l 3"], c: Float[np.ndarray, "l 3"], cb: Float[np.ndarray, "l 3"] | None = None
) -> str:
    """Return the 3Di letters of a chain, one for each residue, in upper case as in Foldseek.

    A residue without N, C-alpha or C, one next to such a residue, the first, the last, and one without a partner get D.
    The letters depend on distances and cosines, so a mirror image has the same ones, unless its C-beta atoms are constructed.

    Args:
        n, ca, c: atoms in Angstrom, NaN for missing ones. Neighbours in the arrays are treated as neighbours in the chain, also
            across a gap.
        cb: C-beta atoms; missing ones (glycine, or None for all) are constructed at the position of a tetrahedral carbon.

    Raises:
        MissingDependencyError: without mini3di.

    Source: van Kempen et al. 2023 (Foldseek), through mini3di 0.2.1; the same letters as Foldseek's createdb gives.
    """
    cb = np.full_like(ca, np.nan) if cb is None else cb
    assert n.shape == ca.shape == c.shape == cb.shape == (len(ca), 3), (n.shape, ca.shape, c.shape, cb.shape)
    encoder = _encoder()
    length = len(ca)
    if length < 4:
        return _NO_STATE * length  # a partner is another residue that is neither the first nor the last
    # A residue that lacks an atom stays masked; warnings about its NaN are not useful.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        states = encoder.encode_atoms(*(_finite(part) for part in (ca, cb, n, c)))
    letters: str = encoder.build_sequence(states)
    assert len(letters) == length, (len(letters), length)
    return letters


def _finite(atoms: Float[np.ndarray, "l 3"]) -> Float[np.ndarray, "l 3"]:
    """Coordinates in float64; an atom with a non-finite coordinate is treated as missing."""
    atoms = np.array(atoms, dtype=np.float64)
    atoms[~np.isfinite(atoms).all(1)] = np.nan
    return atoms


@cache
def _encoder() -> Any:
    mini3di = require("mini3di", "3Di letters", extra="structure")
    encoder = mini3di.Encoder()
    partners = encoder.feature_encoder.partner_index_encoder
    whole = partners._find_residue_partners
    partners._find_residue_partners = lambda x: partners_in_blocks(x) if len(x) > _LONG else whole(x)
    return encoder


def partners_in_blocks(centres: np.ma.MaskedArray[Any, Any], block: int = _BLOCK) -> Int64[np.ndarray, " l"]:
    """Return for each residue the index of the nearest other virtual centre, neither masked nor at an end, in l x block memory.

    Args:
        centres: virtual centres [l, 3], masked where a residue has none.
        block: residues at a time.
    """
    points = np.asarray(centres.filled(np.nan))
    points = np.where(np.isfinite(points).all(1, keepdims=True), points, np.nan)
    squares = (points * points).sum(1)
    squares[[0, -1]] = np.nan
    partners = np.zeros(len(points), dtype=np.int64)
    for start in range(0, len(points), block):
        rows = np.arange(start, min(start + block, len(points)))
        # |a - b|^2 without |a|^2, which is the same for every b
        distances = squares[None, :] - 2 * (points[rows] @ points.T)
        distances[np.arange(len(rows)), rows] = np.inf
        partners[rows] = np.nan_to_num(distances, nan=np.inf).argmin(1)
    return partners
