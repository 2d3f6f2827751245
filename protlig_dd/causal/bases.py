"""Pretrained language models as a base: their weights, and a tokenizer with one id for each residue and structure token.

Amino acids and 3Di letters are tokens of such a model; the marks `<AA>`, `<SEP>`, `<3Di>` and numbered codes are added as new tokens.
The tokenizer is called once, for all symbols, and must return one id for each; training uses a table of these ids.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from protlig_dd.causal.sequences import (
    RESIDUES,
    CausalVocabulary,
    minimal_symbols,
    new_symbols,
    structure_mark,
    structure_symbols,
    vocabulary_of,
)
from protlig_dd.checkpoints.hub import fetch_repository
from protlig_dd.documents import read_json_object
from protlig_dd.errors import CheckpointError, ConfigError, require, said_by
from protlig_dd.models.transfer import draw_like
from protlig_dd.tokens.tracks import Track

_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "config.json", "vocab*", "merges.txt")
_WEIGHT_FILES = ("*.json", "*.safetensors")


def base_vocabulary(base: str, protein: Track, structure: Track) -> CausalVocabulary:
    """Return the vocabulary with the ids of a base's tokenizer, extended by the new tokens.

    Raises:
        ConfigError: if the tokenizer splits a symbol into several tokens, or has no end token.
        CheckpointError: if there is no such base.
    """
    known, tokenizer = extended_tokenizer(base, new_symbols(structure))
    marks = ("<AA>", "<SEP>", structure_mark(structure))
    codes = structure_symbols(structure)
    symbols = (marks[0], *RESIDUES, *marks[1:], *codes)
    found = tokenizer(" ".join(symbols))["input_ids"]
    first = found.index(tokenizer.convert_tokens_to_ids("<AA>"))
    begin, ids = tuple(found[:first]), found[first:]
    if ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    if len(ids) != len(symbols) or tokenizer.unk_token_id in ids:
        raise ConfigError(f"model.base: {_cut_symbol(base, tokenizer, symbols)}")
    return vocabulary_of(
        protein,
        structure,
        dict(zip(symbols, ids, strict=True)),
        num_rows=len(tokenizer),
        num_new=len(tokenizer) - known,
        end=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        begin=begin,
    )


def _cut_symbol(base: str, tokenizer: Any, symbols: tuple[str, ...]) -> str:
    """A message about the symbol that a tokenizer splits, or does not know."""
    advice = "expected one token for each residue and structure token; use another base, or none (model.base: '')"
    for symbol in symbols:
        found = tokenizer(f"<AA> {symbol} <AA>", add_special_tokens=False)["input_ids"][1:-1]
        pieces = tokenizer.convert_ids_to_tokens(found)
        if len(pieces) != 1 or found[0] == tokenizer.unk_token_id:
            return f"the tokenizer of '{base}' writes '{symbol}' as {pieces}, {advice}"
    return f"the tokenizer of '{base}' joins residues or structure tokens, {advice}"


def extended_tokenizer(base: str, symbols: tuple[str, ...]) -> tuple[int, Any]:
    """Return the number of tokens of a base's tokenizer, and the tokenizer extended by symbols, one token each.

    Raises:
        ConfigError: without an end token.
    """
    transformers = require("transformers", f"reading '{base}'", extra="hf")
    folder = _folder_of(base, _TOKENIZER_FILES)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"'{base}': its tokenizer cannot be read ({said_by(error)})") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.base: the tokenizer of '{base}' has no end token, expected one: it ends a structure")
    known = len(tokenizer)
    tokens = require("tokenizers", f"reading '{base}'", extra="hf")
    # lstrip: the preceding space is part of the token; byte-level tokenizers would otherwise make it a separate token
    tokenizer.add_tokens([tokens.AddedToken(s, lstrip=True, normalized=False, special=True) for s in symbols], special_tokens=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return known, tokenizer


def minimal_tokenizer(structure: Track) -> Any:
    """Return a stock tokenizer of the minimal vocabulary: `<K599>` is one token, and every other letter is one, with or without spaces."""
    transformers = require("transformers", "writing a tokenizer", extra="hf")
    library = require("tokenizers", "writing a tokenizer", extra="hf")
    symbols = minimal_symbols(structure)
    model = library.models.WordLevel({symbol: i for i, symbol in enumerate(symbols)}, unk_token="<UNK>")
    tokenizer = library.Tokenizer(model)
    pieces = library.pre_tokenizers.Split(library.Regex(r"<[^<>\s]+>|[^\s]"), "isolated")
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence([library.pre_tokenizers.WhitespaceSplit(), pieces])
    marks = ["<AA>", "<SEP>", structure_mark(structure)]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<PAD>",
        eos_token="<EOS>",
        bos_token="<BOS>",
        unk_token="<UNK>",
        additional_special_tokens=marks,
        clean_up_tokenization_spaces=False,
    )


def load_base(base: str, shape: Mapping[str, int], *, dtype: str, attention: str) -> Any:
    """Return a base's LlamaForCausalLM.

    Args:
        base: a Hub id or a folder.
        shape: the expected values of its config.json.
        dtype: "bf16", "fp32", or "4bit" for NF4 with double quantisation.
        attention: the name of the attention implementation.

    Raises:
        ConfigError: if it has another shape.
        CheckpointError: if there is no such base, or it is not a Llama.
        MissingDependencyError: for 4bit without bitsandbytes.
    """
    transformers = require("transformers", f"reading '{base}'", extra="hf")
    folder = _folder_of(base, _WEIGHT_FILES)
    _require_llama(base, folder, shape)
    how: dict[str, Any] = {"dtype": _type_of(dtype)}
    if dtype == "4bit":
        require("bitsandbytes", "model.base_dtype: 4bit", extra="quant")
        how["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
        )
    try:
        return transformers.LlamaForCausalLM.from_pretrained(folder, local_files_only=True, attn_implementation=attention, **how)
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"'{base}': its weights cannot be read ({said_by(error)})") from error


def empty_base(base: str, shape: Mapping[str, int], *, dtype: str, attention: str) -> Any:
    """Return the model of `load_base` without weights, on the meta device; only the base's config.json is read.

    Raises:
        ConfigError, CheckpointError: as `load_base`.
    """
    transformers = require("transformers", f"reading '{base}'", extra="hf")
    folder = _folder_of(base, _TOKENIZER_FILES)
    _require_llama(base, folder, shape)
    config = transformers.LlamaConfig.from_pretrained(folder, local_files_only=True)
    config._attn_implementation = attention
    with torch.device("meta"):
        return set_type(transformers.LlamaForCausalLM(config), dtype)


def set_type(llama: Any, dtype: str) -> Any:
    """Convert a model's parameters to the dtype of `load_base`, in place, and return the model; buffers keep their dtype."""
    for parameter in llama.parameters():
        parameter.data = parameter.data.to(_type_of(dtype))
    return llama


def _type_of(dtype: str) -> torch.dtype:
    return torch.float32 if dtype == "fp32" else torch.bfloat16


def _require_llama(base: str, folder: Path, shape: Mapping[str, int]) -> None:
    config = read_json_object(folder / "config.json", "expected the config.json of a Llama")
    if config.get("model_type") != "llama":
        raise CheckpointError(f"'{base}': found model_type '{config.get('model_type')}', expected llama")
    for name, expected in shape.items():
        if config.get(name, expected) != expected:
            raise ConfigError(
                f"model.base: '{base}' has {name} {config[name]}, the config says {expected}; give model the sizes of its base"
            )


_fetched = lru_cache(maxsize=8)(fetch_repository)


def _folder_of(base: str, patterns: tuple[str, ...]) -> Path:
    folder = Path(base)
    if not folder.is_dir():
        return _fetched(base, patterns)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"'{base}': found no config.json in it, expected a folder in Hugging Face's layout")
    return folder


@torch.no_grad()
def fill_new_rows(llama: Any, number: int) -> None:
    """Draw the last rows of a model's embedding and output matrix from the distribution of its other rows."""
    for table in {id(t): t for t in (llama.get_input_embeddings(), llama.get_output_embeddings())}.values():
        if not table.weight.is_meta:
            table.weight[-number:] = draw_like(table.weight[:-number], number)
