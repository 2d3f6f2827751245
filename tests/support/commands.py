"""Example commands, from `--help` texts and scripts, checked without running them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from protlig_dd.cli.common import options_from
from protlig_dd.cli.entry import parse
from protlig_dd.config_files import read_config
from protlig_dd.runs.families.table import family_of
from protlig_dd.runs.spellings import native_overrides


def examples_of(text: str) -> list[list[str]]:
    """Return the words of each `protlig ...` at the beginning of a line of a text, without remarks."""
    lines = [line.strip().lstrip("#").strip() for line in text.replace("\\\n", " ").splitlines()]
    found = [part for line in lines if line.startswith("protlig ") for part in line.split("&&")]
    return [shlex.split(part.strip().removeprefix("protlig "), comments=True) for part in found]


def require_works(words: Sequence[str]) -> None:
    """Parse an example; where it names a config, build the experiment with its overrides. Raises what is wrong with it."""
    _, _, options, values = parse(words)
    built = options_from(options, values)
    if hasattr(built, "overrides") and hasattr(built, "config"):
        name = "dual_track/demo" if built.config.startswith("my_") else built.config  # a file of the reader's own
        named, native = native_overrides(built.overrides)
        config = read_config(named or name, native)
        family_of(config).read(config)
