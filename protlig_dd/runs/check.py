"""The cost of training a token model: parameters, FLOPs, memory and steps, from its config and data, without training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.data.bundle import load
from protlig_dd.device import DeviceChoice, choose_device
from protlig_dd.errors import ConfigError
from protlig_dd.nn.flops import training_flops
from protlig_dd.runs.experiment import Experiment, Parts
from protlig_dd.runs.train import training_loader
from protlig_dd.runs.vocabularies import learn_vocabularies, with_vocabularies
from protlig_dd.training.footprint import Fleet, States, describe_footprint, parse_devices


def check_experiment(config: Experiment, *, device: str = "auto", devices: str = "", folder: Path) -> Iterator[str]:
    """Yield a description of the config and its cost, in lines.

    Args:
        config: the experiment.
        device: "auto", "cpu", "cuda", "mps" or "xpu"; decides precision and attention.
        devices: such as "8xH100": adds the memory of each device by ZeRO stage, and the hours.
        folder: a folder for the vocabularies that training would learn.

    Raises:
        ConfigError: for a wrong `model.parameters`, or data that cannot be read.
        FormatError: for damaged data.
    """
    choice = choose_device(device, precision=config.train.precision)
    learn_vocabularies(config, folder)
    parts = Parts(config := with_vocabularies(config, folder))
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
    fleet = parse_devices(devices) if devices else None
    yield from _costs(config, parts, model, choice, fleet)


def _costs(config: Experiment, parts: Parts, model: Any, choice: DeviceChoice, fleet: Fleet | None) -> Iterator[str]:
    number = count_parameters(model)
    if config.model.parameters not in (None, number):
        raise ConfigError(
            f"model.parameters: found {config.model.parameters:,} in the config, the model has {number:,}; correct or remove the number"
        )
    yield f"model: {config.model.kind}, {number:,} parameters"
    averaged = bool(config.train.optim.ema_decay)
    states = States.of(model, averaged=averaged)
    whole = states.per_device(0, 1) / 2**20
    yield f"memory for weights, gradients, AdamW{' and EMA' if averaged else ''}: {whole:,.0f} MiB a process"
    bundle = load(config.data, parts.tracks, config.seed)
    loader = training_loader(config, parts, bundle)
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
    # the backward pass keeps about 30 activations of the hidden size per block and token (2 with checkpointing)
    kept = 2 if getattr(config.model, "activation_checkpointing", False) else 30
    activations = largest * size * kept * width
    yield f"activations of a micro-batch, estimated: {activations / 2**20:,.0f} MiB"
    if fleet is not None:
        yield from describe_footprint(fleet, states, activations=float(activations), flops=flops * tokens / 4 * steps)
