"""Models of tracks, denoising and causal; the union is the registry: a class here is a `kind` in YAML."""

from __future__ import annotations

from protlig_dd.models.causal import Causal, CausalSettings
from protlig_dd.models.dit import DiT, DiTSettings
from protlig_dd.models.dual_track import DualTrack, DualTrackSettings
from protlig_dd.models.encoder import Encoder, EncoderSettings

ModelSettings = DiTSettings | DualTrackSettings | EncoderSettings | CausalSettings

__all__ = [
    "Causal",
    "CausalSettings",
    "DiT",
    "DiTSettings",
    "DualTrack",
    "DualTrackSettings",
    "Encoder",
    "EncoderSettings",
    "ModelSettings",
]
