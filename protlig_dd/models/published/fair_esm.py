"""ESM-2's own files (`esm2_t6_8M_UR50D.pt` and others of the package fair-esm): their tensors under Hugging Face's names.

The ids of both vocabularies are the same. The contact regression is a file of its own there, which no likelihood needs.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from protlig_dd.checkpoints.archive import read_tensor_names, read_tensors

_PREFIX = re.compile(r"^encoder\.(sentence_encoder\.)?")
_INSIDE = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn.rot_emb": "attention.self.rotary_embeddings",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}
_OUTSIDE = {
    "embed_tokens.weight": "esm.embeddings.word_embeddings.weight",
    "emb_layer_norm_after.weight": "esm.encoder.emb_layer_norm_after.weight",
    "emb_layer_norm_after.bias": "esm.encoder.emb_layer_norm_after.bias",
    "lm_head.weight": "lm_head.decoder.weight",
}


def is_fair_esm(path: Path) -> bool:
    """Return whether a torch file is one of fair-esm, by the names of its tensors.

    Raises:
        CheckpointError: if it is no torch file, or a damaged one.
    """
    return any(_PREFIX.match(name) and name.endswith("embed_tokens.weight") for name in read_tensor_names(path, inside="model"))


def read_fair_esm(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of fair-esm under Hugging Face's names. ESM-1's, which have more, keep their own names.

    Raises:
        CheckpointError: if it is no torch file, or a damaged one.

    Source: fair-esm 2.0 (Lin et al. 2023) and transformers' EsmForMaskedLM, whose names the published folders have.
    """
    return {published_name(_PREFIX.sub("", name)): value for name, value in read_tensors(path, inside="model").items()}


def published_name(name: str) -> str:
    """Return the name in Hugging Face's layout of a tensor of fair-esm.

    >>> published_name("layers.3.self_attn.q_proj.weight")
    'esm.encoder.layer.3.attention.self.query.weight'
    """
    layer = re.match(r"layers\.(\d+)\.(.+)\.(\w+)$", name)
    if layer and layer[2] in _INSIDE:
        return f"esm.encoder.layer.{layer[1]}.{_INSIDE[layer[2]]}.{layer[3]}"
    return _OUTSIDE.get(name, f"esm.{name}" if name.startswith("contact_head.") else name)
