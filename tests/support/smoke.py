"""Settings that reduce `demo/smoke` to about a second."""

from __future__ import annotations

SMOKE = ("train.steps=4", "train.checkpoint_every=2", "train.validate_every=4", "evaluation.after_training=false")
