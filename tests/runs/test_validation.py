"""Validation during training: the bound with its interval, and the unigram null that it is measured against."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from protlig_dd.causal.objective import CausalObjective
from protlig_dd.data.bundle import load
from protlig_dd.evaluation.likelihood import Unigrams
from protlig_dd.runs.experiment import Parts, load_experiment
from protlig_dd.runs.validation import Validator
from tests.support.causal_runs import QUICK, write_pairs
from tests.support.toy import CPU

_MARKOV = ("scaling/markov", ("data.num_train=300", "data.num_validation=150", "evaluation.num_examples=150", "model.num_blocks=1"))
_PAIRS = ("demo/smoke", ("data.num_validation=60", "evaluation.num_examples=60"))


def validator_of(name: str, overrides: tuple[str, ...]) -> Validator:
    parts = Parts(load_experiment(name, list(overrides)))
    return Validator(parts, load(parts.config.data, parts.tracks, parts.config.seed), CPU)


class Frequencies(nn.Module):
    """Predicts every token by its frequency in the training data."""

    def __init__(self, validator: Validator) -> None:
        super().__init__()
        self.unigrams = Unigrams.of(validator.bundle.train, validator.parts.tracks).log_probs

    def forward(self, batch: Any, sigma: Any, *, at: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = {name: torch.from_numpy(self.unigrams[name]).float().clamp(min=-1e4) for name in at}
        return {name: logits[name].expand(len(rows), -1) for name, rows in at.items()}


@torch.no_grad()
def test_the_interval_is_that_of_the_examples_and_the_parts_add_up() -> None:
    validator = validator_of(*_PAIRS)
    model = validator.parts.build_model(CPU).eval()
    found = validator(model)
    nats: dict[str, list[float]] = {"protein": [], "ligand": []}
    tokens: dict[str, list[float]] = {"protein": [], "ligand": []}
    for batch in validator.batches:
        prepared = validator.objective.prepare(batch, 0)
        for name, (own, counts) in validator.objective.loss(model, prepared).examples.items():
            nats[name] += own.tolist()
            tokens[name] += counts.tolist()
            noised = [name in validator.parts.tasks.tasks[task].noised_tracks for task in prepared.tasks]
            lengths = torch.bincount(batch.tracks[name].layout.segment[batch.tracks[name].maskable], minlength=len(noised))
            assert counts.tolist() == [float(n) * used for n, used in zip(lengths.tolist(), noised, strict=True)]
    total, count = np.add(nats["protein"], nats["ligand"]), np.add(tokens["protein"], tokens["ligand"])
    assert found["nll"] == pytest.approx(total.sum() / count.sum())
    rest = total - found["nll"] * count
    error = math.sqrt(float((rest**2).sum()) / (len(rest) - 1) / len(rest)) / count.mean()
    assert found["nll_high"] - found["nll"] == pytest.approx(1.959964 * error)
    assert found["nll"] - found["nll_low"] == pytest.approx(1.959964 * error)
    for name in ("protein", "ligand"):
        assert found[f"nll/{name}"] == pytest.approx(sum(nats[name]) / sum(tokens[name]))
    assert found["num_examples"] == 60
    assert {"nll/joint/protein", "nll/ligand_given_protein/ligand"} <= set(found)


@torch.no_grad()
def test_a_model_that_knows_frequencies_only_scores_the_null() -> None:
    validator = validator_of(*_MARKOV)
    model = Frequencies(validator).eval()
    found = validator(model)
    column = validator.bundle.validation.tracks["protein"]
    ids = column.gather(np.arange(150))
    ids = ids[np.isfinite(model.unigrams["protein"][ids])]
    assert found["unigram_null"] == pytest.approx(-model.unigrams["protein"][ids].mean())
    assert found["nll_low"] < found["unigram_null"] < found["nll_high"]
    assert found["nll_high"] - found["nll_low"] < 0.3


@torch.no_grad()
def test_the_null_counts_the_tokens_that_the_tasks_score() -> None:
    validator = validator_of(*_PAIRS)
    found = validator(Frequencies(validator).eval())
    for name in ("protein", "ligand"):
        low, high = found[f"nll_low/{name}"], found[f"nll_high/{name}"]
        assert low < found[f"unigram_null/{name}"] < high
    others = [f"diffusion.tasks.{name}=null" for name in ("ligand_given_protein", "joint", "ligand_only")]
    whole = validator_of("demo/smoke", (*_PAIRS[1], *others))
    assert set(whole.null) == {"unigram_null"}, "only one track is scored"
    assert whole.null["unigram_null"] == pytest.approx(
        -np.mean([Unigrams.of(whole.bundle.train, whole.parts.tracks).log_probs["protein"][i] for i in scored(whole, "protein")])
    )
    assert "60 validation examples" in whole.told()


def scored(validator: Validator, track: str) -> list[int]:
    return [int(i) for batch in validator.batches for i in batch.tracks[track].tokens[batch.tracks[track].maskable]]


@torch.no_grad()
def test_the_null_of_a_causal_model_counts_its_ends(tmp_path: Path) -> None:
    validator = validator_of("structure/3di_tiny", (*QUICK, *write_pairs(tmp_path, count=200)))
    assert isinstance(validator.objective, CausalObjective)
    counts = dict.fromkeys(range(validator.objective.vocabulary.num_rows), 0)
    training = validator.bundle.train.tracks["structure"]
    vocabulary = validator.objective.vocabulary
    for token in training.gather(np.arange(len(training))).tolist():
        if vocabulary.codes[token] >= 0:
            counts[vocabulary.codes[token]] += 1
    counts[vocabulary.end_id] = len(training)
    logits = torch.tensor([math.log(n) if n else -1e4 for n in counts.values()])

    class Model(nn.Module):
        def forward(self, tokens: Tensor, layout: Any, *, rows: Tensor) -> Tensor:
            return logits.expand(len(rows), -1)

    found = validator(Model())
    assert found["nll"] == pytest.approx(found["unigram_null"], abs=2e-3), "but for the one added to every letter's count"
