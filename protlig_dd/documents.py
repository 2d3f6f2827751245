"""JSON and YAML documents that somebody else may have written: read, or refused in one line that quotes nothing of a file.

A line of an error may end in a log or a report, and a document may name another file, so what stands in it is not repeated. Nesting and
repetition by aliases are bounded before anything is built.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from protlig_dd.errors import FormatError

_DEEPEST = 100
_MOST_VALUES = 100_000  # of a YAML document whose aliases are written out


def read_json(path: Path, advice: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        advice: the end of the message: what was expected, or what to do.

    Raises:
        FormatError: if it cannot be read, is not JSON, or is nested too deep.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise FormatError(f"{path}: not readable as JSON (nested too deep); {advice}") from error
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise FormatError(f"{path}: not readable as JSON ({said}); {advice}") from error


def json_or_none(text: str) -> Any:
    """Return the value of a line of JSON; None for anything else, such as the last line of a log that was cut off."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_json_object(path: Path, advice: str) -> dict[str, Any]:
    """Return the object in a JSON file; arguments and errors as in `read_json`, which also refuses any other value."""
    value = read_json(path, advice)
    if not isinstance(value, dict):
        raise FormatError(f"{path}: found {type(value).__name__}, expected a JSON object; {advice}")
    return value


def yaml_text(path: Path) -> str:
    """Return the text of a YAML file that is safe to load: no lone text or number, nested and repeated within bounds.

    Raises:
        FormatError: naming the line of what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _check_events(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise FormatError(f"{path}: not readable as YAML: {yaml_fault(error)}") from error
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; empty for an empty file.

    Raises:
        FormatError: as `yaml_text`, and for a list.
    """
    text = yaml_text(path)
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError) as error:  # such as a number of 5,000 digits, or a list as a key
        raise FormatError(f"{path}: not readable as YAML: {yaml_fault(error)}") from error
    if not isinstance(values, dict | None):
        raise FormatError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    return values or {}


def yaml_fault(error: Exception) -> str:
    """Return what is wrong with a YAML document, without its text: "while parsing a flow sequence, expected ',' (line 2)"."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())[:200]
    mark = error.problem_mark or error.context_mark
    said = ", ".join(words for words in (error.context, error.problem) if words)
    return " ".join(said.split())[:200] + (f" (line {mark.line + 1})" if mark else "")


def _check_events(text: str) -> None:
    """Refuse a document that is no collection, too deep or too large; the parser of events does not recurse as the loader does."""
    sizes, anchors, names = [0], dict[str, int](), list[str | None]()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"(line {event.start_mark.line + 1})"
        if isinstance(event, yaml.ScalarEvent) and len(sizes) == 1 and event.value not in ("", "null", "~"):
            raise ValueError(f"found a single text or number, expected a mapping of settings {place}")
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(1)
            names.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            size, name = sizes.pop(), names.pop()
            sizes[-1] += size
            if name:
                anchors[name] = size
        elif isinstance(event, yaml.NodeEvent):  # a scalar; or an alias, which stands for all that was anchored
            sizes[-1] += anchors.get(event.anchor, 1) if isinstance(event, yaml.AliasEvent) else 1
        if len(sizes) > _DEEPEST:
            raise ValueError(f"nested deeper than {_DEEPEST} levels {place}")
        if sum(sizes) > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values with its aliases written out {place}")
