"""`protlig scaling plan`, `protlig scaling run` and `protlig scaling fit`."""

from __future__ import annotations

import json
import logging
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from protlig_dd.cli.train import train
from protlig_dd.config import read_config
from protlig_dd.device import choose_device
from protlig_dd.errors import ConfigError, MissingDependencyError, ProtligError
from protlig_dd.runs.experiment import experiment_from
from protlig_dd.scaling import plots
from protlig_dd.scaling.analysis import Analysis, analyse, write_runs
from protlig_dd.scaling.folders import DEFAULT_METRIC, RunFacts, find_runs, read_run, table_rows, to_runs
from protlig_dd.scaling.grid import Grid, make_plan
from protlig_dd.scaling.page import render
from protlig_dd.scaling.plan import numbers, read_plan, shard_of, write_launcher, write_plan
from protlig_dd.scaling.runs import ALIASES, Runs, join, orient, read_csv
from protlig_dd.scaling.sizes import explicit_size, nearest_size, require_different
from protlig_dd.scaling.truth import truth_of

log = logging.getLogger(__name__)


def plan(options: Namespace) -> Iterator[str]:
    """Write the configs, the plan and the launch script of a study, and print what it will cost."""
    base = read_config(options.config, options.overrides)
    config = experiment_from(base)
    folder = Path(options.out or f"studies/{config.name}")
    if (folder / "runs").is_dir() and not options.replace:
        raise ConfigError(
            f"{folder}: holds runs of a study already; go on with: protlig scaling run {folder}, give --out another folder, or say --replace"
        )
    sizes = [explicit_size(base, text) for text in options.size]
    sizes += [nearest_size(base, target) for target in numbers(options.sizes, "--sizes")]
    require_different(sizes)
    if options.probe_steps < 0:
        raise ConfigError(f"--probe-steps: found {options.probe_steps}, expected 0 (do not measure) or more")
    grid = Grid(
        sizes=tuple(sizes),
        examples=tuple(round(n) for n in numbers(options.examples, "--examples")),
        tokens=tuple(numbers(options.tokens, "--tokens")),
        epochs=tuple(numbers(options.epochs, "--epochs")),
        budgets=tuple(numbers(options.budgets, "--budgets")),
    )
    choice = choose_device(options.device, precision=config.train.precision)
    name = " ".join([options.config, *options.overrides])
    made = make_plan(base, grid, folder, choice, name=name, probe_steps=options.probe_steps)
    write_plan(folder, made)
    launcher = write_launcher(folder, made, device=options.device, slurm=options.slurm)
    yield from made.lines()
    yield "6ND counts all parameters; 'counted' are matrix products of layers and attention over real tokens, three times the forward pass"
    yield f"plan: {folder / 'plan.json'}, plan.csv, configs/"
    yield f"start: {'sbatch' if options.slurm else 'bash'} {launcher}"


def run(options: Namespace) -> Iterator[str | int]:
    """Train the runs of a study that are not finished; a failed one is told and the rest go on."""
    study = Path(options.study)
    chosen = shard_of(read_plan(study), options.shard)
    failed = []
    for place, planned in enumerate(chosen, 1):
        folder = study / "runs" / planned.name
        if _is_done(folder):
            yield f"{place}/{len(chosen)} {planned.name}: finished before"
            continue
        yield f"{place}/{len(chosen)} {planned.name}: {planned.steps} steps"
        config = study / "configs" / f"{planned.name}.yaml"
        words = Namespace(config=str(config), overrides=[], device=options.device, out=str(folder), resume="")
        try:
            for line in train(words):
                if isinstance(line, int):
                    yield f"stopped; go on with: protlig scaling run {study}"
                    yield line
                    return
                log.info("%s", line)
        except ProtligError as error:
            failed.append(planned.name)
            yield f"{place}/{len(chosen)} {planned.name}: failed: {error}"
    done = len(chosen) - len(failed)
    yield f"{done} of {len(chosen)} runs are finished" + (f"; failed: {', '.join(failed)}" if failed else "")
    if failed:
        yield 1
    else:
        yield f"then: protlig scaling fit {study}"


def _is_done(folder: Path) -> bool:
    """Whether a run has spent its budget, and has been evaluated if its config says so."""
    if not (folder / "config.yaml").is_file():
        return False
    facts = read_run(folder)
    return facts.is_finished and (not facts.config.evaluation.after_training or (folder / "evaluation.json").is_file())


def fit(options: Namespace) -> Iterator[str]:
    """Fit the laws to finished runs and CSVs, print them with their verdicts, and write fit.json, runs.csv, plots and scaling.html."""
    sources = [Path(source) for source in options.sources]
    out = Path(options.out) if options.out else _beside(sources)
    facts, tables = [], []
    for source in sources:
        if source.suffix.lower() == ".csv":
            tables.append(read_csv(source, _columns(options.columns), options.metric))
            continue
        for folder in find_runs(source):
            one = read_run(folder)
            if one.is_finished:
                facts.append(one)
            else:
                yield f"left out: {folder}, stopped at step {one.steps}"
    metric = options.metric or DEFAULT_METRIC
    if facts or not tables:
        tables.append(to_runs(facts, metric=metric, counted=options.params, data=options.data))
    runs = orient(join(tables), options.direction, options.ceiling)
    analysis = analyse(
        runs, budgets=numbers(options.budgets, "--budgets"), seed=options.seed, num_resamples=options.resamples
    )
    notes = [_counted(options), *_truth(facts, runs)]
    yield from notes
    yield from analysis.lines()
    rows = table_rows(facts, metric) if facts and len(tables) == 1 else _rows(runs)
    yield from _write(out, analysis, rows, notes)


def _beside(sources: list[Path]) -> Path:
    first = sources[0]
    return first if first.is_dir() else first.with_name(first.stem + "_scaling")


def _columns(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        role, sep, name = one.partition("=")
        if not sep or role not in ALIASES or not name:
            raise ConfigError(f"--columns '{one}': expected ROLE=COLUMN with a role among {', '.join(ALIASES)}")
        found[role] = name
    return found


def _counted(options: Namespace) -> str:
    n = "all parameters" if options.params == "total" else "parameters outside embedding tables"
    d = "training tokens seen" if options.data == "seen" else "distinct training tokens"
    return f"in run folders N is {n}, D is {d}"


def _truth(facts: list[RunFacts], runs: Runs) -> list[str]:
    """The exact floor, where all runs are of one synthetic source and the metric is the bound."""
    if not facts or runs.metric != DEFAULT_METRIC:
        return []
    known = {truth_of(one.config) for one in facts}
    (first, *rest) = known
    return [first.line()] if first is not None and not rest else []


def _rows(runs: Runs) -> list[dict[str, Any]]:
    columns = zip(runs.names, runs.params, runs.tokens, runs.compute, runs.values, strict=True)
    return [
        {"name": name, "params": int(n), "tokens": int(d), "6ND": float(c), runs.metric: float(v)}
        for name, n, d, c, v in columns
    ]


def _write(out: Path, analysis: Analysis, rows: list[dict[str, Any]], notes: list[str]) -> Iterator[str]:
    out.mkdir(parents=True, exist_ok=True)
    pictures: Mapping[str, bytes] = {}
    try:
        pictures = plots.draw(analysis)
        plots.write(out, dict(pictures))
    except MissingDependencyError as error:
        yield f"no pictures: {error}"
    write_runs(out / "runs.csv", analysis)
    plain = analysis.to_json() | {"notes": notes}
    _replace(out / "fit.json", json.dumps(plain, indent=1, allow_nan=False) + "\n")
    title = f"Scaling: {out.resolve().name}"
    _replace(out / "scaling.html", render(title, analysis, rows=rows, pictures=pictures, notes=notes))
    files = ["fit.json", "runs.csv", *(f"{name}.png" for name in pictures), "scaling.html"]
    yield f"written to {out}: {', '.join(files)}"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
