"""Configuration: plain values to frozen objects, and back. `config_files.py` reads the files and overrides that the values come from.

A settings class is a frozen, keyword-only dataclass made with `@settings`; if an annotation is a union, the `kind` field selects the
member, so the union is the registry. Pydantic validates, and every message has the dotted path, the value found, and the nearest valid name.
Nothing here imports torch.

Kinds are resolved here and not by pydantic's discriminated unions, which know neither a kind that follows from a field's default, nor plain
members next to classes (`float | Task`), nor null for an entry to be removed; they would also require `Annotated` unions in every module.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from protlig_dd.errors import ConfigError, nearest

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a frozen, keyword-only dataclass that refuses unknown keys and numbers that are not finite when it is built from a mapping."""
    cls.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def build(cls: type[T] | Any, values: Any, where: str = "") -> T:
    """Build a settings class, or a union of them, from plain values.

    Args:
        cls: the class, or a union whose members have a `kind`.
        values: a mapping as read from YAML.
        where: the dotted path at the start of messages.

    Raises:
        ConfigError: one line for each error, with its dotted path and the nearest valid name.

    >>> from protlig_dd.diffusion.schedules import NoiseSchedule
    >>> build(NoiseSchedule, {"kind": "cosine", "sigma_max": 6})
    Cosine(kind='cosine', sigma_min=0.0001, sigma_max=6.0)
    >>> build(NoiseSchedule, {"kind": "cosin"}, where="diffusion.schedule")
    Traceback (most recent call last):
    protlig_dd.errors.ConfigError: diffusion.schedule.kind: found 'cosin', expected one of log_linear, ... (did you mean 'cosine'?)
    """
    built: T = _validate(cls, _resolve_kinds(cls, values, where), where)
    return built


_WORDS = {True: "on", False: "off"}
"""YAML 1.1 reads an unquoted `on` or `off` as a boolean; for a setting with these words as choices it is turned back into the word."""


def _members(annotation: Any) -> list[type]:
    """Return the settings classes in an annotation (several for a union)."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [m for arg in typing.get_args(annotation) for m in _members(arg)]
    return [annotation] if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) else []


def kind_of(cls: type) -> str | None:
    """Return the `kind` of a settings class in YAML, or None if it has none."""
    return next((str(field.default) for field in dataclasses.fields(cls) if field.name == "kind"), None)


def _resolve_kinds(annotation: Any, values: Any, where: str, default: Any = None) -> Any:
    """Build nested unions by their `kind` first, so that errors are about the selected class only.

    A mapping without a `kind` means the class of the default; null (`key=`) means an empty string for a string.
    """
    members = _members(annotation)
    if not members:
        if annotation is str and values is None:
            return ""
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
            return _resolve_kinds(arguments[arguments[0] is type(None)], values, where)
        if origin is dict and isinstance(values, Mapping):
            # null removes an entry of the extended config, such as diffusion.tasks.joint=null
            return {k: _resolve_kinds(arguments[1], v, join(where, k)) for k, v in values.items() if v is not None}
        if origin in (tuple, list) and isinstance(values, list):
            return [_resolve_kinds(arguments[0], v, join(where, i)) for i, v in enumerate(values)]
        if origin is typing.Literal and isinstance(values, bool) and values not in arguments:
            return _WORDS[values] if _WORDS[values] in arguments else values
        return values
    kinds = {kind_of(m): m for m in members}
    others = _plain_members(annotation)
    if not isinstance(values, Mapping):
        if len(members) > 1 and not others and not isinstance(values, tuple(members)):
            raise ConfigError(f"{where}: found {values!r}, expected a mapping with a kind, one of {', '.join(map(str, kinds))}")
        return values
    if len(members) == 1:
        (cls,) = members
    else:
        kind = values.get("kind", kind_of(type(default)) if type(default) in members else None)
        if not isinstance(kind, str) or kind not in kinds:
            found = f"found '{kind}'" if kind is not None else "found none"
            raise ConfigError(
                f"{join(where, 'kind')}: {found}, expected one of {', '.join(map(str, kinds))}{nearest(str(kind), map(str, kinds))}"
            )
        cls = kinds[kind]
    hints = typing.get_type_hints(cls, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    resolved = {k: _resolve_kinds(hints[k], v, join(where, k), defaults.get(k)) if k in hints else v for k, v in values.items()}
    return _validate(cls, resolved, where) if len(members) > 1 or others - {type(None)} else resolved


def _plain_members(annotation: Any) -> set[Any]:
    """Return the members of a union that are not settings classes: None, numbers, text."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return set()
    return {arg for arg in typing.get_args(annotation) if not _members(arg)}


@functools.cache
def _validator(cls: Any) -> Any:
    """Return pydantic's validator of a class or union; making one takes 40 ms for an experiment."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _validate(cls: Any, values: Any, where: str) -> Any:
    """Return an object of a class or union whose nested unions have been built."""
    from pydantic import ValidationError

    try:
        return _validator(cls).validate_python(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(cls, item, where) for item in error.errors())) from error


def _explain(cls: Any, item: Any, where: str) -> str:
    path = join(where, ".".join(str(p) for p in item["loc"] if not str(p).startswith("function-")))
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        options = _field_names(cls, [str(p) for p in item["loc"][:-1]])
        return f"{path}: unknown setting{nearest(str(item['loc'][-1]), options)}; valid ones are: {', '.join(options)}"
    if item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{path}: required, found nothing; set {path}=..."
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if item["type"] == "value_error":
        names_field = re.match(r"\w+: found", message)
        return f"{path}{'.' if names_field else ': '}{message}" if path else message
    expected = "a mapping of settings" if item["type"] == "dataclass_type" else message[:1].lower() + message[1:]
    return f"{path or 'config'}: found {item['input']!r}, expected {expected}"


def _field_names(cls: Any, loc: list[str]) -> list[str]:
    members = _members(cls)
    for step in loc:
        for member in members:
            hints = typing.get_type_hints(member, include_extras=True)
            if step in hints:
                members = _members(hints[step]) or members
                break
    return sorted({f.name for m in members for f in dataclasses.fields(m)})


def join(where: str, key: Any) -> str:
    """Return the dotted path of a key below a path, which may be empty."""
    return ".".join(p for p in (where, str(key)) if p)


def to_mapping(value: Any) -> Any:
    """Return settings as plain dicts, lists and scalars, as in YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_mapping(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_mapping(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def parse_shard(text: str) -> tuple[int, int]:
    """Return (i, n) for "i/n": of n jobs that share some work, job i takes every n-th item from the i-th on, counted from 0.

    Raises:
        ConfigError: for any other text.

    >>> parse_shard("3/4")
    (3, 4)
    """
    index, sep, count = text.partition("/")
    if not (sep and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ConfigError(f"--shard '{text}': expected i/n with 0 <= i < n, such as 0/4 for the first of four and 3/4 for the last")
    return int(index), int(count)
