"""Initialising a model from another model's weights: common tracks, grown vocabularies, frozen parameters.

A single-track model initialises its track of a dual-track model: pre-train each track on its own data, then train on pairs. A sequence
encoder initialises an encoder of sequences and structure tokens, as DPLM does for DPLM-2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protlig_dd.errors import CheckpointError, ConfigError
from protlig_dd.rng import generator
from protlig_dd.tokens.tracks import Track

_FUNCTION = ("num_heads", "token_dropout", "activation", "qk_norm", "final_silu", "rope_theta", "norm_eps")
_ROWS = ("embedding.weight", "head.linear.weight", "head.linear.bias", "head.decoder.weight", "head.bias")
_DRAWN = ("embedding.weight", "head.decoder.weight")


def initialise_from(
    model: nn.Module, tracks: Mapping[str, Track], source: Mapping[str, Tensor], source_tracks: Mapping[str, Track], where: str
) -> list[str]:
    """Copy matching weights of another model into a model, in place, and return lines that say what was copied.

    Rows of embeddings and heads are matched by symbol, so a vocabulary may have grown or been reordered; new symbols keep their fresh
    rows, in an encoder (DPLM-2) drawn with the mean and deviation of the old ones. All other tensors are matched by name; a different shape is
    an error (but for k-mers of another length, which stay fresh), and a tensor that only the new model has stays fresh, as adapters do.

    Args:
        model: the new model.
        tracks: the tracks of the new model.
        source: the weights to start from.
        source_tracks: the tracks that these were trained with.
        where: the source's name in messages.

    Raises:
        CheckpointError: if a tensor of the same name has another shape, or the source has adapters that the model lacks, or nothing fits.
    """
    state = model.state_dict()
    tracks, source_tracks = _without_given(tracks, state), _without_given(source_tracks, source)
    if adapter := next((name for name in source if ".lora_" in name and name not in state), ""):
        raise CheckpointError(
            f"{where}: has adapters ({adapter}) and this model has none such; "
            f"merge them first with protlig export, and start from the folder"
        )
    is_stacked = any(name.startswith("stacks.") for name in state)
    if is_encoder := "head.dense.weight" in state:
        source = {**source, "head.decoder.weight": source.get("head.decoder.weight", source["embedding.weight"])}
    renamed = _renamed(source, tracks, source_tracks, is_stacked)
    copied, fresh = [], []
    with torch.no_grad():
        for name, target in state.items():
            plain = name.replace(".base_layer.", ".")  # a matrix that has an adapter here and none there
            if name not in renamed and plain not in renamed:
                fresh.append(name)
                continue
            value, owners = renamed[name if name in renamed else plain]
            by_row = name.endswith(_ROWS) and "bit_head" not in name
            if name.startswith("given.") and target.shape != value.shape:  # the reader of another k
                fresh.append(name)
                continue
            if target.shape[by_row:] != value.shape[by_row:]:
                raise CheckpointError(
                    f"{where}: {name} has shape {tuple(value.shape)} there and {tuple(target.shape)} here; "
                    f"use the same model sizes (hidden_size, num_heads, num_blocks, conditioning_size)"
                )
            if by_row:
                pairs = dict(pair for track in owners for pair in _shared_rows(tracks[track], source_tracks[track]))
                if is_encoder and name in _DRAWN and len(pairs) < len(target):
                    target.copy_(draw_like(value, len(target)))
                for new, old in pairs.items():
                    target[new] = value[old]
            else:
                target.copy_(value)
            copied.append(name)
    if not copied:
        raise CheckpointError(f"{where}: none of its tensors fits this model; expected a run with a track among {', '.join(tracks)}")
    lines = [f"started from {where}: {len(copied)} tensors copied, {len(fresh)} fresh"]
    if fresh:
        lines.append(f"fresh: {', '.join(fresh[:6])}{' ...' if len(fresh) > 6 else ''}")
    return lines


def other_function(config: object, source: object, where: str) -> list[str]:
    """Return a line for each setting that lets two models compute different functions of the same weights.

    Args:
        config: the settings of the new model.
        source: the settings of the model that its weights come from.
        where: the source's name in the lines.
    """
    shared = [name for name in _FUNCTION if hasattr(config, name) and hasattr(source, name)]
    return [
        f"{where}: its weights were trained with model.{name}={getattr(source, name)}, and here it is {getattr(config, name)}: "
        f"they compute another function until they are trained further"
        for name in shared
        if getattr(config, name) != getattr(source, name)
    ]


def freeze_parameters(model: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Freeze the parameters whose names match, and return a line for each pattern with their number.

    Raises:
        ConfigError: if a pattern matches nothing.
    """
    lines = []
    for pattern in patterns:
        matched = [p for name, p in model.named_parameters() if re.search(pattern, name)]
        if not matched:
            known = sorted({name.rsplit(".", 2)[0] for name, _ in model.named_parameters()})
            raise ConfigError(f"freeze: '{pattern}' matches no parameter; names begin like: {', '.join(known[:8])}")
        for parameter in matched:
            parameter.requires_grad_(False)
        lines.append(f"frozen by '{pattern}': {sum(p.numel() for p in matched):,} parameters")
    return lines


@torch.no_grad()
def draw_like(rows: Float[Tensor, "n e"], number: int) -> Float[Tensor, "{number} e"]:
    """Return `number` normal rows with the mean and standard deviation of given rows in each column, in float32 (DPLM-2's new rows)."""
    deviation, mean = torch.std_mean(rows.float(), dim=0)
    noise = torch.randn(number, rows.shape[1], generator=generator(0, "new rows", number))
    return mean + deviation * noise.to(rows.device)


def _without_given(tracks: Mapping[str, Track], weights: Mapping[str, Tensor]) -> dict[str, Track]:
    """The tracks but those that a model is only given, which have no rows of its embedding."""
    given = {name.split(".")[1] for name in weights if name.startswith("given.")}
    return {name: track for name, track in tracks.items() if name not in given}


def _renamed(
    source: Mapping[str, Tensor], tracks: Mapping[str, Track], source_tracks: Mapping[str, Track], into_stacks: bool
) -> dict[str, tuple[Tensor, tuple[str, ...]]]:
    """The source's tensors by their names in the new model, each with the tracks that its rows belong to."""
    renamed = {}
    for name, value in source.items():
        stacked = re.match(r"stacks\.([^.]+)\.(.*)", name)
        own, rest = ((stacked[1],), stacked[2]) if stacked else (tuple(source_tracks), name)
        shared = tuple(track for track in own if track in tracks)
        if not shared or (into_stacks and len(own) > 1):
            continue
        new = f"stacks.{own[0]}.{rest}" if into_stacks else rest
        renamed[new] = (_fit_modulation(rest, value, not into_stacks, bool(stacked)), shared)
    return renamed


def _fit_modulation(name: str, value: Tensor, into_single: bool, from_stacked: bool) -> Tensor:
    """Match adaLN's chunks: a dual-track block has three more (for cross-attention, after the six); new ones are zero."""
    if "blocks." not in name or ".modulation." not in name or into_single == (not from_stacked):
        return value
    if into_single:
        return value[: value.shape[0] * 6 // 9]
    return torch.cat([value, value.new_zeros(value.shape[0] // 2, *value.shape[1:])])


def _shared_rows(new: Track, old: Track) -> Iterator[tuple[int, int]]:
    """Pairs of ids of the same symbol in both vocabularies."""
    for symbol, i in new.vocabulary.ids.items():
        if symbol in old.vocabulary.ids:
            yield i, old.vocabulary.ids[symbol]
    if new.vocabulary.mask_id >= len(new.vocabulary.symbols) and old.vocabulary.mask_id >= len(old.vocabulary.symbols):
        yield new.vocabulary.mask_id, old.vocabulary.mask_id
