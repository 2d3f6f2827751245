"""The duration of a training step on this device, measured on a few real steps, and its FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from protlig_dd.data.bundle import DataBundle
from protlig_dd.device import DeviceChoice
from protlig_dd.nn.flops import training_flops
from protlig_dd.runs.experiment import Experiment, Parts
from protlig_dd.runs.train import training_loader
from protlig_dd.scaling.sizes import build_empty
from protlig_dd.training.optim import make_optimizer
from protlig_dd.training.strategies import Single
from protlig_dd.training.update import seconds_per_update

_COUNTED_STEPS = 16  # steps whose tokens are counted


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The size of a run's training steps.

    Attributes:
        tokens_per_step: mean over the first steps.
        flops_per_token: training FLOPs, counted over the layers.
    """

    tokens_per_step: float
    flops_per_token: float


def count_batches(config: Experiment, bundle: DataBundle) -> Batches:
    """Return the tokens of a step and the FLOPs of a token, from the first batches; no tensor of the model is allocated."""
    loader, model = training_loader(config, Parts(config), bundle), build_empty(config)
    batches = [batch for step in range(_COUNTED_STEPS) for batch in loader.micro_batches(step)]
    tokens = sum(batch.num_tokens for batch in batches)
    flops = sum(training_flops(model, batch) for batch in batches)
    return Batches(tokens_per_step=tokens / _COUNTED_STEPS, flops_per_token=flops / max(tokens, 1))


def seconds_per_step(config: Experiment, bundle: DataBundle, choice: DeviceChoice, *, steps: int) -> float:
    """Return the mean seconds of a few real training steps (data, noise, forward, backward, AdamW), after a first step that is not timed."""
    parts = Parts(config)
    loader = training_loader(config, parts, bundle)
    strategy, objective = Single(choice), parts.objective(choice)
    optim = config.train.optim
    adamw = partial(make_optimizer, settings=optim)
    strategy.wrap(parts.build_model(choice), adamw, clip_norm=optim.clip_norm, accumulation=config.train.accumulation)
    return seconds_per_update(strategy, objective, loader, steps=steps, lr=optim.lr)
