"""`--help` of every command: it loads no heavy package, and its examples, like those of the scripts, are commands that work."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from protlig_dd.cli.common import options_from
from protlig_dd.cli.entry import build_parser, parse
from protlig_dd.config import read_config
from protlig_dd.runs.families.table import family_of
from protlig_dd.runs.spellings import native_overrides

HEAVY = ("torch", "numpy", "transformers", "rdkit", "wandb", "matplotlib", "pandas")
COMMAND = re.compile(r"(?:^|\s)protlig ((?:(?!\s#|&&|<<).)+)")


def parsers(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
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


def examples_of(text: str) -> list[list[str]]:
    """Return the words of each `protlig ...` at the beginning of a line of a text, without remarks."""
    lines = [line.strip().lstrip("#").strip() for line in text.replace("\\\n", " ").splitlines()]
    found = [part for line in lines if line.startswith("protlig ") for part in line.split("&&")]
    return [shlex.split(part.strip().removeprefix("protlig "), comments=True) for part in found]


def require_works(words: list[str]) -> None:
    """Parse an example; where it names a config, build the experiment with its overrides."""
    _, _, options, values = parse(words)
    built = options_from(options, values)
    if hasattr(built, "overrides") and not str(built.config).startswith("my_"):
        named, native = native_overrides(built.overrides)
        config = read_config(named or built.config, native)
        family_of(config).read(config)


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_the_examples_of_a_help_text_work(command: tuple[str, ...]) -> None:
    parser = ALL[command]
    is_group = any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
    examples = examples_of(parser.epilog or "")
    assert examples or is_group, f"protlig {' '.join(command)} --help shows no example"
    for words in examples:
        require_works(words)


def script_examples(path: Path) -> list[list[str]]:
    """Return the commands of protlig that the usage of a script stands for."""
    text = path.read_text(encoding="utf-8")
    if path.name == "run_train.sh":
        calls = re.findall(r"^  \./run_train\.sh (.+)$", text, re.MULTILINE)
        plain = [[w for w in shlex.split(call) if not w.startswith("--") and not w.isdigit()] for call in calls]
        return [["train", *words] for words in plain]
    calls = re.findall(r"scripts/slurm_train\.sh ((?:[\w./]+=\S+|[\w]+/\S+)(?: \S+=\S+)*)", text)
    return [["train", *shlex.split(call)] for call in calls] + examples_of(text)


@pytest.mark.parametrize("name", ["run_train.sh", "scripts/slurm_train.sh", "scripts/smoke_test.sh"])
def test_the_examples_of_a_script_work(root: Path, name: str) -> None:
    examples = script_examples(root / name)
    assert examples
    for words in examples:
        if not any("$" in word for word in words):
            require_works(words)


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
