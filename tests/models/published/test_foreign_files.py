"""Files of the same models in other layouts (fair-esm, compiled, wrapped), and vocabularies that give the ids another meaning."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from protlig_dd.errors import CheckpointError
from protlig_dd.models.published.pretrained import read_pretrained
from protlig_dd.runs.open import open_run
from protlig_dd.tokens.protein import SYMBOLS
from tests.models.published.test_pretrained import assert_same, lightning_file, our_logits, refused, stock_logits, stock_model

TRUNK = "encoder.sentence_encoder."


def fair_esm_state(model: Any) -> dict[str, Tensor]:
    """A stock model's tensors as fair-esm names them."""
    state = model.state_dict()
    named = {f"{TRUNK}embed_tokens.weight": state["esm.embeddings.word_embeddings.weight"]}
    for leaf in ("weight", "bias"):
        named[f"{TRUNK}emb_layer_norm_after.{leaf}"] = state[f"esm.encoder.emb_layer_norm_after.{leaf}"]
        named[f"encoder.lm_head.dense.{leaf}"] = state[f"lm_head.dense.{leaf}"]
        named[f"encoder.lm_head.layer_norm.{leaf}"] = state[f"lm_head.layer_norm.{leaf}"]
        for i in range(model.config.num_hidden_layers):
            theirs, ours = f"{TRUNK}layers.{i}.", f"esm.encoder.layer.{i}."
            for letter, whole in zip("qkv", ("query", "key", "value"), strict=True):
                named[f"{theirs}self_attn.{letter}_proj.{leaf}"] = state[f"{ours}attention.self.{whole}.{leaf}"]
            named[f"{theirs}self_attn.out_proj.{leaf}"] = state[f"{ours}attention.output.dense.{leaf}"]
            named[f"{theirs}self_attn_layer_norm.{leaf}"] = state[f"{ours}attention.LayerNorm.{leaf}"]
            named[f"{theirs}fc1.{leaf}"] = state[f"{ours}intermediate.dense.{leaf}"]
            named[f"{theirs}fc2.{leaf}"] = state[f"{ours}output.dense.{leaf}"]
            named[f"{theirs}final_layer_norm.{leaf}"] = state[f"{ours}LayerNorm.{leaf}"]
            named[f"{theirs}self_attn.rot_emb.inv_freq"] = torch.ones(model.config.hidden_size // model.config.num_attention_heads // 2)
    named["encoder.lm_head.weight"] = state["lm_head.decoder.weight"]
    named["encoder.lm_head.bias"] = state["lm_head.bias"]
    return {name: value.clone() for name, value in named.items()}


def fair_esm_file(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"cfg": {"model": Namespace(encoder_layers=2, token_dropout=True)}, "model": state}, path)
    return path


def test_a_file_of_fair_esm_gives_the_logits_of_the_stock_model(tmp_path: Path) -> None:
    model = stock_model()
    file = fair_esm_file(tmp_path / "esm2_t2.pt", fair_esm_state(model))
    assert_same(our_logits(file), stock_logits(model))
    assert read_pretrained(file).family == "esm2"
    run = open_run(file, device="cpu")
    assert {name: value.shape for name, value in run.model.state_dict().items()} == {
        name: value.shape for name, value in read_pretrained(file).weights.items()
    }


def test_a_file_of_esm1_is_refused_in_one_line(tmp_path: Path) -> None:
    state = fair_esm_state(stock_model())
    state[f"{TRUNK}embed_positions.weight"] = torch.zeros(1026, 24)
    refused(fair_esm_file(tmp_path / "esm1b.pt", state), r"no place for, such as 'embed_positions.weight'")


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "_orig_mod.module.", "_fsdp_wrapped_module."])
def test_a_compiled_or_wrapped_checkpoint_is_the_plain_one(tmp_path: Path, wrapper: str) -> None:
    state = stock_model().state_dict()
    plain = lightning_file(tmp_path / "plain.ckpt", state)
    outside = lightning_file(tmp_path / "outside.ckpt", state, f"model.{wrapper}net.")
    inside = lightning_file(tmp_path / "inside.ckpt", {name.replace("encoder.", f"encoder.{wrapper}", 1): v for name, v in state.items()})
    for file in (outside, inside):
        assert torch.equal(our_logits(file), our_logits(plain))


def vocabulary_files(folder: Path, kind: str, symbols: list[str]) -> None:
    """Write a vocabulary into a folder in one of the forms that tokenizers have."""
    if kind == "vocab.txt":
        (folder / kind).write_text("\n".join(symbols))
    elif kind == "tokenizer.json":
        ids = {symbol: i for i, symbol in enumerate(symbols)}
        added = [{"id": ids.pop("<mask>"), "content": "<mask>"}]
        (folder / kind).write_text(json.dumps({"added_tokens": added, "model": {"type": "WordLevel", "vocab": ids}}))
    else:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "vocab_list": symbols}))


def swapped(a: str, b: str) -> list[str]:
    exchange = {a: b, b: a}
    return [exchange.get(symbol, symbol) for symbol in SYMBOLS]


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json", "config.json"])
@pytest.mark.parametrize(
    ("symbols", "found"),
    [
        (swapped("U", "W"), "'W' has id 26"),
        ([*SYMBOLS[:4], *sorted(SYMBOLS[4:24]), *SYMBOLS[24:]], "'L' has id 13"),
        (["<cls>", "<pad>", "<eos>", "<unk>", *"ATGCN", "<mask>"], "'L' is absent"),
    ],
)
def test_a_folder_whose_ids_mean_other_letters_is_refused(tmp_path: Path, kind: str, symbols: list[str], found: str) -> None:
    stock_model().save_pretrained(tmp_path)
    vocabulary_files(tmp_path, kind, list(SYMBOLS))
    read_pretrained(tmp_path)
    vocabulary_files(tmp_path, kind, symbols)
    with pytest.raises(CheckpointError, match=rf"{kind}: {found}, expected id \d+ as in ESM-2 and DPLM"):
        read_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model": {}}', '{"model": {"vocab": 3}}', '{"added_tokens": 3, "model": {"vocab": {}}}'])
def test_a_broken_tokenizer_is_one_line(tmp_path: Path, text: str) -> None:
    stock_model().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match="not readable as a tokenizer") as caught:
        read_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_saved_in_parts_are_told_apart_from_those_of_another_release(tmp_path: Path) -> None:
    state = {**stock_model().state_dict(), "esm.encoder.layer.1.attention.self.query.weight": torch.zeros(0)}
    refused(
        lightning_file(tmp_path / "zero3.ckpt", state),
        r"has shape \(0,\), .* it was saved in parts \(ZeRO-3\); gather the weights when saving",
    )
