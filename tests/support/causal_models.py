"""Small causal models with random weights, and the tracks, vocabulary and batches of their sequences."""

from __future__ import annotations

from typing import Any

import torch

from protlig_dd.causal.model import Causal, CausalSettings
from protlig_dd.causal.sequences import minimal_vocabulary
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import TrackBatch, pack
from tests.support.small_bases import SHAPE

SMALL = CausalSettings(**SHAPE)
TRACKS = {"protein": ProteinTrack(unknown="X").build("protein"), "structure": StructureTrack(alphabet="3di").build("structure")}

VOCABULARY = minimal_vocabulary(*TRACKS.values())

PAIRS = (("MKTAY", "DDPVV"), ("GW", "DA"), ("ACDEFGHIKLMNPQRSTVWYXBUZO", "ACDEFGHIKLMNPQRSTVWYDDDDD"))


def batch_of(*pairs: tuple[str, str]) -> TrackBatch:
    examples = [{"protein": TRACKS["protein"].encode(p), "structure": TRACKS["structure"].encode(s)} for p, s in pairs]
    return pack(examples, TRACKS)


def built(settings: CausalSettings = SMALL, backend: Any = "bucketed") -> Causal:
    torch.manual_seed(5)
    model = settings.build(TRACKS, backend)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()
