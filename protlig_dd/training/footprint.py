"""Estimates of memory per device by ZeRO stage, and of hours, for a run on other devices; the assumptions are part of the output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from protlig_dd.device import peak_of
from protlig_dd.errors import ConfigError, nearest

_GIB = 2**30
_MEMORY_GB = {"V100": 32, "T4": 16, "A10": 24, "A100": 80, "L4": 24, "L40S": 48, "H100": 80, "H200": 141, "B200": 180}
"""Memory of a device in GB, of the larger variant if there are two, from the vendors' data sheets."""

MFU = 0.4
"""Model FLOPs utilisation assumed for the hours, as a share of the peak."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A number of devices of one kind.

    Args:
        count: number of devices.
        name: their name, such as "H100".
        memory_gb: memory of each device in GB.
        peak: dense half-precision peak of each device in FLOP/s.
    """

    count: int
    name: str
    memory_gb: int
    peak: float


def parse_devices(text: str) -> Fleet:
    """Return the devices of a text such as "8xH100".

    Raises:
        ConfigError: for another form or an unknown device, with the known ones.

    >>> parse_devices("8xH100").memory_gb
    80
    """
    found = re.fullmatch(r"(\d+)x(\w+)", text)
    known = ", ".join(_MEMORY_GB)
    if found is None or not int(found[1]):
        raise ConfigError(f"--devices '{text}': expected NUMBERxNAME, such as 8xH100; known names: {known}")
    name = found[2].upper()
    peak = peak_of(name)
    if name not in _MEMORY_GB or peak is None:
        raise ConfigError(f"--devices '{text}': found '{found[2]}'{nearest(name, _MEMORY_GB)}; known names: {known}")
    return Fleet(count=int(found[1]), name=name, memory_gb=_MEMORY_GB[name], peak=peak)


@dataclass(frozen=True, kw_only=True)
class States:
    """Unsharded bytes of a training state: weights, gradients, and optimiser state (AdamW's moments, averages)."""

    weights: int
    gradients: int
    optimizer: int

    @staticmethod
    def of(model: nn.Module, *, averaged: bool) -> States:
        """Return the bytes for a model as built here; frozen parameters have neither gradients nor moments."""
        trained = [p for p in model.parameters() if p.requires_grad]
        size = sum(p.numel() * p.element_size() for p in trained)
        moments = sum(p.numel() for p in trained) * (8 + 4 * averaged)
        return States(weights=sum(p.numel() * p.element_size() for p in model.parameters()), gradients=size, optimizer=moments)

    def per_device(self, stage: int, count: int) -> float:
        """Return the bytes on each of `count` devices at a ZeRO stage: 0 shards nothing, 1 optimiser state, 2 also gradients, 3 all."""
        shares = [count if stage >= least else 1 for least in (3, 2, 1)]
        parts = (self.weights, self.gradients, self.optimizer)
        return sum(part / share for part, share in zip(parts, shares, strict=True))


def describe_footprint(fleet: Fleet, states: States, *, activations: float, flops: float) -> Iterator[str]:
    """Yield lines with the memory by stage and the hours.

    Args:
        fleet: the devices.
        states: the training state of the model.
        activations: bytes of activations of one micro-batch on a device.
        flops: floating-point operations of the whole run.
    """
    yield f"on {fleet.count} x {fleet.name} ({fleet.memory_gb} GB, {fleet.peak / 1e12:.0f} TFLOP/s in half precision each):"
    names = {0: "ddp, or one device", 1: "ZeRO 1", 2: "ZeRO 2", 3: "zero3 and fsdp"}
    for stage, name in names.items():
        needed = states.per_device(stage, fleet.count) + activations
        fits = "fits" if needed < 0.9 * fleet.memory_gb * 1e9 else "does not fit"
        yield f"  stage {stage} ({name}): {needed / _GIB:,.1f} GiB a device, {fits}"
    hours = flops / (fleet.count * fleet.peak * MFU) / 3600
    yield f"  {hours:,.3g} hours"
    yield (
        f"  assumed: MFU {MFU:.0%} in half precision; weights and gradients in the dtype that they are built in here, AdamW's moments in "
        "float32; a micro-batch as in the first steps; nothing for buffers, fragments, validation or checkpoints; 10 % of memory left free"
    )
