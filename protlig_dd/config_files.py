"""Config files: found by path or packaged name, with what they extend, and with the command line's overrides, as one plain mapping.

OmegaConf reads and merges. Nothing here imports torch.
"""

from __future__ import annotations

import io
import os
import re
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from protlig_dd.config import join
from protlig_dd.documents import yaml_fault, yaml_text
from protlig_dd.errors import ConfigError, FormatError, nearest

_REFERENCE = re.compile(r"\$\{[^${}:]*\}")


def config_folder() -> Path:
    """Return the folder of the packaged configs (`configs/` of a checkout, or the installed copy)."""
    checkout = Path(__file__).resolve().parent.parent / "configs"
    if checkout.is_dir():
        return checkout
    return Path(str(resources.files("protlig_dd"))) / "configs"


def list_configs() -> list[str]:
    """Return the names of all packaged configs, such as "dual_track/demo"."""
    folder = config_folder()
    files = (p for p in folder.rglob("*.yaml") if p.parent != folder)
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in files)


def find_config(name: str | Path) -> Path:
    """Return the YAML file of a config, given as a path or a packaged name.

    Raises:
        ConfigError: if there is none; the message has the nearest packaged name.
    """
    for candidate in filter(_is_file, (Path(name), config_folder() / f"{name}.yaml", config_folder() / str(name))):
        return candidate
    known = list_configs()
    raise ConfigError(
        f"config '{name}': found neither a file nor a packaged config of that name{nearest(str(name), known)}; "
        f"packaged ones are: {', '.join(known)}"
    )


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # Path.is_file raises for a name that is too long, or holds a NUL


def read_config(name: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML config, the one it `extends`, and `key.sub=value` overrides into one plain mapping.

    Args:
        name: a path, or a packaged name such as "dual_track/demo".
        overrides: strings `key.sub=value`; the value is read as YAML. A mapping is merged into an existing one, any other value replaces it.

    Raises:
        ConfigError: for a missing file, invalid YAML, a circular `extends`, or an override that is not `key=value`.

    >>> values = read_config("demo/smoke", ["model.hidden_size=32", "name=wide"])
    >>> values["name"], values["model"]["hidden_size"], values["model"]["kind"]
    ('wide', 32, 'dual_track')
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    plain = with_overrides(_read_chain(find_config(name), seen=()), overrides)
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"config '{name}': a reference does not resolve: {str(error).splitlines()[0]}") from error
    assert isinstance(resolved, dict)
    return typing.cast("dict[str, Any]", resolved)


def with_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return plain values with `key.sub=value` overrides, as in `read_config`.

    Raises:
        ConfigError: for an override that is not `key=value`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    plain = dict(values)
    for override in overrides:
        key, sep, value = override.partition("=")
        if not sep or not all(part.strip() for part in key.split(".")):
            raise ConfigError(f"override '{override}': expected key.sub=value, for instance train.optim.lr=1e-4")
        try:
            change = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]), resolve=False)
        except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            raise ConfigError(f"override '{override[:200]}': the value is not YAML ({yaml_fault(error)})") from error
        plain = merged(plain, typing.cast("dict[str, Any]", change))
    return plain


def merged(base: Mapping[str, Any], over: Mapping[str, Any], part: str = "") -> dict[str, Any]:
    """Return mappings merged, the second over the first. One with another `kind` replaces the whole, since its fields differ; the kinds of `optim` have the same fields."""
    if part != "optim" and "kind" in over and over["kind"] != base.get("kind", over["kind"]):
        return dict(over)
    inner = {k for k, v in over.items() if isinstance(v, Mapping) and isinstance(base.get(k), Mapping)}
    return {**base, **{k: merged(base[k], v, k) if k in inner else v for k, v in over.items()}}


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: 'extends' goes in a circle: {' -> '.join(p.stem for p in (*seen, path))}")
    try:
        plain = OmegaConf.to_container(OmegaConf.load(io.StringIO(yaml_text(path))), resolve=False)
    except FormatError as error:
        raise ConfigError(str(error)) from error
    except (YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {yaml_fault(error)}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(plain).__name__}")
    _check_settings(plain, path)
    parent = plain.pop("extends", None)
    if parent is None:
        return typing.cast("dict[str, Any]", plain)
    return merged(_read_chain(_extended(path, parent), (*seen, path)), typing.cast("dict[str, Any]", plain))


def _extended(path: Path, parent: Any) -> Path:
    """Return the file that a config extends: beside or below it, or packaged. A file does not choose among all files of a machine.

    Raises:
        ConfigError: for any other file.
    """
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: found {parent!r}, expected the name of one config; write extends: dual_track/demo")
    for candidate in filter(_is_file, (path.parent / f"{parent}.yaml", path.parent / parent)):
        if not candidate.resolve().is_relative_to(path.parent):
            raise ConfigError(
                f"{path}: extends: found '{parent}', expected a packaged config, or a file in the folder of this one or below it; copy it there"
            )
        return candidate
    known, name = list_configs(), parent.removesuffix(".yaml")
    if name not in known:
        raise ConfigError(
            f"{path}: extends: found '{parent}', which is neither a file in its folder nor a packaged config{nearest(parent, known)}"
        )
    return config_folder() / f"{name}.yaml"


def _check_settings(value: Any, path: Path, where: str = "") -> None:
    """Refuse names that are no text, and `${oc.env:HOME}` and other functions: whoever wrote them would read the environment of whoever runs it.

    References to settings, `${a.b}`, are fine, and functions on the command line are the user's own.
    """
    if isinstance(value, Mapping | list):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(value, Mapping) and not isinstance(key, str):
                raise ConfigError(
                    f"{path}: {join(where, str(key))}: found {key!r} as the name of a setting, expected text; write NAME: VALUE"
                )
            _check_settings(one, path, join(where, key))
    elif isinstance(value, str):
        rest, before = value, ""
        while rest != before:  # take references away, innermost first; a function is left
            rest, before = _REFERENCE.sub("", rest), rest
        if "${" in rest and ":" in rest:
            raise ConfigError(
                f"{path}: {where}: found '{value}', expected a value or a reference such as ${{name}}: a file may not call functions; "
                f"give it yourself, on the command line: '{where}={value}'"
            )
