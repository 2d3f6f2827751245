"""How to reproduce a run: its command, its seed and the versions of what computed it, kept as `reproduction.json` and shown in the report."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from protlig_dd import __version__
from protlig_dd.documents import read_json_object
from protlig_dd.files import write_json

_PACKAGES = ("torch", "numpy", "rdkit")


def write_reproduction(run_folder: Path, *, command: str, seed: int, **more: str | int | float) -> None:
    """Write `reproduction.json`: the command, the seed, the versions of the software, and further facts by name."""
    card = {"command": command, "seed": seed, "versions": _versions(), **more}
    write_json(run_folder / "reproduction.json", card)


def reproduction_facts(run_folder: Path, config: Mapping[str, Any], config_text: str) -> dict[str, Any]:
    """Return what a report says about reproducing its run, by name.

    Raises:
        FormatError: for a reproduction.json of another form.
    """
    path, card = run_folder / "reproduction.json", {}
    if path.is_file():
        card = read_json_object(path, "remove it")
    facts: dict[str, Any] = {"command": "not recorded", "seed": config.get("seed", "not recorded"), **card}
    versions = facts.pop("versions", None)
    label, shown = ("versions", versions) if versions else ("versions, of this report", _versions())
    items = shown.items() if isinstance(shown, Mapping) else [("", shown)]
    facts[label] = ", ".join(f"{k} {v}" for k, v in items)
    if config_text:
        facts["settings, SHA-256"] = hashlib.sha256(config_text.encode()).hexdigest()
    return facts


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "protlig_dd": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
