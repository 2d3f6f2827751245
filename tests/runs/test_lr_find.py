"""Short trainings with several learning rates and batch sizes: each is a real training of its own, of equally many tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from protlig_dd.diffusion.schedules import SigmaCurriculum
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.sweep import Trial
from protlig_dd.runs.experiment import Experiment, load_experiment
from protlig_dd.runs.lr_find import Grid, LrFinder
from protlig_dd.runs.train import train_experiment
from tests.support.causal_runs import QUICK, write_pairs
from tests.support.encoders import fasta, sequences

MARKOV = (
    *("data.num_train=300", "data.num_validation=60", "evaluation.num_examples=60", "train.batch_size=8", "train.steps=120"),
    *("model.hidden_size=32", "model.num_blocks=1", "model.num_heads=2"),
)


def markov(*more: str) -> Experiment:
    return load_experiment("scaling/markov", [*MARKOV, *more])


def run(finder: LrFinder) -> list[Trial]:
    return list(finder.trials())


def test_the_best_rate_is_the_one_between_too_small_and_too_large() -> None:
    """A rate of 1e-7 learns nothing, one of 1e3 diverges; the one between them is recommended, without a crash."""
    finder = LrFinder(markov(), Grid(lrs=(1e3, 1e-7, 1e-2), batches=(8,), steps=100), device="cpu")
    trials = run(finder)
    assert [t.lr for t in trials[:3]] == [1e-7, 1e-2, 1e3]
    small, good, large = trials[:3]
    assert large.diverged and large.steps < 25 and not good.diverged
    assert small.nll == pytest.approx(finder.untrained["nll"], abs=1e-3)
    sweep = finder.sweep(trials)
    assert sweep.has_learned and sweep.best is not None and sweep.best.lr == 1e-2
    assert sweep.best.nll < small.nll - 0.05 and sweep.tied == [] and len(sweep.last) == 2
    assert not any("edge" in line for line in sweep.remarks())


def test_a_trial_is_the_training_that_the_trainer_makes(tmp_path: Path) -> None:
    """The same value as `protlig train` with these settings: warm-up a tenth, no moving average, the schedule to its end."""
    config = markov("train.optim.ema_decay=0.99", "train.optim.warmup_steps=100", "model.dropout=0.1", "train.accumulation=2")
    (trial,) = run(LrFinder(config, Grid(lrs=(5e-3,), batches=(8,), steps=40), device="cpu"))
    optim = replace(config.train.optim, lr=5e-3, ema_decay=0.0, warmup_steps=4)
    same = replace(config, train=replace(config.train, steps=40, optim=optim, checkpoint_every=0, log_every=0))
    result = train_experiment(same, tmp_path / "run", device="cpu")
    assert trial.nll == pytest.approx(result.validation["nll"], abs=2e-4) and trial.steps == 40
    assert trial.nll < LrFinder(config, Grid(lrs=(5e-3,), batches=(8,), steps=1), device="cpu").untrained["nll"] - 0.05


def test_a_trial_does_not_depend_on_those_before_it() -> None:
    """After a candidate that diverged, weights, optimiser and data begin anew."""
    alone = run(LrFinder(markov(), Grid(lrs=(1e-2,), batches=(8,), steps=6), device="cpu"))
    finder = LrFinder(markov(), Grid(lrs=(1e-2,), batches=(8,), steps=6), device="cpu")
    finder.lrs = (1e3, 1e-2)
    bad, after = run(finder)
    assert bad.nll != after.nll and after.nll == alone[0].nll
    assert np.array_equal(after.nats, alone[0].nats)


@pytest.mark.parametrize(
    ("batch", "sizes"), [((), (4, 8, 16)), (("train.batch_size=null", "train.tokens_per_batch=512"), (256, 512, 1024))]
)
def test_all_batch_sizes_see_equally_many_tokens(batch: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    finder = LrFinder(markov(*batch), Grid(lrs=(1e-3,), batches=sizes, steps=12), device="cpu")
    first = [trial for trial in run(finder) if not trial.is_last]
    assert [trial.batch for trial in first] == list(sizes)
    assert first[0].steps > first[1].steps > first[2].steps == 12
    largest = max(trial.tokens for trial in first)
    assert all(largest - trial.tokens <= finder.batches[0].tokens_per_step for trial in first), [trial.tokens for trial in first]


def test_the_longer_round_has_the_best_of_every_batch_size_and_four_times_the_tokens() -> None:
    finder = LrFinder(markov(), Grid(lrs=(1e-6, 1e-3, 1e-2), batches=(4, 8), steps=16), device="cpu")
    sweep = finder.sweep(run(finder))
    assert len(sweep.first) == 6 and len(sweep.last) == finder.num_kept == 2
    for size in (4, 8):
        (kept,) = (trial for trial in sweep.last if trial.batch == size)
        assert kept.lr == min((t for t in sweep.first if t.batch == size), key=lambda t: t.nll).lr
        assert kept.steps == 16 * 8 // size
    assert sweep.length == pytest.approx(120 * 8 / (16 * 8))


def test_the_longer_round_is_not_all_of_one_batch_size() -> None:
    """The best of each batch size comes before better ones of another size; what diverged never comes."""
    finder = LrFinder(markov(), Grid(lrs=(1e-4, 1e-3, 1e-2), batches=(4, 8), steps=4), device="cpu")

    def trial(lr: float, batch: int, nll: float | None) -> Trial:
        values = {} if nll is None else {"nll": nll}
        return Trial(lr=lr, batch=batch, steps=1, tokens=1, values=values, nats=np.zeros(0), counts=np.zeros(0))

    points = [(1e-4, 4, 2.0), (1e-3, 4, 2.1), (1e-2, 4, 2.2), (1e-4, 8, 2.9), (1e-3, 8, 2.8), (1e-2, 8, None)]
    assert [(kept.lr, kept.batch) for kept in finder._kept([trial(*point) for point in points])] == [(1e-4, 4), (1e-3, 8)]
    assert finder._kept([trial(1e-2, 8, None)]) == []


def test_default_candidates_are_those_around_the_configs() -> None:
    finder = LrFinder(markov("train.optim.lr=2e-3"), Grid(steps=4), device="cpu")
    assert finder.lrs == (2e-4, 6.3e-4, 2e-3, 6.3e-3, 2e-2)
    assert [batch.size for batch in finder.batches] == [2, 4, 8]


def test_a_batch_size_that_nobody_asked_for_is_left_out_if_it_cannot_be(caplog: pytest.LogCaptureFixture) -> None:
    config = markov("train.batch_size=null", "train.tokens_per_batch=300")
    with caplog.at_level("INFO"):
        finder = LrFinder(config, Grid(lrs=(1e-3,), steps=4), device="cpu")
    assert [batch.size for batch in finder.batches] == [150, 300] and "batch 75 is left out: train.tokens_per_batch" in caplog.text
    with pytest.raises(ConfigError, match="found 75, the longest example has 34 tokens"):
        LrFinder(config, Grid(lrs=(1e-3,), batches=(75,), steps=4), device="cpu")


@pytest.mark.parametrize(("own", "accumulation"), [("", 1), ("train.accumulation=2", 1), ("train.devices=4", 1)])
def test_what_is_recommended_can_be_trained_with_as_many_tokens_as_before(own: str, accumulation: int) -> None:
    more = [own] if own else []
    finder = LrFinder(markov(*more), Grid(lrs=(1e-3,), batches=(4,), steps=2), device="cpu")
    (trial,) = run(finder)
    words = finder.overrides(trial)
    train = load_experiment("scaling/markov", [*MARKOV, *more, *words]).train
    assert (train.optim.lr, train.batch_size, train.steps, train.accumulation) == (1e-3, 4, 240, accumulation)


def test_micro_batches_are_no_larger_than_those_of_the_configs_processes() -> None:
    finder = LrFinder(markov("train.accumulation=2", "train.devices=2"), Grid(lrs=(1e-3,), batches=(4, 8, 16), steps=1), device="cpu")
    assert [len(batch.loader.micro_batches(0)) for batch in finder.batches] == [2, 4, 8]


def test_a_curriculum_takes_its_share_of_a_short_training() -> None:
    config = markov("diffusion.curriculum={ramp: linear, steps: 60, start: 0.1}")
    finder = LrFinder(config, Grid(lrs=(1e-3,), batches=(8,), steps=20), device="cpu")
    objective = finder._objective(finder.batches[0], 20)
    assert objective.curriculum == SigmaCurriculum(ramp="linear", steps=10, start=0.1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["causal", "encoder", "dual_track"])
def test_every_family_of_token_models_is_swept(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if family == "causal":
        config = load_experiment("structure/3di_tiny", [*QUICK, *write_pairs(tmp_path, count=40)])
    elif family == "encoder":
        words = ["model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1", "train.tokens_per_batch=600", "data.leakage=false"]
        config = load_experiment("dplm/tiny", [f"data.path={fasta(tmp_path / 'x.fasta', sequences(60))}", *words])
    else:
        pytest.importorskip("rdkit", reason="the demo's molecules need RDKit (extra ligand)")
        config = load_experiment("demo/smoke")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    finder = LrFinder(config, Grid(lrs=(1e-3, 1e-2), batches=(finder_size(config),), steps=3), device="cpu")
    sweep = finder.sweep(run(finder))
    assert [trial.steps for trial in sweep.first] == [3, 3] and not sweep.last and sweep.best is not None
    assert sweep.best.nll != finder.untrained["nll"] and finder.untrained["unigram_null"] > 0
    assert list(Path().iterdir()) == [], "nothing is written"


def finder_size(config: Experiment) -> int:
    size = config.train.batch_size if config.train.batch_size is not None else config.train.tokens_per_batch
    assert isinstance(size, int)
    return size


def test_minutes_become_steps_and_too_few_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protlig_dd.runs.lr_find.seconds_per_update", lambda *args, **kwargs: 0.1)
    monkeypatch.setattr("protlig_dd.runs.lr_find.time.perf_counter", lambda: 0.0)  # validation takes no time
    grid = Grid(lrs=(1e-4, 1e-3, 1e-2), batches=(8,), minutes=0.5)
    finder = LrFinder(markov(), grid, device="cpu")
    # three trainings, then two of four times the length: 11 units of a tenth of a second a step in 30 s
    assert finder.batches[0].steps(finder.tokens) == int(30 / 0.1 / 11)
    with pytest.raises(ConfigError, match=r"--minutes 0.1: is too short for 3 candidates on cpu: 5 steps .* give --minutes 1,"):
        LrFinder(markov(), replace(grid, minutes=0.1), device="cpu")


def test_timing_leaves_the_weights_alone() -> None:
    finder = LrFinder(markov(), Grid(lrs=(1e-3,), batches=(8,), steps=2), device="cpu")
    finder._seconds_per_token(finder.batches[0])
    assert all(torch.equal(a, b) for a, b in zip(finder._trained, finder._start, strict=True))


def test_what_it_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="data: has no validation part"):
        LrFinder(markov("data.num_validation=0"), Grid(), device="cpu")
    with pytest.raises(ConfigError, match="set exactly one of them"):
        LrFinder(markov("train.tokens_per_batch=512"), Grid(), device="cpu")
    with pytest.raises(ConfigError, match="set exactly one of them"):
        LrFinder(markov("train.tokens_per_batch=auto", "train.batch_size=null"), Grid(), device="cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="start it without torchrun"):
        LrFinder(markov(), Grid(), device="cpu")
