"""Least-squares superposition by Kabsch's rotation, of one pair or many at once, and the RMSD.

Everything is numpy in float64 and in Angstrom. Rotations are proper: a mirror image is a different structure. Residues without coordinates
(NaN in either structure) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True, kw_only=True, eq=False)
class Superposition:
    """A rigid motion that maps x to rotation @ x + translation."""

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def apply(self, coords: Float[np.ndarray, "*l 3"]) -> Float[np.ndarray, "*l 3"]:
        """Return the moved coordinates."""
        return np.asarray(coords @ self.rotation.T + self.translation)


def paired(mobile: Float[np.ndarray, "l 3"], target: Float[np.ndarray, "l 3"]) -> Bool[np.ndarray, " l"]:
    """Return which points have coordinates in both structures."""
    return np.asarray(np.isfinite(mobile).all(-1) & np.isfinite(target).all(-1))


def kabsch_batch(
    mobile: Float[np.ndarray, "*b l 3"], target: Float[np.ndarray, "*b l 3"], weights: Float[np.ndarray, "b l"]
) -> tuple[Float[np.ndarray, "b 3 3"], Float[np.ndarray, "b 3"]]:
    """Return for each row of weights the rotation and translation that bring `mobile` onto `target`, as in `Superposition`.

    Args:
        mobile: one set of points for all rows, or one for each row; finite where a weight is not 0.
        target: the same.
        weights: weight of each pair; at least one in each row must be positive.

    Source: Kabsch 1976, Acta Cryst. A32, 922; the determinant's sign as in Kabsch 1978.
    """
    share = weights / weights.sum(-1, keepdims=True)
    if mobile.ndim == 2 and target.ndim == 2:
        mean_x, mean_y = share @ mobile, share @ target
        outer = (mobile[:, :, None] * target[:, None, :]).reshape(len(mobile), 9)
        covariance = (share @ outer).reshape(-1, 3, 3) - mean_x[:, :, None] * mean_y[:, None, :]
    else:
        mean_x, mean_y = (np.einsum("bl,...lc->bc", share, points) if points.ndim == 2 else np.einsum("bl,blc->bc", share, points) for points in (mobile, target))  # fmt: skip
        x, y = mobile - mean_x[:, None], target - mean_y[:, None]
        covariance = np.swapaxes(x * share[..., None], -1, -2) @ y
    u, _, vt = np.linalg.svd(covariance)
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    vt = vt * np.stack([np.ones_like(sign), np.ones_like(sign), np.where(sign == 0, 1.0, sign)], axis=-1)[..., None]
    rotation = np.swapaxes(u @ vt, -1, -2)
    return rotation, mean_y - np.einsum("bij,bj->bi", rotation, mean_x)


def superpose(
    mobile: Float[np.ndarray, "l 3"], target: Float[np.ndarray, "m 3"], weights: Float[np.ndarray, " l"] | None = None
) -> Superposition:
    """Return the rigid motion of `mobile` with the least (weighted) squared distance to `target`.

    Raises:
        ValueError: if no point has coordinates in both, or the shapes differ.

    >>> here = np.array([[0.0, 0, 0], [3.8, 0, 0], [3.8, 3.8, 0]])
    >>> there = here[:, [1, 0, 2]] * [-1, 1, 1] + 10
    >>> float(np.abs(superpose(here, there).apply(here) - there).max()) < 1e-9
    True
    """
    x, y, found = _complete(mobile, target)
    chosen = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)[found]
    rotation, translation = kabsch_batch(x, y, chosen[None])
    return Superposition(rotation=rotation[0], translation=translation[0])


def rmsd(mobile: Float[np.ndarray, "*l 3"], target: Float[np.ndarray, "*m 3"], *, superposed: bool = False) -> float:
    """Return the root mean square deviation in Angstrom over the points that both have.

    Args:
        mobile: points, of any leading shape, such as [l, 3] C-alphas or [l, 3, 3] backbones.
        target: points of the same shape.
        superposed: compare the points as given; otherwise `mobile` is superposed on `target` first.

    Raises:
        ValueError: if no point has coordinates in both, or the shapes differ.
    """
    x, y, _ = _complete(mobile, target)
    moved = x if superposed else superpose(x, y).apply(x)
    return float(np.sqrt(((moved - y) ** 2).sum(-1).mean()))


def _complete(
    mobile: Float[np.ndarray, "*l 3"], target: Float[np.ndarray, "*m 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], Bool[np.ndarray, " _"]]:
    """The points with coordinates in both structures, in float64."""
    if mobile.shape != target.shape:
        raise ValueError(f"superpose: found the shapes {mobile.shape} and {target.shape}, expected equal ones")
    x, y = (np.asarray(points, dtype=np.float64).reshape(-1, 3) for points in (mobile, target))
    found = paired(x, y)
    if not found.any():
        raise ValueError("superpose: found no point with coordinates in both structures, expected at least one")
    return x[found], y[found], found
