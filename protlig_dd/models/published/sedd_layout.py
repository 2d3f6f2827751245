"""Checkpoints of single-track SEDD models on proteins, read into our names without executing anything in them.

Two layouts are recognised by their tensors: the original's (a bias in the last layer, tanh GELU, SiLU after the noise-level embedding) and
the 66 M protein model's (no bias, exact GELU, no SiLU). Source: Lou, Meng and Ermon 2024, and their code's names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from protlig_dd.checkpoints.archive import read_tensors
from protlig_dd.errors import CheckpointError
from protlig_dd.models.dit import DiTSettings
from protlig_dd.tokens.protein import SYMBOLS
from protlig_dd.tokens.settings import ProteinTrack

_NAMES = {
    "vocab_embed.embedding": "embedding.weight",
    "output_layer.norm_final.": "head.norm.",
    "output_layer.linear.": "head.linear.",
    "output_layer.adaLN_modulation.": "head.modulation.",
    "sigma_map.": "noise_level.",
    "attn_qkv": "attention.qkv",
    "attn_out": "attention.out",
    "adaLN_modulation": "modulation",
}


def from_sedd_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return SEDD's tensors under our names, without rotary frequencies, which are computed."""
    renamed = {}
    for name, value in state.items():
        ours = name.removeprefix("module.")
        if "rotary" in ours:
            continue
        for theirs, our in _NAMES.items():
            ours = ours.replace(theirs, our)
        renamed[ours] = value
    return renamed


def read_sedd(path: Path) -> tuple[DiTSettings, ProteinTrack, dict[str, Tensor]]:
    """Return the shape, the track and the weights of a SEDD checkpoint (.pth or .pt) on proteins.

    Raises:
        CheckpointError: if it is damaged, not a SEDD model, or its vocabulary is smaller than the ESM alphabet.
    """
    tensors = read_tensors(path, inside="model_state_dict")
    weights = from_sedd_names(tensors)
    needed = ("embedding.weight", "noise_level.mlp.0.weight", "blocks.0.attention.qkv.weight", "head.linear.weight")
    missing = [name for name in needed if name not in weights]
    if missing:
        raise CheckpointError(f"{path}: no tensor for '{missing[0]}'; expected a checkpoint of a single-track SEDD model")
    rows, hidden = weights["embedding.weight"].shape
    if rows < len(SYMBOLS):
        raise CheckpointError(f"{path}: found {rows} rows, expected {len(SYMBOLS)} or more, the ESM alphabet and a mask")
    frequencies = next((v for name, v in tensors.items() if name.endswith("inv_freq")), None)
    bias = "head.linear.bias" in weights
    model = DiTSettings(
        hidden_size=hidden,
        num_heads=12 if frequencies is None else hidden // (2 * len(frequencies)),
        num_blocks=1 + max(int(m[1]) for name in weights if (m := re.match(r"blocks\.(\d+)\.", name))),
        conditioning_size=len(weights["noise_level.mlp.0.weight"]),
        mlp_ratio=len(weights["blocks.0.mlp.0.weight"]) / hidden,
        activation="gelu_tanh" if bias else "gelu",
        head_bias=bias,
        final_silu=bias,
    )
    return model, ProteinTrack(num_rows=rows, mask_id=max(rows - 1, 32), max_length=1024, add_ends=False), weights
