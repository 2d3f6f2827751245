"""Training speed on protein-ligand pairs: the model of pairs/small against dual-track models of the same width and depth.

    python benchmarks/pairs_step.py [--pairs pairs.csv.gz] [--batch 32] [--rounds 5] [--device cuda]

All get the same pairs in the same process, one step each per round, in reversed order every other round; a step is forward, cross-entropy
over the ligand's tokens, backward, fused AdamW. Rates count the real tokens of both tracks.

    padded   a plain dual-track transformer: both tracks padded to the longest of the batch, self-attention, cross-attention, feed-forward
    packed   ours, kind: dual_track: the same branches without padding, every protein as often as it has ligands
    k-mers   ours, pairs/small: the protein is read once as a bag of k-mers and never enters attention

Proteins longer than --cap residues are left out for all three, since the first two would need the memory; the last has no limit.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import describe_machine, drawn_lengths, interleaved, paired_ratio, report
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from train_step import step_of

from protlig_dd.data.readers.complexes import read_pairs
from protlig_dd.models import DiTSettings, DualTrackSettings
from protlig_dd.nn.attention import choose_backend
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
from protlig_dd.tokens.tracks import TrackBatch, TrackSet, pack

SEED, MEAN_LIGAND = 0, 48
SHAPE: dict[str, Any] = {"hidden_size": 128, "num_heads": 4, "num_blocks": 3, "mlp_ratio": 3, "dropout": 0.0, "conditioning_size": 64}
Pair = tuple[int, int]
"""Residues of a protein, and tokens of a ligand."""


class PaddedBlock(nn.Module):
    """Self-attention, cross-attention to the other track, feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        size, heads = SHAPE["hidden_size"], SHAPE["num_heads"]
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(4))
        self.own, self.cross = (nn.MultiheadAttention(size, heads, batch_first=True) for _ in range(2))
        inner = int(SHAPE["mlp_ratio"] * size)
        self.mlp = nn.Sequential(nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size))

    def forward(self, x: Tensor, is_pad: Tensor, other: Tensor, other_is_pad: Tensor) -> Tensor:
        """Return the hidden states [b, l, e] after the block."""
        y = self.norms[0](x)
        x = x + self.own(y, y, y, key_padding_mask=is_pad, need_weights=False)[0]
        context = self.norms[3](other)
        x = x + self.cross(self.norms[1](x), context, context, key_padding_mask=other_is_pad, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.norms[2](x))
        return out


class PaddedDualTrack(nn.Module):
    """The baseline: a stack of blocks for each track, padded."""

    def __init__(self, rows: dict[str, int], longest: dict[str, int]) -> None:
        super().__init__()
        size = SHAPE["hidden_size"]
        self.embedding = nn.ModuleDict({name: nn.Embedding(n, size) for name, n in rows.items()})
        self.positions = nn.ModuleDict({name: nn.Embedding(n, size) for name, n in longest.items()})
        self.blocks = nn.ModuleDict({name: nn.ModuleList(PaddedBlock() for _ in range(SHAPE["num_blocks"])) for name in rows})
        self.head = nn.Linear(size, rows["ligand"])

    def forward(self, tokens: dict[str, Tensor], is_pad: dict[str, Tensor]) -> Tensor:
        """Return the logits of the ligand [b, l, k]."""
        x = {name: self.embedding[name](t) + self.positions[name].weight[: t.shape[1]] for name, t in tokens.items()}  # type: ignore[operator, index]
        for i in range(SHAPE["num_blocks"]):
            pairs = (("protein", "ligand"), ("ligand", "protein"))
            x = {a: self.blocks[a][i](x[a], is_pad[a], x[b], is_pad[b]) for a, b in pairs}  # type: ignore[index]
        out: Tensor = self.head(x["ligand"])
        return out


def padded_batch(batch: TrackBatch, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return tokens [b, l] of each track, padded with 0, and the padding masks."""
    tokens = {name: pad_sequence([torch.tensor(row) for row in t.split()], batch_first=True).to(device) for name, t in batch.tracks.items()}
    lengths = {name: torch.tensor(t.layout.lengths, device=device) for name, t in batch.tracks.items()}
    return tokens, {name: torch.arange(t.shape[1], device=device) >= lengths[name][:, None] for name, t in tokens.items()}


def variants_of(batches: list[TrackBatch], tracks: TrackSet, device: torch.device) -> dict[str, Callable[[int], None]]:
    """Return the three variants, freshly initialised."""
    torch.manual_seed(SEED)
    backend = choose_backend("auto", device, torch.float32).name
    rows = {name: track.vocabulary.num_rows for name, track in tracks.items()}
    plain = PaddedDualTrack(rows, {name: max(b.tracks[name].layout.max_length for b in batches) for name in tracks}).to(device).train()
    packed = DualTrackSettings(**SHAPE).build(tracks, backend).to(device).train()
    kmers = DiTSettings(given_kmers={"protein": 3}, **SHAPE).build(tracks, backend).to(device).train()
    on_device, padded = [batch.to(device) for batch in batches], [padded_batch(batch, device) for batch in batches]
    levels = {
        "protein": torch.zeros(batches[0].num_examples, device=device),
        "ligand": torch.full((batches[0].num_examples,), 0.5, device=device),
    }
    none = torch.zeros(0, dtype=torch.int64, device=device)

    def ours(model: nn.Module, i: int) -> tuple[Tensor, Tensor]:
        ligand = on_device[i].tracks["ligand"]
        every = torch.arange(ligand.layout.num_tokens, device=device)
        return model(on_device[i], levels, at={"protein": none, "ligand": every})["ligand"], ligand.tokens

    def of_padded(i: int) -> tuple[Tensor, Tensor]:
        tokens, is_pad = padded[i]
        real = ~is_pad["ligand"]
        return plain(tokens, is_pad)[real], tokens["ligand"][real]

    step = partial(step_of, precision=torch.float32, device=device)
    return {"padded": step(plain, of_padded), "packed": step(packed, partial(ours, packed)), "k-mers": step(kmers, partial(ours, kmers))}


def batches_of(pairs: list[Pair], tracks: TrackSet, size: int, count: int) -> list[TrackBatch]:
    """Return batches of random letters with the lengths of pairs drawn with replacement."""
    source = random.Random(SEED)
    letters = {name: list(track.vocabulary.emittable_ids) for name, track in tracks.items()}
    return [
        pack(
            [
                {name: source.choices(letters[name], k=n) for name, n in zip(tracks, pair, strict=True)}
                for pair in source.choices(pairs, k=size)
            ],
            tracks,
        )
        for _ in range(count)
    ]


def read_lengths(path: Path | None, tracks: TrackSet, cap: int) -> list[Pair]:
    """Return the lengths of the pairs of a table, or log-normal ones."""
    if path is None:
        return [(n, max(8, n * MEAN_LIGAND // 320)) for n in drawn_lengths(count=2_000, cap=cap, seed=SEED)]
    found = [
        (len(record.texts["protein"]), len(tracks["ligand"].split(record.texts["ligand"])))
        for record in read_pairs(path)
        if record.label != 0 and record.problem is None
    ]
    return [pair for pair in found if pair[0] <= cap]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, help="use the lengths of a table of pairs (default: log-normal lengths)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--cap", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, xpu or mps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    tracks = {
        "protein": ProteinTrack(max_length=5000, add_ends=False).build("protein"),
        "ligand": LigandTrack(add_ends=False).build("ligand"),
    }
    batches = batches_of(read_lengths(options.pairs, tracks, options.cap), tracks, options.batch, options.rounds)
    times = interleaved(variants_of(batches, tracks, device), rounds=options.rounds, device=device)
    tokens = [batch.num_tokens for batch in batches]
    rates = {name: round(statistics.median(n / t.wall for n, t in zip(tokens, each, strict=True))) for name, each in times.items()}
    speed_up = {name: paired_ratio(times["padded"], times[name]) for name in ("packed", "k-mers")}
    report({"speed_up_over_padded": speed_up, "real_tokens_per_second": rates, "tokens_a_batch": tokens, **describe_machine(device)})


if __name__ == "__main__":
    main()
