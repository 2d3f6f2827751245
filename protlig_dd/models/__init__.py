"""Models that denoise tracks; the union is the registry: a class here is a `kind` in YAML."""

from __future__ import annotations

from protlig_dd.models.dit import DiT, DiTSettings
from protlig_dd.models.dual_track import DualTrack, DualTrackSettings
from protlig_dd.models.encoder import Encoder, EncoderSettings

ModelSettings = DiTSettings | DualTrackSettings | EncoderSettings

__all__ = ["DiT", "DiTSettings", "DualTrack", "DualTrackSettings", "Encoder", "EncoderSettings", "ModelSettings"]
