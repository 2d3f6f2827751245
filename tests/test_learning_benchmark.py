"""The benchmark of time to quality: stock models are evaluated as they should be, and its smallest run prints a table."""

from __future__ import annotations

import gzip
import json
import math
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from protlig_dd.causal.objective import CausalObjective
from protlig_dd.causal.sequences import minimal_vocabulary
from protlig_dd.diffusion.denoiser import Diffusion
from protlig_dd.diffusion.objective import DiffusionObjective
from protlig_dd.diffusion.parameterizations import Parameterization, Score, Subs
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.diffusion.times import TaskMixture
from protlig_dd.runs.experiment import load_experiment
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import Track, TrackBatch, pack

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TRACK: Track = ProteinTrack(max_length=64).build("protein")
WAYS: dict[str, Parameterization] = {
    "subs": Subs(process=Absorbing.of(TRACK.vocabulary)),
    "score": Score(process=Absorbing.of(TRACK.vocabulary)),
    "score by sigma": Score(process=Absorbing.of(TRACK.vocabulary), scale_by_sigma=False),
}


@pytest.fixture
def benchmark(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a file of the benchmarks."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return import_module


def proteins(count: int, source: random.Random) -> list[str]:
    """Return random proteins of 10 to 60 residues, whose letters are not equally frequent."""
    weights = [1 / (i + 1) for i in range(len(LETTERS))]
    return ["".join(source.choices(LETTERS, weights, k=source.randint(10, 60))) for _ in range(count)]


def packed(count: int) -> TrackBatch:
    return pack([{"protein": TRACK.encode(text)} for text in proteins(count, random.Random(0))], {"protein": TRACK})


def frequencies(batch: TrackBatch) -> Tensor:
    """Return the share of each id among the residues of a batch."""
    own = batch.tracks["protein"]
    counts = torch.bincount(own.tokens[own.maskable], minlength=TRACK.vocabulary.num_rows)
    return counts / counts.sum()


def bounds(denoiser: Any, batch: TrackBatch, meaning: Parameterization, draws: int) -> list[float]:
    """Return the bound of a denoiser in nats per residue for several draws of noise."""
    objective = DiffusionObjective(
        diffusion=Diffusion(parameterizations={"protein": meaning}, schedule=LogLinear(eps=0.0)),
        tasks=TaskMixture({"protein_only": 1.0}, ("protein",)),
    )
    found = [objective.loss(denoiser, objective.prepare(batch, step)) for step in range(draws)]
    return [float(terms.sums[name]) / terms.counts[name] for terms in found for name in terms.sums]


def test_a_stock_model_that_predicts_the_unigram_frequencies_has_their_cross_entropy_as_its_bound(benchmark: Any) -> None:
    """The bound of a constant predictor is its cross-entropy, for every draw of noise up to a mean over draws."""
    stock, batch, draws = benchmark("stock_loops"), packed(64), 60
    share = frequencies(batch)
    entropy = -float(torch.special.xlogy(share, share).sum())
    model = stock.Unigram(share.clamp(min=1e-9).log())
    found = {name: bounds(stock.PaddedDenoiser(model, TRACK, way), batch, way, draws) for name, way in WAYS.items()}
    values = torch.tensor(found["subs"])
    assert abs(float(values.mean()) - entropy) < 4 * float(values.std()) / math.sqrt(draws)
    assert float(values.std()) / math.sqrt(draws) < 0.03
    for name in ("score", "score by sigma"):
        assert found[name] == pytest.approx(found["subs"], rel=1e-4), name


class Echo(nn.Module):
    """Predicts at every place the id that is there, if the place is real."""

    def forward(self, ids: Tensor, is_real: Tensor) -> Tensor:
        return nn.functional.one_hot(ids, TRACK.vocabulary.num_rows).float() * is_real[..., None]


def test_a_padded_stock_model_answers_at_the_packed_positions_that_are_asked(benchmark: Any) -> None:
    stock, batch = benchmark("stock_loops"), packed(7)
    own = batch.tracks["protein"]
    at = own.maskable.nonzero().squeeze(1).flip(0)[::3]
    sigma = {"protein": torch.ones(batch.num_examples)}
    logits = stock.PaddedDenoiser(Echo(), TRACK, WAYS["subs"])(batch, sigma, at={"protein": at})["protein"]
    assert torch.equal(logits.argmax(-1), own.tokens[at])


class Oracle(nn.Module):
    """Knows the next id at every place."""

    def forward(self, ids: Tensor, is_real: Tensor) -> Tensor:
        return 40 * nn.functional.one_hot(ids.roll(-1, dims=1), 64).float()


def test_a_decoder_is_asked_at_the_places_before_the_structure_tokens(benchmark: Any) -> None:
    """A new decoder predicts uniformly, since its head is zero; one that knows the next token has no loss."""
    stock = benchmark("stock_loops")
    tracks = {
        "protein": ProteinTrack(max_length=64, unknown="X", beside="3di").build("protein"),
        "structure": StructureTrack(alphabet="3di", max_length=64).build("structure"),
    }
    texts = proteins(5, random.Random(1))
    batch = pack([{name: track.encode(text) for name, track in tracks.items()} for text in texts], tracks)
    vocabulary = minimal_vocabulary(tracks["protein"], tracks["structure"])
    shape = stock.Shape(
        hidden_size=16, num_heads=2, num_blocks=1, inner_size=32, num_rows=vocabulary.num_rows, max_length=140, pad_id=vocabulary.pad_id,
        mask_id=-1,
    )  # fmt: skip
    objective = CausalObjective(vocabulary)
    new, oracle = (objective.nll(stock.PaddedCausal(model, vocabulary.pad_id), batch) for model in (stock.Decoder(shape), Oracle()))
    assert new.tolist() == pytest.approx([math.log(vocabulary.num_rows)] * 5, rel=1e-5)
    assert oracle.tolist() == pytest.approx([0.0] * 5, abs=1e-5)


def test_the_time_of_a_target_is_read_off_between_evaluations(benchmark: Any) -> None:
    table = benchmark("learning_table")

    def runs(side: str, *points: tuple[float, float]) -> list[dict[str, Any]]:
        return [{"set": "toy", "side": side, "lr": 0.1, "seed": 0, "points": [[i, *point] for i, point in enumerate(points)]}]

    both = [*runs("stock", (10, 3.0), (20, 2.0)), *runs("ours", (4, 3.0), (8, 2.5), (12, 1.5))]
    found = table.outcome("toy", both, grid=[0.1], letters=3.0, keep_best=False)
    assert (found.target, found.times["stock"].seconds, found.times["ours"].seconds, found.seconds) == (2.0, 20, 10, 12)
    assert found.ratio() == "2x"
    assert found.values == {"stock": [pytest.approx(2.8)], "ours": [1.5]}
    slower = table.outcome("toy", [*both[:1], *runs("ours", (5, 3.0), (40, 2.5))], grid=[0.1], letters=3.0, keep_best=False)
    assert (str(slower.times["ours"]), slower.ratio()) == (">40", "<0.5x")


def test_the_smallest_run_prints_a_table_and_is_not_trained_again(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    learning, out = benchmark("learning"), tmp_path / "runs.jsonl"
    fasta = tmp_path / "families" / "1bcf.fasta.gz"
    fasta.parent.mkdir()
    with gzip.open(fasta, "wt") as file:
        file.writelines(f">{i}\n{text}\n" for i, text in enumerate(proteins(40, random.Random(2))))
    smallest = ["--shared", str(tmp_path), "--sets", "families", "--steps", "0.007", "--tokens", "200", "--seeds", "1", "--out", str(out)]
    learning.main([*smallest, "--grid", "1e-3,3e-3"])
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:3])
    assert rows["set"] == "families"
    runs = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((run["side"], run["lr"]) for run in runs) == [("ours", 1e-3), ("ours", 3e-3), ("stock", 1e-3), ("stock", 3e-3)]
    assert all([step for step, _, _ in run["points"]] == [1, 2] for run in runs)
    assert min(run["points"][-1][2] for run in runs if run["side"] == "stock") == pytest.approx(float(rows["target"]), abs=6e-4)
    before = out.read_bytes()
    learning.main([*smallest, "--grid", "1e-3,3e-3", "--markdown"])
    assert out.read_bytes() == before
    header, line, row = capsys.readouterr().out.splitlines()[:3]
    assert header.count("|") == line.count("|") == row.count("|") and row.startswith("| families |")


def test_differences_of_single_changes_are_paired_by_seed(benchmark: Any) -> None:
    learning_changes = benchmark("learning_changes")
    study = learning_changes.ligand("x.txt", 10)
    name = next(iter(study.changes))
    runs = [
        {"change": change, "seed": seed, "nll": nll, "nll_raw": nll, "unigram_null": 2.0, "cpu": cpu}
        for change, seed, nll, cpu in (
            ("base", 0, 1.0, 10),
            ("base", 1, 2.0, 10),
            (name, 0, 0.9, 5),
            (name, 1, 1.7, 15),
            ("base", 2, 9.0, 1),
        )
    ]
    shown = learning_changes.table(study, runs)
    assert f"| {name} | 1.300 | -0.200 (-0.300, -0.100) | x 1.00 |" in shown
    assert learning_changes.split_overrides("a=1 b={kind: x, c: {d: 2}} e=3") == ["a=1", "b={kind: x, c: {d: 2}}", "e=3"]


@pytest.mark.parametrize("name", ["protein", "ligand", "width"])
def test_every_change_is_of_a_setting_that_exists(benchmark: Any, name: str) -> None:
    learning_changes = benchmark("learning_changes")
    study = getattr(learning_changes, name)("x", 10)
    base = load_experiment(study.config, learning_changes.split_overrides(study.base))
    for change, overrides in study.changes.items():
        changed = load_experiment(study.config, learning_changes.split_overrides(f"{study.base} {overrides}"))
        assert changed != base, change
