"""Training the experiment of a token model in a run folder.

Starting the same command again continues from the last checkpoint; a folder of another experiment is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.config import to_mapping
from protlig_dd.data.bundle import DataBundle, load
from protlig_dd.data.fingerprint import data_fingerprint
from protlig_dd.data.lengths import LengthDistribution
from protlig_dd.data.loader import Loader
from protlig_dd.device import DeviceChoice
from protlig_dd.models.transfer import freeze_parameters, initialise_from, other_function
from protlig_dd.nn.flops import training_flops
from protlig_dd.runs.experiment import Experiment, Parts, completed_experiment
from protlig_dd.runs.families.models import reads_on_rank0
from protlig_dd.runs.open import open_run
from protlig_dd.runs.validation import Validator
from protlig_dd.runs.vocabularies import keep_vocabularies, learn_vocabularies, with_vocabularies
from protlig_dd.tokens.tracks import TrackBatch
from protlig_dd.training.out_of_memory import smallest_accumulation
from protlig_dd.training.resume import on_rank0
from protlig_dd.training.session import Session, begin
from protlig_dd.training.settings import Resume, TrainSettings
from protlig_dd.training.strategies import Single
from protlig_dd.training.trainer import Every, FitResult

log = logging.getLogger(__name__)
MakeHooks = Callable[[Path, Parts, DeviceChoice, DataBundle], list[Every]]


def train_experiment(
    config: Experiment, folder: Path, *, device: str = "auto", resume: Resume | Literal[""] = "", make_hooks: MakeHooks | None = None
) -> FitResult:
    """Train an experiment of a token model in a folder, from its last checkpoint if there is one.

    Args:
        config: the experiment.
        folder: the run folder; made if it is absent.
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        resume: overrides `train.resume`; "last-good" skips damaged checkpoints.
        make_hooks: returns the hooks that run at intervals, given the run folder, the parts, the device and the data.

    Raises:
        ConfigError: if the folder holds another experiment, or the settings do not fit together.
        CheckpointError, DeviceError: as in `training.trainer.fit`.
    """
    session = begin(config.train, device=device, resume=resume)
    with session.mourned(folder):
        return _train(session, config, folder, make_hooks)


def _train(session: Session, config: Experiment, folder: Path, make_hooks: MakeHooks | None) -> FitResult:
    session.first_on_rank0(partial(learn_vocabularies, config, folder))
    parts = Parts(with_vocabularies(config, folder))
    choice, strategy = session.choice, session.strategy
    bundle = session.first_on_rank0(partial(load, config.data, parts.tracks, config.seed))
    data = data_fingerprint(bundle) if session.is_first else {}
    known = {"complete": completed_experiment, "vocabularies": parts.fingerprints, "data": data}
    session.describe(folder, to_mapping(config), bundle.report.lines(), **known)
    if session.is_first:
        keep_vocabularies(config, folder)
        LengthDistribution.of(bundle.train).save(folder / "lengths.json")
    model = starting_model(parts, session.settings, choice, strategy)
    if session.is_first:
        _announce(parts, model, choice, bundle)
    make_loader = partial(training_loader, config, parts, bundle, rank=strategy.rank, world=strategy.world)
    if session.settings.tokens_per_batch == "auto":
        accumulation = _fitting_accumulation(model, parts, choice, make_loader, strategy)
        session = replace(session, settings=replace(session.settings, accumulation=accumulation))
    loader = make_loader(accumulation=session.settings.accumulation)
    made_of = effective_batch(loader, strategy)
    validate = Validator(parts, bundle, choice) if len(bundle.validation) else None
    if session.is_first:
        log.info("%s", made_of)
        if validate is not None:
            log.info("%s", validate.told())
    return session.fit(
        model,
        parts.objective(choice),
        loader,
        folder=folder,
        config=to_mapping(config),
        fingerprints=parts.fingerprints,
        data=data,
        hooks=make_hooks(folder, parts, choice, bundle) if make_hooks else (),
        validate=validate,
        flops_per_token=partial(_flops_per_token, model),
    )


def training_loader(
    config: Experiment, parts: Parts, bundle: DataBundle, *, rank: int = 0, world: int = 1, accumulation: int = 0
) -> Loader:
    """Return the training batches of one process.

    Args:
        config, parts, bundle: the experiment, its parts and its data.
        rank, world: this process, and how many there are.
        accumulation: micro-batches per step and process; 0 takes the config's.
    """
    tokens = config.train.tokens_per_batch
    return Loader(
        bundle.train,
        parts.tracks,
        batch_size=config.train.batch_size,
        tokens_per_batch=None if tokens == "auto" else tokens,
        seed=config.seed,
        rank=rank,
        world=world,
        accumulation=accumulation or config.train.accumulation,
        ahead=config.train.prefetch,
        length_window=config.train.length_window,
    )


def starting_model(parts: Parts, settings: TrainSettings, choice: DeviceChoice, strategy: Single) -> nn.Module:
    """Return the model at step 0: built, initialised from other runs (`train.init_from`) and frozen (`train.freeze`).

    A strategy that shards takes the weights from rank 0's host; for a model whose base may be large the other processes build no weights.
    """
    made: list[nn.Module] = []

    def build(where: Literal["device", "host"]) -> None:
        made.append(parts.build_model(choice, where=where))
        for source in filter(None, settings.init_from.split(",")):
            run = open_run(source, device="cpu")
            for line in other_function(parts.config.model, run.config.model, source):
                log.warning("%s", line)
            for line in initialise_from(made[0], parts.tracks, run.model.state_dict(), run.parts.tracks, str(run.folder)):
                log.info("%s", line)

    if not strategy.takes_empty or settings.tokens_per_batch == "auto":  # "auto" tries batches on the whole model
        build("device")
    elif reads_on_rank0(parts.config.model):
        on_rank0(strategy, partial(build, "host"))
    else:
        build("host")
    model = made[0] if made else parts.build_model(choice, where="meta")
    for line in freeze_parameters(model, settings.freeze):
        log.info("%s", line)
    return model


def effective_batch(loader: Loader, strategy: Single) -> str:
    """Return the composition of a step's batch in words. The first batch is counted over all processes and must be complete."""
    own = [batch.num_examples for batch in loader.micro_batches(0)]
    (found,) = strategy.sum_over_ranks([sum(own)])
    expected = len(loader.global_batch(0))
    assert found == expected, f"the micro-batches of step 0 have {found:.0f} examples, the batch {expected}"
    micro = f"{min(own)} to {max(own)}" if min(own) < max(own) else f"{own[0]}"
    return (
        f"batch: {expected} examples in the first step = micro-batches of {micro} x {strategy.world} processes x "
        f"{loader.accumulation} accumulated"
    )


def _fitting_accumulation(
    model: nn.Module, parts: Parts, choice: DeviceChoice, make_loader: Callable[..., Loader], strategy: Single
) -> int:
    """Return the smallest accumulation that fits the memory, tried on the largest micro-batch of the first eight steps."""
    objective = parts.objective(choice)

    def attempt(accumulation: int) -> None:
        loader = make_loader(accumulation=accumulation)
        batches = [batch for step in range(8) for batch in loader.micro_batches(step)]
        largest = max(batches, key=lambda batch: batch.num_tokens)
        try:
            objective.loss(model, objective.prepare(largest, 0)).total.backward()
        finally:
            model.zero_grad(set_to_none=True)

    return smallest_accumulation(attempt, strategy)


def _announce(parts: Parts, model: nn.Module, choice: DeviceChoice, bundle: DataBundle) -> None:
    backend = parts.backend(choice)
    log.info("%s", choice.reason)
    log.info("attention: %s, %s", backend.name, backend.reason)
    log.info("model: %s, %s parameters", parts.config.model.kind, f"{count_parameters(model):,}")
    for line in bundle.report.lines():
        log.info("%s", line)


def _flops_per_token(model: Any, batch: TrackBatch) -> float:
    """Return the training FLOPs per token of a batch."""
    return training_flops(model, batch) / max(batch.num_tokens, 1)
