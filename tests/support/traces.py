"""Traces to compare: a helix, and pairs of predicted and true chains."""

from __future__ import annotations

import numpy as np

from protlig_dd.evaluation.trace_pairs import TracePair


def helix(length: int) -> np.ndarray:
    t = np.arange(length)
    return np.stack([2.3 * np.cos(1.745 * t), 2.3 * np.sin(1.745 * t), 1.5 * t], axis=1)


def traces() -> list[TracePair]:
    draws = np.random.default_rng(0)
    true = helix(20)
    noisy = [true + scale * draws.normal(size=true.shape) for scale in (3.0, 0.1, 1.0)]
    return [TracePair(name=f"c<{i}>", predicted=points, true=true) for i, points in enumerate(noisy)]
