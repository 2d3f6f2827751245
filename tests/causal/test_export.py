"""Exported causal runs in stock transformers and peft: the same logits, the same tokens from `generate`, one id a structure token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from protlig_dd.causal.generate import CausalGenerator
from protlig_dd.errors import ConfigError
from protlig_dd.runs.experiment import load_experiment
from protlig_dd.runs.families.tokens import export_run
from protlig_dd.runs.generate import example_requests
from protlig_dd.runs.open import open_run
from protlig_dd.runs.run import Run
from protlig_dd.runs.train import train_experiment
from tests.support.causal_runs import QUICK, write_pairs
from tests.support.small_bases import SHAPE, write_base

transformers = pytest.importorskip("transformers", reason="stock models come with protlig_dd[hf]")
peft = pytest.importorskip("peft", reason="adapters come with protlig_dd[hf]")
transformers.utils.logging.disable_progress_bar()
SIZES = tuple(f"model.{name}={value}" for name, value in SHAPE.items())
# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
STEPS = ("train.steps=3", "train.validate_every=0", "train.optim.lr=0.02")


@pytest.fixture(scope="module", params=["scratch", "adapters", "tied", "whole"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Run, Path]:
    """A run of three steps from scratch, with adapters on a base, on a tied base, or of a whole base; and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    more: tuple[str, ...] = ()
    if request.param != "scratch":
        base = write_base(folder / "base", spare_rows=5, tied=request.param == "tied")
        more = (f"model.base={base}", f"model.tied_head={str(request.param == 'tied').lower()}", "model.base_dtype=fp32")
    if request.param in ("adapters", "tied"):
        more = (*more, "model.lora={rank: 2, alpha: 8, dropout: 0}")
    config = load_experiment("structure/3di_tiny", [*write_pairs(folder), *QUICK, *SIZES, *STEPS, *more])
    train_experiment(config, folder / "run", device="cpu")
    run = open_run(folder / "run", device="cpu")
    passport = export_run(run, folder / "out", licence="none", source="the run")
    assert passport["prompt"].startswith(("<AA> L A G V S E R <SEP> <3Di>", "<0> <AA> L A G"))
    return request.param, run, folder / "out"


def stock_model(kind: str, folder: Path) -> Any:
    auto = transformers.AutoModelForCausalLM if kind in ("scratch", "whole") else peft.AutoPeftModelForCausalLM
    return auto.from_pretrained(folder).eval()


def test_stock_software_generates_the_same_tokens(exported: tuple[str, Run, Path]) -> None:
    """From the prompt as text, by greedy `generate` among the structure tokens."""
    kind, run, folder = exported
    stock, tokenizer = stock_model(kind, folder), transformers.AutoTokenizer.from_pretrained(folder)
    vocabulary = run.config.model.vocabulary(run.tracks)
    requests = example_requests(run.parts, run.data.train, "structure", range(2))
    for sample, request in zip(CausalGenerator(run).generate(requests, 1), requests, strict=True):
        residues = " ".join(request.given["protein"])
        prompt = tokenizer(f"<AA> {residues} <SEP> <3Di>", return_tensors="pt")
        expected = vocabulary.prompt(run.parts.tracks["protein"].encode(request.given["protein"]))
        assert prompt["input_ids"][0].tolist() == expected
        out = stock.generate(
            input_ids=prompt["input_ids"],
            attention_mask=torch.ones_like(prompt["input_ids"]),
            do_sample=False,
            max_new_tokens=len(request.given["protein"]),
            prefix_allowed_tokens_fn=lambda *_: list(vocabulary.code_ids),
            pad_token_id=vocabulary.pad_id,
        )
        letters = tokenizer.decode(out[0, len(expected) :]).replace(" ", "")
        assert letters.upper() == sample.texts["structure"]


def test_a_prompt_without_spaces_is_the_same_prompt(exported: tuple[str, Run, Path]) -> None:
    """Of a model from scratch: no letter becomes an unknown token. A base's own tokenizer joins letters, which docs/structure.md says."""
    kind, run, folder = exported
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    spaced, joined = (tokenizer(text)["input_ids"] for text in ("<AA> M K T A Y W <SEP> <3Di> d d p", "<AA>MKTAYW<SEP><3Di>ddp"))
    if kind == "scratch":
        assert joined == spaced and tokenizer.unk_token_id not in spaced and len(spaced) == 12
        assert tokenizer("MK1")["input_ids"][-1] == tokenizer.unk_token_id


def test_stock_software_gives_the_same_logits(exported: tuple[str, Run, Path]) -> None:
    kind, run, folder = exported
    stock, vocabulary = stock_model(kind, folder), run.config.model.vocabulary(run.tracks)
    ids = torch.tensor([*vocabulary.prompt(run.parts.tracks["protein"].encode("MKTAYW")), *vocabulary.code_ids[:5]])
    with torch.no_grad():
        theirs = stock(input_ids=ids[None]).logits[0]
        from protlig_dd.tokens.tracks import Layout

        ours = run.model(ids, Layout((len(ids),)))
    spare = 2 if kind in ("adapters", "tied") else 0  # rows that pad the base's tables; the new tokens took three of five
    assert theirs.shape == (ours.shape[0], ours.shape[1] + spare)
    torch.testing.assert_close(ours, theirs[:, : ours.shape[1]], atol=1e-5, rtol=1e-5)


def test_the_folder_names_nothing_of_ours(exported: tuple[str, Run, Path]) -> None:
    kind, run, folder = exported
    assert not any("protlig" in path.read_text() for path in folder.glob("*.json") if path.name != "passport.json")
    if kind in ("adapters", "tied"):
        names = set(load_file(folder / "adapter_model.safetensors"))
        own = {name for name in names if name.endswith(("lora_A.weight", "lora_B.weight"))}
        rows = {name for name in names if name.endswith(".token_adapter.trainable_tokens_delta")}
        assert names == own | rows and len(own) == 2 * 7 * 2 and len(rows) == {"adapters": 2, "tied": 1}[kind]
    else:
        config = json.loads((folder / "config.json").read_text())
        assert (config["eos_token_id"], config["vocab_size"]) == (1, run.config.model.vocabulary(run.tracks).num_rows)
        difference = float(json.loads((folder / "passport.json").read_text())["parity"].split()[-1])
        assert 0 <= difference < 1e-4


def test_a_run_with_adapters_keeps_what_was_trained(exported: tuple[str, Run, Path]) -> None:
    """Its checkpoints hold no weight of the base, and yet it opens as it was."""
    kind, run, _ = exported
    (weights,) = (run.folder / "checkpoints").glob("step_00000003/weights.safetensors")
    with safe_open(weights, "pt") as file:
        names = set(file.keys())
    frozen = {name for name, p in run.model.named_parameters() if ".lora_" not in name and not name.startswith("new_rows")}
    assert (kind in ("scratch", "whole")) == bool(frozen & names)


def test_a_folder_that_holds_something_else_is_refused(exported: tuple[str, Run, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and no earlier export"):
        export_run(exported[1], tmp_path, licence="", source="the run")
