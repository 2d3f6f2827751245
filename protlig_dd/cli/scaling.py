"""`protlig scaling plan` and `protlig scaling run`; `fit` is in `scaling_fit.py`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protlig_dd.cli.common import OVERRIDES, Commands, add_command, add_device, add_group, add_shard
from protlig_dd.cli.scaling_fit import add_fit
from protlig_dd.cli.train import TrainOptions, train
from protlig_dd.config_files import read_config
from protlig_dd.errors import ConfigError, ProtligError

log = logging.getLogger(__name__)

_SCALING = """A study has three steps:
  protlig scaling plan scaling/markov --sizes 100k,300k,1M,3M --tokens 0.5M,1M,2M --out studies/markov
  protlig scaling run studies/markov            # can be repeated: finished runs are skipped
  protlig scaling fit studies/markov            # L = E + A/N^alpha + B/D^beta, intervals, verdicts, plots, a page
Any folders of runs, or a CSV file with columns N, D and loss, can also be fitted:
  protlig scaling fit runs.csv
"""
_PLAN = """Give sizes with --sizes (the config's shape, wider and deeper) or --size, and training lengths with one of --tokens, --epochs
and --budgets. --examples cuts the training data to nested, seeded subsets; all runs validate on the same examples.
The folder gets plan.json, plan.csv, configs/ and a launch script.
  protlig scaling plan scaling/markov --sizes 100k,300k,1M --tokens 1M,4M
  protlig scaling plan scaling/proteins data.path=my.fasta --size hidden_size=64,num_blocks=2 --epochs 1 --examples 1k,4k
  protlig scaling plan scaling/markov --sizes 100k,1M --budgets 1e13,1e14 --slurm"""
_RUN = """Ctrl-C saves a checkpoint; the same command continues from it.
  protlig scaling run studies/markov
  protlig scaling run studies/markov --shard 0/4 --device cuda"""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of `protlig scaling plan`."""

    config: str
    overrides: tuple[str, ...] = ()
    sizes: str = ""
    size: tuple[str, ...] = ()
    examples: str = ""
    tokens: str = ""
    epochs: str = ""
    budgets: str = ""
    probe_steps: int = 3
    slurm: bool = False
    out: str = ""
    replace: bool = False
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of `protlig scaling run`."""

    study: str
    shard: str = "0/1"
    device: str = "auto"


def add_scaling(commands: Commands) -> None:
    """Add `scaling` with its steps."""
    text = "plan, run and fit studies of how the loss falls with size, data and compute"
    steps = add_group(commands, "scaling", text, _SCALING, metavar="STEP")
    text = "write the configs of a grid of runs, their cost, and a launch script"
    sub = add_command(steps, "plan", plan, PlanOptions, text, _PLAN)
    sub.add_argument("config", help="the base: a packaged config or a YAML file")
    sub.add_argument("overrides", nargs="*", metavar="key.sub=value", help=f"{OVERRIDES}, in all runs")
    sub.add_argument("--sizes", help="approximate parameter counts, such as 100k,300k,1M,3M")
    sub.add_argument("--size", action="append", metavar="key=value,...", help="a size by its model settings; may be repeated")
    sub.add_argument("--examples", help="training examples, such as 1k,4k,16k (default: all)")
    sub.add_argument("--tokens", help="training tokens seen, such as 1M,4M")
    sub.add_argument("--epochs", help="instead: passes over the training examples")
    sub.add_argument("--budgets", help="instead: training FLOPs C, so that D = C / (6 N), as IsoFLOP curves need")
    sub.add_argument("--probe-steps", type=int, help="steps timed for each size; 0: hours are not estimated (%(default)s)")
    sub.add_argument("--slurm", action="store_true", help="write a SLURM array job, one task for each run, instead of run.sh")
    sub.add_argument("--out", help="the study's folder (default: studies/NAME)")
    sub.add_argument("--replace", action="store_true", help="replace the plan of a study that already has runs")
    add_device(sub)
    text = "train the runs that are not finished; a failed run is reported and the others continue"
    sub = add_command(steps, "run", run, RunOptions, text, _RUN)
    sub.add_argument("study", help="the folder made by plan")
    add_shard(sub, "runs")
    add_device(sub)
    add_fit(steps)


def plan(options: PlanOptions) -> Iterator[str]:
    """Write the configs, the plan and the launch script of a study, and print its cost."""
    from protlig_dd.device import choose_device
    from protlig_dd.runs.experiment import experiment_from
    from protlig_dd.scaling.grid import Grid, make_plan
    from protlig_dd.scaling.plan import numbers, write_launcher, write_plan
    from protlig_dd.scaling.sizes import explicit_size, nearest_size, require_different

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


def run(options: RunOptions) -> Iterator[str | int]:
    """Train the runs of a study that are not finished; a failed run is reported and the others continue."""
    from protlig_dd.scaling.plan import read_plan, shard_of

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
        try:
            for line in train(TrainOptions(config=str(config), device=options.device, out=str(folder))):
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
    """Return whether a run has used its budget, and has been evaluated if its config says so."""
    from protlig_dd.scaling.folders import read_run

    if not (folder / "config.yaml").is_file():
        return False
    facts = read_run(folder)
    return facts.is_finished and (not facts.config.evaluation.after_training or (folder / "evaluation.json").is_file())
