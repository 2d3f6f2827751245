"""The command line: one file for each command or group of commands, with its options, parser and action.

A command's file is imported by `protlig --help`, so it imports torch, numpy and the models inside its functions.
"""

from protlig_dd.cli.entry import main

__all__ = ["main"]
