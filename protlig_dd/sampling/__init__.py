"""Samplers; the union is the registry: a class here is a `kind` in YAML."""

from __future__ import annotations

from protlig_dd.sampling.ancestral import Ancestral, Euler, Remasking
from protlig_dd.sampling.dplm import DPLMUnmasking
from protlig_dd.sampling.guidance import Guidance
from protlig_dd.sampling.loop import Sampled, sample
from protlig_dd.sampling.tilting import Property, Tilting
from protlig_dd.sampling.towards import TiltedSamples, sample_tilted
from protlig_dd.sampling.unmasking import ConfidenceUnmasking, FirstHitting

SamplerSettings = Ancestral | Euler | FirstHitting | ConfidenceUnmasking | Remasking | DPLMUnmasking

__all__ = [
    "Ancestral", "ConfidenceUnmasking", "DPLMUnmasking", "Euler", "FirstHitting", "Guidance", "Property", "Remasking", "Sampled",
    "SamplerSettings", "Tilting", "TiltedSamples", "sample", "sample_tilted",
]  # fmt: skip
