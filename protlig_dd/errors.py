"""Errors that a user can cause, and helpers for their messages.

Every message says where, what was found, what was expected and what to do. Programming errors are plain asserts.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable
from types import ModuleType


class ProtligError(Exception):
    """Base class of errors that the user can fix; the command line prints them as one line."""


class ConfigError(ProtligError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or incompatible with another one."""


class FormatError(ProtligError, ValueError):
    """The content of a file is not of the expected format; one line, even if it quotes a text with line breaks."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class CheckpointError(ProtligError):
    """A checkpoint is damaged, incomplete, or made for something else."""


class DeviceError(ProtligError):
    """A requested device, precision or attention back-end cannot run here."""


class DownloadError(ProtligError):
    """A download did not complete, or its content is not the expected one."""


class MissingDependencyError(ProtligError, ImportError):
    """A required optional package is not installed."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, all line breaks of Unicode, and marks that turn the direction of writing."""
_NO_UTF8 = re.compile(r"[\ud800-\udfff]")


def one_line(text: str, *, keeps_bytes: bool = False) -> str:
    """Return a text with "_" for every line break and other control character, so that a name stays within its line, title or cell.

    Args:
        text: a name, or any other text of a user's file.
        keeps_bytes: keep bytes of a file's name that are no UTF-8 (surrogates); they are "_" too by default.

    >>> one_line("a\\n>b")
    'a_>b'
    """
    text = _CONTROL.sub("_", text)
    return text if keeps_bytes else _NO_UTF8.sub("_", text)


def nearest(name: str, options: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest option, or an empty string if none is close.

    >>> nearest("cosin", ["linear", "cosine"])
    " (did you mean 'cosine'?)"
    """
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def refuse_unless(fine: bool, name: str, found: object, expected: str) -> None:
    """Raise a ValueError about the setting `name`, with what was found and what was expected, unless it is fine."""
    if not fine:
        raise ValueError(f"{name}: found {found}, expected {expected}")


def said_by(error: BaseException) -> str:
    """Return another library's message on one line of at most 160 characters; its advice to run the code of a file is not passed on.

    >>> said_by(ValueError("Re-running with `weights_only` set to `False` will likely succeed. Unsupported GLOBAL os.system"))
    'what it holds is made by running code that it names (os.system), and no code of a file is run here'
    """
    text = " ".join(str(error).split())
    if "weights_only" in text or "trust_remote_code" in text:
        named = re.search(r"GLOBAL ([\w.]+)", text)
        return f"what it holds is made by running code that it names{f' ({named[1]})' if named else ''}, and no code of a file is run here"
    return (text if len(text) < 160 else text[:157] + "...") or type(error).__name__


def require(package: str, purpose: str, *, extra: str) -> ModuleType:
    """Return an optional package, imported.

    Args:
        package: module name, such as "rdkit" or "rdkit.Chem".
        purpose: what it is needed for, such as "reading molecules".
        extra: the extra of protlig_dd that installs it.

    Raises:
        MissingDependencyError: if the package cannot be imported; the message has the purpose and the install command.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        root = package.split(".")[0]
        raise MissingDependencyError(
            f"{purpose} needs the package '{root}' ({error}); install it with: pip install 'protlig_dd[{extra}]'"
        ) from error
