"""`protlig lr-find`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from protlig_dd.cli.common import Commands, add_command
from protlig_dd.cli.train import ConfigOptions, with_config
from protlig_dd.errors import ConfigError

if TYPE_CHECKING:
    from protlig_dd.runs.lr_find import Grid, LrFinder

_HELP = """Every learning rate is tried with every batch size, in a short training of its own that starts from the same weights, sees the same
data in the same order, and brings its own schedule to its end: a single run whose learning rate grows tells less, since its loss at a rate
depends on the smaller rates before. All candidates see the same number of tokens, so smaller batches make more steps. The best ones, at
least one of each batch size, are then trained afresh four times as long, and the best of those is recommended, with what is known about
how sure that is. Nothing is written, but for --out and --plot.
  protlig lr-find dplm/tiny data.path=my.fasta                         # three minutes, five rates x three batch sizes
  protlig lr-find dplm/tiny data.path=my.fasta --minutes 10 --lrs 3e-4..3e-2 --batches 2048,4096 --plot lr.png
  protlig lr-find my_pairs.yaml --lrs 1e-4,3e-4,1e-3 --batches 64 --steps 200 --out lr.json
Then train with what it prints:
  protlig train dplm/tiny data.path=my.fasta train.optim.lr=0.001 train.tokens_per_batch=2048"""


@dataclass(frozen=True, kw_only=True)
class LrFindOptions(ConfigOptions):
    """Options of `protlig lr-find`."""

    lrs: str = ""
    batches: str = ""
    minutes: float = 3.0
    steps: int = 0
    out: str = ""
    plot: str = ""

    def grid(self) -> Grid:
        """Return the candidates and their budget.

        Raises:
            ConfigError: for what is not a number, or out of range.
        """
        from protlig_dd.runs.lr_find import Grid

        batches = tuple(int(_number(word, "--batches", "whole numbers such as 1024,2048")) for word in _words(self.batches))
        return Grid(lrs=learning_rates(self.lrs), batches=batches, minutes=self.minutes, steps=self.steps)


def add_lr_find(commands: Commands) -> None:
    """Add `lr-find`."""
    text = "recommend a learning rate and a batch size for a config and its data, from short trainings"
    sub = with_config(add_command(commands, "lr-find", lr_find, LrFindOptions, text, _HELP))
    text = "learning rates, as LOW..HIGH (two a decade) or a list 1e-4,1e-3 (default: five from a tenth to ten times the config's)"
    sub.add_argument("--lrs", metavar="1e-4..1e-2", help=text)
    text = "batch sizes, in what the config counts, tokens or examples (default: the config's, a half and a quarter of it)"
    sub.add_argument("--batches", metavar="1024,2048", help=text)
    sub.add_argument("--minutes", type=float, help="duration of the whole sweep, about (%(default)s)")
    text = "instead of --minutes: steps of the largest batch in the longest trainings; gives the same result on every machine of a kind"
    sub.add_argument("--steps", type=int, help=text)
    sub.add_argument("--out", metavar="FILE.json", help="write the numbers here, too")
    sub.add_argument("--plot", metavar="FILE.png", help="draw the curves here (needs matplotlib)")


def lr_find(options: LrFindOptions) -> Iterator[str]:
    """Train the candidates, then print the table, the recommendation and what limits it; what is known so far if it is interrupted."""
    from protlig_dd.files import write_json
    from protlig_dd.report.sweep_picture import draw_sweep
    from protlig_dd.runs.experiment import Experiment
    from protlig_dd.runs.families.table import experiment_of
    from protlig_dd.runs.lr_find import LrFinder
    from protlig_dd.runs.vocabularies import learn_vocabularies, with_vocabularies

    grid = options.grid()
    _check_files(options)
    config = experiment_of(options.values())
    if not isinstance(config, Experiment):
        raise ConfigError(f"model.kind: found '{config.model.kind}': lr-find is for models of tokens; this kind is not supported")
    with TemporaryDirectory() as scratch:  # a learned vocabulary is written there
        learn_vocabularies(config, Path(scratch))
        finder, trials = LrFinder(with_vocabularies(config, Path(scratch)), grid, device=options.device), []
    yield from _plan(finder)
    try:
        for trial in finder.trials():
            trials.append(trial)
    except KeyboardInterrupt:
        yield from finder.sweep(trials).table()
        yield f"interrupted after {len(trials)} of {finder.num_candidates + finder.num_kept} trainings: no recommendation"
        raise
    sweep = finder.sweep(trials)
    yield from sweep.table()
    chosen = finder.overrides(sweep.best) if sweep.best is not None and sweep.has_learned else []
    if chosen:
        yield f"recommended: {' '.join(chosen)}"
    yield from (f"- {remark}" for remark in sweep.remarks())
    if options.out:
        write_json(Path(options.out), {"config": config.name, "seed": config.seed, "recommended": chosen, **sweep.to_json()})
        yield f"numbers: {options.out}"
    if options.plot:
        Path(options.plot).write_bytes(draw_sweep(sweep))
        yield f"picture: {options.plot}"


def _plan(finder: LrFinder) -> Iterator[str]:
    """Yield what will be trained, and for how long."""
    yield f"validation: {finder.validate.told()}"
    grid = f"candidates: {len(finder.lrs)} lr x {len(finder.batches)} batch"
    second = f"; then the best {finder.num_kept} afresh, {finder.longer} times as long" if finder.num_kept else ""
    steps = finder.batches[-1].steps(finder.tokens) * finder.longer
    yield f"{grid}, {finder.tokens:,.0f} tokens each{second} (the same again: --steps {steps})"


def _check_files(options: LrFindOptions) -> None:
    """Check endings and folders of the files, and the package that draws, before anything is trained.

    Raises:
        ConfigError, MissingDependencyError: if a file could not be written.
    """
    from protlig_dd.report.sweep_picture import require_drawing

    for name, text, suffix in (("--out", options.out, ".json"), ("--plot", options.plot, ".png")):
        path = Path(text)
        if text and path.suffix != suffix:
            raise ConfigError(f"{name} {text}: found '{path.suffix}', expected {suffix}")
        if text and (path.is_dir() or not path.parent.is_dir()):
            raise ConfigError(f"{name} {text}: expected the name of a file in a folder that exists")
    if options.plot:
        require_drawing()


def learning_rates(text: str) -> tuple[float, ...]:
    """Return the learning rates of `--lrs`: a list, or a range with about two a decade; none for an empty text.

    Raises:
        ConfigError: for anything else.

    >>> learning_rates("1e-4..1e-2"), learning_rates("1e-3,2e-3")
    ((0.0001, 0.00032, 0.001, 0.0032, 0.01), (0.001, 0.002))
    """
    expected = "LOW..HIGH such as 1e-4..1e-2, or a list such as 1e-4,1e-3"
    ends = text.split("..")
    if len(ends) == 1:
        return tuple(_number(word, "--lrs", expected) for word in _words(text))
    low, high = (_number(word, "--lrs", expected) for word in ends) if len(ends) == 2 else (0.0, 0.0)
    if not 0 < low < high < math.inf:
        raise ConfigError(f"--lrs: found '{text}', expected {expected}")
    steps = max(2, round(2 * math.log10(high / low)))
    inner = (float(f"{low * (high / low) ** (i / steps):.2g}") for i in range(1, steps))
    return (low, *inner, high)


def _words(text: str) -> list[str]:
    return text.split(",") if text else []


def _number(word: str, option: str, expected: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or ("whole" in expected and value != int(value)):
        raise ConfigError(f"{option}: found '{word}', expected {expected}")
    return value
