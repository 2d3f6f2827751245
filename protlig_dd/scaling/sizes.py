"""Model sizes of a study: the settings of a size, its parameters, and the shape whose number of parameters is nearest to a target."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import nn

from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.errors import ConfigError
from protlig_dd.runs.experiment import Experiment, Parts, experiment_from
from protlig_dd.scaling.plan import short
from protlig_dd.training.optim import OptimSettings

_MOST_BLOCKS = 48
_ASPECT_WEIGHT = 0.05  # a shape twice as deep for its width is as bad as one 3.5 % off the target
Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of a study.

    Attributes:
        name: the name of the size in runs and tables.
        changes: settings by dotted key.
        params: number of parameters of the model.
        embedding_params: number of parameters in embedding tables.
    """

    name: str
    changes: Mapping[str, Any]
    params: int
    embedding_params: int


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> Values:
    """Return plain settings with some replaced, by dotted key; the rest is shared, not copied."""
    result = dict(values)
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if rest:
            inner = result.get(first)
            result[first] = changed(inner if isinstance(inner, Mapping) else {}, {rest: value})
        else:
            result[first] = value
    return result


def count(values: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of parameters of the model that settings describe, and of those in embedding tables; nothing is allocated.

    Raises:
        ConfigError: if the settings do not fit.
    """
    model = build_empty(experiment_from(values))
    tables = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return count_parameters(model), sum(p.numel() for p in tables)


def build_empty(config: Experiment) -> Any:
    """Return the model on the meta device: shapes without memory."""
    with torch.device("meta"):
        return config.model.build(Parts(config).tracks, "reference")


def explicit_size(values: Mapping[str, Any], text: str) -> Size:
    """Return the size described as "hidden_size=64,num_blocks=2"; a key without a dot is one of `model`.

    Raises:
        ConfigError: if a part is not key=value, or not a setting.
    """
    changes: Values = {"model.parameters": None}
    for part in text.split(","):
        key, sep, value = part.partition("=")
        if not sep or not key.strip():
            raise ConfigError(f"--size '{text}': found '{part}', expected key=value, such as hidden_size=64,num_blocks=2")
        key = key.strip()
        changes[key if "." in key else f"model.{key}"] = yaml.safe_load(value)
    params, tables = count(changed(values, changes))
    return Size(name=short(params), changes=changes, params=params, embedding_params=tables)


def nearest_size(values: Mapping[str, Any], target: float) -> Size:
    """Return the width and depth whose parameter count is nearest to a target, at about the base's aspect ratio.

    The head size is that of the base, so widths are its multiples, and the learning rate of Muon falls with sqrt(width); conditioning and feed-forward settings are unchanged too. For each depth
    the width is found by bisection (parameters grow with it); the shape with the least
    |log(params / target)| + 0.05 |log2(aspect / base aspect)| is returned.

    Raises:
        ConfigError: if the model has no hidden_size, num_heads and num_blocks, or the target is below its smallest shape.
    """
    model = values.get("model", {})
    try:
        width, heads, blocks = (int(model[name]) for name in ("hidden_size", "num_heads", "num_blocks"))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--sizes: the config's model ({model.get('kind')}) does not say {error}; give each size with --size key=value,..."
        ) from error
    head, aspect = width // heads, width / blocks
    by_width: dict[int, tuple[int, int]] = {}

    def params(num_heads: int, depth: int) -> int:
        """All blocks have the same size, so two depths determine the others."""
        if num_heads not in by_width:
            one, two = (count(changed(values, _shape(num_heads * head, num_heads, d)))[0] for d in (1, 2))
            by_width[num_heads] = one, two - one
        first, each = by_width[num_heads]
        return first + (depth - 1) * each

    if params(1, 1) > 1.3 * target:
        raise ConfigError(
            f"--sizes: found {short(target)}, the smallest shape of this model (one head of {head}, one block) has {short(params(1, 1))}; "
            f"give larger ones, or a base with smaller heads or conditioning_size"
        )
    best, least = (1, 1), math.inf
    for depth in range(1, _MOST_BLOCKS + 1):
        if params(1, depth) > 1.5 * target:
            break
        low = _widest_below(lambda h, d=depth: params(h, d), target)
        for h in (low, low + 1):
            off = abs(math.log(params(h, depth) / target)) + _ASPECT_WEIGHT * abs(math.log2(h * head / depth / aspect))
            if off < least:
                best, least = (h, depth), off
    changes = _shape(best[0] * head, *best) | _scaled_rate(values, best[0] * head / width)
    total, tables = count(changed(values, changes))
    return Size(name=short(total), changes=changes, params=total, embedding_params=tables)


def _widest_below(params: Any, target: float) -> int:
    """The largest number of heads whose parameter count does not exceed the target, or 1."""
    high = 2
    while params(high) <= target:
        high *= 2
    return max(1, bisect_right(range(1, high), target, key=params))


def _shape(hidden_size: int, num_heads: int, num_blocks: int) -> Values:
    return {"model.hidden_size": hidden_size, "model.num_heads": num_heads, "model.num_blocks": num_blocks, "model.parameters": None}


def _scaled_rate(values: Mapping[str, Any], wider: float) -> Values:
    """The learning rate of a model that is `wider` times as wide: with Muon lr / sqrt(wider).

    The entries of Muon's updates have a root mean square of 0.2 lr at any width, so the largest singular value of an update grows with
    sqrt(width), and the rate falls accordingly. The rate of AdamW is not changed.
    """
    optim = values.get("train", {}).get("optim", {})
    if optim.get("kind") != "muon":
        return {}
    return {"train.optim.lr": float(f"{optim.get('lr', OptimSettings().lr) / math.sqrt(wider):.3g}")}


def require_different(sizes: Sequence[Size]) -> None:
    """Refuse two sizes of the same name.

    Raises:
        ConfigError: naming it.
    """
    for name, number in Counter(size.name for size in sizes).items():
        if number > 1:
            raise ConfigError(f"sizes: two of them have {name} parameters; give sizes that differ more")
