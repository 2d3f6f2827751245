"""The entry point: parse the arguments, call the command, print its lines. Neither importing it nor `--help` loads torch."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from protlig_dd import __version__
from protlig_dd.cli.common import options_from
from protlig_dd.cli.data import add_data
from protlig_dd.cli.doctor import add_doctor
from protlig_dd.cli.evaluate import add_evaluation
from protlig_dd.cli.foldseek import add_foldseek
from protlig_dd.cli.optimize import add_optimize
from protlig_dd.cli.sample import add_sample
from protlig_dd.cli.scaling import add_scaling
from protlig_dd.cli.score import add_scoring
from protlig_dd.cli.tokenize import add_tokenize
from protlig_dd.cli.train import add_training
from protlig_dd.errors import ProtligError
from protlig_dd.runs.spellings import native_flags

_EXAMPLES = """examples:
  protlig train                  # train, sample and evaluate the built-in demo (a synthetic world)
  protlig train sedd/protein_66m data.path=my.fasta
  protlig sample runs/dual_track_demo --protein MKTAYIAKQRHEAVHWF --num 10 --out ligands.csv
  protlig evaluate runs/dual_track_demo && protlig report runs/dual_track_demo
  protlig inspect pairs.csv      # what is read from a data file, and what training would drop
"""
_ADD = (add_training, add_sample, add_optimize, add_evaluation, add_scoring, add_data, add_foldseek, add_tokenize, add_scaling, add_doctor)
"""The functions that add the commands, in the order of `protlig --help`."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="protlig",
        description="Discrete diffusion on proteins, ligands and structure tokens.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"protlig_dd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in _ADD:
        add(commands)
    return parser


def parse(arguments: Sequence[str]) -> tuple[str, Callable[[Any], Iterator[str | int]], type[Any], dict[str, Any]]:
    """Return a command's name, its function, the class of its options and their values; ends the process with code 2 if it cannot."""
    parser = build_parser()
    parsed, rest = parser.parse_known_args(native_flags(arguments))
    values = vars(parsed)
    if rest:
        # overrides may follow options: argparse leaves them over
        if "overrides" not in values or not all("=" in word and not word.startswith("-") for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        values["overrides"] = [*values["overrides"], *rest]
    name, action, options = (values.pop(key) for key in ("command", "action", "options"))
    return name, action, options, values


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 for a failure that the user can correct (one line on stderr), or the command's own code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    name, action, options, values = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        for line in action(options_from(options, values)):
            if isinstance(line, int):
                return line
            # a file name may contain bytes that are not UTF-8, which no terminal can show
            print(line.encode(errors="surrogateescape").decode(errors="replace"), flush=True)
    except ProtligError as error:
        print(f"protlig {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # `train` says so itself
        resumes = name in ("sample", "embed", "download") and values["out"]
        print(f"protlig {name}: interrupted{'; start the same command again to go on' if resumes else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        about = f"{error.strerror or error}"
        if error.filename is not None:
            about = f"{error.filename}: {about}; check the path, its permissions and the space on the disk"
        print(f"protlig {name}: {about}", file=sys.stderr)
        return 1
    return 0
