"""A small model, objective and loader that follow the trainer's protocols, and a run of them that other processes can start."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from protlig_dd.device import DeviceChoice
from protlig_dd.errors import ProtligError
from protlig_dd.rng import Draws, generator
from protlig_dd.training.distributed import start
from protlig_dd.training.optim import OptimSettings
from protlig_dd.training.settings import TrainSettings
from protlig_dd.training.tracking import TrackingSettings
from protlig_dd.training.trainer import Every, FitResult, fit

NUM_SYMBOLS = 11
CPU = DeviceChoice(device=torch.device("cpu"), dtype=torch.float32, needs_scaler=False, reason="cpu, for a test")


@dataclass(frozen=True, kw_only=True)
class ToyBatch:
    tokens: Tensor
    example_ids: Tensor

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class ToyPrepared:
    noised: Tensor
    clean: Tensor
    num_tokens: int

    def describe(self) -> str:
        return "task joint; track letters"


@dataclass(frozen=True, kw_only=True)
class ToyTerms:
    total: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(torch.nn.functional.gelu(self.linear(self.norm(x))))


class ToyModel(nn.Module):
    """Predicts the letters of each pair from the noised ones: a letter sees itself and, if it is the second, the first."""

    def __init__(self, *, width: int = 17, dropout: float = 0.0, num_blocks: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.embedding = nn.Embedding(NUM_SYMBOLS + 1, width)
            self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(num_blocks))
            self.head = nn.Linear(width, NUM_SYMBOLS)

    def forward(self, noised: Tensor) -> Tensor:
        x = self.embedding(noised.view(-1, 2))
        x = x + torch.stack([torch.zeros_like(x[:, 0]), x[:, 0]], dim=1)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x)
        return logits.flatten(0, 1)


@dataclass(frozen=True, kw_only=True)
class ToyObjective:
    """Masks a part of the letters by keyed draws; the loss of the masked ones, summed."""

    poison: int = -1  # the step whose loss is NaN

    def prepare(self, batch: ToyBatch, step: int) -> ToyPrepared:
        draws = Draws.root(3, "toy", step).fold_in(batch.example_ids)
        masked = draws.uniform() < 0.5
        clean = batch.tokens
        noised = torch.where(masked, NUM_SYMBOLS, clean)
        return ToyPrepared(noised=noised, clean=torch.where(masked, clean, -100), num_tokens=int(masked.sum()))

    def loss(self, model: Callable[[Tensor], Tensor], prepared: ToyPrepared) -> ToyTerms:
        logits = model(prepared.noised).float()
        total = nn.functional.cross_entropy(logits, prepared.clean, reduction="sum")
        shown, count = total.detach(), prepared.num_tokens
        return ToyTerms(total=total, sums={"nll": shown, "half": shown}, counts={"nll": count, "half": 2 * count})


@dataclass(frozen=True, kw_only=True)
class Poisoned(ToyObjective):
    """The loss of step `poison` (from 0) is NaN."""

    def prepare(self, batch: ToyBatch, step: int) -> ToyPrepared:
        prepared = super().prepare(batch, step)
        return replace(prepared, num_tokens=prepared.num_tokens + (10**9 if step == self.poison else 0))

    def loss(self, model: Callable[[Tensor], Tensor], prepared: ToyPrepared) -> ToyTerms:
        terms = super().loss(model, prepared)
        return replace(terms, total=terms.total * float("nan")) if prepared.num_tokens > 10**8 else terms


@dataclass(frozen=True, kw_only=True)
class ToyLoader:
    """Deals a step's letters to ranks and micro-batches, unevenly, so that means over ranks and means over letters differ."""

    rank: int = 0
    world: int = 1
    accumulation: int = 1
    size: int = 48

    def micro_batches(self, step: int) -> list[ToyBatch]:
        letters = torch.randint(NUM_SYMBOLS, (self.size,), generator=generator(1, "letters", step))
        letters[1::2] = (letters[0::2] * 3 + 1) % NUM_SYMBOLS
        pieces, at = self.world * self.accumulation, 0
        batches = []
        for piece in range(pieces):
            end = self.size if piece == pieces - 1 else at + 2 * (self.size // (4 * pieces))
            if piece % self.world == self.rank:
                ids = torch.arange(at, end) + step * self.size
                batches.append(ToyBatch(tokens=letters[at:end], example_ids=ids))
            at = end
        return batches

    def prefetch(self, first_step: int, last_step: int) -> Iterator[list[ToyBatch]]:
        for step in range(first_step, last_step):
            yield self.micro_batches(step)


def quick_settings(**changes: Any) -> TrainSettings:
    """Settings for short runs without trackers; keys of the optimiser's settings go there."""
    optim_names = OptimSettings.__dataclass_fields__
    optim = {"lr": 0.02, "warmup_steps": 3, **{k: changes.pop(k) for k in list(changes) if k in optim_names}}
    defaults: dict[str, Any] = {
        "steps": 20,
        "checkpoint_every": 5,
        "validate_every": 0,
        "log_every": 5,
        "watchdog_seconds": 0.0,
        "tracking": TrackingSettings(tensorboard=False, wandb="off"),
        "optim": OptimSettings(**optim),
    }
    return TrainSettings(**{**defaults, **changes})


def run_toy(
    folder: Path,
    settings: TrainSettings,
    *,
    dropout: float = 0.0,
    objective: ToyObjective | None = None,
    hooks: Any = (),
    choice: DeviceChoice = CPU,
    **given: Any,
) -> FitResult:
    """Train the toy model in this process, as rank and world of the environment say."""
    strategy = start(settings.distributed, choice, timeout_seconds=60.0)
    loader = ToyLoader(rank=strategy.rank, world=strategy.world, accumulation=settings.accumulation)
    try:
        return fit(
            ToyModel(dropout=dropout),
            objective or ToyObjective(),
            loader,
            settings,
            strategy=strategy,
            run_folder=folder,
            hooks=hooks,
            **given,
        )
    finally:
        strategy.close()


def validate_toy(model: nn.Module) -> dict[str, float]:
    """The loss on letters that no step trains on."""
    objective = ToyObjective()
    prepared = objective.prepare(ToyLoader().micro_batches(10**6)[0], 0)
    return {"nll": float(objective.loss(model, prepared).total) / prepared.num_tokens}


def _child(work: Callable[..., None], environment: dict[str, str], arguments: dict[str, Any]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    work(**arguments)


def start_process(work: Callable[..., None], environment: dict[str, str] | None = None, **arguments: Any) -> BaseProcess:
    """Start a function of an importable module in a process forked from a server that has torch loaded already."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.support.toy"])
    process = context.Process(target=_child, args=(work, environment or {}, arguments))
    process.start()
    return process


def start_processes(world: int, work: Callable[..., None], port: int, **arguments: Any) -> list[BaseProcess]:
    """Start a function on several ranks, with the environment that torchrun would give them."""
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [start_process(work, {**common, "RANK": str(r), "LOCAL_RANK": str(r)}, **arguments) for r in range(world)]


def train_child(folder: Path, changes: dict[str, Any], dropout: float = 0.0, validated: bool = False) -> None:
    """The work of a child process: train, and leave the result beside the run."""
    given: dict[str, Any] = {"validate": validate_toy} if validated else {}
    result = run_toy(folder, quick_settings(**changes), dropout=dropout, **given)
    rank = os.environ.get("RANK", "0")
    (folder / f"result_{rank}.json").write_text(json.dumps({"steps": result.steps, "exit": result.exit_code}))
    raise SystemExit(result.exit_code)


def killed_child(folder: Path, changes: dict[str, Any], dropout: float, moment: int) -> None:
    """Train until a SIGKILL that comes from a thread at some moment after `moment` lines of metrics; 0: before the second rename."""
    if moment == 0:
        _die_at_rename(2)
    else:
        threading.Thread(target=_die_after, args=(folder / "metrics.jsonl", moment), daemon=True).start()
    train_child(folder, changes, dropout)


def _die_after(path: Path, lines: int) -> None:
    while not path.is_file() or path.read_bytes().count(b"\n") < lines:
        time.sleep(0.001)
    time.sleep(0.0007 * (lines % 7))
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_rename(count: int) -> None:
    """Let the process die when the `count`-th checkpoint is written but has not got its name."""
    rename, seen = os.rename, []

    def dying(source: Any, target: Any) -> None:
        seen.append(target)
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.rename = dying  # type: ignore[assignment]


def stopping_child(folder: Path, changes: dict[str, Any], stop_after: int) -> None:
    """Train until a SIGTERM after a step."""
    hooks = [Every(steps=stop_after, hook=lambda step, model, tracking: os.kill(os.getpid(), signal.SIGTERM))]
    result = run_toy(folder, quick_settings(**changes), hooks=hooks, validate=validate_toy)
    raise SystemExit(result.exit_code)


def read_metrics(folder: Path, name: str = "train/loss") -> dict[int, float]:
    """Return one metric by step; a step that is there twice is an error."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [(row["step"], row[name]) for row in rows if name in row]
    assert len(dict(found)) == len(found), "a step was logged twice"
    return dict(found)


def waiting_child(folder: Path) -> None:
    """Train for long, and leave the message of an error of ours beside the run."""
    try:
        run_toy(folder, quick_settings(steps=100_000, checkpoint_every=20, log_every=0))
    except ProtligError as error:
        (folder / "told").write_text(str(error))
