"""How to make a run again: its command, its seed and the versions of what computed it, kept as `reproduction.json` and shown in the report."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from protlig_dd import __version__
from protlig_dd.errors import FormatError

_PACKAGES = ("torch", "numpy", "rdkit")


def write_reproduction(run_folder: Path, *, command: str, seed: int, **more: str | int | float) -> None:
    """Write `reproduction.json`: the command, the seed, the versions of what computed it, and anything else worth a line."""
    card = {"command": command, "seed": seed, "versions": _versions(), **more}
    (run_folder / "reproduction.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def reproduction_html(run_folder: Path, config: Mapping[str, Any], config_text: str) -> str:
    """Return the part of a report about making its run again.

    Raises:
        FormatError: for a reproduction.json of another form.
    """
    path, card = run_folder / "reproduction.json", {}
    if path.is_file():
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FormatError(f"{path}: not JSON ({error}); remove it") from error
        if not isinstance(card, dict):
            raise FormatError(
                f"{path}: found {type(card).__name__}, expected an object with command and seed; remove it"
            )
    facts: dict[str, Any] = {"command": "not recorded", "seed": config.get("seed", "not recorded"), **card}
    versions = facts.pop("versions", None)
    label = "versions" if versions else "versions, of this report"
    facts[label] = ", ".join(f"{k} {v}" for k, v in _items(versions or _versions()))
    if config_text:
        facts["settings, SHA-256"] = hashlib.sha256(config_text.encode()).hexdigest()
    rows = "".join(f"<dt>{escape(str(k))}</dt><dd><code>{escape(str(v))}</code></dd>" for k, v in facts.items())
    return f'<h2>To make it again</h2><dl class="facts">{rows}</dl>'


def _items(versions: Any) -> Iterable[tuple[str, Any]]:
    return versions.items() if isinstance(versions, Mapping) else [("", versions)]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "protlig_dd": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
