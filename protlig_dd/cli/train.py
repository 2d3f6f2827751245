"""`protlig train` and `protlig check`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.cli.evaluate import evaluate_run
from protlig_dd.config import read_config
from protlig_dd.data.bundle import load
from protlig_dd.data.loader import Loader
from protlig_dd.device import DeviceChoice, choose_device
from protlig_dd.errors import ConfigError
from protlig_dd.kanzi.experiment import (
    AutoencoderExperiment,
    autoencoder_from,
    describe_autoencoder,
    is_autoencoder,
    train_autoencoder,
)
from protlig_dd.nn.flops import training_flops
from protlig_dd.report.page import write_report
from protlig_dd.report.reproduction import write_reproduction
from protlig_dd.runs.evaluate import summarise_evaluation
from protlig_dd.runs.experiment import Experiment, Parts, experiment_from
from protlig_dd.runs.open import open_run
from protlig_dd.runs.preview import preview_hooks
from protlig_dd.runs.run import Run
from protlig_dd.runs.spellings import native_overrides
from protlig_dd.runs.train import train as train_run
from protlig_dd.training import distributed
from protlig_dd.training.footprint import Fleet, States, describe_footprint, parse_devices

log = logging.getLogger(__name__)


def _values(options: Namespace) -> dict[str, Any]:
    name, overrides = options.config, list(options.overrides)
    if "=" in name:  # `protlig train train.steps=5`: the demo, changed
        name, overrides = "dual_track/demo", [name, *overrides]
    named, native = native_overrides(overrides)
    return read_config(named or name, native)


def train(options: Namespace) -> Iterator[str | int]:
    """Train, and afterwards evaluate and report if the config says so; the exit code is 128 + signal when stopped by one."""
    values = _values(options)
    config = autoencoder_from(values) if is_autoencoder(values) else experiment_from(values)
    if config.train.devices > 1 and "RANK" not in os.environ:
        yield _start_processes(config.train.devices)
        return
    folder = Path(options.out or f"runs/{config.name}")
    if isinstance(config, AutoencoderExperiment):
        yield from _train_autoencoder(config, folder, options)
        return
    result = train_run(config, folder, device=options.device, resume=options.resume, make_hooks=preview_hooks)
    if distributed.launched().rank != 0:
        return
    command = " ".join(["protlig train", options.config, *options.overrides])
    write_reproduction(folder, command=command, seed=config.seed)
    if result.stopped_by:
        yield result.exit_code
        return
    yield f"trained {result.steps} steps: {folder}"
    if config.evaluation.after_training:
        yield from _evaluate(open_run(folder, device=options.device))


def _evaluate(run: Run) -> Iterator[str]:
    """Evaluate a run that is trained, and write its report."""
    for line in evaluate_run(run, split="test" if len(run.data.test) else "validation"):
        log.info("%s", line)
    page = write_report(run.folder)
    yield from summarise_evaluation(run)
    yield f"report: {page}"


def _train_autoencoder(config: AutoencoderExperiment, folder: Path, options: Namespace) -> Iterator[str | int]:
    result = train_autoencoder(config, folder, device=options.device, resume=options.resume)
    if distributed.launched().rank != 0:
        return
    if result.stopped_by:
        yield result.exit_code
        return
    yield f"trained {result.steps} steps: {folder}"
    yield ", ".join(f"{name} {value:.3f}" for name, value in result.validation.items())


def _start_processes(number: int) -> int:
    """Run this command again in so many processes of this machine, and return their exit code."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    return subprocess.run([*launcher, "-m", "protlig_dd.cli", *sys.argv[1:]], check=False).returncode


def check(options: Namespace) -> Iterator[str]:
    """Validate a config and say what it will cost."""
    logging.getLogger().setLevel(logging.WARNING)
    values = _values(options)
    if is_autoencoder(values):
        if options.devices:
            raise ConfigError(
                f"--devices {options.devices}: is for models of tokens; an autoencoder's memory is told without it, leave it out"
            )
        autoencoder = autoencoder_from(values)
        yield from describe_autoencoder(
            autoencoder, choose_device(options.device, precision=autoencoder.train.precision)
        )
        return
    config = experiment_from(values)
    choice = choose_device(options.device, precision=config.train.precision)
    parts = Parts(config)
    with torch.device("meta"):
        model = config.model.build(parts.tracks, parts.backend(choice).name)
    yield f"config: {config.name}, valid"
    yield f"device: {choice.reason}"
    backend = parts.backend(choice)
    yield f"attention: {backend.name}, {backend.reason}"
    for name, track in parts.tracks.items():
        v = track.vocabulary
        yield f"track {name}: {v.name}, {v.num_rows} rows, {len(v.emittable_ids)} emittable, mask {v.mask_id}, to {track.max_length} tokens"
    weights = parts.tasks.weights
    total = sum(weights.values())
    yield "tasks: " + ", ".join(f"{name} {w / total:.0%}" for name, w in weights.items())
    fleet = parse_devices(options.devices) if options.devices else None
    yield from _costs(config, parts, model, choice, fleet)


def _costs(config: Experiment, parts: Parts, model: Any, choice: DeviceChoice, fleet: Fleet | None) -> Iterator[str]:
    number = count_parameters(model)
    if config.model.parameters not in (None, number):
        yield f"model: {number:,} parameters, but model.parameters says {config.model.parameters:,}: correct it"
        sys.exit(1)
    yield f"model: {config.model.kind}, {number:,} parameters"
    averaged = bool(config.train.optim.ema_decay)
    states = States.of(model, averaged=averaged)
    whole = states.per_device(0, 1) / 2**20
    yield f"memory for weights, gradients, AdamW{' and EMA' if averaged else ''}: {whole:,.0f} MiB a process"
    bundle = load(config.data, parts.tracks, config.seed)
    budget = config.train.tokens_per_batch
    tokens_per_batch = None if budget == "auto" else budget
    loader = Loader(
        bundle.train,
        parts.tracks,
        batch_size=config.train.batch_size,
        tokens_per_batch=tokens_per_batch,
        seed=config.seed,
        accumulation=config.train.accumulation,
    )
    batches = [b for step in range(4) for b in loader.micro_batches(step)]
    tokens = sum(b.num_tokens for b in batches)
    flops = sum(training_flops(model, b) for b in batches) / max(tokens, 1)
    yield from bundle.report.lines()
    steps = config.train.steps or max(1, config.train.tokens * 4 // max(tokens, 1))
    yield f"steps: {steps:,} of about {tokens / 4:,.0f} tokens; {loader.steps_per_epoch:,} steps an epoch"
    yield f"training FLOPs a token: {flops / 1e6:,.1f} M; a run: {flops * tokens / 4 * steps / 1e15:,.3f} PFLOP"
    largest = max(b.num_tokens for b in batches)
    size = getattr(config.model, "hidden_size", 0) * getattr(config.model, "num_blocks", 0)
    width = 2 if choice.autocast else 4
    # about 30 activations of the hidden size a block and token are kept for the backward pass (2 with checkpointing)
    kept = 2 if getattr(config.model, "activation_checkpointing", False) else 30
    activations = largest * size * kept * width
    yield f"activations of a micro-batch, estimated: {activations / 2**20:,.0f} MiB"
    if fleet is not None:
        yield from describe_footprint(fleet, states, activations=float(activations), flops=flops * tokens / 4 * steps)
