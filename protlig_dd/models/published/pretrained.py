"""Published encoders from a folder, a file or the Hub: ESM-2, DPLM, DPLM-2, DPLM-2 Bit in Hugging Face's layout, Lightning's .ckpt, fair-esm's .pt.

Nothing in a file is executed (`archive.py`). `export.py` writes this layout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from protlig_dd.checkpoints.archive import read_tensors
from protlig_dd.checkpoints.checkpoint import hash_tensors
from protlig_dd.checkpoints.hub import fetch_repository
from protlig_dd.errors import CheckpointError, nearest, said_by
from protlig_dd.models.encoder import EncoderSettings
from protlig_dd.models.published.fair_esm import read_fair_esm
from protlig_dd.models.published.layouts import from_published, merge_lora, plain_names
from protlig_dd.models.published.vocabulary import check_vocabulary
from protlig_dd.tokens.protein import SYMBOLS
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack, TrackSettings
from protlig_dd.tokens.structure import num_joint_rows

_JOINT_ROWS = num_joint_rows("dplm2")
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_FIXED = {
    "mask_token_id": SYMBOLS.index("<mask>"),
    "pad_token_id": SYMBOLS.index("<pad>"),
    "layer_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "is_decoder": False,
    "is_folding_model": False,
}
_CODE_BITS = 13
_HUB_FILES = ("*.json", "*.safetensors", "*.bin", "vocab.txt")
_LIGHTNING_PREFIXES = ("model.net.", "model.", "net.")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A published checkpoint in our terms.

    Args:
        where: its name in messages: Hub id, folder or file.
        family: "esm2", "dplm", "dplm2" or "dplm2_bit".
        model: the shape of the encoder.
        tracks: the settings of its tracks.
        weights: its tensors under our names.
        config: its config.json.
        source_hash: the first 16 hex digits of a SHA-256 over names, shapes and bytes of the published tensors.
    """

    where: str
    family: str
    model: EncoderSettings
    tracks: Mapping[str, TrackSettings]
    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]
    source_hash: str


def is_pretrained(source: str | Path) -> bool:
    """Return whether a source is a published checkpoint and not a run folder: a .ckpt, a folder with config.json, or a Hub id."""
    path = Path(source)
    if path.is_dir():
        return (path / "config.json").is_file() and not (path / "config.yaml").is_file()
    return path.suffix == ".ckpt" or (not path.exists() and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", str(source))))


def read_pretrained(source: str | Path, *, lora_alpha: float = 32.0) -> Pretrained:
    """Return a published checkpoint.

    Args:
        source: a folder in Hugging Face's layout (safetensors or .bin, whole or sharded), a Lightning .ckpt, fair-esm's .pt, or a Hub id.
        lora_alpha: alpha of LoRA adapters, if the file has any; it is not in the file.

    Raises:
        CheckpointError: if it is absent, damaged, incomplete, or of an unknown kind.
    """
    path = Path(source)
    where = str(source)
    if path.suffix == ".ckpt":
        published, config = _read_lightning(path, lora_alpha)
    elif path.suffix == ".pt":
        published = read_fair_esm(path)
        config = {**_config_from_shapes(published, path), "dplm_type": None, "hidden_dropout_prob": 0.0}
    else:
        folder = path if path.is_dir() else fetch_repository(where, _HUB_FILES)
        config = _read_config(folder / "config.json")
        check_vocabulary(folder, config)
        published = merge_lora(plain_names(_read_weights(folder)), where, alpha=lora_alpha)
    family, model, tracks = describe(config, published, where)
    built = {name: track.build(name) for name, track in tracks.items()}
    with torch.device("meta"):
        expected = model.build(built, "reference").state_dict()
    weights = from_published(published, expected, where)
    return Pretrained(
        where=where, family=family, model=model, tracks=tracks, weights=weights, config=config, source_hash=hash_tensors(published)
    )


def describe(
    config: Mapping[str, Any], published: Mapping[str, Tensor], where: str
) -> tuple[str, EncoderSettings, dict[str, TrackSettings]]:
    """Return the family, the shape and the tracks of a checkpoint, from its config.json and its tensors.

    Raises:
        CheckpointError: for an unknown model type or vocabulary, or sizes that differ from the tensors'.
    """
    _require_esm2(config, where)
    table = _table(published, where)
    rows = len(table)
    bits = _table(published, where, "quant2emb.weight").shape[1] if "quant2emb.weight" in published else 0
    if rows not in (len(SYMBOLS), _JOINT_ROWS) or bits not in (0, _CODE_BITS):
        found = f"codes of {bits} bits" if bits else f"a vocabulary of {rows} tokens"
        raise CheckpointError(
            f"{where}: found {found}, expected {len(SYMBOLS)} tokens (ESM-2, DPLM), {_JOINT_ROWS} (DPLM-2) or {_CODE_BITS} bits"
        )
    blocks = {int(m[1]) for name in published if (m := re.match(r"esm\.encoder\.layer\.(\d{1,6})\.", name))}
    if not len(blocks) == 1 + max(blocks, default=-1) == config["num_hidden_layers"]:
        raise CheckpointError(
            f"{where}: found tensors of {len(blocks)} layers, config.json says {config['num_hidden_layers']}; "
            f"take config and weights from one release"
        )
    decoder = published.get("lm_head.decoder.weight")
    if decoder is None and config.get("tie_word_embeddings") is False:
        raise CheckpointError(
            f"{where}: no tensor 'lm_head.decoder.weight', and config.json says it is not the embedding; download it again"
        )
    paired = bool(bits) or rows == _JOINT_ROWS
    family = "dplm2_bit" if bits else "dplm2" if paired else "dplm" if config.get("dplm_type") else "esm2"
    try:
        longest = int(config.get("max_position_embeddings") or 1026)
        protein = ProteinTrack(max_length=longest, beside="dplm2" if family == "dplm2" else None)
        model = EncoderSettings(
            hidden_size=config["hidden_size"],
            num_heads=config["num_attention_heads"],
            num_blocks=config["num_hidden_layers"],
            mlp_ratio=config["intermediate_size"] / config["hidden_size"],
            dropout=float(config.get("hidden_dropout_prob") or 0.0),
            token_dropout=bool(config.get("token_dropout", False)),
            tied_head=decoder is None or (decoder.dtype == table.dtype and torch.equal(decoder, table)),
            code_bits=bits,
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: config.json: {error}") from error
    structure = {"structure": StructureTrack(max_length=longest)} if paired else {}
    return family, model, {**structure, "protein": protein}


def _require_esm2(config: Mapping[str, Any], where: str) -> None:
    """Refuse a config of a function other than ESM-2's."""
    kind = config.get("model_type", "esm")
    if kind != "esm":
        raise CheckpointError(f"{where}: found model_type '{kind}'{nearest(str(kind), ['esm'])}, expected 'esm'")
    if config.get("position_embedding_type", "rotary") != "rotary" or config.get("emb_layer_norm_before"):
        raise CheckpointError(f"{where}: an ESM-1 model; expected ESM-2 with rotary positions and no norm before the blocks")
    for name, expected in _FIXED.items():
        if config.get(name) not in (None, expected):
            raise CheckpointError(f"{where}: {name}: found '{config[name]}', expected {expected} as in ESM-2 and DPLM")


def _table(published: Mapping[str, Tensor], where: str, name: str = "esm.embeddings.word_embeddings.weight") -> Tensor:
    """A required matrix."""
    found = published.get(name)
    if found is None or found.ndim != 2 or not found.numel():
        raise CheckpointError(
            f"{where}: no matrix '{name}', found '{next(iter(published))}' and others; expected a checkpoint of ESM-2, DPLM or DPLM-2"
        )
    return found


def _read_config(path: Path) -> dict[str, Any]:
    """A config.json with valid sizes."""
    values = _read_json(path, "the config.json of a model")
    for name in ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size"):
        if name not in values:
            raise CheckpointError(f"{path}: no '{name}'; expected the config.json of an ESM-2, DPLM or DPLM-2 model")
        if type(values[name]) is not int or values[name] < 1:
            raise CheckpointError(f"{path}: {name}: found '{values[name]}', expected a whole number from 1 on")
    return values


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder, whole or sharded; safetensors first."""
    for name in _WEIGHT_FILES:
        if not (folder / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return _read_tensors(folder / name)
        index = _read_index(folder / name)
        tensors: dict[str, Tensor] = {}
        for shard in sorted(set(index.values())):
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise CheckpointError(f"{folder / name}: shard '{shard}' is not in the folder; download it again")
            tensors |= _read_tensors(folder / shard)
        missing = sorted(set(index) - set(tensors))
        if missing:
            raise CheckpointError(f"{folder / name}: its shards lack '{missing[0]}'; download them again")
        return tensors
    raise CheckpointError(f"{folder}: found no weights, expected one of {', '.join(_WEIGHT_FILES)}")


def _read_index(path: Path) -> dict[str, str]:
    """The shard of every tensor."""
    index = _read_json(path, "the index of a sharded model").get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(shard, str) for shard in index.values()):
        raise CheckpointError(f"{path}: found no 'weight_map' from names to files; download it again")
    return index


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable ({said_by(error)}); expected {what}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: found {type(values).__name__}, expected {what}")
    return values


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_tensors(path)
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({said_by(error)}); download it again") from error


def _read_lightning(path: Path, lora_alpha: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's tensors in a Lightning checkpoint, and a config derived from their shapes."""
    tensors = plain_names(read_tensors(path, inside="state_dict"))
    prefix = next((p for p in _LIGHTNING_PREFIXES if all(name.startswith(p) for name in tensors)), "")
    plain = {name.removeprefix(prefix): value for name, value in tensors.items()}
    merged = merge_lora(plain, str(path), alpha=lora_alpha)
    return merged, _config_from_shapes(merged, path)


def _config_from_shapes(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """A config derived from tensors alone; the number of heads follows from rotary frequencies or the contact head."""
    rows, hidden = _table(tensors, str(path)).shape
    inner = len(_table(tensors, str(path), "esm.encoder.layer.0.intermediate.dense.weight"))
    layers = len({m[1] for n in tensors if (m := re.match(r"esm\.encoder\.layer\.(\d+)\.", n))})
    frequencies = next((value for name, value in tensors.items() if name.endswith("rotary_embeddings.inv_freq")), None)
    contact = tensors.get("esm.contact_head.regression.weight")
    heads = 0
    if frequencies is not None and frequencies.numel():
        heads = hidden // (2 * frequencies.numel())
    elif contact is not None:
        heads = contact.numel() // layers
    if not heads:
        raise CheckpointError(f"{path}: neither rotary frequencies nor a contact head say how many heads it has; export it as a folder")
    return {
        "model_type": "esm",
        "dplm_type": "dplm_esm" if rows == len(SYMBOLS) else "dplm2_esm",
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "hidden_dropout_prob": 0.1,
        "token_dropout": True,
        "vocab_size": rows,
    }
