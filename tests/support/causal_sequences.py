"""Sequences of a causal model: tracks, ids and batches."""

from __future__ import annotations

from protlig_dd.causal.sequences import minimal_vocabulary
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import TrackBatch, pack

TRACKS = {
    "protein": ProteinTrack(unknown="X").build("protein"),
    "structure": StructureTrack(alphabet="3di").build("structure"),
}

VOCABULARY = minimal_vocabulary(*TRACKS.values())

PAIRS = (("MKTAY", "DDPVV"), ("GW", "DA"), ("ACDEFGHIKLMNPQRSTVWYXBUZO", "ACDEFGHIKLMNPQRSTVWYDDDDD"))


def batch_of(*pairs: tuple[str, str]) -> TrackBatch:
    examples = [{"protein": TRACKS["protein"].encode(p), "structure": TRACKS["structure"].encode(s)} for p, s in pairs]
    return pack(examples, TRACKS)
