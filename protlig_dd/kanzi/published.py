"""Kanzi's published checkpoint: its names of our tensors, and reading its file without executing anything in it.

The file is a dictionary with `model` (tensors by name) and `model_cfg`. The shape follows from the tensors, the number of heads from the
rotary frequencies; `model_cfg` has the window, the levels, and whether queries are normed. The prior on tokens (`gpt.*`) is ignored.

Verification: a checkpoint read here computes the same as the original: on random weights in a small and in the published shape (44,117,745
parameters; 44,374,180 numbers in 178 tensors with buffers) tokens and quantised vectors are equal, and hidden states, velocities and samples
from given noise agree to rounding (tests/kanzi/test_original.py has outputs of the original's code). Its rotary module was not among the
available sources; ESM-2's was used instead, which has the same buffer and calls. The published weights were not available either. Crambin's
tokens would be a test: 1CRN begins 599 358 983 769 849 680 44 120 984 575 42 176.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from protlig_dd.checkpoints.archive import read_tensors, read_values
from protlig_dd.errors import CheckpointError
from protlig_dd.kanzi.blocks import NUM_EDGES, NUM_OFFSETS, distance_edges
from protlig_dd.kanzi.flow import FlowSampler
from protlig_dd.kanzi.fsq import LEVELS
from protlig_dd.kanzi.model import KanziSettings

_MODULES = {
    "quantiser.project_in": "quantize.project_in",
    "quantiser.project_out": "quantize.project_out",
    "encoder.pairs.distances": "pair_embedder.embed",
    "encoder.pairs.offsets": "pair_embedder.pos_embed",
    "encoder.pairs.norm": "pair_embedder.ln",
    "encoder.pairs.mlp.0": "pair_embedder.mlp.fc1",
    "encoder.pairs.mlp.2": "pair_embedder.mlp.fc2",
    "encoder.lift.0": "up.0",
    "encoder.lift.2": "up.2",
    "encoder.lift.3": "up.3",
    "decoder.lift": "net.up.linear",
    "decoder.lift_norm.modulation": "net.up.adaLN_modulation.1",
    "decoder.time.0": "net.time_embedder.mlp.0",
    "decoder.time.2": "net.time_embedder.mlp.2",
    "decoder.final": "net.final.linear",
    "decoder.final_norm.modulation": "net.final.adaLN_modulation.1",
}
_IN_BLOCKS = {
    "qkv": "attn.to_qkv",
    "out": "attn.to_out",
    "attention.qkv": "attn.to_qkv",
    "attention.out": "attn.to_out",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
    "pair_bias": "proj_pair_bias",
    "pair_norm": "pair_ln",
    "modulation": "adaLN_modulation.1",
}
_BLOCKS = {"encoder": "encoder.blocks", "decoder": "net.blocks"}
_SEGMENTS = ("decoder.segments", "net.cond_embed")
_TABLES = ("pair_embedder.embed", "pair_embedder.pos_embed", "net.cond_embed")
"""Names that may or may not be followed by `.weight`."""
_DERIVED = ("pos_embed.inv_freq", "pair_embedder.bins")
_SHARED = "net.shared_adaLN_modulation."
"""One modulation for all blocks, repeated in each of them under its own name."""

PUBLISHED_SAMPLER = FlowSampler(method="euler")
"""The original's default sampler."""


def published_name(name: str) -> str:
    """Return the published name of one of our tensors."""
    if name == _SEGMENTS[0]:
        return _SEGMENTS[1]
    module, _, leaf = name.rpartition(".")
    block = re.fullmatch(r"(encoder|decoder)\.blocks\.(\d+)\.(.*)", module)
    if block is None:
        return f"{_MODULES[module]}.{leaf}"
    return f"{_BLOCKS[block[1]]}.{block[2]}.{_IN_BLOCKS[block[3]]}.{leaf}"


def to_published(weights: Mapping[str, Tensor], settings: KanziSettings) -> dict[str, Tensor]:
    """Return weights under their published names, with the buffers of a published file."""
    published = {published_name(name): value.detach().clone() for name, value in weights.items()}
    published["pair_embedder.bins"] = distance_edges()
    sizes = {"encoder": settings.encoder_size // settings.encoder_heads, "decoder": settings.decoder_size // settings.decoder_heads}
    numbers = {"encoder": settings.encoder_blocks, "decoder": settings.decoder_blocks}
    for part, head_size in sizes.items():
        for i in range(numbers[part]):
            frequencies = 10000.0 ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
            published[f"{_BLOCKS[part]}.{i}.attn.pos_embed.inv_freq"] = frequencies
    return published


def read_kanzi(path: Path) -> tuple[KanziSettings, dict[str, Tensor]]:
    """Return the shape and the weights of a file in the published layout.

    Raises:
        CheckpointError: if it is damaged, lacks a tensor, has one of another shape, or is of another kind of model.
    """
    found = {
        _plain(name.removeprefix("module.")): value
        for name, value in read_tensors(path, inside="model").items()
        if not name.removeprefix("module.").startswith("gpt.")
    }
    settings = _shape(found, read_values(path, inside="model_cfg"), path)
    with torch.device("meta"):
        expected = settings.build("reference").state_dict()
    weights = {}
    for name, like in expected.items():
        theirs = _plain(published_name(name))
        value = _tensor(found, theirs, path)
        if name == _SEGMENTS[0] and value.numel() == like.numel():
            value = value.reshape(like.shape)
        if value.shape != like.shape:
            raise CheckpointError(
                f"{path}: '{theirs}' has the shape {tuple(value.shape)}, expected {tuple(like.shape)}; take another release"
            )
        weights[name] = value.float()
    known = {_plain(published_name(name)) for name in expected}
    spare = [n for n in found if n not in known and not n.endswith(_DERIVED) and not n.startswith(_SHARED)]
    if spare:
        raise CheckpointError(f"{path}: found '{spare[0]}', which this model does not have; expected the layout of Kanzi's release")
    bins = found.get("pair_embedder.bins")
    if bins is not None and (bins.numel() != NUM_EDGES or not torch.allclose(bins.flatten().float(), distance_edges())):
        raise CheckpointError(f"{path}: has other distance buckets than {NUM_EDGES} edges from 0 to 9 square nanometres")
    return settings, weights


def _plain(name: str) -> str:
    """A published name without the `.weight` that tables may have."""
    stem = name.removesuffix(".weight")
    return stem if stem in _TABLES else name


def _tensor(found: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in found:
        raise CheckpointError(f"{path}: no tensor '{name}'; expected a checkpoint of Kanzi's flow autoencoder")
    return found[name]


def _shape(found: Mapping[str, Tensor], values: Mapping[str, Any], path: Path) -> KanziSettings:
    """The settings that follow from the tensors and the file's configuration.

    An entry that is missing in the configuration has the original's default; a file without configuration is taken as the published one.
    """
    window, levels = _not_in_tensors(values, path) if values else (16, LEVELS)
    encoder_size = len(_tensor(found, "up.0.weight", path))
    decoder_size = len(_tensor(found, "net.up.linear.weight", path))
    blocks = {part: len({m[1] for n in found if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", n))}) for part, prefix in _BLOCKS.items()}
    offsets = _tensor(found, "pair_embedder.pos_embed", path)
    if len(offsets) != NUM_OFFSETS:
        raise CheckpointError(f"{path}: found {len(offsets)} relative positions, expected {NUM_OFFSETS}")
    numbers = len(_tensor(found, "quantize.project_in.weight", path))
    if numbers != len(levels):
        raise CheckpointError(f"{path}: model_cfg.levels: found {len(levels)} numbers, expected {numbers}, as the tensors have")
    inner = len(_tensor(found, "net.blocks.0.mlp.fc1.weight", path))
    try:
        return KanziSettings(
            encoder_size=encoder_size,
            encoder_heads=_heads(found, "encoder", encoder_size),
            encoder_blocks=blocks["encoder"],
            window=window,
            levels=levels,
            normed_queries=bool(values.get("use_qknorm", False)),
            pair_size=offsets.shape[-1],
            decoder_size=decoder_size,
            decoder_heads=_heads(found, "decoder", decoder_size),
            decoder_blocks=blocks["decoder"],
            mlp_ratio=inner / decoder_size,
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _not_in_tensors(values: Mapping[str, Any], path: Path) -> tuple[int, tuple[int, ...]]:
    """The window and the levels of a file's configuration, with the original's defaults."""
    window, levels = values.get("window_size", 10_000), values.get("levels", (8, 8, 8, 8))
    kind = values.get("conditioning_type", "cat")
    if kind != "cat":
        raise CheckpointError(f"{path}: model_cfg.conditioning_type: found {kind!r}, expected 'cat'")
    if not isinstance(window, int):
        raise CheckpointError(f"{path}: model_cfg.window_size: found {window!r}, expected a whole number")
    if not isinstance(levels, list | tuple) or not all(isinstance(one, int) for one in levels):
        raise CheckpointError(f"{path}: model_cfg.levels: found {levels!r}, expected whole numbers, such as (8, 5, 5, 5)")
    return window, tuple(levels)


def _heads(found: Mapping[str, Tensor], part: str, size: int) -> int:
    """The number of heads from the rotary frequencies, one for every two numbers of a head; by default the authors' number."""
    frequencies = found.get(f"{_BLOCKS[part]}.0.attn.pos_embed.inv_freq")
    return 8 if frequencies is None or not frequencies.numel() else size // (2 * frequencies.numel())
