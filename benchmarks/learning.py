"""Time to quality: CPU seconds of training until a validation value, ours against stock loops in plain PyTorch.

    python benchmarks/learning.py --shared shared/data --out learning.jsonl [--sets families,zinc] [--workers 2] [--markdown]
    python benchmarks/learning.py --shared shared/data --steps 0.01 --tokens 2000        # a smoke run

Ours is `fit` on a packaged config by its name, with the learning rate and the number of steps changed; the stock loops are in
`stock_loops.py`. Both have the same hidden size, heads and blocks, the same training and validation examples, the same number of steps, and
the same mean number of tokens in a step, in float32 on one thread. Both are evaluated by one function, the package's validation
objective with fixed noise: the diffusion bound in nats per token, or a causal model's nats per structure token. The clock is
the CPU time of the process; it stands during evaluation, and building models, reading data and checkpoints are left out.

Each side trains with every learning rate of `--grid` on one seed; the best by the final value is repeated with the other seeds. The split
and the validation noise are those of the packaged config's seed throughout. Every run is a line of `--out`, from which an interrupted
benchmark continues; a line is used again while the settings it was made with are the same, so delete the file when code has changed. Two
workers on the two threads of one core slow each other down: read the ratios then, not the seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from common import describe_machine
from learning_cases import SETS, Job, case_of, experiment_of, letters_alone, ours, shape_of, steps_of, stock, warm_up
from learning_table import SIDES, Outcome, best_rate, markdown, outcome, plain

from protlig_dd.config import to_mapping

GRID, SEEDS, TOKENS = "1e-3,3e-3,1e-2", 3, 100_000


def run(job: Job, shared: Path, factor: float, tokens: int) -> dict[str, Any]:
    """Train one side once, and return the line of the run: its key, and its points."""
    torch.set_num_threads(1)
    warm_up()
    case, (steps, every) = case_of(job.set, shared, tokens), steps_of(job.set, factor)
    points = (ours if job.side == "ours" else stock)(case, job, steps, every)
    return {**key_of(job, shared, factor, tokens), "points": points}


def key_of(job: Job, shared: Path, factor: float, tokens: int) -> dict[str, Any]:
    """Return what a run depends on; of the experiment's settings their digest, without the folder of the data."""
    experiment = experiment_of(job.set, shared)
    values = to_mapping(experiment)
    if SETS[job.set].file:
        values["data"]["path"] = SETS[job.set].file
    if job.side == "stock":
        batch = {name: values["train"][name] for name in ("batch_size", "tokens_per_batch")}
        values = {"shape": vars(shape_of(experiment)), "stock": SETS[job.set].stock, "data": values["data"], "batch": batch}
    digest = hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()
    return {**vars(job), "steps": steps_of(job.set, factor)[0], "validation_tokens": tokens, "settings": digest}


def executed(jobs: Sequence[Job], one: Callable[[Job], dict[str, Any]], workers: int) -> Iterator[dict[str, Any]]:
    """Yield the lines of runs as they end, from one process or several."""
    if workers == 1 or len(jobs) < 2:
        yield from map(one, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(one, job) for job in jobs]):
            yield future.result()


class Runs:
    """All runs of a benchmark: those that are in the file, and those that are still to be trained."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out, self.workers = options.out, options.workers
        self.where = {"shared": options.shared, "factor": options.steps, "tokens": options.tokens}
        lines = self.out.read_text().splitlines() if self.out and self.out.exists() else []
        self.known = [json.loads(line) for line in lines]

    def of(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Return the lines of jobs, of which the missing ones are trained first."""
        missing = [job for job in jobs if self._found(job) is None]
        for number, line in enumerate(executed(missing, partial(run, **self.where), self.workers), 1):
            self.known.append(line)
            if self.out:
                with self.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            _, seconds, value = line["points"][-1]
            said = f"{line['set']} {line['side']} lr {line['lr']:g} seed {line['seed']}: {value:.4f} after {seconds:.1f} CPU s"
            sys.stderr.write(f"{said} ({number} of {len(missing)})\n")
        return [line for line in map(self._found, jobs) if line is not None]

    def _found(self, job: Job) -> dict[str, Any] | None:
        key = key_of(job, **self.where)
        return next((line for line in self.known if key.items() <= line.items()), None)


def outcomes_of(options: argparse.Namespace) -> list[Outcome]:
    """Return the figures of all data sets: first all learning rates on one seed, then the best ones on the other seeds."""
    runs, keep_best = Runs(options), options.keep == "best"
    first = runs.of([Job(name, side, lr, 0) for name in options.sets for lr in options.grid for side in SIDES])
    best = {
        (name, side): best_rate([run for run in first if (run["set"], run["side"]) == (name, side)], keep_best=keep_best)
        for name in options.sets
        for side in SIDES
    }
    jobs = [Job(name, side, best[name, side], seed) for name in options.sets for seed in range(options.seeds) for side in SIDES]
    last = runs.of(jobs)
    return [
        outcome(
            name, [run for run in last if run["set"] == name], grid=options.grid, keep_best=keep_best,
            letters=letters_alone(case_of(name, options.shared, options.tokens)),
        )
        for name in options.sets
    ]  # fmt: skip


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with families/, flip_proteins/, zinc250k/ and foldseek_example/")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS), help=f"default: {','.join(SETS)}")
    parser.add_argument("--grid", type=lambda text: [float(lr) for lr in text.split(",")], default=GRID, help=f"learning rates ({GRID})")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=float, default=1.0, help="a factor of the steps of all runs (1)")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"tokens of an evaluation; few examples get several noises ({TOKENS})")
    parser.add_argument("--keep", choices=("last", "best"), default="last", help="the value of a run: its newest, or its lowest so far")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each (1)")
    parser.add_argument("--out", type=Path, help="a file with a line for each run; those that are there are not trained again")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sets if name not in SETS]
    if unknown:
        parser.error(f"--sets: found '{unknown[0]}', expected some of {','.join(SETS)}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, and print the table."""
    options = options_of(arguments)
    torch.set_num_threads(1)
    found = outcomes_of(options)
    machine = ", ".join(f"{name} {value}" for name, value in describe_machine(torch.device("cpu")).items())
    steps = ", ".join(f"{name} {steps_of(name, options.steps)[0]}" for name in options.sets)
    sys.stdout.write((markdown if options.markdown else plain)(found) + "\n\n")
    sys.stdout.write(
        f"Nats per token; in brackets the range over {options.seeds} seeds; * at the edge of the grid. Steps: {steps}. {machine}.\n"
    )


if __name__ == "__main__":
    main()
