"""Training a structure autoencoder in a run folder, and opening it again: what `experiment`, `launch` and `run` are for token models.

A run folder holds the same files (config.yaml, data.txt, metrics.jsonl, checkpoints/), so stopping and going on work alike.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from protlig_dd import rng
from protlig_dd.checkpoints import checkpoint as checkpoints
from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.checkpoints.run_folder import Which, read_config_file, require_same_experiment
from protlig_dd.config import build, settings, to_mapping
from protlig_dd.device import DeviceChoice, choose_device
from protlig_dd.errors import CheckpointError, ConfigError
from protlig_dd.kanzi.batches import TraceBatch
from protlig_dd.kanzi.data import TraceData, TraceLoader, Traces, load_traces
from protlig_dd.kanzi.flow import FlowSampler
from protlig_dd.kanzi.model import Kanzi, KanziSettings
from protlig_dd.kanzi.objective import KanziObjective
from protlig_dd.kanzi.published import PUBLISHED_SAMPLER, read_kanzi
from protlig_dd.kanzi.reconstruction import assess_reconstruction
from protlig_dd.kanzi.tokenizer import KanziTokenizer
from protlig_dd.nn.attention import choose_backend
from protlig_dd.nn.flops import training_flops
from protlig_dd.training import distributed
from protlig_dd.training.settings import Resume
from protlig_dd.training.trainer import FitResult, TrainSettings, fit

log = logging.getLogger(__name__)


@settings
class AutoencoderExperiment:
    """A structure autoencoder's training, as it stands in a YAML file.

    Args:
        name: of the run; its folder is runs/NAME unless told otherwise.
        seed: the root of weights, order, rotations, noise and samples.
        data: the chains.
        model: the shape.
        train: as for other models; `batch_size` counts chains, copies included.
        sampling: how coordinates are made from tokens.
        validation: the same during training, where fewer steps do.
        condition_dropout: how often the codes of an example are hidden in training; needed for guidance.
        attention: a back-end's name, or "auto".
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
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"condition_dropout: found {self.condition_dropout}, expected 0 to below 1")
        for part in ("sampling", "validation"):
            if getattr(self, part).guidance != 1 and not self.condition_dropout:
                raise ValueError(
                    f"{part}.guidance: found {getattr(self, part).guidance} without condition_dropout, expected 1; or train with 0.1"
                )
        if self.train.distributed in ("fsdp", "zero3"):
            raise ValueError(
                f"train.distributed: found '{self.train.distributed}', expected auto, none or ddp: an autoencoder is small, and is used in parts"
            )
        for name in ("init_from", "freeze", "tokens_per_batch"):
            if getattr(self.train, name):
                raise ValueError(
                    f"train.{name}: found '{getattr(self.train, name)}', which an autoencoder's training does not know; remove it"
                )
        if self.train.batch_size is None or self.train.batch_size % self.data.copies:
            raise ValueError(
                f"train.batch_size: found {self.train.batch_size}, expected a multiple of data.copies ({self.data.copies})"
            )


def autoencoder_from(values: Mapping[str, Any]) -> AutoencoderExperiment:
    """Return the experiment that plain values describe.

    Raises:
        ConfigError: for anything that does not fit, with its dotted path.
    """
    return build(AutoencoderExperiment, values)


def train_autoencoder(
    config: AutoencoderExperiment, folder: Path, *, device: str = "auto", resume: Resume | str = ""
) -> FitResult:
    """Train an autoencoder in a folder, going on from its last checkpoint if there is one.

    Raises:
        ConfigError: if the folder holds another experiment, or the settings do not fit together.
        FormatError: if the data cannot be read.
        CheckpointError, DeviceError: as in `training.trainer.fit`.
    """
    processes = distributed.launched()
    choice = choose_device(
        device, precision=config.train.precision, local_rank=processes.local_rank, processes=processes.world
    )
    strategy = distributed.start(config.train.distributed, choice, overrides=config.train.deepspeed)
    train_settings = replace(config.train, resume=resume) if resume else config.train  # type: ignore[arg-type]
    traces = load_traces(config.data)
    training, held_out = traces.split(config.data.validation_fraction, config.seed)
    model = build_autoencoder(config, choice)
    if strategy.rank == 0:
        _write_description(config, folder, traces)
        log.info("model: kanzi, %s parameters", f"{count_parameters(model):,}")
        for line in traces.lines():
            log.info("%s", line)
    objective = KanziObjective(
        seed=config.seed,
        device=choice.device,
        rotate=config.data.rotate,
        condition_dropout=config.condition_dropout,
    )
    loader = TraceLoader(
        training,
        batch_size=config.train.batch_size or config.data.copies,
        copies=config.data.copies,
        seed=config.seed,
        rank=strategy.rank,
        world=strategy.world,
        accumulation=config.train.accumulation,
    )
    result = fit(
        model,
        objective,
        loader,
        train_settings,
        strategy=strategy,
        run_folder=folder,
        seed=config.seed,
        config=to_mapping(config),
        validate=partial(_validate, config, held_out),
        flops_per_token=partial(_training_flops, model),
    )
    strategy.close()
    return result


def build_autoencoder(config: AutoencoderExperiment, choice: DeviceChoice) -> Kanzi:
    """Return the model, initialised on the host from the experiment's seed.

    Raises:
        ConfigError: if it has another number of parameters than the config says.
    """
    backend = choose_backend(config.attention, choice.device, choice.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.key(config.seed, "weights"))
        model = config.model.build(backend.name)
    expected, found = config.model.parameters, count_parameters(model)
    if expected is not None and expected != found:
        raise ConfigError(
            f"model.parameters: found {expected:,} in the config, the model has {found:,}; correct or remove the number"
        )
    return model.to(choice.device)


def _training_flops(model: Kanzi, batch: TraceBatch) -> float:
    return training_flops(model, batch.layout) / max(batch.num_tokens, 1)


def _validate(config: AutoencoderExperiment, held_out: Traces, model: nn.Module) -> dict[str, float]:
    assert isinstance(model, Kanzi), type(model)
    number = min(len(held_out), config.data.num_validation)
    tokenizer = KanziTokenizer(model, sampler=config.validation)
    return assess_reconstruction(tokenizer, [held_out.read(i) for i in range(number)], seed=config.seed)


def _write_description(config: AutoencoderExperiment, folder: Path, traces: Traces) -> None:
    path = folder / "config.yaml"
    if path.is_file():
        require_same_experiment(read_config_file(path), to_mapping(config), folder)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(to_mapping(config), sort_keys=False), encoding="utf-8")
    lines = [*traces.lines(), *(traces.name(i) for i in range(min(len(traces), 1000)))]
    (folder / "data.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class AutoencoderRun:
    """A trained autoencoder, opened for use.

    Args:
        folder: the run folder, or the published file.
        model: in evaluation mode, with averaged weights where the run keeps them.
        step: of the weights.
        config: the experiment; None for a published file.
        choice: the device in use.
    """

    folder: Path
    model: Kanzi
    step: int
    config: AutoencoderExperiment | None
    choice: DeviceChoice

    def tokenizer(self, sampler: FlowSampler | None = None) -> KanziTokenizer:
        """Return what turns chains into tokens and back, sampling as the run (a published file: as the original) unless told otherwise."""
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
        config, step = None, 0
        model = shape.build(choose_backend("auto", choice.device, choice.dtype).name)
        model.load_state_dict(weights)
    else:
        values = read_config_file(source / "config.yaml")
        if not is_autoencoder(values):
            raise ConfigError(
                f"{source}: found no autoencoder's run (model.kind), expected one of 'protlig train kanzi/tiny'"
            )
        config = autoencoder_from(values)
        step, own = _weights_of(source, which)
        model = build_autoencoder(config, choice)
        model.load_state_dict(own)
    model = model.to(choice.device).eval().requires_grad_(False)
    return AutoencoderRun(folder=source, model=model, step=step, config=config, choice=choice)


def open_tokenizer(
    source: Path | str, *, device: str = "auto", overrides: Mapping[str, Any] | None = None
) -> KanziTokenizer:
    """Return the tokenizer of a run folder or a published file; `overrides` change its sampling, such as {"num_steps": 50}."""
    run = open_autoencoder(source, device=device)
    sampler = run.config.sampling if run.config else PUBLISHED_SAMPLER
    return run.tokenizer(build(FlowSampler, {**to_mapping(sampler), **(overrides or {})}, "sampling"))


def _weights_of(folder: Path, which: Which) -> tuple[int, Mapping[str, torch.Tensor]]:
    root = folder / "checkpoints"
    path = checkpoints.pointed_at(root, which) or next(iter(reversed(checkpoints.list_checkpoints(root))), None)
    if path is None:
        raise CheckpointError(
            f"{root}: found no checkpoint, expected step_*; train first with: protlig train kanzi/tiny"
        )
    loaded = checkpoints.load(path, parts=("weights", "ema"))
    return loaded.step, {**loaded.weights, **loaded.ema}


def describe_autoencoder(config: AutoencoderExperiment, choice: DeviceChoice) -> Sequence[str]:
    """Return what a config costs, in words: parameters, memory, chains, operations."""
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


def is_autoencoder(values: Mapping[str, Any]) -> bool:
    """Return whether the plain values of a config describe a structure autoencoder."""
    model = values.get("model")
    return isinstance(model, Mapping) and model.get("kind") == "kanzi"
