"""Pairs of predicted and true chains."""

from __future__ import annotations

import numpy as np

from protlig_dd.evaluation.trace_pairs import TracePair
from tests.support.chains import helix


def traces() -> list[TracePair]:
    draws = np.random.default_rng(0)
    true = helix(20)
    noisy = [true + scale * draws.normal(size=true.shape) for scale in (3.0, 0.1, 1.0)]
    return [TracePair(name=f"c<{i}>", predicted=points, true=true) for i, points in enumerate(noisy)]
