"""The options of `protlig scaling`."""

from __future__ import annotations

from protlig_dd.cli.common import add_command, add_device

_SCALING = """A study in three steps:
  protlig scaling plan scaling/markov --sizes 100k,300k,1M,3M --tokens 0.5M,1M,2M --out studies/markov
  protlig scaling run studies/markov            resumable: finished runs are passed over
  protlig scaling fit studies/markov            L = E + A/N^alpha + B/D^beta, intervals, verdicts, plots, a page
Any folders of runs, or a CSV with columns N, D and loss, can be fitted as well: protlig scaling fit runs.csv
"""


def add_scaling(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `scaling` with its steps."""
    sub = add_command(commands, "scaling", "scaling.plan", "how loss falls with size, data and compute", _SCALING)
    steps = sub.add_subparsers(dest="step", metavar="STEP", required=True)
    text = "write the configs of a grid, what they cost, and a launch script"
    epilog = (
        "Say sizes with --sizes (the config's shape, widened and deepened) or --size, and lengths with one of --tokens, --epochs\n"
        "and --budgets. --examples cuts the training data to nested, seeded subsets; all runs validate on the same examples."
    )
    sub = add_command(steps, "plan", "scaling.plan", text, epilog)
    sub.add_argument("config", help="the base: a packaged config or a YAML file")
    sub.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings to change in all runs")
    sub.add_argument("--sizes", default="", help="parameter counts to come near to, such as 100k,300k,1M,3M")
    sub.add_argument(
        "--size",
        action="append",
        default=[],
        metavar="key=value,...",
        help="a size by its model settings; may be repeated",
    )
    sub.add_argument("--examples", default="", help="training examples, such as 1k,4k,16k (default: all)")
    sub.add_argument("--tokens", default="", help="training tokens seen, such as 1M,4M")
    sub.add_argument("--epochs", default="", help="passes over the training examples instead")
    sub.add_argument("--budgets", default="", help="training FLOPs instead: D = C / (6 N), as IsoFLOP curves need")
    sub.add_argument(
        "--probe-steps", type=int, default=3, help="real steps timed for each size; 0 estimates no hours (3)"
    )
    sub.add_argument("--slurm", action="store_true", help="write a SLURM array job, one run a task, instead of run.sh")
    sub.add_argument("--out", default="", help="the study's folder (default studies/NAME)")
    sub.add_argument("--replace", action="store_true", help="write over the plan of a study that has runs")
    add_device(sub)
    text = "train what is not finished; a failed run is told and the rest go on"
    sub = add_command(steps, "run", "scaling.run", text, "Ctrl-C saves; the same command goes on from there.")
    sub.add_argument("study", help="the folder that plan made")
    sub.add_argument("--shard", default="0/1", metavar="i/n", help="only every n-th run, from i: one shard a process")
    add_device(sub)
    add_scaling_fit(steps)


def add_scaling_fit(steps) -> None:  # type: ignore[no-untyped-def]
    """Add `scaling fit`."""
    epilog = (
        "A CSV's columns may be called N, D, loss and the like; name others with --columns params=COLUMN tokens=... value=...\n"
        "A metric that rises, such as validity, is fitted as its distance from --ceiling (1 for fractions)."
    )
    text = "fit laws to finished runs, and say what these runs cannot tell"
    sub = add_command(steps, "fit", "scaling.fit", text, epilog)
    sub.add_argument("sources", nargs="+", help="studies, run folders, folders of them, CSV files")
    sub.add_argument("--metric", default="", help="a number of metrics.jsonl or evaluation.json (validation/nll)")
    sub.add_argument("--direction", default="auto", choices=["auto", "falling", "rising"], help="of the metric (auto)")
    sub.add_argument("--ceiling", type=float, help="what a rising metric cannot exceed (1 for fractions)")
    sub.add_argument("--params", default="total", choices=["total", "non-embedding"], help="what N counts (total)")
    sub.add_argument("--data", default="seen", choices=["seen", "unique"], help="which training tokens D counts (seen)")
    sub.add_argument(
        "--columns", nargs="+", default=[], metavar="ROLE=COLUMN", help="columns of a CSV with other names"
    )
    sub.add_argument("--budgets", default="", help="find the best N and D for these FLOPs, C = 6 N D")
    sub.add_argument("--resamples", type=int, default=200, help="bootstrap fits (200)")
    sub.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    sub.add_argument("--out", default="", help="the folder to write into (default: the study's)")
