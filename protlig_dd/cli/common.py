"""What the parsers of all commands share."""

from __future__ import annotations

import argparse


def add_command(commands, name: str, function: str, text: str, epilog: str = "") -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
    """Return the parser of a new command, which calls `commands.<function>`."""
    sub = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub.set_defaults(function=function)
    return sub  # type: ignore[no-any-return]


def add_device(sub: argparse.ArgumentParser) -> None:
    """Add --device."""
    sub.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps or xpu")
