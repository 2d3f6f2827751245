"""What all commands share: how a command is added to the parser, and how its parsed arguments become its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar

from protlig_dd.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    Options = TypeVar("Options", bound=DataclassInstance)
else:
    Commands = argparse._SubParsersAction  # takes no parameters at run time
    Options = TypeVar("Options")

MODEL = "a run folder, a folder in Hugging Face layout, a Lightning .ckpt file, or a Hub id such as airkingbd/dplm_150m"
OVERRIDES = "settings to change, such as train.steps=100 model.hidden_size=128"


def add_command(
    commands: Commands, name: str, action: Callable[[Options], Iterator[str | int]], options: type[Options], text: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """Return the parser of a new command, to which the caller adds one argument for each field of `options`.

    Args:
        commands: the parsers that the command is added to.
        name: the word typed after `protlig`.
        action: the command; takes the options and yields the lines to print. A yielded int ends the command with that exit code.
        options: a frozen dataclass. The default of a field is the default of the argument of the same name.
        text: one line: what the command does.
        epilog: what it writes, and examples, each on a line of its own: "  protlig NAME ...    # comment".
    """
    sub = commands.add_parser(name, help=text, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    # add_argument takes its default from here; `append` needs a list to copy
    defaults = {field.name: field.default for field in fields(options) if field.default is not MISSING}
    sub.set_defaults(**{name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()})
    sub.set_defaults(action=action, options=options)
    return sub


def add_group(commands: Commands, name: str, text: str, epilog: str, *, metavar: str) -> Commands:
    """Return the parsers of a command that consists of several, such as `protlig scaling plan`."""
    sub = commands.add_parser(name, help=text, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    return sub.add_subparsers(metavar=metavar, required=True)


def options_from(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Return a command's options from its parsed arguments: equal names, and lists as tuples.

    Args:
        options: the dataclass of the command.
        values: the value of every argument, by name. A missing or an additional name is an error of the parser.
    """
    names = {field.name for field in fields(options)}
    assert names == values.keys(), f"{options.__name__}: arguments and fields differ: {sorted(names ^ values.keys())}"
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def add_device(sub: argparse.ArgumentParser) -> None:
    """Add --device."""
    sub.add_argument("--device", help="auto (the best one available), cpu, cuda, mps or xpu (%(default)s)")


def add_shard(sub: argparse.ArgumentParser, things: str) -> None:
    """Add --shard, which divides `things` among n jobs."""
    text = f"only every n-th of the {things}, starting at the i-th; i counts from 0: the jobs 0/2 and 1/2 do all (%(default)s)"
    sub.add_argument("--shard", metavar="i/n", help=text)


def add_sampler_options(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `runs.options.DrawOptions`, but --device: the options of `protlig sample` and `protlig optimize`."""
    text = "ancestral, euler, first_hitting, confidence, remasking or dplm; with steps: ancestral:100 (default: the run's)"
    sub.add_argument("--sampler", metavar="KIND[:STEPS]", help=text)
    sub.add_argument("--strategy", help="dplm: argmax, gumbel_argmax, vanilla[@T] or annealing@2.0:0.1")
    sub.add_argument("--unmasking", help="dplm: deterministic, or stochastic1.0")
    sub.add_argument("--steps", type=int, help="steps of the sampler (default: the run's)")
    sub.add_argument("--temperature", type=float, help="divides the logits (default: the run's)")
    sub.add_argument("--top-p", type=float, help="keep only the most likely letters, up to this total probability")
    text = "causal models: the model ends a structure, instead of writing one token per residue"
    sub.add_argument("--learned-length", action="store_true", help=text)
    sub.add_argument("--forbid", action="append", metavar="TRACK:SYMBOL", help="a symbol never to draw, such as ligand:Br")
    sub.add_argument("--guidance", type=float, help="weight of classifier-free guidance; 1 is none (default: the run's)")
    sub.add_argument("--seed", type=int, help="sample i depends on the seed and i only (%(default)s)")
    sub.add_argument("--batch-size", type=int, help="samples per network call; changes no sample (default: the run's)")


def check_workers(workers: int) -> None:
    """Refuse a negative number of processes.

    Raises:
        ConfigError: below 0.
    """
    if workers < 0:
        raise ConfigError(f"--workers {workers}: expected 0 (one for each core) or more")
