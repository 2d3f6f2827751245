"""Small encoders with random weights, and batches for them."""

from __future__ import annotations

import torch

from protlig_dd.models.encoder import Encoder, EncoderSettings
from protlig_dd.nn.attention import Backend
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackSet, TrackTokens

TRACKS = {"protein": ProteinTrack().build("protein")}

PAIRED = {"structure": StructureTrack(alphabet="3di").build("structure"), "protein": ProteinTrack(beside="3di").build("protein")}

SMALL = EncoderSettings(hidden_size=16, num_heads=2, num_blocks=2)


def batch_of(apart: tuple[bool, ...] | None = None, **tracks: list[list[int]]) -> TrackBatch:
    num = len(next(iter(tracks.values())))
    return TrackBatch(
        tracks={name: as_track(rows) for name, rows in tracks.items()},
        example_ids=torch.arange(num),
        slots=torch.arange(num),
        global_size=num,
        apart=apart,
    )


def random_model(tracks: TrackSet, backend: Backend = "bucketed", **changes: object) -> Encoder:
    torch.manual_seed(0)
    settings = EncoderSettings(**{"hidden_size": 16, "num_heads": 2, "num_blocks": 2, **changes})  # type: ignore[arg-type]
    model = settings.build(tracks, backend)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


PROTEINS = [[0, 5, 6, 32, 7, 2], [0, 32, 32, 2], [0, 9, 10, 11, 12, 13, 2]]


def as_track(rows: list[list[int]]) -> TrackTokens:
    tokens = torch.tensor([i for row in rows for i in row], dtype=torch.int64)
    return TrackTokens(tokens=tokens, maskable=tokens > 3, layout=Layout(tuple(map(len, rows))))
