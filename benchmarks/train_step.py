"""Training speed of packed tokens against a plain `nn.TransformerEncoder` of the same size, padded to the longest in the batch.

    python benchmarks/train_step.py [--fasta sequences.fasta.gz] [--device cuda] [--rounds 5]

Both get the same batches in the same process, one step each per round, in reversed order every other round; a step is forward,
cross-entropy over real tokens, backward, fused AdamW. The encoder uses SDPA with a key padding mask and learned positions; ours also has rotary
positions and adaptive layer norms, so it does slightly more work per token. Rates count real tokens, not padding.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import batches_of, describe_machine, drawn_lengths, has_native_bf16, interleaved, paired_ratio, read_lengths, report
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from protlig_dd.models.dit import DiT, DiTSettings
from protlig_dd.nn.attention import choose_backend
from protlig_dd.tokens.settings import ProteinTrack
from protlig_dd.tokens.tracks import TrackBatch, pack

SEED, CAP, THREADS, LEARNING_RATE = 0, 512, 2, 1e-4
SHAPE = {"hidden_size": 256, "num_heads": 8, "num_blocks": 6}
EQUAL_LENGTH = 256
TARGETS = {"batch 4": 1.4, "batch 16": 1.8, "equal lengths": 1.0}


class PlainEncoder(nn.Module):
    """The baseline: embedding, learned positions, `nn.TransformerEncoder`, one Linear layer."""

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        hidden = SHAPE["hidden_size"]
        self.embedding, self.positions = nn.Embedding(num_rows, hidden), nn.Embedding(CAP, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden, SHAPE["num_heads"], 4 * hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, SHAPE["num_blocks"], enable_nested_tensor=False)
        self.head = nn.Linear(hidden, num_rows)

    def forward(self, tokens: Tensor, is_pad: Tensor) -> Tensor:
        """Return logits [b, l, k]."""
        x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.encoder(x, src_key_padding_mask=is_pad))  # type: ignore[no-any-return]


def padded_batch(batch: TrackBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tokens [b, l], padded with 0, and the padding mask."""
    rows = [torch.tensor(row) for row in batch.tracks["protein"].split()]
    tokens = pad_sequence(rows, batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return tokens, torch.arange(tokens.shape[1], device=device) >= lengths[:, None]


def step_of(
    model: nn.Module, logits_and_targets: Callable[[int], tuple[Tensor, Tensor]], precision: torch.dtype, device: torch.device
) -> Callable[[int], None]:
    """Return one optimizer step on the batch of a round."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step(i: int) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            logits, targets = logits_and_targets(i)
            loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def variants_of(batches: list[TrackBatch], precision: torch.dtype, device: torch.device) -> dict[str, Callable[[int], None]]:
    """Return the two variants, freshly initialised."""
    tracks = {"protein": ProteinTrack(max_length=CAP).build("protein")}
    torch.manual_seed(SEED)
    backend = choose_backend("auto", device, precision).name
    ours = DiTSettings(dropout=0.0, conditioning_size=64, **SHAPE).build(tracks, backend)  # type: ignore[arg-type]
    plain = PlainEncoder(tracks["protein"].vocabulary.num_rows)
    ours.to(device).train()
    plain.to(device).train()
    on_device = [batch.to(device) for batch in batches]
    padded = [padded_batch(batch, device) for batch in batches]
    levels = [{"protein": torch.full((batch.num_examples,), 0.5, device=device)} for batch in batches]

    def packed_logits(i: int) -> tuple[Tensor, Tensor]:
        return ours(on_device[i], levels[i])["protein"], on_device[i].tracks["protein"].tokens

    def plain_logits(i: int) -> tuple[Tensor, Tensor]:
        tokens, is_pad = padded[i]
        return plain(tokens, is_pad)[~is_pad], tokens[~is_pad]

    return {"padded": step_of(plain, plain_logits, precision, device), "packed": step_of(ours, packed_logits, precision, device)}


def packed_batches(lengths: list[list[int]]) -> list[TrackBatch]:
    """Return batches of random residues of the given lengths."""
    track = ProteinTrack(max_length=CAP).build("protein")
    letters = torch.tensor(track.vocabulary.emittable_ids)
    generator = torch.Generator().manual_seed(SEED)
    return [
        pack([{"protein": letters[torch.randint(len(letters), (n,), generator=generator)].tolist()} for n in batch], {"protein": track})
        for batch in lengths
    ]


def measure(lengths: list[list[int]], precision: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return ratios and rates of one case: one batch of lengths per round."""
    real = [sum(batch) for batch in lengths]
    padded = [len(batch) * max(batch) for batch in lengths]
    times = interleaved(variants_of(packed_batches(lengths), precision, device), rounds=len(lengths), device=device)
    rates = {
        f"{name} tokens per second": round(statistics.median(n / t.wall for n, t in zip(real, seconds, strict=True)))
        for name, seconds in times.items()
    }
    saving = statistics.median(p / r for p, r in zip(padded, real, strict=True))
    return {"token_saving": round(saving, 3), "speed_up": paired_ratio(times["padded"], times["packed"]), **rates}


def count_parameters() -> dict[str, int]:
    """Return the parameter counts of both models."""
    tracks = {"protein": ProteinTrack(max_length=CAP).build("protein")}
    ours: DiT = DiTSettings(conditioning_size=64, **SHAPE).build(tracks, "reference")  # type: ignore[arg-type]
    plain = PlainEncoder(tracks["protein"].vocabulary.num_rows)
    return {name: sum(p.numel() for p in model.parameters()) for name, model in (("packed", ours), ("padded", plain))}


def main() -> None:
    """Measure all cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, help="use the lengths of its sequences, truncated at 512 (default: log-normal lengths)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, xpu or mps")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--bf16", action="store_true", help="measure bfloat16 autocast even where it is not native")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    found = read_lengths(options.fasta, cap=CAP) if options.fasta else drawn_lengths(count=10_000, cap=CAP, seed=SEED)
    precisions = {"float32": torch.float32}
    if options.bf16 or has_native_bf16(device):
        precisions["bfloat16 autocast"] = torch.bfloat16
    cases = {
        "batch 4": batches_of(found, size=4, count=options.rounds, seed=SEED),
        "batch 16": batches_of(found, size=16, count=options.rounds, seed=SEED),
        "equal lengths": [[EQUAL_LENGTH] * 8 for _ in range(options.rounds)],
    }
    results = {
        name: {case: measure(lengths, precision, device) for case, lengths in cases.items()} for name, precision in precisions.items()
    }
    source = options.fasta.name if options.fasta else "log-normal"
    settings = {"seed": SEED, "cap": CAP, "rounds": options.rounds, "lengths": source, "optimizer": "fused AdamW", **SHAPE}
    report({
        "benchmark": "train_step", "machine": describe_machine(device), "settings": settings,
        "parameters": count_parameters(), "targets_float32": TARGETS, "results": results,
    })  # fmt: skip


if __name__ == "__main__":
    main()
