"""Small pretrained Llamas on disk, with tokenizers of the published kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LETTERS = "ACDEFGHIKLMNPQRSTVWYXacdefghiklmnpqrstvwy"
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_heads": 4, "num_kv_heads": 2, "num_blocks": 2, "inner_size": 48}


def byte_level_tokenizer(letters: str, *, adds_begin: bool) -> Any:
    """A byte-level BPE as Llama 3's, which has a token for a space with each of the letters, and may put a begin token in front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = ["<|begin|>", "<|end|>", *alphabet, *(f"Ġ{letter}" for letter in letters)]
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[("Ġ", letter) for letter in letters]))
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_begin:
        tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", ids["<|begin|>"])])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>")


def write_base(
    folder: Path,
    *,
    letters: str = LETTERS,
    adds_begin: bool = True,
    spare_rows: int = 0,
    tied: bool = False,
    shape: dict[str, Any] | None = None,
) -> Path:
    """Write a random Llama and its tokenizer; its tables may have rows that no token uses."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = shape or SHAPE
    tokenizer = byte_level_tokenizer(letters, adds_begin=adds_begin)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + spare_rows,
        hidden_size=shape["hidden_size"],
        num_attention_heads=shape["num_heads"],
        num_key_value_heads=shape["num_kv_heads"],
        num_hidden_layers=shape["num_blocks"],
        intermediate_size=shape["inner_size"],
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = LlamaForCausalLM(config)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
