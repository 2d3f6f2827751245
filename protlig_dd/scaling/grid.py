"""A study from a base config and a grid of sizes and data: one config for each run, and the plan with its costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from protlig_dd.config import to_mapping
from protlig_dd.data.bundle import DataBundle, load
from protlig_dd.device import DeviceChoice
from protlig_dd.errors import ConfigError
from protlig_dd.files import write_text
from protlig_dd.runs.experiment import Experiment, Parts, experiment_from
from protlig_dd.scaling.plan import Plan, PlannedRun, short
from protlig_dd.scaling.probe import count_batches, seconds_per_step
from protlig_dd.scaling.sizes import Size, changed

_PATHS = ("path", "validation_path", "test_path")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The settings that are varied. Exactly one of `tokens`, `epochs` and `budgets` says how long runs are.

    Attributes:
        sizes: model sizes.
        examples: numbers of training examples, as nested subsets; empty uses all examples.
        tokens: training tokens seen.
        epochs: passes over the subset.
        budgets: training FLOPs C; a run of N parameters sees C / (6 N) tokens.
    """

    sizes: tuple[Size, ...]
    examples: tuple[int, ...] = ()
    tokens: tuple[float, ...] = ()
    epochs: tuple[float, ...] = ()
    budgets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        given = [name for name in ("tokens", "epochs", "budgets") if getattr(self, name)]
        if len(given) != 1:
            raise ConfigError(
                f"found {' and '.join('--' + g for g in given) or 'none'}, expected exactly one of --tokens, --epochs and --budgets to say how long runs are"
            )
        if not self.sizes:
            raise ConfigError("found no size, expected --sizes 100k,300k,1M or --size hidden_size=64,num_blocks=2")

    def lengths(self, size: Size, unique_tokens: int) -> list[tuple[str, float]]:
        """Return the lengths of the runs of a size, each as the suffix of the run's name and the tokens seen."""
        if self.tokens:
            return [(f"D{short(t)}", t) for t in self.tokens]
        if self.epochs:
            return [(f"x{e:g}", e * unique_tokens) for e in self.epochs]
        return [(f"C{c:.3g}".replace("+", ""), c / (6 * size.params)) for c in self.budgets]


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A run with its settings, before its duration is known."""

    run: PlannedRun
    values: dict[str, Any]


def make_plan(base: Mapping[str, Any], grid: Grid, folder: Path, choice: DeviceChoice, *, name: str, probe_steps: int) -> Plan:
    """Write the configs of a grid into FOLDER/configs and return the plan, the cheapest run first.

    Every run has the base's seed, so that all validate on the same examples; subsets of the training data are nested. The warm-up is cut to
    a tenth of the steps if it is longer. The learning rate's schedule ends with each run.

    Args:
        base: plain settings of an experiment.
        grid: the settings that are varied.
        folder: the study's folder.
        choice: the device on which steps are timed.
        name: the base config and its overrides, for the plan.
        probe_steps: timed steps for each size; 0 measures nothing.

    Raises:
        ConfigError: if the settings do not fit, or there are fewer examples than asked for.
    """
    values = _absolute(base)
    if values.get("train", {}).get("tokens_per_batch") == "auto":
        raise ConfigError("train.tokens_per_batch: found 'auto', which depends on the machine; a study needs a number")
    bundles = {n: _load(_with_examples(values, n)) for n in (grid.examples or (0,))}
    if not len(next(iter(bundles.values())).validation):
        raise ConfigError("data: this config has no validation part; give data.split a validation_fraction")
    drafts = [
        _draft(values, size, examples, bundle, ending, tokens)
        for size, (examples, bundle) in itertools.product(grid.sizes, bundles.items())
        for ending, tokens in grid.lengths(size, bundle.train.num_tokens)
    ]
    hours = _time(drafts, grid.sizes, next(reversed(bundles.values())), choice, probe_steps)
    drafts = [replace(d, run=replace(d.run, hours=h)) for d, h in zip(drafts, hours, strict=True)]
    drafts.sort(key=lambda draft: draft.run.flops_counted)
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    for old in (folder / "configs").glob("*.yaml"):
        old.unlink()
    for draft in drafts:
        _write_config(folder / "configs" / f"{draft.run.name}.yaml", draft, name)
    timed = f"hours: the mean of {probe_steps} real training steps of each size after one that is not counted, and validation as a third of as many training tokens; without samples and evaluation"
    return Plan(
        base=name,
        runs=tuple(draft.run for draft in drafts),
        device=choice.reason if probe_steps else "",
        how_timed=timed if probe_steps else "hours: not measured (--probe-steps 0)",
    )


def _absolute(base: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with absolute paths of data files, so that a run can be started from any folder."""
    data = dict(base.get("data", {}))
    for key in _PATHS:
        if isinstance(data.get(key), str) and Path(data[key]).exists():
            data[key] = str(Path(data[key]).resolve())
    return {**base, "data": data}


def _with_examples(values: Mapping[str, Any], examples: int) -> dict[str, Any]:
    """The settings with the training data limited to `examples`; both settings give nested subsets and leave validation unchanged."""
    if not examples:
        return dict(values)
    config = experiment_from(values)
    has_size = any(field.name == "num_train" for field in fields(config.data))
    return changed(values, {f"data.{'num_train' if has_size else 'train_limit'}": examples})


def _load(values: Mapping[str, Any]) -> DataBundle:
    config = experiment_from(values)
    return load(config.data, Parts(config).tracks, config.seed)


def _draft(values: Mapping[str, Any], size: Size, examples: int, bundle: DataBundle, ending: str, tokens: float) -> _Draft:
    own = changed(_with_examples(values, examples), size.changes)
    config = experiment_from(own)
    batches = count_batches(config, bundle)
    steps = max(1, math.ceil(tokens / batches.tokens_per_step))
    seen = round(steps * batches.tokens_per_step)
    subset = f"_n{short(examples)}" if examples else ""
    name = f"{size.name}{subset}_{ending}"
    warmup = min(config.train.optim.warmup_steps, steps // 10)
    length = {"train.steps": steps, "train.tokens": 0, "train.optim.warmup_steps": warmup}
    own = changed(own, {"name": name, **length})
    run = PlannedRun(
        name=name,
        size=size.name,
        params=size.params,
        embedding_params=size.embedding_params,
        examples=len(bundle.train),
        unique_tokens=bundle.train.num_tokens,
        tokens=seen,
        steps=steps,
        flops_6nd=6.0 * size.params * seen,
        flops_counted=batches.flops_per_token * seen,
        hours=None,
    )
    return _Draft(run=run, values=own)


def _time(drafts: Sequence[_Draft], sizes: Sequence[Size], bundle: DataBundle, choice: DeviceChoice, steps: int) -> list[float | None]:
    """The hours of each draft: its steps, and validations at a third of the cost of training on as many tokens."""
    if not steps:
        return [None] * len(drafts)
    seconds = {}
    for size in sizes:
        first = next(draft for draft in drafts if draft.run.size == size.name)
        seconds[size.name] = seconds_per_step(experiment_from(first.values), bundle, choice, steps=steps)
    hours: list[float | None] = []
    for draft in drafts:
        config = experiment_from(draft.values)
        every = config.train.validate_every
        validations = math.ceil(draft.run.steps / every) if every else 1
        rows = min(len(bundle.validation), config.evaluation.num_examples)
        share = rows / max(len(bundle.validation), 1) * bundle.validation.num_tokens
        validation_steps = validations * share / 3 / (draft.run.tokens / draft.run.steps)
        hours.append((draft.run.steps + validation_steps) * seconds[draft.run.size] / 3600)
    return hours


def _write_config(path: Path, draft: _Draft, name: str) -> None:
    config: Experiment = experiment_from(draft.values)
    run = draft.run
    head = f"# One run of a scaling study made from {name}: {run.params:,} parameters, {run.tokens:,} training tokens in {run.steps:,} steps.\n"
    write_text(path, head + yaml.safe_dump(to_mapping(config), sort_keys=False))
