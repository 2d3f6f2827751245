"""Training speed and memory of the DPLM encoder against a stock `EsmForMaskedLM` of transformers (SDPA), padded to the longest.

    python benchmarks/dplm_train_step.py [--bf16] [--device cuda --shape 650m --tokens 65536] [--rounds 7]

Both have the same weights and get the same batches in the same process, one step each per round, in reversed order every other round. A
step is forward, cross-entropy at masked positions, backward, fused AdamW. A batch has a fixed number of real tokens, including begin and end,
of proteins whose lengths are log-normal (sigma 0.7, median 240, limited to 40..1022); the masked share of each is drawn uniformly, as
in DPLM's training. Ours computes logits at masks only; stock computes them everywhere and ignores the rest by label -100, which is its usual
use. Rates count real tokens, not padding. Peak memory is that of a process that trains only one of the models.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import describe_machine, has_native_bf16, interleaved, paired_ratio, report
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from protlig_dd.device import peak_flops
from protlig_dd.errors import require
from protlig_dd.models.encoder import Encoder, EncoderSettings
from protlig_dd.models.published.layouts import from_published
from protlig_dd.nn.attention import choose_backend
from protlig_dd.nn.flops import training_flops
from protlig_dd.tokens.settings import ProteinTrack
from protlig_dd.tokens.tracks import TrackBatch, TrackSet, pack

SEED, THREADS, LEARNING_RATE, DROPOUT = 0, 2, 4e-5, 0.1
SIGMA, MEDIAN, SHORTEST, LONGEST = 0.7, 240, 40, 1022
SHAPES = {"8m": (320, 6, 20), "35m": (480, 12, 20), "150m": (640, 30, 20), "650m": (1280, 33, 20), "3b": (2560, 36, 40)}
TARGETS = {"float32": 2.0, "bfloat16 autocast": 3.3}
PAD, MASK = 1, 32
NAMES = ("stock", "ours")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement: model shape, real tokens per step, number of steps, precision, device."""

    shape: str
    tokens: int
    rounds: int
    precision: torch.dtype
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch for both models: packed with the masked positions and their residues, and padded with labels."""

    packed: TrackBatch
    at: Tensor
    targets: Tensor
    padded: Tensor
    attention_mask: Tensor
    labels: Tensor


def tracks() -> TrackSet:
    """Return the track of published sequence models; the `dplm` set may be generated."""
    return {"protein": ProteinTrack(max_length=LONGEST + 2, emits="dplm").build("protein")}


def stock_model(shape: str, *, dropout: float = DROPOUT) -> Any:
    """Return a freshly initialised stock model (SDPA) in a published shape."""
    transformers = require("transformers", "the stock model", extra="hf")
    hidden, layers, heads = SHAPES[shape]
    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=MASK,
        pad_token_id=PAD,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=LONGEST + 4,
        position_embedding_type="rotary",
        token_dropout=True,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    torch.manual_seed(SEED)
    return transformers.EsmForMaskedLM(config)


def our_model(shape: str, precision: torch.dtype, device: torch.device, *, dropout: float = DROPOUT) -> Encoder:
    """Return a freshly initialised model of ours in a published shape."""
    hidden, layers, heads = SHAPES[shape]
    settings = EncoderSettings(hidden_size=hidden, num_heads=heads, num_blocks=layers, dropout=dropout)
    return settings.build(tracks(), choose_backend("auto", device, precision).name)


def copy_weights(stock: nn.Module, ours: Encoder) -> None:
    """Copy the weights of the stock model into ours."""
    ours.load_state_dict(from_published(stock.state_dict(), ours.state_dict(), "the stock model"))


def drawn_lengths(tokens: int, source: random.Random) -> list[int]:
    """Return lengths in residues whose tokens, end tokens included, add up to `tokens`; the last one is shortened to fit."""
    lengths: list[int] = []
    while (left := tokens - sum(lengths) - 2 * len(lengths)) > 0:
        drawn = min(LONGEST, max(SHORTEST, round(source.lognormvariate(math.log(MEDIAN), SIGMA))))
        if left < SHORTEST + 2:  # too few for another protein: they go to the shortest
            lengths[lengths.index(min(lengths))] += left
        else:
            lengths.append(min(drawn, left - 2))
    return lengths


def drawn_batch(index: int, tokens: int) -> Batch:
    """Return a batch of random residues with masks, in host memory."""
    source = random.Random(f"{SEED} {index}")
    generator = torch.Generator().manual_seed(SEED + index)
    track = tracks()["protein"]
    letters = torch.tensor(track.vocabulary.emittable_ids)
    rows, clean = [], []
    for length in drawn_lengths(tokens, source):
        residues = letters[torch.randint(len(letters), (length,), generator=generator)]
        share = torch.rand((), generator=generator)
        is_mask = torch.rand(length, generator=generator) < share
        begin, end = torch.tensor([0]), torch.tensor([2])
        clean.append(torch.cat([begin, residues, end]))
        rows.append(torch.cat([begin, residues.masked_fill(is_mask, MASK), end]))
    packed = pack([{"protein": row.tolist()} for row in rows], {"protein": track})
    at = (packed.tracks["protein"].tokens == MASK).nonzero().squeeze(1)
    padded = pad_sequence(rows, batch_first=True, padding_value=PAD)
    labels = pad_sequence(clean, batch_first=True, padding_value=-100).masked_fill(padded != MASK, -100)
    return Batch(packed=packed, at=at, targets=torch.cat(clean)[at], padded=padded, attention_mask=padded.ne(PAD).long(), labels=labels)


def losses(case: Case, names: tuple[str, ...] = NAMES) -> tuple[dict[str, nn.Module], dict[str, Callable[[int], Tensor]]]:
    """Return the models by name, and for each a function from the round number to its loss."""
    models: dict[str, nn.Module] = {}
    if "stock" in names:
        models["stock"] = stock_model(case.shape)
    if "ours" in names:
        models["ours"] = ours = our_model(case.shape, case.precision, case.device)
        if "stock" in names:
            copy_weights(models["stock"], ours)
    for model in models.values():
        model.to(case.device).train()
    batches = [on_device(drawn_batch(i, case.tokens), case.device) for i in range(case.rounds)]

    def ours_loss(i: int) -> Tensor:
        batch = batches[i]
        logits = models["ours"](batch.packed, at={"protein": batch.at})["protein"]
        return F.cross_entropy(logits.float(), batch.targets)

    def stock_loss(i: int) -> Tensor:
        batch = batches[i]
        out = models["stock"](input_ids=batch.padded, attention_mask=batch.attention_mask, labels=batch.labels)
        return out.loss  # type: ignore[no-any-return]

    both = {"stock": stock_loss, "ours": ours_loss}
    return models, {name: both[name] for name in names}


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch, moved to a device."""
    moved = {name: value.to(device) for name, value in vars(batch).items()}
    return Batch(**moved)


def step_of(model: nn.Module, loss_of: Callable[[int], Tensor], case: Case) -> Callable[[int], None]:
    """Return one optimizer step on the batch of a round."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    def step(i: int) -> None:
        with torch.autocast(case.device.type, dtype=torch.bfloat16, enabled=case.precision == torch.bfloat16):
            loss = loss_of(i)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


@torch.no_grad()
def disagreement(models: dict[str, nn.Module], loss_of: dict[str, Callable[[int], Tensor]]) -> float:
    """Return the difference of the losses of the first batch without dropout; both must compute the same function."""
    found = []
    for name, model in models.items():
        model.eval()
        found.append(float(loss_of[name](0)))
        model.train()
    return abs(found[0] - found[1])


def measure(case: Case) -> dict[str, Any]:
    """Return the ratio and the rates of one precision."""
    models, loss_of = losses(case)
    difference = disagreement(models, loss_of)
    steps = {name: step_of(models[name], loss_of[name], case) for name in models}
    times = interleaved(steps, rounds=case.rounds, device=case.device)
    batches = [drawn_batch(i, case.tokens) for i in range(case.rounds)]
    result: dict[str, Any] = {
        "speed_up": paired_ratio(times["stock"], times["ours"]),
        "token_saving": round(statistics.median(b.padded.numel() / case.tokens for b in batches), 3),
        "difference_of_losses": float(f"{difference:.1e}"),
    }
    peak = peak_flops(case.device, case.precision)
    for name, seconds in times.items():
        rates = [case.tokens / t.wall for t in seconds]
        result[name] = {"tokens_per_second": round(statistics.median(rates))}
        if peak:  # FLOPs of real tokens in both: padding is not useful work
            forward = [float(models["ours"].forward_flops(b.packed)) for b in batches]  # type: ignore[operator]
            used = [training_flops(f) / t.wall / peak for f, t in zip(forward, seconds, strict=True)]
            result[name]["mfu"] = round(statistics.median(used), 3)
    for name in NAMES:
        result[name]["peak_memory_mib"] = peak_memory(name, case)
    return result


def peak_memory(name: str, case: Case) -> dict[str, int]:
    """Return the peak memory of a process that trains one of the two models, and its memory before the model was built."""
    options = ["--alone", name, "--shape", case.shape, "--tokens", str(case.tokens), "--device", case.device.type]
    options += ["--rounds", str(min(case.rounds, 3)), "--threads", str(torch.get_num_threads())]
    options += ["--bf16"] if case.precision == torch.bfloat16 else []
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def train_alone(name: str, case: Case) -> dict[str, int]:
    """Train one of the two models in this process, and return its peak memory in MiB."""
    require("transformers", "the stock model", extra="hf")  # imported for both, so that both start from the same memory
    before = _resident(case.device)
    models, loss_of = losses(case, (name,))
    step = step_of(models[name], loss_of[name], case)
    for i in range(case.rounds):
        step(i)
    return {"peak": _resident(case.device), "before": before}


def _resident(device: torch.device) -> int:
    """Return the peak memory so far, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss starts at the peak of the parent process
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) // 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def main() -> None:
    """Measure all precisions and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="35m")
    parser.add_argument("--tokens", type=int, default=2048, help="real tokens per step")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--bf16", action="store_true", help="measure bfloat16 autocast even where it is not native")
    parser.add_argument("--alone", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    half = {"bfloat16 autocast": torch.bfloat16}
    precisions = {"float32": torch.float32} | (half if options.bf16 or has_native_bf16(device) else {})

    def case(precision: torch.dtype) -> Case:
        return Case(shape=options.shape, tokens=options.tokens, rounds=options.rounds, precision=precision, device=device)

    if options.alone:
        report(train_alone(options.alone, case(torch.bfloat16 if options.bf16 else torch.float32)))
        return
    results = {name: measure(case(precision)) for name, precision in precisions.items()}
    hidden, layers, heads = SHAPES[options.shape]
    settings = {
        "seed": SEED, "shape": f"{hidden} x {layers}, {heads} heads", "real_tokens_a_step": options.tokens,
        "lengths": f"log-normal, sigma {SIGMA}, median {MEDIAN}, {SHORTEST}..{LONGEST}", "rounds": options.rounds,
        "dropout": DROPOUT, "optimizer": "fused AdamW", "transformers": require("transformers", "", extra="hf").__version__,
    }  # fmt: skip
    report({
        "benchmark": "dplm_train_step", "machine": describe_machine(device), "settings": settings,
        "targets": TARGETS, "results": results,
    })  # fmt: skip


if __name__ == "__main__":
    main()
