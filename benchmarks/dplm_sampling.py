"""Sampling speed of the DPLM encoder against a loop around a stock `EsmForMaskedLM` of transformers, with the same outcome.

    python benchmarks/dplm_sampling.py [--rounds 2] [--steps 50] [--device cuda]

Both have the same random weights (35M shape) and the same strategy, DPLM's argmax with deterministic unmasking on a linear schedule, where
nothing is drawn: so they must write the same letters, and `tokens_that_differ` says whether they do. The stock loop pads to the longest,
as its users do. Two cases: 4 x 100 residues, and lengths 50, 150, 300, 500 in one batch. Beside them the exact first-hitting sampler on
4 x 100: its calls and its time; it sends one token an example to the head, and asks for a call a residue.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import Seconds, describe_machine, interleaved, paired_ratio, report
from dplm_train_step import MASK, PAD, SEED, copy_weights, our_model, stock_model, tracks
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from protlig_dd.diffusion.denoiser import Diffusion
from protlig_dd.diffusion.parameterizations import Subs
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.sampling import DPLMUnmasking, FirstHitting, SamplerSettings, sample
from protlig_dd.tokens.tracks import TrackBatch, pack

SHAPE, THREADS, SPREAD = "35m", 2, 0.03
CASES = {"4 x 100": (100, 100, 100, 100), "mixed lengths": (50, 150, 300, 500)}
TARGETS = {"4 x 100": 1.0, "mixed lengths": 1.6}
NEVER = (0, 1, 2, 24, MASK)  # begin, pad, end, X and mask: what the published sampler leaves out


class Subject:
    """Both models with the same weights, on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stock = stock_model(SHAPE, dropout=0.0)
        for parameter in self.stock.parameters():  # far enough from zero that the letters depend on their neighbours
            parameter.data += SPREAD * torch.randn_like(parameter)
        self.ours = our_model(SHAPE, torch.float32, device, dropout=0.0)
        copy_weights(self.stock, self.ours)
        for model in (self.stock, self.ours):
            model.to(device).eval().requires_grad_(False)
        process = Absorbing.of(tracks()["protein"].vocabulary)
        self.diffusion = Diffusion(
            parameterizations={"protein": Subs(process=process, normalise="all")}, schedule=LogLinear(eps=0.0)
        )


def prompts(lengths: tuple[int, ...]) -> TrackBatch:
    """Return a batch in which every residue is to be written."""
    track = tracks()["protein"]
    letter = track.vocabulary.emittable_ids[0]
    return pack([{"protein": [0, *[letter] * n, 2]} for n in lengths], {"protein": track})


@torch.no_grad()
def ours_of(subject: Subject, lengths: tuple[int, ...], sampler: SamplerSettings) -> tuple[list[Tensor], int]:
    """Return our samples and the number of network calls."""
    batch = prompts(lengths).to(subject.device)
    drawn = sample(subject.ours, subject.diffusion, batch, generate=("protein",), sampler=sampler, seed=SEED)
    return [torch.as_tensor(row) for row in drawn.batch.tracks["protein"].split()], drawn.num_calls


@torch.no_grad()
def stock_of(
    stock: nn.Module, lengths: tuple[int, ...], steps: int, device: torch.device
) -> tuple[list[Tensor], float]:
    """Return the stock loop's samples, and the smallest gap that a decision hung on.

    A step asks for all logits, takes the best letter of each position and its logit as confidence, fills the masks, and masks the
    trunc(free (1 - s / steps)) least sure positions again. Source: Wang et al. 2024 (DPLM).
    """
    rows = [torch.tensor([0, *[MASK] * n, 2]) for n in lengths]
    tokens = pad_sequence(rows, batch_first=True, padding_value=PAD).to(device)
    attention_mask = tokens.ne(PAD)
    free = tokens.eq(MASK)
    never = torch.tensor(NEVER, device=device)
    narrowest = float("inf")
    for step in range(steps):
        logits = stock(input_ids=tokens, attention_mask=attention_mask).logits.float()
        logits = logits.index_fill(-1, never, -torch.inf)
        best = logits.topk(2, -1)
        score, letter = best.values[..., 0], best.indices[..., 0]
        keep_masked = (free.sum(1).float() * (1 - (step + 1) / steps)).long()
        ranked = score.masked_fill(~free, 1000.0).sort(1).values
        cutoff = ranked.gather(1, keep_masked[:, None])
        low = score.masked_fill(~free, 1000.0) < cutoff
        gap = (cutoff - ranked.gather(1, (keep_masked - 1).clamp(min=0)[:, None]))[keep_masked > 0]
        narrowest = min(narrowest, *gap.flatten().tolist(), float((score - best.values[..., 1])[free].min()))
        tokens = torch.where(tokens.eq(MASK) & free, letter, tokens).masked_fill(low, MASK)
    return [row[: n + 2].cpu() for row, n in zip(tokens, lengths, strict=True)], narrowest


def measure(subject: Subject, name: str, *, steps: int, rounds: int) -> dict[str, Any]:
    """Return seconds, their ratio, and whether both wrote the same."""
    lengths, device = CASES[name], subject.device
    sampler = DPLMUnmasking(num_steps=steps, strategy="argmax")
    found: dict[str, Any] = {}

    def run_ours(_: int) -> None:
        found["ours"] = ours_of(subject, lengths, sampler)[0]

    def run_stock(_: int) -> None:
        found["stock"], found["gap"] = stock_of(subject.stock, lengths, steps, device)

    times = interleaved({"stock": run_stock, "ours": run_ours}, rounds=rounds, device=device, warm_up=0)
    differing = sum(int((a.cpu() != b).sum()) for a, b in zip(found["ours"], found["stock"], strict=True))
    return {
        "speed_up": paired_ratio(times["stock"], times["ours"]),
        "stock_seconds": seconds_of(times["stock"]),
        "ours_seconds": seconds_of(times["ours"]),
        "tokens_that_differ": differing,
        "tokens_written": sum(lengths),
        "distinct_letters": len({int(i) for row in found["ours"] for i in row}) - 2,
        "smallest_gap_of_a_decision": float(f"{found['gap']:.1e}"),
    }


def first_hitting(subject: Subject, name: str, *, rounds: int) -> dict[str, Any]:
    """Return the seconds and the network calls of the first-hitting sampler."""
    calls: list[int] = []

    def run(_: int) -> None:
        calls.append(ours_of(subject, CASES[name], FirstHitting())[1])

    times = interleaved({"ours": run}, rounds=rounds, device=subject.device, warm_up=0)
    return {"seconds": seconds_of(times["ours"]), "network_calls": calls[-1]}


def seconds_of(times: list[Seconds]) -> float:
    """Return the least wall-clock seconds of the rounds."""
    return round(min(t.wall for t in times), 2)


def main() -> None:
    """Measure all cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="of 4 x 100; half as many of mixed lengths")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=THREADS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    subject = Subject(device)
    for lengths in CASES.values():  # warm up
        stock_of(subject.stock, lengths, 1, device)
        ours_of(subject, lengths, DPLMUnmasking(num_steps=1, strategy="argmax"))
    rounds = {"4 x 100": options.rounds, "mixed lengths": max(1, options.rounds // 2)}
    results = {name: measure(subject, name, steps=options.steps, rounds=rounds[name]) for name in CASES}
    report({
        "benchmark": "dplm_sampling", "machine": describe_machine(device),
        "settings": {"seed": SEED, "shape": SHAPE, "strategy": "argmax, deterministic, linear", **vars(options)},
        "targets": TARGETS, "results": results,
        "first_hitting": {"4 x 100": first_hitting(subject, "4 x 100", rounds=1)},
    })  # fmt: skip


if __name__ == "__main__":
    main()
