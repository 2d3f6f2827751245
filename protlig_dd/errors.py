"""The errors a user can cause, and the words that help them out.

Every message says where, what was found, what was expected and what to do. Programmer's mistakes are plain asserts.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class ProtligError(Exception):
    """The base of every error that is the user's to mend; the command line prints it as one line."""


class ConfigError(ProtligError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or impossible beside another one."""


class FormatError(ProtligError, ValueError):
    """A file does not hold what its name or its reader promises."""


class CheckpointError(ProtligError):
    """A checkpoint is damaged, incomplete, or made for something else."""


class DeviceError(ProtligError):
    """A requested device, precision or attention back-end cannot run here."""


class DownloadError(ProtligError):
    """A download did not complete, or did not give what its publisher promises."""


class MissingDependencyError(ProtligError, ImportError):
    """An optional package is needed and absent."""


def nearest(name: str, options: Iterable[str]) -> str:
    """Return the words " (did you mean 'x'?)" for the closest option, or an empty string."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def require(package: str, purpose: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say what it is for and how to get it.

    Args:
        package: module name, such as "rdkit" or "rdkit.Chem".
        purpose: what it is needed for, as in "reading molecules".
        extra: the extra of protlig_dd that brings it.

    Raises:
        MissingDependencyError: if the package cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        root = package.split(".")[0]
        raise MissingDependencyError(
            f"{purpose} needs the package '{root}' ({error}); install it with: pip install 'protlig_dd[{extra}]'"
        ) from error
