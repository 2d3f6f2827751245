"""Batches of C-alpha traces, packed like tracks, with points in space instead of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.errors import FormatError
from protlig_dd.tokens.tracks import Layout

ANGSTROM_PER_NM = 10.0


@dataclass(frozen=True, kw_only=True)
class TraceBatch:
    """A batch of C-alpha chains.

    Args:
        points: packed coordinates in nanometres, each chain centred at its mean.
        layout: the lengths of the chains.
        example_ids: the global index of each example, which with the seed and the step keys its random numbers. On the host.
    """

    points: Float[Tensor, "n 3"]
    layout: Layout
    example_ids: Int[Tensor, " b"]

    @property
    def num_examples(self) -> int:
        """Chains in the batch (b)."""
        return self.layout.num_examples

    @property
    def num_tokens(self) -> int:
        """Residues in the batch (n)."""
        return self.layout.num_tokens

    def to(self, device: torch.device) -> TraceBatch:
        """Return a copy on a device; `example_ids` stay on the host."""
        return replace(self, points=self.points.to(device, non_blocking=True), layout=self.layout.to(device))


def centred_nm(coords_angstrom: Float[np.ndarray, "l 3"]) -> Float[np.ndarray, "l 3"]:
    """Return C-alphas in nanometres, centred at their mean, float32.

    Differences to the first residue are computed first, in float64, so that a translation that leaves them unchanged changes no bit.
    """
    away = np.asarray(coords_angstrom, dtype=np.float64)
    away = away - away[:1]
    nm: np.ndarray = ((away - away.mean(0, keepdims=True)) / ANGSTROM_PER_NM).astype(np.float32)
    return nm


def pack_traces(
    chains: Sequence[Float[np.ndarray, "_ 3"]], *, example_ids: Iterable[int] | None = None, where: str = "chain"
) -> TraceBatch:
    """Return C-alpha coordinates in Angstrom as a batch on the host.

    Raises:
        FormatError: for an empty chain, or a residue without coordinates.
    """
    for number, chain in enumerate(chains, 1):
        if chain.ndim != 2 or chain.shape[1] != 3 or not len(chain):
            raise FormatError(f"{where} {number}: found coordinates of shape {chain.shape}, expected [residues, 3]")
        if not np.isfinite(chain).all():
            residue = int(np.flatnonzero(~np.isfinite(chain).all(1))[0]) + 1
            raise FormatError(f"{where} {number}: residue {residue} has no C-alpha (found '{chain[residue - 1].tolist()}'); leave it out")
    points = [centred_nm(chain) for chain in chains]
    ids = range(len(chains)) if example_ids is None else example_ids
    return TraceBatch(
        points=torch.from_numpy(np.concatenate(points) if points else np.zeros((0, 3), np.float32)),
        layout=Layout(tuple(len(chain) for chain in chains)),
        example_ids=torch.tensor(list(ids), dtype=torch.int64),
    )
