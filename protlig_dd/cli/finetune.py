"""`protlig finetune`: go on with a run on pairs of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protlig_dd.cli.common import OVERRIDES, Commands, add_command, add_device
from protlig_dd.errors import ConfigError

_HELP = """The pairs are a table like that of training, such as the known actives of one target; a fifth of its ligands is held out. All weights are
trained from those of RUN; train.freeze='["^embedding"]' keeps some. The new run is a run like any other: sample, evaluate and score it.
  protlig finetune runs/pairs_small --pairs actives.csv --out runs/mine
  protlig sample runs/mine --protein target.fasta --num 100 --out ligands.csv"""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """Options of `protlig finetune`."""

    run: str
    overrides: tuple[str, ...] = ()
    pairs: str
    out: str = ""
    steps: int = 200
    lr: float = 0.0
    device: str = "auto"


def add_finetune(commands: Commands) -> None:
    """Add `finetune`."""
    sub = add_command(commands, "finetune", finetune, FinetuneOptions, "go on with a run on pairs of your own", _HELP)
    sub.add_argument("run", help="the run folder to start from; it is not changed")
    sub.add_argument("overrides", nargs="*", metavar="key.sub=value", help=OVERRIDES)
    sub.add_argument("--pairs", required=True, help="a table of proteins and ligands that bind them")
    sub.add_argument("--out", help="the new run folder (default: RUN_finetuned)")
    sub.add_argument("--steps", type=int, help="training steps (%(default)s)")
    sub.add_argument("--lr", type=float, help="peak learning rate (default: a quarter of the run's)")
    add_device(sub)


def finetune(options: FinetuneOptions) -> Iterator[str | int]:
    """Train, and say what the held-out ligands cost before and after."""
    from protlig_dd.report.reproduction import write_reproduction
    from protlig_dd.runs.families.finetune import finetuned_experiment, told_before_and_after
    from protlig_dd.runs.families.table import family_of_run, train

    source = Path(options.run)
    if options.steps < 1 or options.lr < 0:
        raise ConfigError(f"--steps {options.steps} --lr {options.lr}: expected 1 step or more and a positive learning rate")
    folder = Path(options.out) if options.out else source.parent / f"{source.name}_finetuned"
    config = finetuned_experiment(source, Path(options.pairs), steps=options.steps, lr=options.lr, overrides=options.overrides)
    result = train(config, folder, device=options.device)
    words = ["protlig finetune", options.run, *options.overrides, "--pairs", options.pairs, "--steps", str(options.steps)]
    words += ["--lr", str(options.lr)] if options.lr else []
    write_reproduction(folder, command=" ".join(words), seed=config.seed)
    if result.stopped_by:
        yield result.exit_code
        return
    yield f"trained {result.steps} steps: {folder}"
    yield from told_before_and_after(config, folder, device=options.device)
    yield from family_of_run(folder).finish(config, folder, result, device=options.device)
