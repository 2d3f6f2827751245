"""Causal runs from the command line's side: train, open, write structures, previews, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import torch

from protlig_dd.causal.decoding import CausalDecoding
from protlig_dd.causal.generate import CausalGenerator
from protlig_dd.causal.model import Causal
from protlig_dd.checkpoints.checkpoint import count_parameters
from protlig_dd.cli.entry import main
from protlig_dd.errors import CheckpointError, ConfigError, FormatError
from protlig_dd.evaluation.sections import read_evaluation
from protlig_dd.runs import folding, preview
from protlig_dd.runs.evaluate import evaluate_run
from protlig_dd.runs.experiment import EvaluationSettings, Parts, load_experiment
from protlig_dd.runs.generate import example_requests
from protlig_dd.runs.held_out import texts_of
from protlig_dd.runs.open import open_run
from protlig_dd.runs.preview import agreement, preview_hooks
from protlig_dd.runs.run import Run
from protlig_dd.runs.train import train_experiment
from protlig_dd.sampling.requests import Request
from protlig_dd.tokens.structure import Alphabet
from tests.support.causal_runs import QUICK, write_pairs

pytest.importorskip("transformers", reason="causal models come with protlig_dd[hf]")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learned eight random structures by heart, with two previews on the way."""
    folder = tmp_path_factory.mktemp("causal")
    more = ("train.steps=120", "train.validate_every=60", "train.checkpoint_every=60", "train.optim.lr=0.01")
    previews = ("eval.rmsd_interval=60", "eval.rmsd_samples=2")
    config = load_experiment("structure/3di_tiny", [*write_pairs(folder), *QUICK, *more, *previews])
    train_experiment(config, folder / "run", device="cpu", make_hooks=preview_hooks)
    return open_run(folder / "run", device="cpu")


def rows_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_a_tiny_model_learns_a_few_structures_by_heart(learned: Run) -> None:
    """Every token of every training structure, its end too: first given, then learned length."""
    table = learned.data.train
    assert len(table) == 8 and isinstance(learned.model, Causal)
    requests = example_requests(learned.parts, table, "structure", range(len(table)))
    truths = texts_of(learned, table, "structure")
    for how in (CausalDecoding(), CausalDecoding(length="learned")):
        samples = list(CausalGenerator(learned, decoding=how).generate(requests, 1))
        found = agreement([s.texts["structure"] for s in samples], truths, learned.parts.tracks["structure"])
        assert found == {"token_accuracy": 1.0, "length_match": 1.0, "length_ratio": 1.0, "valid_tokens": 1.0}
        assert all(s.nll_per_token is not None and s.nll_per_token < 0.2 for s in samples)


def test_validation_gives_nats_a_token_and_nothing_else_under_nll(learned: Run) -> None:
    (last,) = [row for row in rows_of(learned) if row["step"] == 120 and "validation/nll" in row]
    name = "structure_given_protein/structure"
    assert last["validation/nll"] == last[f"validation/nll/{name}"]
    objective = learned.parts.objective(learned.choice)
    held_out = learned.data.validation
    losses, tokens = 0.0, 0
    from protlig_dd.data.loader import Loader

    loader = Loader(held_out, learned.parts.tracks, batch_size=2, seed=0, shuffle=False)
    for batch in loader.micro_batches(0):
        prepared = objective.prepare(batch, 0)
        losses, tokens = losses + float(objective.loss(learned.model, prepared).total), tokens + prepared.num_tokens
    assert last["validation/nll"] == pytest.approx(losses / tokens, rel=1e-4)
    assert 0 <= last[f"validation/accuracy/{name}"] < 0.6, "random structures cannot be guessed"


def test_previews_say_how_structures_agree(learned: Run) -> None:
    shown = [row for row in rows_of(learned) if "samples/token_accuracy" in row]
    assert [row["step"] for row in shown] == [60, 120]
    for row in shown:
        assert 0 <= row["samples/token_accuracy"] <= 1 and row["samples/valid_tokens"] == 1
        assert 0 <= row["samples/length_match"] <= 1 and row["samples/length_ratio"] > 0


def test_the_effective_batch_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = ("train.steps=1", "train.validate_every=0", "train.accumulation=4")
    config = load_experiment("structure/3di_tiny", [*write_pairs(tmp_path), *QUICK, *more])
    with caplog.at_level("INFO", "protlig_dd.runs.train"):
        train_experiment(config, tmp_path / "run", device="cpu")
    assert "batch: 8 examples in the first step = micro-batches of 2 x 1 processes x 4 accumulated" in caplog.text


def test_folding_from_the_command_line_writes_letters(learned: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (request,) = example_requests(learned.parts, learned.data.train, "structure", [0])
    truth = texts_of(learned, learned.data.train, "structure")[0]
    out = learned.folder.parent / "3di.fasta"
    command = ["sample", str(learned.folder), "--task", "folding", "--protein", request.given["protein"]]
    assert main([*command, "--num", "1", "--out", str(out), "--device", "cpu"]) == 0
    assert out.read_text().splitlines()[1] == truth
    assert main([*command, "--num", "1", "--sampler", "ancestral:5", "--device", "cpu"]) != 0
    assert "--sampler: a causal model writes one token after another" in capsys.readouterr().err


def test_drawn_samples_differ_and_are_the_same_in_shards(learned: Run) -> None:
    requests = [Request(name="one", given={"protein": "ACDEFGHIK"}, generate={"structure": None})]
    generator = CausalGenerator(learned, decoding=CausalDecoding(temperature=3.0), batch_size=3)
    whole = [s.texts["structure"] for s in generator.generate(requests, 6)]
    shard = [s.texts["structure"] for s in generator.generate(requests, 6, ids=[1, 4])]
    assert shard == [whole[1], whole[4]] and len(set(whole)) > 3 and {len(text) for text in whole} == {9}
    more = [Request(name="new", given={"protein": "WYV"}, generate={"structure": None}), *requests]
    assert [s.texts["structure"] for s in generator.generate(more, 8)][8:14] == whole, "other requests and more copies change no sample"


def test_structures_of_logits_that_are_none_are_refused_and_a_preview_warns(learned: Run, caplog: pytest.LogCaptureFixture) -> None:
    broken = dataclasses.replace(learned, model=copy.deepcopy(learned.model))
    for parameter in broken.model.parameters():
        parameter.fill_(torch.nan)
    request = Request(name="one", given={"protein": "ACD"}, generate={"structure": None})
    with pytest.raises(CheckpointError, match="run: the model's output is not finite"):
        list(CausalGenerator(broken).generate([request], 1))
    assert preview._drawn(broken, [request], "structure") is None
    assert "no preview at step 120: " in caplog.text
    for size in (0, -5):
        with pytest.raises(ConfigError, match=f"batch_size: found {size}, expected 1 or more"):
            CausalGenerator(learned, batch_size=size)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"given": {"structure": "DDD"}, "generate": {"protein": None}}, "found structure given and protein to generate"),
        ({"given": {"protein": "MKT"}, "generate": {"structure": 5}}, "found length 5 for a protein of 3 residues"),
        ({"given": {}, "generate": {"protein": 3, "structure": 3}}, "found nothing given and protein, structure"),
    ],
)
def test_what_a_causal_run_cannot_write_is_refused(learned: Run, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(CausalGenerator(learned).generate([Request(name="x", **request_)], 1))


def test_a_protein_that_is_too_long_is_refused(learned: Run) -> None:
    with pytest.raises(FormatError, match=r"protein of 602 tokens, expected at most 514 .*nothing is cropped"):
        request = Request(name="x", given={"protein": "M" * 600}, generate={"structure": None})
        list(CausalGenerator(learned).generate([request], 1))


def test_agreement_counts_over_the_true_length(learned: Run) -> None:
    track = learned.parts.tracks["structure"]
    found = agreement(["D", "DDVVPP"], ["DVVV", "DDVV"], track)
    assert found == {"token_accuracy": 5 / 8, "length_match": 0.0, "length_ratio": 7 / 8, "valid_tokens": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["diffusion.tasks={joint: 1}"], "model.kind: found 'causal' with the tracks protein, structure and diffusion.tasks joint"),
        (["diffusion.tasks.protein_given_structure=1"], "expected protein and structure, and structure_given_protein: 1 alone"),
        (
            ["model.base=x", "model.lora={}", "model.base_dtype=4bit", "distributed=fsdp", "train.optim.kind=adamw"],
            "4bit weights cannot be sharded",
        ),
    ],
)
def test_other_tasks_are_refused_in_one_line(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment("structure/3di_tiny", changes)


@pytest.mark.parametrize("name", ["3di_tiny", "3di_tinyllama", "3di_llama_8b_lora", "kanzi_tiny", "kanzi_tinyllama", "kanzi_llama_8b_lora"])
def test_every_config_states_its_parameters(name: str) -> None:
    """Nothing is downloaded: on the meta device a base is known by its shape."""
    if name.startswith("kanzi") and "kanzi" not in typing.get_args(Alphabet):
        pytest.skip("this version has no alphabet of Kanzi's codes")
    config = load_experiment(f"structure/{name}")
    parts = Parts(config)
    with torch.device("meta"):
        model = config.model.build(parts.tracks, "reference")
    found = sum(p.numel() for p in model.parameters())
    expected = {"3di_tiny": 750_720, "kanzi_tiny": 1_001_600}.get(name, config.model.parameters)
    assert found == expected


def test_a_diffusion_model_trains_on_the_same_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only lines of the model and of the diffusion differ."""
    causal, diffusion = (load_experiment(f"structure/3di_{name}") for name in ("tiny", "diffusion_tiny"))
    assert (causal.tracks, causal.data, causal.train) == (diffusion.tracks, diffusion.data, diffusion.train)
    shape = ("model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1", "train.steps=2", "train.batch_size=4")
    overrides = [*write_pairs(tmp_path), *shape, *QUICK[4:]]
    train_experiment(load_experiment("structure/3di_diffusion_tiny", overrides), tmp_path / "run", device="cpu")
    assert open_run(tmp_path / "run", device="cpu").step == 2
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "exported")]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"protlig export: {tmp_path / 'run'}: found a vocabulary of 57 tokens"), told
    assert "nothing is exported" in told and not (tmp_path / "exported").exists()


def test_a_quantised_weight_counts_as_what_it_stands_for() -> None:
    """bitsandbytes packs two weights of four bits in a byte, and keeps the shape beside them."""
    layer = torch.nn.Linear(6, 4, bias=False)
    layer.weight = torch.nn.Parameter(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    assert count_parameters(layer) == 12
    layer.weight.quant_state = types.SimpleNamespace(shape=torch.Size((4, 6)))  # type: ignore[attr-defined]
    assert count_parameters(layer) == 24


def test_a_track_to_generate_that_is_not_there_is_told(learned: Run) -> None:
    for changes in (
        ["evaluation.generate=structur"],
        ["evaluation.generate=ligand", "evaluation.after_training=true"],
        ["model.kind=encoder", "evaluation.generate=ligand", "evaluation.preview_every=5"],
    ):
        name = "structure/3di_diffusion_tiny" if "model.kind=encoder" in changes else "structure/3di_tiny"
        with pytest.raises(ConfigError, match=r"evaluation\.generate: found '\w+', expected one of protein, structure"):
            load_experiment(name, changes)
    parts = Parts(dataclasses.replace(learned.config, evaluation=EvaluationSettings(generate="ligand")))
    with pytest.raises(ConfigError, match=r"config\.yaml: evaluation\.generate: found 'ligand', the run has the tracks"):
        list(evaluate_run(dataclasses.replace(learned, parts=parts), split="train"))


def test_a_causal_run_is_evaluated_beside_its_nulls_and_prostt5(
    learned: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(learned.folder), "--split", "train", "--device", "cpu", "--prostt5", str(learned.folder / "none")]
    assert main(command) == 0
    told = capsys.readouterr().out
    for words in ("nats per structure token", "length given", "length learned", "always", "nearest training protein"):
        assert words in told
    assert "ProstT5's weights are not at hand" in told
    monkeypatch.setattr(folding, "find_prostt5", lambda *_, **__: (lambda texts: [["D"] * len(t) for t in texts], ""))
    assert main(command) == 0
    assert "ProstT5, train split:" in capsys.readouterr().out
    titles = [section.title for section in read_evaluation(learned.folder / "evaluation.json")]
    assert titles.count("ProstT5, train split") == 1 and "Likelihood, train split" in titles
