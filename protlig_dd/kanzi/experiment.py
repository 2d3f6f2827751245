"""The experiment of a structure autoencoder: its settings, its training in a run folder, and opening the run again.

The run folder has the files of every run (config.yaml, data.txt, metrics.jsonl, checkpoints/), so it is resumed in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.checkpoints.matching import require_same_shapes, require_trained
from protlig_dd.checkpoints.run_folder import Which, kind_of, read_checkpoint, read_config_file
from protlig_dd.config import build, settings, to_mapping
from protlig_dd.device import DeviceChoice, choose_device
from protlig_dd.errors import ConfigError, refuse_unless
from protlig_dd.kanzi.batches import TraceBatch
from protlig_dd.kanzi.data import TraceData, TraceLoader, Traces, load_traces, trace_fingerprint
from protlig_dd.kanzi.flow import FlowSampler
from protlig_dd.kanzi.model import Kanzi, KanziSettings
from protlig_dd.kanzi.objective import KanziObjective
from protlig_dd.kanzi.published import PUBLISHED_SAMPLER, read_kanzi
from protlig_dd.kanzi.reconstruction import assess_reconstruction
from protlig_dd.kanzi.tokenizer import KanziTokenizer
from protlig_dd.nn.attention import choose_backend
from protlig_dd.nn.flops import training_flops
from protlig_dd.training.session import Session, begin, initialised
from protlig_dd.training.settings import Resume, TrainSettings
from protlig_dd.training.trainer import FitResult

log = logging.getLogger(__name__)


@settings
class AutoencoderExperiment:
    """The experiment of a structure autoencoder, as in its YAML file.

    Args:
        name: name of the run; its folder is runs/NAME by default.
        seed: root seed of weights, order, rotations, noise and samples.
        data: the chains.
        model: shape of the network.
        train: training settings; `batch_size` counts chains, copies included.
        sampling: how coordinates are decoded from tokens.
        validation: the same during training, with fewer steps.
        condition_dropout: probability of hiding the codes of an example in training; needed for guidance.
        attention: name of an attention back-end, or "auto".
    """

    name: str
    seed: int = 0
    data: TraceData
    model: KanziSettings = KanziSettings()
    train: TrainSettings = TrainSettings()
    sampling: FlowSampler = FlowSampler()
    validation: FlowSampler = FlowSampler(num_steps=25)
    condition_dropout: float = 0.0
    attention: str = "auto"

    def __post_init__(self) -> None:
        refuse_unless(0 <= self.condition_dropout < 1, "condition_dropout", self.condition_dropout, "0 to below 1")
        for part in ("sampling", "validation"):
            guidance = getattr(self, part).guidance
            has_weight = guidance == 1 or self.condition_dropout > 0
            refuse_unless(has_weight, f"{part}.guidance", f"{guidance} without condition_dropout", "1; or train with 0.1")
        expected = "auto, none or ddp: an autoencoder is small, and is used in parts"
        is_whole = self.train.distributed not in ("fsdp", "zero3")
        refuse_unless(is_whole, "train.distributed", f"'{self.train.distributed}'", expected)
        for name in ("init_from", "freeze", "tokens_per_batch"):
            if getattr(self.train, name):
                raise ValueError(
                    f"train.{name}: found '{getattr(self.train, name)}', which an autoencoder's training does not know; remove it"
                )
        size, copies = self.train.batch_size, self.data.copies
        refuse_unless(size is not None and size % copies == 0, "train.batch_size", size, f"a multiple of data.copies ({copies})")


def autoencoder_from(values: Mapping[str, Any]) -> AutoencoderExperiment:
    """Return the experiment that plain values describe.

    Raises:
        ConfigError: for an invalid setting, with its dotted path.
    """
    return build(AutoencoderExperiment, values)


def _completed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plain values of an experiment with the defaults of settings that they lack."""
    plain: Mapping[str, Any] = to_mapping(autoencoder_from(values))
    return plain


def train_autoencoder(config: AutoencoderExperiment, folder: Path, *, device: str = "auto", resume: Resume | Literal[""] = "") -> FitResult:
    """Train an autoencoder in a folder, from its last checkpoint if there is one.

    Raises:
        ConfigError: if the folder holds another experiment, or the settings do not fit together.
        FormatError: if the data cannot be read.
        CheckpointError, DeviceError: as in `training.trainer.fit`.
    """
    session = begin(config.train, device=device, resume=resume)
    with session.mourned(folder):
        return _train(session, config, folder)


def _train(session: Session, config: AutoencoderExperiment, folder: Path) -> FitResult:
    traces = load_traces(config.data)
    training, held_out = traces.split(config.data.validation_fraction, config.seed)
    model = build_autoencoder(config, session.choice)
    data = trace_fingerprint(training=training, validation=held_out) if session.is_first else {}
    lines = [*traces.lines(), *(traces.name(i) for i in range(min(len(traces), 1000)))]
    session.describe(folder, to_mapping(config), lines, complete=_completed, data=data)
    if session.is_first:
        for line in (f"model: kanzi, {count_parameters(model):,} parameters", *traces.lines()):
            log.info("%s", line)
    objective = KanziObjective(
        seed=config.seed, device=session.choice.device, rotate=config.data.rotate, condition_dropout=config.condition_dropout
    )
    loader = TraceLoader(
        training,
        batch_size=config.train.batch_size or config.data.copies,
        copies=config.data.copies,
        seed=config.seed,
        rank=session.strategy.rank,
        world=session.strategy.world,
        accumulation=config.train.accumulation,
    )
    return session.fit(
        model,
        objective,
        loader,
        folder=folder,
        config=to_mapping(config),
        data=data,
        validate=partial(_validate, config, held_out),
        flops_per_token=partial(_training_flops, model),
    )


def build_autoencoder(config: AutoencoderExperiment, choice: DeviceChoice) -> Kanzi:
    """Return the model with weights drawn from the experiment's seed.

    Raises:
        ConfigError: if it has another number of parameters than the config says.
    """
    backend = choose_backend(config.attention, choice.device, choice.dtype)
    build = partial(config.model.build, backend.name)
    return initialised(build, seed=config.seed, expected=config.model.parameters).to(choice.device)


def _training_flops(model: Kanzi, batch: TraceBatch) -> float:
    return training_flops(model, batch.layout) / max(batch.num_tokens, 1)


def _validate(config: AutoencoderExperiment, held_out: Traces, model: nn.Module) -> dict[str, float]:
    assert isinstance(model, Kanzi), type(model)
    number = min(len(held_out), config.data.num_validation)
    tokenizer = KanziTokenizer(model, sampler=config.validation)
    return assess_reconstruction(tokenizer, [held_out.read(i) for i in range(number)], seed=config.seed)


@dataclass(frozen=True)
class AutoencoderRun:
    """A trained autoencoder, opened for use.

    Args:
        folder: the run folder, or the published file.
        model: the network in evaluation mode, with averaged weights if the run has them.
        step: training step of the weights.
        config: the experiment; None for a published file.
        choice: device and precision.
        trained_on: the plain values of the checkpoint; empty for a published file.
    """

    folder: Path
    model: Kanzi
    step: int
    config: AutoencoderExperiment | None
    choice: DeviceChoice
    trained_on: Mapping[str, Any] = field(default_factory=dict)

    def tokenizer(self, sampler: FlowSampler | None = None) -> KanziTokenizer:
        """Return the tokenizer of the run; its sampler is by default the run's, or the original one for a published file."""
        own = self.config.sampling if self.config else PUBLISHED_SAMPLER
        return KanziTokenizer(self.model, sampler=sampler or own)


def open_autoencoder(source: Path | str, *, device: str = "auto", which: Which = "last") -> AutoencoderRun:
    """Return a trained autoencoder: a run folder, or a file in the published layout (.pt, .pth).

    Raises:
        ConfigError: if it is neither.
        CheckpointError: if it holds no checkpoint or a damaged one.
    """
    source = Path(source)
    choice = choose_device(device, precision="fp32")
    weights: Mapping[str, torch.Tensor]
    if source.suffix in (".pt", ".pth"):
        shape, weights = read_kanzi(source)
        config, step, trained_on = None, 0, dict[str, Any]()
        model = shape.build(choose_backend("auto", choice.device, choice.dtype).name)
        model.load_state_dict(weights)
    else:
        values = read_config_file(source / "config.yaml")
        if kind_of(values) != "kanzi":
            raise ConfigError(f"{source}: found no autoencoder's run (model.kind), expected one of 'protlig train kanzi/tiny'")
        config = autoencoder_from(values)
        _, loaded = read_checkpoint(source, which)
        require_trained(source, to_mapping(config), loaded.state, _completed)
        trained_on = dict(loaded.state)
        step, model = loaded.step, build_autoencoder(config, choice)
        weights = {**loaded.weights, **loaded.ema}
        require_same_shapes(weights, {name: tuple(value.shape) for name, value in model.state_dict().items()}, where=str(source))
        model.load_state_dict(weights)
    model = model.to(choice.device).eval().requires_grad_(False)
    return AutoencoderRun(folder=source, model=model, step=step, config=config, choice=choice, trained_on=trained_on)


def open_tokenizer(source: Path | str, *, device: str = "auto", overrides: Mapping[str, Any] | None = None) -> KanziTokenizer:
    """Return the tokenizer of a run folder or a published file; `overrides` change its sampling, such as {"num_steps": 50}."""
    run = open_autoencoder(source, device=device)
    sampler = run.config.sampling if run.config else PUBLISHED_SAMPLER
    return run.tokenizer(build(FlowSampler, {**to_mapping(sampler), **(overrides or {})}, "sampling"))


def describe_autoencoder(config: AutoencoderExperiment, choice: DeviceChoice) -> Sequence[str]:
    """Return the cost of training in lines: parameters, memory, chains and FLOPs."""
    with torch.device("meta"):
        model = config.model.build("reference")
    number = count_parameters(model)
    traces = load_traces(config.data)
    loader = TraceLoader(traces, batch_size=config.train.batch_size or 1, copies=config.data.copies, seed=config.seed)
    batch = loader.micro_batches(0)[0]
    averaged = 4 if config.train.optim.ema_decay else 0
    return [
        f"config: {config.name}, valid",
        f"device: {choice.reason}",
        f"model: kanzi, {number:,} parameters, {config.model.num_codes:,} codes",
        f"memory for weights, gradients, AdamW{' and EMA' if averaged else ''}: {number * (16 + averaged) / 2**20:,.0f} MiB a process",
        *traces.lines(),
        f"steps: {config.train.steps:,} of about {batch.num_tokens:,} residues; {loader.steps_per_epoch:,} steps an epoch",
        f"training FLOPs a residue: {_training_flops(model, batch) / 1e6:,.1f} M",
    ]
