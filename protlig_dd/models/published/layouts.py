"""Names of the encoder's tensors in the published layout (Hugging Face's `EsmForMaskedLM`, DPLM, DPLM-2, DPLM-2 Bit) and in ours.

The published files have separate query, key and value matrices, ours are one matrix. They may also have tensors that no forward pass uses
(a position table in spite of rotary positions, a contact head, rotary frequencies), which are ignored on reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from protlig_dd.errors import CheckpointError

_UNUSED = re.compile(r"position_embeddings\.|position_ids$|rotary_embeddings\.inv_freq$|contact_head\.")
_OUTSIDE = {
    "embedding": "esm.embeddings.word_embeddings",
    "norm": "esm.encoder.emb_layer_norm_after",
    "head.dense": "lm_head.dense",
    "head.norm": "lm_head.layer_norm",
    "head.decoder": "lm_head.decoder",
    "head": "lm_head",
    "bit_head.pairs.dense": "lm_head_struct.dense",
    "bit_head.pairs.norm": "lm_head_struct.layer_norm",
    "bit_head.pairs.decoder": "lm_head_struct.decoder",
    "bit_head.pairs": "lm_head_struct",
    "bits.project": "quant2emb",
}
_VECTORS = {"bits.begin": "struct_bos_emb", "bits.end": "struct_eos_emb", "bits.mask": "struct_mask_emb"}
_INSIDE = {
    "norm1": "attention.LayerNorm",
    "attention.out": "attention.output.dense",
    "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense",
    "norm2": "LayerNorm",
}
_NEW_NAMES = {"gamma": "weight", "beta": "bias"}
_OLD_NAMES = re.compile(r"(?<=LayerNorm\.)(gamma|beta)$")
"""TensorFlow's names of a norm's weight and bias; `save_pretrained` of transformers 5 writes them again."""
_THREE = ("query", "key", "value")


def published_names(name: str) -> list[str]:
    """Return the published names of one of our tensors: one, or three for a joint query-key-value matrix."""
    if name in _VECTORS:
        return [_VECTORS[name]]
    module, _, leaf = name.rpartition(".")
    block = re.match(r"blocks\.(\d+)\.(.*)", module)
    if block is None:
        return [f"{_OUTSIDE[module]}.{leaf}"]
    layer = f"esm.encoder.layer.{block[1]}"
    if block[2] == "attention.qkv":
        return [f"{layer}.attention.self.{one}.{leaf}" for one in _THREE]
    return [f"{layer}.{_INSIDE[block[2]]}.{leaf}"]


def to_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an encoder's weights under their published names."""
    published: dict[str, Tensor] = {}
    for name, value in weights.items():
        names = published_names(name)
        published.update(zip(names, value.detach().chunk(len(names)), strict=True))
    return {name: value.contiguous() for name, value in published.items()}


def unused_tensors(num_blocks: int, num_heads: int, head_size: int) -> dict[str, Tensor]:
    """Return tensors that a stock model expects in a file although its logits do not need them, under their published names.

    These are the rotary frequencies of every layer, and the contact head, which is zero since it is not trained here.
    """
    frequencies = 1.0 / (10000.0 ** (torch.arange(0, head_size, 2, dtype=torch.float32) / head_size))
    name = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
    rotary = {name.format(i): frequencies.clone() for i in range(num_blocks)}
    head = {"weight": torch.zeros(1, num_blocks * num_heads), "bias": torch.zeros(1)}
    return rotary | {f"esm.contact_head.regression.{leaf}": value for leaf, value in head.items()}


def from_published(published: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return weights under our names.

    Args:
        published: tensors under published names; LoRA adapters must have been merged (`merge_lora`).
        expected: the state dict of the model, for names and shapes.
        where: the source's name in messages.

    Raises:
        CheckpointError: for a missing or unexpected tensor, or one of another shape.
    """
    weights, used = {}, set()
    published = {_OLD_NAMES.sub(lambda old: _NEW_NAMES[old[1]], name): value for name, value in published.items()}
    for name, target in expected.items():
        names = published_names(name)
        missing = [one for one in names if one not in published]
        if missing:
            raise CheckpointError(f"{where}: no tensor '{missing[0]}'; expected an ESM-2, DPLM or DPLM-2 checkpoint, whole")
        shape = (target.shape[0] // len(names), *target.shape[1:])
        for one in names:
            if published[one].shape != shape:
                raise CheckpointError(
                    f"{where}: {one} has shape {tuple(published[one].shape)}, config.json means {shape}; "
                    f"take config and weights from one release"
                )
        weights[name] = torch.cat([published[one] for one in names]) if len(names) > 1 else published[names[0]]
        used.update(names)
    extra = sorted(n for n in published if n not in used and not _UNUSED.search(n) and n != "lm_head.decoder.weight")
    if extra:
        raise CheckpointError(
            f"{where}: found {len(extra)} tensors that the model has no place for, such as '{extra[0]}'; "
            f"expected an ESM-2, DPLM or DPLM-2 checkpoint"
        )
    return weights


def merge_lora(published: Mapping[str, Tensor], where: str, *, alpha: float = 32.0) -> dict[str, Tensor]:
    """Return weights with LoRA adapters merged, W + (alpha / r) B A, under names without peft's wrappers.

    Args:
        published: tensors as peft names them (`base_layer`, `lora_A.default`, `modules_to_save.default`), or plain ones.
        where: the source's name in messages.
        alpha: LoRA's alpha, which is not in the file (DPLM-2 uses 32 with rank 16).

    Raises:
        CheckpointError: for an adapter without its matrix, or of another shape.
    """
    plain = {name.removeprefix("base_model.model."): value for name, value in published.items()}
    merged, used = {}, set()
    for name, value in plain.items():
        if ".lora_" in name or ".original_module." in name:
            continue
        target = name.replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")
        if name.endswith(".base_layer.weight"):
            pair = [name.replace(".base_layer.weight", f".lora_{side}.default.weight") for side in "AB"]
            if all(one in plain for one in pair):
                value = value + _product(plain[pair[0]], plain[pair[1]], value, alpha, f"{where}: {pair[0]}")
                used.update(pair)
        merged[target] = value
    left = sorted(name for name in plain if ".lora_" in name and name not in used)
    if left:
        raise CheckpointError(
            f"{where}: '{left[0]}' is an adapter that cannot be merged; expected lora_A.default and lora_B.default beside base_layer"
        )
    return merged


def _product(down: Tensor, up: Tensor, base: Tensor, alpha: float, where: str) -> Tensor:
    """(alpha / r) B A, in the dtype of the matrix that it is added to."""
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or base.shape != (len(up), down.shape[1]):
        raise CheckpointError(
            f"{where}: found {tuple(down.shape)} beside B {tuple(up.shape)} and W {tuple(base.shape)}; expected r x in, out x r, out x in"
        )
    return (alpha / max(len(down), 1) * (up.float() @ down.float())).to(base.dtype)
