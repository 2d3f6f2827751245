"""The command line: parses, calls `commands`, prints. Importing it, and `--help`, load neither torch nor any model."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from protlig_dd import __version__
from protlig_dd.arguments.foldseek import add_foldseek
from protlig_dd.arguments.generating import add_optimize, add_sampling
from protlig_dd.arguments.judging import add_judging, add_scoring
from protlig_dd.arguments.preparing import add_data
from protlig_dd.arguments.scaling import add_scaling
from protlig_dd.arguments.tokenize import add_tokenize
from protlig_dd.arguments.training import add_training
from protlig_dd.cli.common import add_command
from protlig_dd.errors import ProtligError
from protlig_dd.runs.spellings import native_flags

EXAMPLES = """examples:
  protlig train                                   train, sample and evaluate the embedded demo (a synthetic world)
  protlig train sedd/protein_66m data.path=my.fasta
  protlig sample runs/dual_track_demo --protein MKTAYIAKQRHEAVHWF --num 10 --out ligands.csv
  protlig evaluate runs/dual_track_demo && protlig report runs/dual_track_demo
  protlig inspect pairs.csv                       what would be understood, and dropped, before any training
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="protlig",
        description="Discrete diffusion on proteins, ligands and structure tokens.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"protlig_dd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_training(commands)
    add_sampling(commands)
    add_optimize(commands)
    add_judging(commands)
    add_scoring(commands)
    add_data(commands)
    add_foldseek(commands)
    add_tokenize(commands)
    add_scaling(commands)
    add_command(
        commands,
        "doctor",
        "doctor.doctor",
        "show devices, precision and attention, and what would mend what is missing",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 for a failure that the user can mend (one line on stderr), or the command's own code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = build_parser()
    parsed, rest = parser.parse_known_args(native_flags(sys.argv[1:] if arguments is None else arguments))
    if rest:
        # overrides may follow options: argparse leaves them over
        if hasattr(parsed, "overrides") and all("=" in r and not r.startswith("-") for r in rest):
            parsed.overrides += rest
        else:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
    module, _, name = parsed.function.partition(".")
    try:
        command = getattr(importlib.import_module(f"protlig_dd.cli.{module}"), name)
        for line in command(parsed):
            if isinstance(line, int):
                return line
            print(_as_text(line), flush=True)
    except ProtligError as error:
        print(f"protlig {parsed.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        going_on = "; start the same command again to go on" if _is_resumed(parsed) else ""
        print(f"protlig {parsed.command}: interrupted{going_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        print(f"protlig {parsed.command}: {_about_file(error)}", file=sys.stderr)
        return 1
    return 0


def _is_resumed(parsed: argparse.Namespace) -> bool:
    """Whether a command that was stopped finds what it has done when it is started again (train says so itself)."""
    return parsed.command in ("sample", "embed", "download") and bool(parsed.out)


def _as_text(line: str) -> str:
    """A line that any terminal takes: a file's name may hold bytes that are no UTF-8."""
    return line.encode(errors="surrogateescape").decode(errors="replace")


def _about_file(error: OSError) -> str:
    """What the system says about a file, and what to look at."""
    if error.filename is None:
        return f"{error.strerror or error}"
    return f"{error.filename}: {error.strerror or error}; check the path, its permissions and the space on the disk"
