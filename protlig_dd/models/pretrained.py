"""Published encoders from a folder, a file or the Hub: ESM-2, DPLM, DPLM-2, DPLM-2 Bit in Hugging Face's layout, and Lightning's .ckpt.

Nothing that stands in a file is ever executed (`archive.py`). The way back is `export.py`.
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

from protlig_dd.errors import CheckpointError, nearest, require
from protlig_dd.models.archive import read_archive
from protlig_dd.models.encoder import EncoderSettings
from protlig_dd.models.layouts import from_published, hash_tensors, merge_lora
from protlig_dd.tokens.protein import SYMBOLS
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack, TrackSettings
from protlig_dd.tokens.structure import num_joint_rows

_JOINT_ROWS = num_joint_rows("dplm2")
_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_HUB_FILES = ("*.json", "*.safetensors", "*.bin", "vocab.txt")
_LIGHTNING_PREFIXES = ("model.net.", "model.", "net.")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A published checkpoint in our terms.

    Args:
        where: what messages call it: its Hub id, folder or file.
        family: "esm2", "dplm", "dplm2" or "dplm2_bit".
        model: the shape.
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
    """Say whether a source is a published checkpoint rather than a run folder: a .ckpt, a folder with config.json, or a Hub id."""
    path = Path(source)
    if path.is_dir():
        return (path / "config.json").is_file() and not (path / "config.yaml").is_file()
    return path.suffix == ".ckpt" or (not path.exists() and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", str(source))))


def read_pretrained(source: str | Path, *, lora_alpha: float = 32.0) -> Pretrained:
    """Return a published checkpoint.

    Args:
        source: a folder in Hugging Face's layout (safetensors or .bin, whole or sharded), a Lightning .ckpt, or a Hub id.
        lora_alpha: alpha of LoRA adapters, where the file has any and no config says it.

    Raises:
        CheckpointError: if it is not there, damaged, incomplete, or of a kind that is not known.
    """
    path = Path(source)
    if path.suffix == ".ckpt":
        published, config = _read_lightning(path)
        where = str(path)
    else:
        folder = path if path.is_dir() else _download(str(source))
        where, config = str(source), _read_config(folder / "config.json")
        published = _read_weights(folder)
    published = merge_lora(published, alpha=lora_alpha)
    family, model, tracks = describe(config, published, where)
    built = {name: track.build(name) for name, track in tracks.items()}
    with torch.device("meta"):
        expected = model.build(built, "reference").state_dict()
    weights = from_published(published, expected, where)
    return Pretrained(
        where=where,
        family=family,
        model=model,
        tracks=tracks,
        weights=weights,
        config=config,
        source_hash=hash_tensors(published),
    )


def describe(
    config: Mapping[str, Any], published: Mapping[str, Tensor], where: str
) -> tuple[str, EncoderSettings, dict[str, TrackSettings]]:
    """Return the family, the shape and the tracks that a config.json means.

    Raises:
        CheckpointError: for a model type or a vocabulary that is not known.
    """
    kind = config.get("model_type", "esm")
    if kind != "esm":
        raise CheckpointError(f"{where}: found model_type '{kind}'{nearest(str(kind), ['esm'])}, expected 'esm'")
    if config.get("position_embedding_type", "rotary") != "rotary" or config.get("emb_layer_norm_before"):
        raise CheckpointError(
            f"{where}: an ESM-1 model; expected ESM-2 with rotary positions and no norm before the blocks"
        )
    rows = published["esm.embeddings.word_embeddings.weight"].shape[0] if published else config.get("vocab_size")
    bits = int(config.get("codebook_embed_dim") or 0) if "quant2emb.weight" in published else 0
    if rows not in (len(SYMBOLS), _JOINT_ROWS):
        raise CheckpointError(
            f"{where}: found a vocabulary of {rows} tokens, expected {len(SYMBOLS)} (ESM-2, DPLM) or {_JOINT_ROWS} (DPLM-2)"
        )
    paired = bool(bits) or rows == _JOINT_ROWS
    longest = int(config.get("max_position_embeddings") or 1026)
    tracks: dict[str, TrackSettings] = {
        "protein": ProteinTrack(max_length=longest, beside=None if bits or not paired else "dplm2")
    }
    if paired:
        tracks = {"structure": StructureTrack(max_length=longest), **tracks}
    hidden = int(config["hidden_size"])
    decoder = published.get("lm_head.decoder.weight")
    table = published["esm.embeddings.word_embeddings.weight"]
    model = EncoderSettings(
        hidden_size=hidden,
        num_heads=int(config["num_attention_heads"]),
        num_blocks=int(config["num_hidden_layers"]),
        mlp_ratio=int(config["intermediate_size"]) / hidden,
        dropout=float(config.get("hidden_dropout_prob") or 0.0),
        token_dropout=bool(config.get("token_dropout", False)),
        tied_head=decoder is None or torch.equal(decoder, table),
        code_bits=bits,
    )
    family = "dplm2_bit" if bits else "dplm2" if paired else "dplm" if config.get("dplm_type") else "esm2"
    return family, model, tracks


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable ({error}); expected the config.json of a model") from error
    missing = [
        n for n in ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size") if n not in values
    ]
    if missing:
        raise CheckpointError(f"{path}: no '{missing[0]}'; expected the config.json of an ESM-2, DPLM or DPLM-2 model")
    return dict(values)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder, whole or sharded; safetensors first."""
    for name in _WEIGHT_FILES:
        if not (folder / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return _read_tensors(folder / name)
        index = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"]
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


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise CheckpointError(f"{path}: damaged ({error}); download it again") from error
    return _only_tensors(read_archive(path), path)


def _only_tensors(value: Any, path: Path) -> dict[str, Tensor]:
    tensors = {str(k): v for k, v in value.items() if isinstance(v, Tensor)} if isinstance(value, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path}: found no tensors by name, expected a state dict")
    return tensors


def _read_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's tensors in a Lightning checkpoint, and the config that its shapes mean."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    content = read_archive(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    tensors = _only_tensors(state, path)
    prefix = next((p for p in _LIGHTNING_PREFIXES if all(name.startswith(p) for name in tensors)), "")
    tensors = merge_lora({name.removeprefix(prefix): value for name, value in tensors.items()})
    table = tensors.get("esm.embeddings.word_embeddings.weight")
    if table is None:
        raise CheckpointError(
            f"{path}: found '{next(iter(tensors))}' and no word embeddings; expected a checkpoint of a DPLM or DPLM-2 training"
        )
    return tensors, _config_from_shapes(tensors, path)


def _config_from_shapes(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The config of a network whose tensors are all that is known; the number of heads is in its frequencies or its contact head."""
    rows, hidden = tensors["esm.embeddings.word_embeddings.weight"].shape
    layers = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"esm\.encoder\.layer\.(\d+)\.", n)))
    frequencies = tensors.get("esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq")
    contact = tensors.get("esm.contact_head.regression.weight")
    if frequencies is not None:
        heads = hidden // (2 * len(frequencies))
    elif contact is not None:
        heads = contact.shape[1] // layers
    else:
        raise CheckpointError(
            f"{path}: neither rotary frequencies nor a contact head say how many heads it has; export it as a folder"
        )
    bits = tensors.get("quant2emb.weight")
    return {
        "model_type": "esm",
        "dplm_type": "dplm_esm" if rows == len(SYMBOLS) else "dplm2_esm",
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": len(tensors["esm.encoder.layer.0.intermediate.dense.weight"]),
        "hidden_dropout_prob": 0.1,
        "token_dropout": True,
        "vocab_size": rows,
        "codebook_embed_dim": 0 if bits is None else bits.shape[1],
    }


def _download(name: str) -> Path:
    """The folder of a Hub repository, from the local cache where it is."""
    hub = require("huggingface_hub", f"fetching '{name}'", extra="hf")
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (OSError, HFValidationError, RuntimeError) as error:
        raise CheckpointError(
            f"'{name}': neither a folder nor to be had from the Hub ({' '.join(str(error).split())[:160]}); "
            f"check the id and the network, or give a folder"
        ) from error
