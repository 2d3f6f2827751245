"""Export of an encoder to a folder in Hugging Face's layout, with a passport.json about its origin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from protlig_dd.checkpoints.checkpoint import hash_tensors
from protlig_dd.files import write_json, write_text, written_whole
from protlig_dd.models.encoder import EncoderSettings
from protlig_dd.models.published.layouts import to_published, unused_tensors
from protlig_dd.tokens.protein import SYMBOLS
from protlig_dd.tokens.settings import StructureTrack

_RENAMED = {f"<{name}>": f"<{name}_aa>" for name in ("cls", "eos", "unk", "mask")}
"""DPLM-2's names of the protein's special tokens, next to those of the structure."""


def save_pretrained(
    folder: Path, model: EncoderSettings, weights: Mapping[str, Tensor], *, num_rows: int, longest: int, passport: Mapping[str, Any]
) -> None:
    """Write a folder in Hugging Face's layout: config.json, model.safetensors, the vocabulary, and passport.json.

    A stock `EsmForMaskedLM` loads a single-track folder with nothing missing or unexpected; its contact head is zero.

    Args:
        folder: created if it does not exist; existing files are replaced.
        model: the shape of the encoder.
        weights: the tensors under our names; adapters are merged.
        num_rows: rows of the embedding.
        longest: largest number of tokens, specials included.
        passport: the content of `passport.json`, to which the hash of the weights is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if model.lora is not None:
        weights = model.lora.merged(weights)
    published = to_published({name: value.cpu() for name, value in weights.items()})
    if model.tied_head is not False and "lm_head.decoder.weight" not in published:
        published["lm_head.decoder.weight"] = published["esm.embeddings.word_embeddings.weight"].clone()
    published |= unused_tensors(model.num_blocks, model.num_heads, model.hidden_size // model.num_heads)
    config = _published_config(model, num_rows, longest, tied="head.decoder.weight" not in weights)
    write_json(folder / "config.json", config, indent=2)
    with written_whole(folder / "model.safetensors") as growing:
        save_file(published, growing, metadata={"format": "pt"})
    write_text(folder / "vocab.txt", "\n".join(_symbols(num_rows)))
    specials = {f"{name}_token": f"<{name}>" for name in ("cls", "eos", "mask", "pad", "unk")}
    if num_rows == len(SYMBOLS):
        write_json(folder / "special_tokens_map.json", specials, indent=2)
        tokenizer = {"tokenizer_class": "EsmTokenizer", "clean_up_tokenization_spaces": True, **specials}
        write_json(folder / "tokenizer_config.json", tokenizer, indent=2)
    write_json(folder / "passport.json", {**passport, "weights_hash": hash_tensors(published)}, indent=2)


def _published_config(model: EncoderSettings, num_rows: int, longest: int, *, tied: bool) -> dict[str, Any]:
    kind = "dplm2_bit_esm" if model.code_bits else "dplm_esm" if num_rows == len(SYMBOLS) else "dplm2_esm"
    return {
        "architectures": ["EsmForMaskedLM"],
        "model_type": "esm",
        "dplm_type": kind,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_heads,
        "num_hidden_layers": model.num_blocks,
        "intermediate_size": round(model.hidden_size * model.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": 0.0,
        "emb_layer_norm_before": False,
        "token_dropout": model.token_dropout,
        "position_embedding_type": "rotary",
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "max_position_embeddings": longest,
        "vocab_size": num_rows,
        "mask_token_id": SYMBOLS.index("<mask>"),
        "pad_token_id": SYMBOLS.index("<pad>"),
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        **({"codebook_embed_dim": model.code_bits} if model.code_bits else {}),
    }


def _symbols(num_rows: int) -> tuple[str, ...]:
    if num_rows == len(SYMBOLS):
        return SYMBOLS
    structure = StructureTrack().build("structure").vocabulary.symbols
    protein = tuple(_RENAMED.get(symbol, symbol) for symbol in SYMBOLS)
    return (*protein, *structure[len(SYMBOLS) :])
