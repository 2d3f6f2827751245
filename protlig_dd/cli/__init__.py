"""The command line: one file a command, with its options, its parser and its action side by side."""

from protlig_dd.cli.entry import main

__all__ = ["main"]
