"""Runs that follow a known law."""

from __future__ import annotations

import numpy as np

from protlig_dd.scaling.fits import Law
from protlig_dd.scaling.runs import Runs

LAW = Law(E=1.7, A=40.0, alpha=0.35, B=400.0, beta=0.4)


def grid_runs(*, law: Law = LAW, noise: float = 0.0, seed: int = 0, sizes: int = 5, data: int = 4) -> Runs:
    """Return runs on a grid of sizes and data, with relative noise."""
    params = np.repeat(np.geomspace(1e5, 1e7, sizes), data)
    tokens = np.tile(np.geomspace(1e6, 3e7, data), sizes)
    return runs_of(params, tokens, law.loss(params, tokens), noise=noise, seed=seed)


def runs_of(params: np.ndarray, tokens: np.ndarray, losses: np.ndarray, *, noise: float = 0.0, seed: int = 0) -> Runs:
    """Return runs with these numbers and relative noise."""
    draw = np.random.default_rng(seed)
    return Runs(
        names=tuple(f"run{i}" for i in range(len(params))),
        params=params,
        tokens=tokens,
        values=losses * np.exp(noise * draw.standard_normal(len(params))),
        flops=np.full(len(params), np.nan),
    )
