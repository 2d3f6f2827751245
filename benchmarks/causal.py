"""Training and generation speed of a causal protein-to-3Di model against stock transformers with the same weights, in one process.

    python benchmarks/causal.py [--rounds 5] [--fasta sequences.fasta.gz] [--device cuda --bf16]

Training: forward and backward pass of one optimiser step on `--batch` proteins with their structures. Ours packs the sequences and
computes logits of structure tokens only; stock `LlamaForCausalLM` (SDPA) pads to the longest, with labels of -100 on the protein and on
padding. The losses must agree. The target is the token saving, padded over real tokens: matrix products with every token are nearly
all of the work at this size.

Generation: structures of `--batch` proteins by greedy decoding. Ours caches keys and values and generates only structure tokens, one per
residue; stock `generate` pads on the left, suppresses all other ids, and generates as many tokens as the longest protein needs.
`tokens_that_differ` counts positions where the outputs differ. The lower bound of a step is reading the weights and the cached keys and values.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from common import Seconds, batches_of, describe_machine, drawn_lengths, interleaved, paired_ratio, read_lengths, report
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from protlig_dd.causal.decoding import decode
from protlig_dd.causal.model import Causal, CausalSettings
from protlig_dd.causal.objective import CausalObjective, token_nll
from protlig_dd.causal.sequences import CausalBatch, minimal_vocabulary, pack_sequences
from protlig_dd.device import choose_device
from protlig_dd.nn.attention import choose_backend
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import TrackSet, pack

SEED, CAP, THREADS, SPREAD = 0, 400, 2, 0.05
SHAPE = CausalSettings(hidden_size=256, num_heads=8, num_kv_heads=4, num_blocks=6, inner_size=688)
TARGETS = {"training, mixed lengths": "1.1 of the token saving", "training, equal lengths": 1.0, "generation": 1.0}


def tracks() -> TrackSet:
    """Return the tracks of a 3Di model."""
    return {
        "protein": ProteinTrack(max_length=CAP + 2, unknown="X", beside="3di").build("protein"),
        "structure": StructureTrack(alphabet="3di", max_length=CAP + 2).build("structure"),
    }


def examples_of(lengths: list[int], generator: torch.Generator) -> list[dict[str, list[int]]]:
    """Return random proteins and structures of the given lengths, as ids with their end tokens."""
    examples = []
    for length in lengths:
        example = {}
        for name, track in tracks().items():
            emitted = torch.tensor(track.vocabulary.emittable_ids[:20])
            body = emitted[torch.randint(20, (length,), generator=generator)].tolist()
            example[name] = [track.vocabulary.begin_id, *body, track.vocabulary.end_id]
        examples.append(example)
    return examples


class Subject:
    """Our model and the model of stock transformers with the same weights."""

    def __init__(self, device: torch.device, *, bf16: bool) -> None:
        import transformers

        both = tracks()
        choice = choose_device(device.type, precision="bf16" if bf16 else "fp32")
        self.device, self.dtype = choice.device, choice.dtype
        self.autocast = choice.autocast
        self.vocabulary = minimal_vocabulary(both["protein"], both["structure"])
        torch.manual_seed(SEED)
        self.ours: Causal = SHAPE.build(both, choose_backend("auto", choice.device, choice.dtype).name)
        with torch.no_grad():
            for parameter in self.ours.parameters():  # far enough from zero that the generated tokens depend on the context
                parameter += SPREAD * torch.randn_like(parameter)
        config = transformers.LlamaConfig.from_dict(self.ours.llama.config.to_dict())
        config._attn_implementation = "sdpa"
        self.stock = transformers.LlamaForCausalLM(config)
        self.stock.load_state_dict(self.ours.llama.state_dict())
        for model in (self.ours, self.stock):
            model.to(self.device)
        self.objective = CausalObjective(self.vocabulary, device=self.device)

    def mixed(self) -> torch.autocast:
        """Return the autocast context for both models."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.autocast)


def padded(batch: CausalBatch, pad: int) -> dict[str, Tensor]:
    """Return the input of stock transformers for the same sequences: ids, mask and labels, padded on the right."""
    labels = torch.full_like(batch.tokens, -100)
    labels[batch.rows + 1] = batch.targets
    cuts = list(batch.layout.lengths)
    ids = pad_sequence(list(batch.tokens.split(cuts)), batch_first=True, padding_value=pad)
    wanted = pad_sequence(list(labels.split(cuts)), batch_first=True, padding_value=-100)
    mask = pad_sequence([torch.ones(n, dtype=torch.int64) for n in cuts], batch_first=True)
    return {"input_ids": ids, "labels": wanted, "attention_mask": mask.to(ids.device)}


def training(subject: Subject, batches: list[list[int]], rounds: int) -> dict[str, Any]:
    """Return real tokens per second of both, their ratio, and the difference of their losses."""
    generator = torch.Generator().manual_seed(SEED)
    both = tracks()
    packed = [pack_sequences(pack(examples_of(b, generator), both), subject.vocabulary) for b in batches]
    packed = [batch.to(subject.device) for batch in packed]
    stocks = [padded(batch, subject.vocabulary.pad_id) for batch in packed]
    losses: dict[str, float] = {}

    def ours(number: int) -> None:
        subject.ours.zero_grad()
        batch = packed[number % len(packed)]
        with subject.mixed():
            logits = subject.ours(batch.tokens, batch.layout, rows=batch.rows)
        loss = token_nll(logits, batch).mean()
        loss.backward()
        losses["ours"] = float(loss.detach())

    def stock(number: int) -> None:
        subject.stock.zero_grad()
        with subject.mixed():
            loss = subject.stock(**stocks[number % len(stocks)]).loss
        loss.backward()
        losses["stock"] = float(loss.detach())

    subject.ours.train()
    subject.stock.train()
    times = interleaved({"stock": stock, "ours": ours}, rounds=rounds, device=subject.device)
    real = sum(batch.layout.num_tokens for batch in packed)
    held = sum(one["input_ids"].numel() for one in stocks)
    return {
        "speed_up": paired_ratio(times["stock"], times["ours"]),
        "token_saving": round(held / real, 3),
        "tokens_a_second": {name: tokens_a_second(packed, times[name]) for name in times},
        "losses_differ": float(f"{abs(losses['ours'] - losses['stock']):.1e}"),
    }


def tokens_a_second(batches: list[CausalBatch], times: list[Seconds]) -> int:
    """Return real tokens per second of wall time over all rounds."""
    done = sum(batches[i % len(batches)].layout.num_tokens for i in range(len(times)))
    return round(done / sum(t.wall for t in times))


@torch.no_grad()
def generation(subject: Subject, lengths: list[int], rounds: int) -> dict[str, Any]:
    """Return the seconds of both for generating the structures, their ratio, and the number of tokens that differ."""
    vocabulary, device = subject.vocabulary, subject.device
    examples = examples_of(lengths, torch.Generator().manual_seed(SEED))
    prompts = [vocabulary.prompt(example["protein"]) for example in examples]
    longest = max(map(len, prompts))
    ids = torch.tensor([[vocabulary.pad_id] * (longest - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    never = sorted(set(range(vocabulary.num_rows)) - set(vocabulary.code_ids))
    written: dict[str, list[list[int]]] = {}

    def ours(_: int) -> None:
        with subject.mixed():
            found = decode(subject.ours, vocabulary, prompts, lengths=lengths, sample_ids=range(len(lengths)), device=device)
        written["ours"] = [list(one.tokens) for one in found]

    def stock(_: int) -> None:
        with subject.mixed():
            found = subject.stock.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=max(lengths), suppress_tokens=never
            )
        written["stock"] = [row[longest : longest + n].tolist() for row, n in zip(found, lengths, strict=True)]

    subject.ours.eval()
    subject.stock.eval()
    times = interleaved({"stock": stock, "ours": ours}, rounds=rounds, device=device)
    pairs = zip(written["ours"], written["stock"], strict=True)
    return {
        "speed_up": paired_ratio(times["stock"], times["ours"]),
        "seconds": {name: round(min(t.wall for t in ts), 2) for name, ts in times.items()},
        "tokens_written": sum(lengths),
        "tokens_that_differ": sum(a != b for x, y in pairs for a, b in zip(x, y, strict=True)),
        "distinct_tokens": len({i for row in written["ours"] for i in row}),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="proteins per batch (8)")
    parser.add_argument("--fasta", type=Path, help="use the lengths of its sequences instead of random ones")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast for both")
    parser.add_argument("--threads", type=int, default=THREADS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.fasta:
        lengths = read_lengths(options.fasta, cap=CAP)
    else:
        lengths = drawn_lengths(count=1000, cap=CAP, seed=SEED)
    batches = batches_of(lengths, size=options.batch, count=4, seed=SEED)
    subject = Subject(torch.device(options.device), bf16=options.bf16)
    same = [[CAP // 2] * options.batch]
    report({
        "benchmark": "causal", "machine": describe_machine(subject.device),
        "settings": {"seed": SEED, "cap": CAP, **{k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}},
        "targets": TARGETS,
        "training, mixed lengths": training(subject, batches, options.rounds),
        "training, equal lengths": training(subject, same, options.rounds),
        "generation, mixed lengths": generation(subject, batches[0], max(1, options.rounds // 2)),
    })  # fmt: skip


if __name__ == "__main__":
    main()
