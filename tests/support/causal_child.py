"""A causal run that other processes can start: train, go on, and write structures on the way with unequal work for each process."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from unittest import mock

from torch import nn

from protlig_dd.causal import model as causal
from protlig_dd.causal.decoding import CausalDecoding
from protlig_dd.causal.generate import CausalGenerator
from protlig_dd.data.bundle import DataBundle
from protlig_dd.device import DeviceChoice
from protlig_dd.runs.experiment import Parts, load_experiment
from protlig_dd.runs.run import Run
from protlig_dd.runs.train import train_experiment
from protlig_dd.sampling.requests import Request
from protlig_dd.training.distributed import largest_over_ranks, launched
from protlig_dd.training.tracking import Tracking
from protlig_dd.training.trainer import Every

WORK = {0: ("ACDEFGHIK",), 1: ("MKT", "GWYLM", "W"), 2: ()}
"""Proteins of each process; 2 is a process without any."""


def drawn(run: Run, rank: int, *, together: bool) -> list[str]:
    """Return the structures of a process's proteins, of given and of learned length, two a call."""
    how = {"together": partial(largest_over_ranks, device=run.choice.device)} if together else {}
    requests = [Request(name=p, given={"protein": p}, generate={"structure": None}) for p in WORK[rank]]
    texts = []
    for length in ("given", "learned"):
        decoding = CausalDecoding(temperature=1.0, length=length)  # type: ignore[arg-type]
        generator = CausalGenerator(run, decoding=decoding, batch_size=2, with_likelihood=False, **how)  # type: ignore[arg-type]
        texts += [sample.texts["structure"] for sample in generator.generate(requests, 1)]
    return texts


def hooks(folder: Path, parts: Parts, choice: DeviceChoice, bundle: DataBundle) -> list[Every]:
    """Return a hook that writes structures after every second step and leaves them beside the run."""
    rank = launched().rank

    def draw(step: int, model: nn.Module, tracking: Tracking) -> None:
        run = Run(folder=folder, parts=parts, choice=choice, step=step, model=model)
        mine = (rank + step // 2) % 3  # each process has other work the next time, and sometimes none
        (folder / f"drawn_{step}_{mine}.json").write_text(json.dumps(drawn(run, mine, together=True)))

    return [Every(steps=2, hook=draw)]


def train_child(folder: Path, overrides: list[str]) -> None:
    """Train with the hook, as rank and world of the environment say, and leave how often this process read a base's weights."""
    with mock.patch.object(causal, "load_base", wraps=causal.load_base) as read:
        train_experiment(load_experiment("structure/3di_tiny", overrides), folder, device="cpu", make_hooks=hooks)
    (folder / f"bases_read_{launched().rank}.json").write_text(json.dumps(read.call_count))
