"""`--help` of every command: it costs little, loads no heavy package, and its examples are commands that work."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from protlig_dd.cli.entry import build_parser
from protlig_dd.errors import ConfigError
from tests.support.commands import examples_of, require_works

HEAVY = ("torch", "numpy", "transformers", "rdkit", "wandb", "matplotlib", "pandas")


def parsers(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield the words and the parser of every command, those of several steps included."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if words:
        yield words, parser
    for action in inner:
        for name, sub in action.choices.items():
            yield from parsers(sub, (*words, name))


ALL = dict(parsers(build_parser()))


def test_help_of_every_command_loads_no_heavy_package(root: Path) -> None:
    """One process shows the help of all commands; nothing heavy may have been imported by then."""
    program = (
        "import contextlib, io, json, sys\n"
        "from protlig_dd.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([*words, '--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    words = json.dumps([[], *map(list, ALL)])
    done = subprocess.run([sys.executable, "-c", program, words], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_the_examples_of_a_help_text_work(command: tuple[str, ...]) -> None:
    parser = ALL[command]
    is_group = any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
    examples = examples_of(parser.epilog or "")
    assert examples or is_group, f"protlig {' '.join(command)} --help shows no example"
    for words in examples:
        require_works(words)


def test_an_example_that_is_refused_is_found() -> None:
    """The check of the test above, on texts that are wrong."""
    (example,) = examples_of("Try:\n  protlig train sedd/uniref50_stable train.max_steps=1000    # longer")
    assert example == ["train", "sedd/uniref50_stable", "train.max_steps=1000"]
    for wrong in (example, ["check", "sedd/none"], ["sample", "run"], ["scaling", "plan", "scaling/markov", "a.b=1"]):
        with pytest.raises(ConfigError):
            require_works(wrong)
    for wrong in (["evaluate"], ["sample", "run", "--lenght", "3"], ["foldseek"], ["foldseek", "info"]):
        with pytest.raises(SystemExit):
            require_works(wrong)


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_option_has_a_field_and_its_default_stands_once(command: tuple[str, ...]) -> None:
    """Arguments and options agree by name; a default comes from the dataclass, so the two cannot differ."""
    parser = ALL[command]
    options = parser._defaults.get("options")
    if options is None:
        return
    arguments = {a.dest for a in parser._actions if not isinstance(a, argparse._HelpAction)}
    assert arguments == {field.name for field in fields(options)}
    required = [a for a in parser._actions if a.required and a.dest != "help"]
    by_name = {field.name: field for field in fields(options)}
    for action in parser._actions:
        if action.dest in by_name and action not in required:
            default = by_name[action.dest].default
            assert action.default == (list(default) if isinstance(default, tuple) else default), action.dest
