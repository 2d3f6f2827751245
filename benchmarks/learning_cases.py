"""The data sets of `learning.py`, the validation value that both sides get, and one run of either side."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from stock_loops import Example, PaddedCausal, PaddedDenoiser, Plan, Shape, Unigram, train
from torch import nn

from protlig_dd.causal.objective import CausalObjective
from protlig_dd.config import to_mapping
from protlig_dd.data.bundle import DataBundle, load
from protlig_dd.data.loader import Loader
from protlig_dd.data.table import TokenTable
from protlig_dd.device import choose_device
from protlig_dd.runs.experiment import Experiment, Parts, load_experiment
from protlig_dd.runs.train import training_loader
from protlig_dd.runs.validation import validation_objective
from protlig_dd.tokens.tracks import TrackBatch
from protlig_dd.training.guard import NonFiniteLossError
from protlig_dd.training.session import begin
from protlig_dd.training.tracking import TrackingSettings
from protlig_dd.training.trainer import Every

POINTS, BATCH = 20, 64


@dataclass(frozen=True, kw_only=True)
class Set:
    """A data set: the packaged config, the stock model, the steps of a run, the file below the folder of data, and overrides."""

    config: str
    stock: str
    steps: int
    file: str = ""
    overrides: tuple[str, ...] = ()


SETS = {
    "families": Set(config="dplm/tiny", stock="esm", steps=300, file="families/1bcf.fasta.gz"),
    "flip": Set(config="dplm/tiny", stock="esm", steps=300, file="flip_proteins/sequences.fasta.gz"),
    "zinc": Set(config="recipe/ligand", stock="encoder", steps=500, file="zinc250k/train.txt"),
    "textbook": Set(config="scaling/textbook", stock="encoder", steps=2000),
    # 41 chains: with the usual 5 % two of them would be all of the validation
    "3di": Set(
        config="structure/3di_tiny", stock="decoder", steps=60, file="foldseek_example/plain/db",
        overrides=("data.split.validation_fraction=0.25",),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run."""

    set: str
    side: str
    lr: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """A data set, loaded: its experiment, its parts, its tables, the validation value of a model, its training and validation batches."""

    experiment: Experiment
    parts: Parts
    bundle: DataBundle
    judge: Judge
    examples: list[Example]
    batch_size: int


class Judge:
    """The validation value of a model in nats per token, by the package's validation objective with fixed noise."""

    def __init__(self, parts: Parts, table: TokenTable, tokens: int) -> None:
        self.objective = validation_objective(parts, choose_device("cpu", precision="fp32"), "validation")
        ends = np.sum([column.lengths for column in table.tracks.values()], axis=0).cumsum()
        rows = max(1, int((ends <= tokens).sum()))
        draws = 1 if isinstance(self.objective, CausalObjective) else max(1, round(tokens / int(ends[rows - 1])))
        batches = in_order(table.select(list(range(rows))), parts)
        self.prepared = [self.objective.prepare(batch, draw) for draw in range(draws) for batch in batches]

    @torch.no_grad()
    def __call__(self, model: Any) -> float:
        """Return the value of a denoiser, or of a causal model."""
        total, count = 0.0, 0.0
        for prepared in self.prepared:
            terms = self.objective.loss(model, prepared)
            names = [name for name in terms.sums if name.startswith("nll")]
            total += sum(float(terms.sums[name]) for name in names)
            count += sum(terms.counts[name] for name in names)
        return total / count


class Recorder:
    """The validation value by CPU seconds of training; the clock stands while the model is evaluated."""

    def __init__(self, judge: Judge, wrap: Callable[[nn.Module], Any]) -> None:
        self.judge, self.wrap, self.points = judge, wrap, list[tuple[int, float, float]]()
        self.paused, self.begun = 0.0, time.process_time()

    def __call__(self, step: int, model: nn.Module, *_: Any) -> None:
        """Evaluate the model after a step."""
        now = time.process_time()
        self.points.append((step, now - self.begun - self.paused, self.judge(self.wrap(model))))
        self.paused += time.process_time() - now


def in_order(table: TokenTable, parts: Parts) -> list[TrackBatch]:
    """Return all examples of a table in its order, in batches."""
    loader = Loader(table, parts.tracks, batch_size=min(BATCH, len(table)), seed=0, shuffle=False, conditions=[])
    return [batch for step in range(loader.steps_per_epoch) for batch in loader.micro_batches(step)]


def experiment_of(name: str, shared: Path) -> Experiment:
    """Return the packaged experiment of a data set, with the data's path."""
    spec = SETS[name]
    path = (f"data.path={shared / spec.file}",) if spec.file else ()
    return load_experiment(spec.config, [*path, *spec.overrides])


@cache
def case_of(name: str, shared: Path, tokens: int) -> Case:
    """Return a data set, loaded."""
    experiment = experiment_of(name, shared)
    parts = Parts(experiment)
    bundle = load(experiment.data, parts.tracks, experiment.seed)
    loader = training_loader(experiment, parts, bundle)
    return Case(
        experiment=experiment,
        parts=parts,
        bundle=bundle,
        judge=Judge(parts, bundle.validation, tokens),
        examples=list(stock_examples(bundle.train, parts)),
        batch_size=experiment.train.batch_size or round(len(bundle.train) / loader.steps_per_epoch),
    )


def stock_examples(table: TokenTable, parts: Parts) -> Iterator[Example]:
    """Yield the examples of a table as tensors, with the ids that our model has for them."""
    objective = validation_objective(parts, choose_device("cpu", precision="fp32"), "validation")
    for batch in in_order(table, parts):
        if isinstance(objective, CausalObjective):
            packed = objective.prepare(batch, 0)
            tokens, layout = packed.tokens, packed.layout
            is_learned = torch.zeros_like(tokens, dtype=torch.bool).index_fill(0, packed.rows + 1, True)
        else:
            (own,) = batch.tracks.values()
            tokens, is_learned, layout = own.tokens, own.maskable, own.layout
        cuts = list(layout.lengths)
        yield from (Example(tokens=t, is_learned=m) for t, m in zip(tokens.split(cuts), is_learned.split(cuts), strict=True))


def shape_of(experiment: Experiment) -> Shape:
    """Return the sizes of the stock model: hidden size, heads and blocks of ours."""
    parts, model = Parts(experiment), experiment.model
    longest = sum(track.max_length for track in parts.tracks.values())
    if len(parts.tracks) > 1:
        vocabulary = model.vocabulary(parts.tracks)  # type: ignore[union-attr]
        inner, rows, pad, mask, longest = 4 * model.hidden_size, vocabulary.num_rows, vocabulary.pad_id, -1, longest + vocabulary.num_around
    else:
        ids = next(iter(parts.tracks.values())).vocabulary
        inner, rows, pad, mask = round(model.hidden_size * model.mlp_ratio), ids.num_rows, ids.pad_id or 0, ids.mask_id  # type: ignore[union-attr]
    return Shape(
        hidden_size=model.hidden_size, num_heads=model.num_heads, num_blocks=model.num_blocks, inner_size=inner,
        num_rows=rows, max_length=longest, pad_id=pad, mask_id=mask,
    )  # fmt: skip


def wrapped(case: Case, model: nn.Module) -> Any:
    """Return a stock model as the validation objective expects a model."""
    if isinstance(case.judge.objective, CausalObjective):
        return PaddedCausal(model, shape_of(case.experiment).pad_id)
    ((name, track),) = case.parts.tracks.items()
    return PaddedDenoiser(model, track, case.parts.diffusion.parameterizations[name])


def letters_alone(case: Case) -> float:
    """Return the validation value of the frequencies of the learned tokens in training, with one of each added."""
    counts = torch.ones(shape_of(case.experiment).num_rows)
    for example in case.examples:
        found = example.tokens[example.is_learned]
        counts.index_add_(0, found, torch.ones(len(found)))
    return case.judge(wrapped(case, Unigram(counts.log())))


@cache
def warm_up() -> None:
    """Make one step of a small model, so that no run pays for what torch imports and prepares at the first one of a process."""
    layer = nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.zeros(1, 8)).sum().backward()
    nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    optimizer.step()


def steps_of(name: str, factor: float) -> tuple[int, int]:
    """Return the steps of a run, and the steps between evaluations, which divide them."""
    steps = max(2, round(SETS[name].steps * factor))
    every = max(1, steps // POINTS)
    return steps // every * every, every


def ours(case: Case, job: Job, steps: int, every: int) -> list[tuple[int, float, float]]:
    """Train ours, and return step, CPU seconds and value of each evaluation."""
    before = case.experiment.train
    optim = replace(before.optim, lr=job.lr, warmup_steps=min(before.optim.warmup_steps, steps // 10))
    settings = replace(
        before, steps=steps, tokens=0, checkpoint_every=0, validate_every=0, precision="fp32", optim=optim,
        tracking=TrackingSettings(tensorboard=False, wandb="off"),
    )  # fmt: skip
    experiment = replace(case.experiment, seed=job.seed, train=settings)
    parts, session = Parts(experiment), begin(settings, device="cpu")
    model, objective = parts.build_model(session.choice), parts.objective(session.choice)
    loader = training_loader(experiment, parts, case.bundle)
    with TemporaryDirectory() as folder:
        recorder = Recorder(case.judge, lambda model: model)
        try:
            result = session.fit(
                model, objective, loader, folder=Path(folder), config=to_mapping(experiment), hooks=[Every(steps=every, hook=recorder)]
            )
        except NonFiniteLossError:
            now, missing = (
                time.process_time() - recorder.begun - recorder.paused,
                range((len(recorder.points) + 1) * every, steps + 1, every),
            )
            return [*recorder.points, *((step, now, math.inf) for step in missing)]
    if result.stopped_by:
        raise SystemExit(result.exit_code)
    return recorder.points


def stock(case: Case, job: Job, steps: int, every: int) -> list[tuple[int, float, float]]:
    """Train the stock model, and return step, CPU seconds and value of each evaluation."""
    recorders: list[Recorder] = []

    def start() -> Recorder:
        recorders.append(Recorder(case.judge, partial(wrapped, case)))
        return recorders[0]

    shape, name = shape_of(case.experiment), SETS[job.set].stock
    plan = Plan(model=name, shape=shape, steps=steps, batch_size=case.batch_size, lr=job.lr, seed=job.seed, every=every)
    train(plan, case.examples, start)
    return recorders[0].points
