"""Published checkpoints against stock `transformers`: the same function, in every layout that is in use, there and back again."""

from __future__ import annotations

import json
import shutil
import socket
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from protlig_dd.errors import CheckpointError
from protlig_dd.models.encoder import Encoder, EncoderSettings
from protlig_dd.models.published.export import save_pretrained
from protlig_dd.models.published.layouts import merge_lora, to_published
from protlig_dd.models.published.pretrained import read_pretrained
from protlig_dd.nn.attention import Backend
from protlig_dd.runs.open import open_run
from protlig_dd.tokens.protein import SYMBOLS
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import TrackSet
from tests.support.encoders import batch_of

transformers = pytest.importorskip("transformers", reason="stock models come with protlig_dd[hf]")
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

PAD, MASK = 1, 32
ROWS = [
    [0, 4, 5, MASK, 24, 25, 26, 27, 28, 9, 10, MASK, 2],  # X, B, U, Z, O and masks
    [0, MASK, MASK, MASK, MASK, 2],
    [0, 20, 19, 18, 17, 16, 15, 14, 2],
]


def stock_config(**changes: Any) -> Any:
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 60}
    fixed = {"vocab_size": 33, "mask_token_id": MASK, "pad_token_id": PAD, "max_position_embeddings": 40}
    kind = {"position_embedding_type": "rotary", "token_dropout": True, "layer_norm_eps": 1e-5}
    return transformers.EsmConfig(**{**shape, **fixed, **kind, **changes})


def stock_model(**changes: Any) -> Any:
    """A stock model with weights large enough for every one to matter."""
    torch.manual_seed(1)
    model = transformers.EsmForMaskedLM(stock_config(**changes)).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def stock_logits(model: Any, rows: list[list[int]] = ROWS) -> Tensor:
    """Logits of the tokens one behind the other, from rows padded to the longest."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    logits: Tensor = model(input_ids=ids, attention_mask=ids.ne(PAD)).logits
    return logits[ids.ne(PAD)]


def opened(source: Path, backend: Backend = "bucketed") -> Encoder:
    found = read_pretrained(source)
    model = found.model.build(built(found.tracks), backend)
    model.load_state_dict(found.weights)
    return model.eval()


def built(tracks: Mapping[str, Any]) -> TrackSet:
    return {name: track.build(name) for name, track in tracks.items()}


@torch.no_grad()
def our_logits(source: Path, rows: list[list[int]] = ROWS) -> Tensor:
    logits: Tensor = opened(source)(batch_of(protein=rows))["protein"]
    return logits


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.3
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0), (ours - theirs).abs().max()


def save_as(layout: str, model: Any, folder: Path) -> Path:
    """Write a stock model in one of the layouts that are in use."""
    model.save_pretrained(folder, max_shard_size="8KB" if layout == "sharded safetensors" else "1GB")
    if "bin" in layout:
        (folder / "model.safetensors").unlink()
        state = model.state_dict()
        names = sorted(state)
        shards = [names[::2], names[1::2]] if "sharded" in layout else [names]
        files = [f"pytorch_model-{i}-of-2.bin" if "sharded" in layout else "pytorch_model.bin" for i in (1, 2)]
        for file, part in zip(files, shards, strict=False):
            torch.save({name: state[name] for name in part}, folder / file)
        if "sharded" in layout:
            index = {name: file for file, part in zip(files, shards, strict=False) for name in part}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    if layout == "half precision":
        for parameter in model.parameters():  # and not the rotary frequencies, as model.half() would
            parameter.data = parameter.data.half()
        model.save_pretrained(folder)
        model.float()
    return folder


LAYOUTS = ("safetensors", "sharded safetensors", "bin", "sharded bin", "half precision")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_stock_model_gives_its_logits(tmp_path: Path, layout: str) -> None:
    model = stock_model()
    folder = save_as(layout, model, tmp_path / "model")
    assert len(list(folder.glob("*.safetensors")) + list(folder.glob("*.bin"))) > ("sharded" in layout)
    assert_same(our_logits(folder), stock_logits(model))


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[1:2], [ROWS[2], ROWS[2]]])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"token_dropout": False}])
def test_a_stock_model_is_the_same_function(tmp_path: Path, rows: list[list[int]], changes: dict[str, Any]) -> None:
    model = stock_model(**changes)
    model.save_pretrained(tmp_path)
    assert_same(our_logits(tmp_path, rows), stock_logits(model, rows))
    assert opened(tmp_path).head.decoder is None or "tie_word_embeddings" in changes


@pytest.mark.parametrize("tied", [True, False])
def test_a_stock_model_loads_our_export_with_nothing_missing(tmp_path: Path, tied: bool) -> None:
    settings = EncoderSettings(hidden_size=24, num_heads=2, num_blocks=2, mlp_ratio=2.5, tied_head=tied)
    ours = exported(settings, {"protein": ProteinTrack()}, tmp_path)
    model, said = transformers.EsmForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), said
    with torch.no_grad():
        assert_same(ours(batch_of(protein=ROWS))["protein"], stock_logits(model.eval()))
    assert (model.lm_head.decoder.weight is model.esm.embeddings.word_embeddings.weight) is tied


def exported(settings: EncoderSettings, tracks: Mapping[str, Any], folder: Path) -> Encoder:
    """A random model of ours, written into a folder."""
    torch.manual_seed(2)
    model = settings.build(built(tracks), "bucketed").eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    rows = model.embedding.num_embeddings
    save_pretrained(folder, settings, model.state_dict(), num_rows=rows, longest=40, passport={"licence": "none"})
    return model


@pytest.mark.parametrize(
    ("family", "tracks", "changes"),
    [
        ("dplm", {"protein": ProteinTrack()}, {}),
        ("dplm", {"protein": ProteinTrack()}, {"tied_head": False}),
        ("dplm2", {"structure": StructureTrack(), "protein": ProteinTrack(beside="dplm2")}, {}),
        ("dplm2_bit", {"structure": StructureTrack(), "protein": ProteinTrack()}, {"code_bits": 13}),
    ],
)
def test_an_export_reads_back_as_itself_and_exports_to_the_same_bytes(
    tmp_path: Path, family: str, tracks: Mapping[str, Any], changes: dict[str, Any]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    settings = EncoderSettings(hidden_size=12, num_heads=2, num_blocks=2, **changes)
    ours = exported(settings, tracks, first)
    found = read_pretrained(first)
    assert (found.family, tuple(found.tracks)) == (family, tuple(tracks))
    again = opened(first)
    batch = batch_of(**{name: [[33, 40, 41, 34]] if name == "structure" else [[0, 5, MASK, 2]] for name in tracks})
    with torch.no_grad():
        for name, logits in ours(batch).items():
            assert torch.equal(again(batch)[name], logits), name
    rows = ours.embedding.num_embeddings
    save_pretrained(second, found.model, found.weights, num_rows=rows, longest=40, passport={"licence": "none"})
    for file in sorted(first.iterdir()):
        assert (second / file.name).read_bytes() == file.read_bytes(), file.name


class Recipe:
    """Stands for the settings that Lightning pickles beside the weights: a class that only its author has."""

    def __init__(self, **values: Any) -> None:
        self.values = values


def lightning_file(path: Path, state: Mapping[str, Tensor], prefix: str = "model.net.") -> Path:
    moments = {i: {"step": torch.tensor(2.0), "exp_avg": torch.ones(3)} for i in range(2)}
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": {prefix + name: value for name, value in state.items()},
        "optimizer_states": [{"state": moments, "param_groups": [{"betas": (0.9, 0.98), "params": {0, 1}}]}],
        "hyper_parameters": {"model": Recipe(lr=Recipe(inner=[1, 2]))},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0), "dirpath": Path("somewhere")}},
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("prefix", ["model.net.", "model.", "net.", ""])
def test_a_training_checkpoint_of_lightning_gives_its_logits(tmp_path: Path, prefix: str) -> None:
    model = stock_model()
    file = lightning_file(tmp_path / "last.ckpt", model.state_dict(), prefix)
    assert_same(our_logits(file), stock_logits(model))


def adapted(model: Any) -> Any:
    """A stock model with LoRA adapters as DPLM-2's training makes them, every weight of them away from zero."""
    peft = pytest.importorskip("peft", reason="adapters come with protlig_dd[hf]")
    dense = r"(attention\.(self\.(query|key|value)|output\.dense)|intermediate\.dense|\d+\.output\.dense)"
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=rf".*{dense}", modules_to_save=["lm_head", "esm.embeddings"])
    found = peft.get_peft_model(model, settings).eval()
    for name, parameter in found.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it
def test_adapters_are_merged(tmp_path: Path) -> None:
    model = adapted(stock_model(tie_word_embeddings=False))
    file = lightning_file(tmp_path / "last.ckpt", model.state_dict())
    expected = stock_logits(model)
    found = read_pretrained(file, lora_alpha=8.0)
    ours = found.model.build(built(found.tracks), "bucketed").eval()
    ours.load_state_dict(found.weights)
    with torch.no_grad():
        logits = ours(batch_of(protein=ROWS))["protein"]
    assert_same(logits, expected)
    assert_same(logits, stock_logits(model.merge_and_unload()))
    assert not torch.allclose(our_logits(file), expected, atol=1e-2)  # alpha 32


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it
def test_an_adapter_that_cannot_be_merged_is_refused() -> None:
    state = adapted(stock_model(tie_word_embeddings=False)).state_dict()
    other = {name.replace(".default.", ".mine.") if "layer.1.output" in name else name: v for name, v in state.items()}
    with pytest.raises(CheckpointError, match=r"file: '.*layer.1.output.dense.lora_A.mine.weight' is an adapter"):
        merge_lora(other, "file")
    name = next(name for name in state if name.endswith("lora_B.default.weight"))
    with pytest.raises(CheckpointError, match="expected r x in, out x r, out x in"):
        merge_lora({**state, name: state[name][:, :1]}, "file")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it
@pytest.mark.data
def test_adapters_have_the_names_of_the_published_training(shared: Path) -> None:
    """The golden's embeddings also hold the position table and frequencies that older versions of transformers had."""
    golden = json.loads((shared / "goldens/dplm/dplm2/lora_lightning_keys.json").read_text())
    older = ("position_embeddings", "inv_freq")
    ours = {f"model.net.{name}" for name in adapted(stock_model(tie_word_embeddings=False)).state_dict()}
    assert {n for n in ours if "inv_freq" not in n} == {n for n in golden if not any(part in n for part in older)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stock model's folder, to be spoiled."""
    stock_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def with_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value != "gone"}))


def with_tensors(folder: Path, **changes: Tensor | None) -> None:
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **changes}
    save_file({name: value for name, value in tensors.items() if value is not None}, path, metadata={"format": "pt"})


TABLE, QUERY = "esm.embeddings.word_embeddings.weight", "esm.encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "gone"}, r"config.json: no 'hidden_size'; expected the config.json of an ESM-2"),
        ({"hidden_size": "24"}, r"config.json: hidden_size: found '24', expected a whole number"),
        ({"num_hidden_layers": 10**9}, r"found tensors of 2 layers, config.json says 1000000000"),
        ({"num_hidden_layers": True}, r"num_hidden_layers: found 'True', expected a whole number"),
        ({"num_attention_heads": 7}, r"config.json: hidden_size: found 24 with 7 heads"),
        ({"intermediate_size": 61}, r"intermediate.dense.weight has shape \(60, 24\), config.json means \(61, 24\)"),
        ({"max_position_embeddings": "many"}, r"config.json: invalid literal"),
        ({"hidden_dropout_prob": [1]}, r"config.json: float\(\) argument"),
        ({"model_type": "esn"}, r"found model_type 'esn' \(did you mean 'esm'\?\), expected 'esm'"),
        ({"position_embedding_type": "absolute"}, r"an ESM-1 model; expected ESM-2"),
        ({"layer_norm_eps": 1e-12}, r"layer_norm_eps: found '1e-12', expected 1e-05"),
        ({"mask_token_id": 31}, r"mask_token_id: found '31', expected 32"),
        ({"tie_word_embeddings": False}, r"no tensor 'lm_head.decoder.weight', and config.json says"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(folder: Path, changes: dict[str, Any], message: str) -> None:
    with_config(folder, **changes)
    refused(folder, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({TABLE: None}, rf"no matrix '{TABLE}', found '.*' and others"),
        ({TABLE: torch.zeros(40, 24)}, r"found a vocabulary of 40 tokens, expected 33 \(ESM-2, DPLM\) or 8229|expected 33"),
        ({TABLE: torch.zeros(33)}, rf"no matrix '{TABLE}'"),
        ({QUERY: None}, rf"no tensor '{QUERY}'; expected an ESM-2"),
        ({QUERY: torch.zeros(24, 23)}, r"query.weight has shape"),
        ({QUERY: torch.zeros(())}, r"query.weight has shape"),
        ({"head.extra": torch.zeros(2)}, r"found 1 tensors that the model has no place for, such as 'head.extra'"),
        ({"quant2emb.weight": torch.zeros(24, 30)}, r"found codes of 30 bits"),
    ],
)
def test_tensors_that_do_not_fit_are_one_line(folder: Path, changes: dict[str, Any], message: str) -> None:
    with_tensors(folder, **changes)
    refused(folder, message)


def refused(source: Path | str, message: str) -> str:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_pretrained(source)
    text = str(caught.value)
    assert "\n" not in text and str(source) in text and len(text) < 400
    return text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", r"config.json: not readable \(Expecting"),
        ("config.json", "[" * 100_000, r"config.json: not readable"),
        ("config.json", "[1]", r"config.json: found list, expected the config.json of a model"),
        ("config.json", None, r"config.json: not readable"),
        ("model.safetensors", "", r"model.safetensors: damaged"),
        ("model.safetensors", "what", r"model.safetensors: damaged"),
        ("model.safetensors", None, r"found no weights, expected one of model.safetensors"),
    ],
)
def test_a_broken_file_is_one_line(folder: Path, name: str, text: str | None, message: str) -> None:
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    refused(folder, message)


def test_a_cut_file_is_one_line(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(folder, r"model.safetensors: damaged")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../outside.bin"}}, r"shard '../outside.bin' is not in the folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, r"shard '/etc/passwd' is not in the folder"),
        ({"weight_map": {"a": "there.bin"}}, r"its shards lack 'a'"),
        ({"weight_map": {"a": 3}}, r"found no 'weight_map' from names to files"),
        ({"weight_map": ["a"]}, r"found no 'weight_map'"),
        ({"weights": {}}, r"found no 'weight_map'"),
        ([], r"index.json: found list, expected the index"),
    ],
)
def test_an_index_cannot_lead_out_of_its_folder(folder: Path, index: Any, message: str) -> None:
    (folder / "model.safetensors").unlink()
    for place in (folder.parent / "outside.bin", folder / "there.bin"):
        torch.save({"b": torch.zeros(2)}, place)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    refused(folder, message)


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the Hub's client comes with protlig_dd[hf]")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("protlig_dd.checkpoints.hub._SECONDS", 0.2)
        began = time.monotonic()
        refused("someone/something", r"neither a folder nor to be had from the Hub \(.*timed out\); check the id")
        assert time.monotonic() - began < 10
    refused("someone/something", r"refused\); check the id and the network")
    refused("a/b/c", r"'a/b/c': neither a folder nor")


def test_a_repository_in_the_cache_needs_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the Hub's client comes with protlig_dd[hf]")
    cached = tmp_path / "models--someone--something"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("a" * 40)
    shutil.copytree(folder, cached / "snapshots" / ("a" * 40))
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert read_pretrained("someone/something").family == "esm2"


def test_published_names_are_those_of_a_stock_model() -> None:
    model = EncoderSettings(hidden_size=24, num_heads=3, num_blocks=2, mlp_ratio=2.5).build(built({"protein": ProteinTrack()}), "reference")
    stock = {name: tuple(value.shape) for name, value in stock_model().state_dict().items()}
    ours = {name: tuple(value.shape) for name, value in to_published(model.state_dict()).items()}
    unused = ("contact_head", "inv_freq", "lm_head.decoder.weight")
    assert ours == {name: shape for name, shape in stock.items() if not any(part in name for part in unused)}


def test_every_feed_forward_width_is_kept() -> None:
    for hidden in range(2, 60, 2):
        for inner in range(1, 200):
            assert round(hidden * (inner / hidden)) == inner


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
