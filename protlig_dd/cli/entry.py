"""The entry point: parse the arguments, call the command, print its lines. Neither importing it nor `--help` loads torch."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from protlig_dd import __version__
from protlig_dd.cli.common import options_from
from protlig_dd.cli.data import add_data
from protlig_dd.cli.doctor import add_doctor
from protlig_dd.cli.evaluate import add_evaluation
from protlig_dd.cli.finetune import add_finetune
from protlig_dd.cli.foldseek import add_foldseek
from protlig_dd.cli.judge import add_judge
from protlig_dd.cli.lr_find import add_lr_find
from protlig_dd.cli.optimize import add_optimize
from protlig_dd.cli.sample import add_sample
from protlig_dd.cli.scaling import add_scaling
from protlig_dd.cli.score import add_scoring
from protlig_dd.cli.tokenize import add_tokenize
from protlig_dd.cli.train import add_training
from protlig_dd.errors import ProtligError, one_line
from protlig_dd.runs.spellings import as_typed, native_flags

_EXAMPLES = """examples:
  protlig train                  # train, sample and evaluate the built-in demo (a synthetic world)
  protlig train sedd/protein_66m data.path=my.fasta
  protlig sample runs/dual_track_demo --protein MKTAYIAKQRHEAVHWF --num 10 --out ligands.csv
  protlig evaluate runs/dual_track_demo && protlig report runs/dual_track_demo
  protlig inspect pairs.csv      # what is read from a data file, and what training would drop
"""
_ADD = (
    add_training,
    add_lr_find,
    add_finetune,
    add_sample,
    add_optimize,
    add_evaluation,
    add_judge,
    add_scoring,
    add_data,
    add_foldseek,
    add_tokenize,
    add_scaling,
    add_doctor,
)
"""The functions that add the commands, in the order of `protlig --help`."""


class _UsageError(Exception):
    """What the parser refuses."""


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print, with the command."""
        raise _UsageError(f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser: argparse.ArgumentParser = _Parser(
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
    try:
        parsed, rest = parser.parse_known_args(native_flags(arguments))
        values = vars(parsed)
        # overrides may follow options: argparse leaves them over
        if rest and ("overrides" not in values or not all("=" in word and not word.startswith("-") for word in rest)):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
    except _UsageError as error:
        print(_as_text(as_typed(str(error), arguments)), file=sys.stderr)
        raise SystemExit(2) from None
    if rest:
        values["overrides"] = [*values["overrides"], *rest]
    name, action, options = (values.pop(key) for key in ("command", "action", "options"))
    return name, action, options, values


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 for a failure that the user can correct (one line on stderr), or the command's own code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    typed = sys.argv[1:] if arguments is None else arguments
    name, values = typed[0] if typed else "", dict[str, Any]()
    try:
        name, action, options, values = parse(typed)
        for line in action(options_from(options, values)):
            if isinstance(line, int):
                return line
            print(_as_text(line), flush=True)
    except ProtligError as error:
        print(f"protlig {name}: {_as_text(as_typed(str(error), typed))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # `train` says so itself
        resumes = name in ("sample", "embed", "download") and values.get("out")
        print(f"protlig {name}: interrupted{'; start the same command again to go on' if resumes else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        about = f"{error.strerror or error}"
        if error.filename is not None:
            about = f"{error.filename}: {about}; check the path, its permissions and the space on the disk"
        print(f"protlig {name}: {_as_text(about)}", file=sys.stderr)
        return 1
    return 0


def _as_text(line: str) -> str:
    """Return text that any terminal can show: a file name may contain bytes that are not UTF-8, a name of a file's record control characters."""
    lines = line.encode(errors="surrogateescape").decode(errors="replace").split("\n")
    return "\n".join("\t".join(map(one_line, part.split("\t"))) for part in lines)
