"""Small encoders with random weights, and batches for them; random proteins, and settings with which DPLM's small configs train in seconds."""

from __future__ import annotations

from pathlib import Path

import torch

from protlig_dd.models.encoder import Encoder, EncoderSettings
from protlig_dd.nn.attention import Backend
from protlig_dd.rng import Draws
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackSet, TrackTokens

TRACKS = {"protein": ProteinTrack().build("protein")}

PAIRED = {"structure": StructureTrack(alphabet="3di").build("structure"), "protein": ProteinTrack(beside="3di").build("protein")}

SMALL = EncoderSettings(hidden_size=16, num_heads=2, num_blocks=2)

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SHIFTED = str.maketrans(LETTERS, LETTERS[7:] + LETTERS[:7])
QUICK = [
    *("--device", "cpu", "train.steps=2", "train.checkpoint_every=2", "train.validate_every=2", "train.log_every=1"),
    *("model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1", "train.tokens_per_batch=600"),
    *("train.tracking.tensorboard=false", "train.tracking.wandb=off", "data.leakage=false"),
]


def sequences(num: int) -> list[str]:
    """Return random proteins of 12 to 31 residues, the same ones every time."""
    letters = Draws.root(5).fold_in(torch.arange(num * 40)).integers(20).view(num, 40).tolist()
    return ["".join(LETTERS[i] for i in row[: 12 + n % 20]) for n, row in enumerate(letters)]


def fasta(path: Path, texts: list[str]) -> Path:
    """Write texts as FASTA under the names p0, p1, ... and return the file."""
    path.write_text("".join(f">p{i}\n{text}\n" for i, text in enumerate(texts)))
    return path


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
