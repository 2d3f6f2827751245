"""Pretrained bases: their ids, adapters that are trained alone with the new rows, and tokenizers that write one id a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from protlig_dd.causal.bases import base_vocabulary, extended_tokenizer, load_base, minimal_tokenizer
from protlig_dd.causal.lora import CausalLora
from protlig_dd.causal.model import Causal, CausalSettings
from protlig_dd.causal.sequences import CausalVocabulary, minimal_symbols, pack_sequences
from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.errors import CheckpointError, ConfigError, MissingDependencyError
from protlig_dd.nn.flops import linear_flops
from protlig_dd.tokens.settings import StructureTrack
from tests.support.causal_models import PAIRS, TRACKS, batch_of
from tests.support.small_bases import LETTERS, SHAPE, write_base

pytest.importorskip("transformers", reason="causal models come with protlig_dd[hf]")
ADAPTERS = CausalLora(rank=2, alpha=4.0, dropout=0.0)
NUMBERED = StructureTrack(alphabet="dplm2").build("structure")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"), spare_rows=5)


def settings(base: Path, **changes: Any) -> CausalSettings:
    return CausalSettings(**{**SHAPE, "base": str(base), "base_dtype": "fp32", "lora": ADAPTERS, **changes})


def built(base: Path, **changes: Any) -> tuple[Causal, CausalVocabulary]:
    one = settings(base, **changes)
    torch.manual_seed(1)
    return one.build(TRACKS, "bucketed").eval(), one.vocabulary(TRACKS)


def test_residues_and_letters_keep_the_ids_of_the_base(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    vocabulary = base_vocabulary(str(base), *TRACKS.values())
    batch = batch_of(PAIRS[0])
    ids = vocabulary.prompt(batch.tracks["protein"].tokens.tolist())
    first = len(tokenizer)
    plain = tokenizer(" M K T A Y", add_special_tokens=False)["input_ids"]
    assert ids == [0, first, *plain, first + 1, first + 2] and len(plain) == 5
    assert (vocabulary.num_rows, vocabulary.num_new, vocabulary.end_id, vocabulary.begin) == (first + 3, 3, 1, (0,))
    assert vocabulary.code_ids == tuple(tokenizer.convert_tokens_to_ids([f"Ġ{c}" for c in "acdefghiklmnpqrstvwy"]))


def test_the_extended_tokenizer_writes_the_ids_that_are_trained_on(base: Path) -> None:
    vocabulary = base_vocabulary(str(base), *TRACKS.values())
    _, tokenizer = extended_tokenizer(str(base), ("<AA>", "<SEP>", "<3Di>"))
    packed = pack_sequences(batch_of(PAIRS[0]), vocabulary)
    text = "<AA> M K T A Y <SEP> <3Di> d d p v v"
    assert tokenizer(text)["input_ids"] == packed.tokens[:-1].tolist()
    assert tokenizer.pad_token == tokenizer.eos_token == "<|end|>"


def test_numbered_codes_are_new_tokens_of_one_id_each(base: Path) -> None:
    vocabulary = base_vocabulary(str(base), TRACKS["protein"], NUMBERED)
    assert vocabulary.num_new == 3 + 8192
    assert vocabulary.code_ids == tuple(range(vocabulary.num_rows - 8192, vocabulary.num_rows))


def test_a_tokenizer_that_would_split_a_structure_token_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path, letters=LETTERS.replace("v", ""))
    with pytest.raises(ConfigError, match=r"the tokenizer of '.*' writes 'v' as \['Ġ', 'v'\], expected one token for each"):
        base_vocabulary(str(tmp_path), *TRACKS.values())


def test_the_minimal_tokenizer_knows_every_structure_token() -> None:
    """The predecessor's tokenizer made three unknown tokens of each <K599>."""
    for structure in (TRACKS["structure"], NUMBERED):
        tokenizer, symbols = minimal_tokenizer(structure), minimal_symbols(structure)
        assert tokenizer(" ".join(symbols))["input_ids"] == list(range(len(symbols)))
        assert tokenizer.unk_token_id not in tokenizer(" ".join(symbols[4:]))["input_ids"]
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)


@pytest.mark.parametrize("tied", [False, True])
def test_new_adapters_change_nothing(tmp_path: Path, tied: bool) -> None:
    """Old tokens have the base's logits, new ones the rows beside it; whatever pads the base's tables is gone."""
    import transformers

    folder = write_base(tmp_path, spare_rows=5, tied=tied)
    model, vocabulary = built(folder)
    stock = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    batch = pack_sequences(batch_of(PAIRS[0]), vocabulary)
    first = vocabulary.num_rows - vocabulary.num_new
    old = torch.where(batch.tokens < first, batch.tokens, 7)
    with torch.no_grad():
        found = model(old, batch.layout)
        expected = stock(input_ids=old[None]).logits[0]
        moved = model(batch.tokens, batch.layout)
    assert found.shape[1] == vocabulary.num_rows
    torch.testing.assert_close(found[:, :first], expected[:, :first], atol=2e-6, rtol=1e-5)
    assert (moved - found).abs().max() > 1e-3
    assert model.new_rows is not None and (model.new_rows.head is None) == tied


def test_only_adapters_and_new_rows_are_trained_and_kept(base: Path) -> None:
    model, vocabulary = built(base)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(model.state_dict()) == trained
    assert {name.split(".")[0] if "lora" not in name else "lora" for name in trained} == {"lora", "new_rows"}
    lora = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    assert lora == 2 * 2 * (32 + 32 + 2 * (32 + 16) + 32 + 32 + 3 * (32 + 48))
    rows = sum(p.numel() for n, p in model.named_parameters() if n.startswith("new_rows."))
    assert rows == 2 * 3 * 32
    batch = pack_sequences(batch_of(*PAIRS), vocabulary)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = None
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(batch.tokens, batch.layout, rows=batch.rows), batch.targets)
        before = before or loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < before
    for name, value in model.named_parameters():
        assert value.requires_grad or torch.equal(frozen[name], value), name
    again, _ = built(base)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(*(m(batch.tokens, batch.layout) for m in (model, again)))
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict({})


def test_trained_weights_are_float32_beside_a_base_in_half_precision(base: Path) -> None:
    model, vocabulary = built(base, base_dtype="bf16")
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    batch = pack_sequences(batch_of(*PAIRS), vocabulary)
    model(batch.tokens, batch.layout, rows=batch.rows).float().logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_documented_number_of_adapter_parameters() -> None:
    shape = {"hidden_size": 4096, "num_heads": 32, "num_kv_heads": 8, "num_blocks": 32, "inner_size": 14336}
    stated = CausalSettings(**shape, base="meta-llama/Llama-3.1-8B", base_rows=128256, lora=CausalLora(), adapter_parameters=167_772_160)
    with torch.device("meta"):
        model = stated.build(TRACKS, "reference")
    assert sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name) == 167_772_160
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 167_772_160 + 2 * 3 * 4096
    assert sum(p.numel() for p in model.parameters()) == 8_030_261_248 + 167_772_160 + 2 * 3 * 4096
    assert "167,772,160" in (CausalLora.__doc__ or "")


def test_a_wrong_number_of_adapter_parameters_is_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match="model.adapter_parameters: found 7 in the config, the adapters have 1,"):
        built(base, adapter_parameters=7)


def test_a_base_is_trained_whole_without_adapters(base: Path) -> None:
    model, vocabulary = built(base, lora=None)
    assert model.new_rows is None and all(p.requires_grad for p in model.parameters())
    assert model.llama.config.vocab_size == vocabulary.num_rows == len(model.llama.lm_head.weight)
    table = model.llama.model.embed_tokens.weight.detach()
    assert torch.isfinite(table).all() and 0.2 < float(table[-3:].std() / table[:-3].std()) < 5


def test_a_base_of_another_shape_is_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"has intermediate_size 48, the config says 64; give model the sizes of its base"):
        CausalSettings(**{**SHAPE, "inner_size": 64}, base=str(base)).build(TRACKS, "reference")


def test_a_base_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_base(tmp_path / "base")

    class Evil:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "owned"), "w"))

    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="its weights cannot be read .*no code of a file is run here") as caught:
        load_base(str(folder), {}, dtype="fp32", attention="eager")
    assert "weights_only" not in str(caught.value)
    path = folder / "tokenizer_config.json"
    named = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w').close()\nclass Evil: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(CheckpointError, match="its tokenizer cannot be read .*no code of a file is run here"):
        extended_tokenizer(str(folder), ("<AA>",))
    assert not (tmp_path / "owned").exists()


def test_what_is_no_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"found no config.json in it"):
        settings(tmp_path).build(TRACKS, "reference")


def test_adapters_need_a_base() -> None:
    with pytest.raises(ValueError, match="found adapters without a base"):
        CausalSettings(lora=ADAPTERS)


def test_four_bits_need_their_package(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(MissingDependencyError, match=r"model.base_dtype: 4bit needs the package 'bitsandbytes' .*\[quant\]"):
        settings(base, base_dtype="4bit").build(TRACKS, "reference")


def test_adapters_train_beside_four_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="4bit weights come with protlig_dd[quant]")
    shape = {**SHAPE, "hidden_size": 64, "inner_size": 128}  # weights are quantised 64 at a time
    base = write_base(tmp_path, shape=shape)
    model, vocabulary = built(base, base_dtype="4bit", **shape)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.uint8 in {p.dtype for p in model.parameters()}
    plain, _ = built(base, **shape)
    assert count_parameters(model) == count_parameters(plain)
    batch = pack_sequences(batch_of(*PAIRS), vocabulary)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(10):
        logits = model(batch.tokens, batch.layout, rows=batch.rows).float()
        loss = torch.nn.functional.cross_entropy(logits, batch.targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3
    again, _ = built(base, base_dtype="4bit", **shape)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(*(m(batch.tokens, batch.layout) for m in (model, again)))


def test_operations_leave_the_gradients_of_frozen_weights_out(base: Path) -> None:
    """What torch's counter finds less when the base is frozen is what is counted as frozen."""
    from torch.utils.flop_counter import FlopCounterMode

    model, vocabulary = built(base)
    batch = batch_of(*PAIRS)
    packed = pack_sequences(batch, vocabulary)
    counts = []
    for is_trained in (False, True):
        for name, parameter in model.named_parameters():
            if "lora_" not in name and "new_rows" not in name:
                parameter.requires_grad_(is_trained)
        with FlopCounterMode(display=False) as counter:
            model(packed.tokens, packed.layout, rows=packed.rows).float().sum().backward()
        counts.append(counter.get_total_flops())
        frozen = model.frozen_flops(batch)
        assert (frozen == 0) == is_trained
        counts.append(int(frozen))
    # Counted are the tokens of the tracks: no begin token of the base, and of a structure both its ends, of which one is learned.
    layers = linear_flops(model.llama.model) - linear_flops(
        nn.ModuleList(m for n, m in model.named_modules() if n.rpartition(".")[0].endswith(("lora_A", "lora_B")))
    )
    uncounted = len(PAIRS) * (layers - linear_flops(model.llama.lm_head))
    assert counts[2] - counts[0] == counts[1] + uncounted


@pytest.mark.parametrize("changes", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_adapters_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="rank: found .* expected 1 or more"):
        CausalLora(**changes)
