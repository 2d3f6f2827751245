"""`protlig scaling fit`: scaling laws fitted to finished runs or a table of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from protlig_dd.cli.common import Commands, add_command
from protlig_dd.errors import ConfigError, MissingDependencyError
from protlig_dd.files import write_text

if TYPE_CHECKING:
    from protlig_dd.scaling.analysis import Analysis
    from protlig_dd.scaling.folders import RunFacts
    from protlig_dd.scaling.runs import Runs

_FIT = """The columns of a CSV file may be called N, D, loss and the like; give other names with --columns params=COLUMN tokens=... value=...
A metric that rises, such as validity, is fitted as its distance from --ceiling (1 for fractions).
The folder gets fit.json, runs.csv, plots and scaling.html.
  protlig scaling fit studies/markov --budgets 1e15,1e16
  protlig scaling fit runs.csv --columns tokens=seen --metric bits --out fits/mine
  protlig scaling fit studies/markov --metric validity --direction rising"""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Options of `protlig scaling fit`."""

    sources: tuple[str, ...]
    metric: str = ""
    direction: Literal["auto", "falling", "rising"] = "auto"
    ceiling: float | None = None
    params: Literal["total", "non-embedding"] = "total"
    data: Literal["seen", "unique"] = "seen"
    columns: tuple[str, ...] = ()
    budgets: str = ""
    resamples: int = 200
    seed: int = 0
    out: str = ""


def add_fit(steps: Commands) -> None:
    """Add `fit` to the steps of `scaling`."""
    text = "fit scaling laws to finished runs, and report what these runs cannot identify"
    sub = add_command(steps, "fit", fit, FitOptions, text, _FIT)
    sub.add_argument("sources", nargs="+", help="studies, run folders, folders of them, CSV files")
    sub.add_argument("--metric", help="a number of metrics.jsonl or evaluation.json (default: validation/nll)")
    sub.add_argument("--direction", choices=["auto", "falling", "rising"], help="how the metric changes with scale (%(default)s)")
    sub.add_argument("--ceiling", type=float, help="the upper limit of a rising metric (default: 1 for fractions)")
    sub.add_argument("--params", choices=["total", "non-embedding"], help="which parameters N counts (%(default)s)")
    sub.add_argument("--data", choices=["seen", "unique"], help="which training tokens D counts (%(default)s)")
    sub.add_argument("--columns", nargs="+", metavar="ROLE=COLUMN", help="columns of a CSV file with other names")
    sub.add_argument("--budgets", help="find the best N and D for these FLOPs, C = 6 N D")
    sub.add_argument("--resamples", type=int, help="bootstrap fits (%(default)s)")
    sub.add_argument("--seed", type=int, help="seed of the bootstrap (%(default)s)")
    sub.add_argument("--out", help="the folder to write (default: the study's)")


def fit(options: FitOptions) -> Iterator[str]:
    """Fit the laws to finished runs and CSVs, print them with their verdicts, and write fit.json, runs.csv, plots and scaling.html."""
    from protlig_dd.scaling.analysis import analyse
    from protlig_dd.scaling.folders import DEFAULT_METRIC, find_runs, read_run, table_rows, to_runs
    from protlig_dd.scaling.plan import numbers
    from protlig_dd.scaling.runs import join, orient, read_csv

    sources = [Path(source) for source in options.sources]
    first = sources[0]
    out = Path(options.out or (first if first.is_dir() else first.with_name(first.stem + "_scaling")))
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
    analysis = analyse(runs, budgets=numbers(options.budgets, "--budgets"), seed=options.seed, num_resamples=options.resamples)
    n = "all parameters" if options.params == "total" else "parameters outside embedding tables"
    d = "training tokens seen" if options.data == "seen" else "distinct training tokens"
    notes = [f"in run folders N is {n}, D is {d}", *_truth(facts, runs)]
    yield from notes
    yield from analysis.lines()
    rows = table_rows(facts, metric) if facts and len(tables) == 1 else _rows(runs)
    yield from _write(out, analysis, rows, notes)


def _columns(given: Sequence[str]) -> dict[str, str]:
    from protlig_dd.scaling.runs import ALIASES

    found = {}
    for one in given:
        role, sep, name = one.partition("=")
        if not sep or role not in ALIASES or not name:
            raise ConfigError(f"--columns '{one}': expected ROLE=COLUMN with a role among {', '.join(ALIASES)}")
        found[role] = name
    return found


def _truth(facts: list[RunFacts], runs: Runs) -> list[str]:
    """Return the exact minimum of the loss, if all runs have the same synthetic source and the metric is the bound."""
    from protlig_dd.scaling.folders import DEFAULT_METRIC
    from protlig_dd.scaling.truth import truth_of

    if not facts or runs.metric != DEFAULT_METRIC:
        return []
    known = {truth_of(one.config) for one in facts}
    (first, *rest) = known
    return [first.line()] if first is not None and not rest else []


def _rows(runs: Runs) -> list[dict[str, Any]]:
    columns = zip(runs.names, runs.params, runs.tokens, runs.compute, runs.values, strict=True)
    return [{"name": name, "params": int(n), "tokens": int(d), "6ND": float(c), runs.metric: float(v)} for name, n, d, c, v in columns]


def _write(out: Path, analysis: Analysis, rows: list[dict[str, Any]], notes: list[str]) -> Iterator[str]:
    from protlig_dd.scaling import plots
    from protlig_dd.scaling.analysis import write_runs
    from protlig_dd.scaling.page import render

    out.mkdir(parents=True, exist_ok=True)
    pictures: Mapping[str, bytes] = {}
    try:
        pictures = plots.draw(analysis)
        plots.write(out, dict(pictures))
    except MissingDependencyError as error:
        yield f"no pictures: {error}"
    write_runs(out / "runs.csv", analysis)
    plain = analysis.to_json() | {"notes": notes}
    write_text(out / "fit.json", json.dumps(plain, indent=1, allow_nan=False) + "\n")
    title = f"Scaling: {out.resolve().name}"
    write_text(out / "scaling.html", render(title, analysis, rows=rows, pictures=pictures, notes=notes))
    files = ["fit.json", "runs.csv", *(f"{name}.png" for name in pictures), "scaling.html"]
    yield f"written to {out}: {', '.join(files)}"
