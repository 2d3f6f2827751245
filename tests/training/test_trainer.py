"""The loop in one process: it learns, resumes exactly, stops when asked, and stops before a bad update."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from protlig_dd import config
from protlig_dd.checkpoints import checkpoint as checkpoints
from protlig_dd.device import DeviceChoice
from protlig_dd.errors import CheckpointError, ConfigError, DeviceError
from protlig_dd.training.guard import FiniteGuard, NonFiniteLossError
from protlig_dd.training.optim import OptimSettings, lr_at, make_optimizer
from protlig_dd.training.settings import TrainSettings
from protlig_dd.training.strategies import Processes, Single
from protlig_dd.training.trainer import Every, fit
from tests.support.toy import (
    CPU,
    Poisoned,
    ToyLoader,
    ToyModel,
    ToyObjective,
    ToyPrepared,
    quick_settings,
    read_metrics,
    run_toy,
    validate_toy,
)


def weights_of(folder: Path, step: int) -> bytes:
    return (folder / f"checkpoints/step_{step:08d}/weights.safetensors").read_bytes()


@dataclass(frozen=True, kw_only=True)
class Recording(ToyObjective):
    """Remembers the steps it was asked for, and may break off or send a signal at one."""

    steps: list[int] = field(default_factory=list)
    interrupt_at: int = -1
    number: int = 0

    def prepare(self, batch: Any, step: int) -> ToyPrepared:
        self.steps.append(step)
        if step == self.interrupt_at:
            if not self.number:
                raise ZeroDivisionError
            os.kill(os.getpid(), self.number)
        return super().prepare(batch, step)


def test_a_model_learns_and_reports(tmp_path: Path) -> None:
    result = run_toy(tmp_path, quick_settings(steps=60, log_every=20, validate_every=30), validate=validate_toy)
    losses = read_metrics(tmp_path)
    assert list(losses) == [20, 40, 60]
    assert losses[60] < losses[20] - 0.2
    assert result.steps == result.total_steps == 60
    assert result.exit_code == 0
    assert read_metrics(tmp_path, "train/nll") == losses, "the objective's own sums are divided by their own counts"
    assert read_metrics(tmp_path, "train/half") == {step: pytest.approx(loss / 2) for step, loss in losses.items()}
    assert read_metrics(tmp_path, "train/tokens") == {20: 960.0, 40: 1920.0, 60: 2880.0}
    assert list(read_metrics(tmp_path, "train/grad_norm")) == [20, 40, 60]
    assert read_metrics(tmp_path, "train/lr")[60] == pytest.approx(0.02 * 0.01)
    assert set(read_metrics(tmp_path, "validation/nll")) == {30, 60}


def test_the_update_is_plain_adamw_on_the_mean_over_tokens(tmp_path: Path) -> None:
    settings = quick_settings(steps=6, checkpoint_every=6, weight_decay=0.0, clip_norm=0.5, ema_decay=0.0)
    run_toy(tmp_path, settings)
    model, objective, loader = ToyModel(), ToyObjective(), ToyLoader()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    for step in range(6):
        prepared = objective.prepare(loader.micro_batches(step)[0], step)
        (objective.loss(model, prepared).total / prepared.num_tokens).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.param_groups[0]["lr"] = lr_at(step + 1, settings.optim, 6)
        optimizer.step()
        optimizer.zero_grad()
    found = checkpoints.load(tmp_path / "checkpoints/step_00000006")
    assert not found.ema
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-5, atol=1e-6)


def test_accumulation_changes_nothing_but_the_order_of_the_sums(tmp_path: Path) -> None:
    for accumulation in (1, 3):
        run_toy(tmp_path / str(accumulation), quick_settings(accumulation=accumulation, steps=10, log_every=1))
    whole, pieces = read_metrics(tmp_path / "1"), read_metrics(tmp_path / "3")
    for step, loss in whole.items():
        assert pieces[step] == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_run_that_broke_off_ends_with_the_same_bytes(tmp_path: Path, kind: str) -> None:
    settings = quick_settings(log_every=1, kind=kind)
    run_toy(tmp_path / "whole", settings, dropout=0.2)
    with pytest.raises(ZeroDivisionError):
        run_toy(tmp_path / "broken", settings, dropout=0.2, objective=Recording(interrupt_at=13))
    recording = Recording()
    run_toy(tmp_path / "broken", settings, dropout=0.2, objective=recording)
    assert recording.steps[0] == 10, "the first step is the one after the last that was saved (from 0)"
    for name in ("weights", "ema", "optimizer"):
        path = f"checkpoints/step_00000020/{name}.safetensors"
        assert (tmp_path / "broken" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    assert read_metrics(tmp_path / "broken") == read_metrics(tmp_path / "whole")


def test_dropout_differs_between_steps_and_not_between_runs(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name) % 1000)
        run_toy(tmp_path / name, quick_settings(steps=4), dropout=0.5, seed=seed)
    a, b, c = (weights_of(tmp_path / name, 4) for name in "abc")
    assert a == b
    assert a != c


@dataclass(frozen=True, kw_only=True)
class Drawing(ToyObjective):
    """Notes what the library draws at each step, as dropout does, and breaks off at step 4: only rank 0 can save."""

    drawn: list[float] = field(default_factory=list)

    def prepare(self, batch: Any, step: int) -> ToyPrepared:
        if step == 4:
            raise ZeroDivisionError
        self.drawn.append(float(torch.rand(())))
        return super().prepare(batch, step)


def library_draws(folder: Path, *, rank: int = 0, seed: int = 0) -> list[float]:
    """Return the first draw of the library at each of four steps of a rank, with two micro-batches a step."""
    objective, settings = Drawing(), quick_settings(steps=9, accumulation=2, checkpoint_every=0, log_every=0)
    strategy = Single(CPU, Processes(rank=rank, world=1))
    with pytest.raises(ZeroDivisionError):
        fit(ToyModel(dropout=0.5), objective, ToyLoader(accumulation=2), settings, strategy=strategy, run_folder=folder, seed=seed)
    return objective.drawn


def test_dropout_is_another_at_every_step_micro_batch_and_rank_and_the_same_again(tmp_path: Path) -> None:
    first = library_draws(tmp_path / "first")
    others = [library_draws(tmp_path / "rank", rank=1), library_draws(tmp_path / "seed", seed=1)]
    assert len({*first, *others[0], *others[1]}) == 3 * len(first) == 24
    assert library_draws(tmp_path / "again") == first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture, number: signal.Signals) -> None:
    caplog.set_level(logging.INFO)
    before = signal.getsignal(number)
    result = run_toy(tmp_path / "run", quick_settings(), objective=Recording(interrupt_at=7, number=number))
    assert (result.steps, result.exit_code) == (8, 128 + number)
    assert result.checkpoint == tmp_path / "run/checkpoints/step_00000008"
    assert f"stopped by {number.name} after step 8 of 20" in caplog.text
    assert "start the same command again" in caplog.text
    assert signal.getsignal(number) is before, "the handlers are given back"
    assert run_toy(tmp_path / "run", quick_settings()).steps == 20
    run_toy(tmp_path / "whole", quick_settings())
    assert weights_of(tmp_path / "run", 20) == weights_of(tmp_path / "whole", 20)


def test_a_finished_run_has_nothing_to_do(tmp_path: Path) -> None:
    run_toy(tmp_path, quick_settings())
    recording = Recording()
    assert run_toy(tmp_path, quick_settings(), objective=recording).steps == 20
    assert not recording.steps


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError) as caught:
        run_toy(tmp_path, quick_settings(checkpoint_every=1), objective=Poisoned(poison=6))
    assert re.search(r"rank 0, step 7: the loss is nan; batch: task joint; track letters", str(caught.value))
    assert [checkpoints.step_of(p) for p in checkpoints.list_checkpoints(tmp_path / "checkpoints")][-1] == 6


def test_a_deferred_check_turns_updates_off_from_the_bad_step_on() -> None:
    strategy = Single(CPU)
    model = nn.Linear(3, 1)
    strategy.wrap(model, partial(make_optimizer, settings=OptimSettings()), clip_norm=0.0, accumulation=1)
    guard = FiniteGuard(strategy, lambda step: f"the batch of {step}", deferred=True)
    seen = []
    for step, factor in enumerate([1.0, 1.0, math.nan, 1.0]):
        loss = model(torch.ones(1, 3)).sum() * factor
        strategy.backward(loss)
        strategy.step(0.1, guard.check(step, loss.detach(), strategy.clip()))
        seen.append(model.weight.detach().clone())
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])
    assert torch.equal(seen[1], seen[3])
    with pytest.raises(NonFiniteLossError, match="step 3: .*the batch of 2"):
        guard.settle()


def test_a_gradient_that_is_not_finite_is_told_from_a_loss(tmp_path: Path) -> None:
    class Steep(ToyObjective):
        def loss(self, model: Any, prepared: Any) -> Any:
            terms = super().loss(model, prepared)
            steep = (terms.total * 0).sqrt()  # zero, with an infinite slope
            return type(terms)(total=terms.total.detach() + steep, sums={}, counts={})

    with pytest.raises(NonFiniteLossError, match="the gradient is not finite .*though the loss of rank 0 is"):
        run_toy(tmp_path, quick_settings(), objective=Steep())


def test_running_out_of_memory_says_what_to_change(tmp_path: Path) -> None:
    class Greedy(ToyObjective):
        def loss(self, model: Any, prepared: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(DeviceError) as caught:
        run_toy(tmp_path, quick_settings(accumulation=2), objective=Greedy())
    message = str(caught.value)
    assert "rank 0, step 1: out of memory on cpu" in message
    assert "a micro-batch of 36 tokens; use train.accumulation=4" in message
    assert "model.activation_checkpointing=true, train.distributed=fsdp" in message


def test_best_follows_the_named_metric_and_has_a_checkpoint(tmp_path: Path) -> None:
    values = iter([3.0, 1.0, 2.0, math.nan])
    settings = quick_settings(validate_every=5, checkpoint_every=0, keep=1, best_metric="bound")
    result = run_toy(tmp_path, settings, validate=lambda model: {"other": 9.0, "bound": next(values)})
    assert result.best == 1.0
    assert checkpoints.pointed_at(tmp_path / "checkpoints", "best") == tmp_path / "checkpoints/step_00000010"
    assert [checkpoints.step_of(p) for p in checkpoints.list_checkpoints(tmp_path / "checkpoints")] == [10, 20]
    with pytest.raises(ConfigError, match=r"train.best_metric: found 'bund'.*expected one of: bound"):
        run_toy(tmp_path / "b", quick_settings(validate_every=5, best_metric="bund"), validate=lambda m: {"bound": 1.0})


def test_validation_and_hooks_see_averaged_weights_in_evaluation_mode(tmp_path: Path) -> None:
    seen: dict[int, torch.Tensor] = {}
    modes: list[bool] = []

    def look(step: int, model: nn.Module, tracking: Any) -> None:
        modes.append(model.training or torch.is_grad_enabled())
        seen[step] = model.state_dict()["head.weight"].clone()
        tracking.log_text(step, "note", "a text")

    run_toy(tmp_path, quick_settings(ema_decay=0.9), dropout=0.1, hooks=[Every(steps=10, hook=look)])
    found = checkpoints.load(tmp_path / "checkpoints/step_00000020")
    assert torch.equal(seen[20], found.ema["head.weight"])
    assert not torch.equal(seen[20], found.weights["head.weight"])
    assert list(seen) == [10, 20]
    assert modes == [False, False]
    assert (tmp_path / "samples/note_00000020.txt").read_text() == "a text\n"


def bounds_on_validation(values: list[float]) -> Any:
    given = iter(values)

    def validate(model: nn.Module) -> dict[str, float]:
        nll = next(given)
        return {"nll": nll, "nll_low": nll - 0.1, "nll_high": nll + 0.1, "num_examples": 40.0, "unigram_null": 2.9}

    return validate


def test_validation_scores_averaged_and_raw_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[torch.Tensor] = []

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append(model.state_dict()["head.weight"].clone())
        return {"nll": float(len(seen)), "nll_low": 0.5, "nll_high": 2.5, "num_examples": 40.0, "unigram_null": 9.0}

    with caplog.at_level(logging.INFO):
        run_toy(tmp_path, quick_settings(ema_decay=0.9), validate=validate)
    found = checkpoints.load(tmp_path / "checkpoints/step_00000020")
    assert torch.equal(seen[0], found.ema["head.weight"])
    assert torch.equal(seen[1], found.weights["head.weight"])
    assert "validation nll 1.0000 [0.5000, 2.5000] on 40 examples, raw weights 2.0000" in caplog.text
    assert read_metrics(tmp_path, "validation/nll_raw") == {20: 2.0}
    assert len(seen) == 2
    run_toy(tmp_path / "plain", quick_settings(ema_decay=0.0), validate=validate)
    assert len(seen) == 3, "without averages there is one kind of weights"


def test_a_run_on_the_unigram_plateau_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = quick_settings(ema_decay=0.0, validate_every=1)
    with caplog.at_level(logging.INFO):
        run_toy(tmp_path / "stuck", settings, validate=bounds_on_validation([2.95] * 20))
    told = [r.message for r in caplog.records if "unigram plateau" in r.message]
    assert told and told[0].startswith("not left the unigram plateau after 10% of the run (nll 2.950, null 2.900)")
    assert len(told) == 1
    caplog.clear()
    with caplog.at_level(logging.INFO):
        run_toy(tmp_path / "learns", settings, validate=bounds_on_validation([2.95, *[2.79] * 19]))
    assert "plateau" not in caplog.text, "it is early in the run, or has left the null"


def test_a_budget_of_tokens_becomes_one_of_steps(tmp_path: Path) -> None:
    result = run_toy(tmp_path, quick_settings(steps=0, tokens=500))
    assert result.steps == result.total_steps == 11  # 48 tokens a step, rounded up


def test_runs_do_not_go_on_over_each_other(tmp_path: Path) -> None:
    run_toy(tmp_path, quick_settings(resume="never"))
    with pytest.raises(ConfigError, match=r"train.resume: found 'never', but .*up to step 20"):
        run_toy(tmp_path, quick_settings(resume="never"))
    with pytest.raises(CheckpointError, match="vocabulary of track 'ligand'"):
        run_toy(tmp_path, quick_settings(), fingerprints={"ligand": "abc"})
    with pytest.raises(CheckpointError, match=r"'embedding.weight' has shape \(12, 17\), the model expects \(12, 19\)"):
        fit(ToyModel(width=19), ToyObjective(), ToyLoader(), quick_settings(), strategy=Single(CPU), run_folder=tmp_path)


def test_a_damaged_checkpoint_is_passed_over_only_when_asked(tmp_path: Path) -> None:
    run_toy(tmp_path / "whole", quick_settings())
    run_toy(tmp_path / "run", quick_settings(), objective=Recording(interrupt_at=17, number=signal.SIGTERM))
    path = tmp_path / "run/checkpoints/step_00000018/weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="damaged.*--resume=last-good"):
        run_toy(tmp_path / "run", quick_settings())
    recording = Recording()
    run_toy(tmp_path / "run", quick_settings(resume="last-good"), objective=recording)
    assert recording.steps[0] == 15
    assert weights_of(tmp_path / "run", 20) == weights_of(tmp_path / "whole", 20)


def test_flops_become_a_speed(tmp_path: Path) -> None:
    run_toy(tmp_path, quick_settings(), flops_per_token=lambda batch: 1e9)
    speeds, flops = read_metrics(tmp_path, "speed/tokens_per_second"), read_metrics(tmp_path, "speed/tflops_per_second")
    assert flops[20] == pytest.approx(speeds[20] * 1e9 / 1e12)
    assert not read_metrics(tmp_path, "speed/mfu"), "the peak of a CPU is not known"


def test_bfloat16_trains_with_float32_weights(tmp_path: Path) -> None:
    choice = DeviceChoice(device=torch.device("cpu"), dtype=torch.bfloat16, needs_scaler=False, reason="for a test")
    run_toy(tmp_path / "half", quick_settings(log_every=1, steps=40), choice=choice)
    run_toy(tmp_path / "full", quick_settings(log_every=1, steps=40))
    half, full = read_metrics(tmp_path / "half"), read_metrics(tmp_path / "full")
    assert half != full
    assert half[1] == pytest.approx(full[1], abs=0.02)
    stored = checkpoints.load(tmp_path / "half/checkpoints/step_00000040").weights
    assert stored["head.weight"].dtype == torch.float32


def test_a_loss_scaler_is_part_of_the_state(tmp_path: Path) -> None:
    choice = DeviceChoice(device=torch.device("cpu"), dtype=torch.float16, needs_scaler=True, reason="for a test")
    settings = quick_settings(steps=8, checkpoint_every=4)
    run_toy(tmp_path / "whole", settings, choice=choice)
    with pytest.raises(ZeroDivisionError):
        run_toy(tmp_path / "run", settings, choice=choice, objective=Recording(interrupt_at=6))
    run_toy(tmp_path / "run", settings, choice=choice)
    state = checkpoints.load(tmp_path / "run/checkpoints/step_00000008").state
    assert state["scaler"]["_growth_tracker"] == 8
    assert weights_of(tmp_path / "run", 8) == weights_of(tmp_path / "whole", 8)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 5, "tokens": 5}, "expected exactly one above 0"),
        ({"accumulation": 0}, "accumulation: found 0"),
        ({"log_every": -1}, "log_every: found -1"),
        ({"distributed": "dpp"}, "train.distributed: found 'dpp'"),
        ({"optim": {"lr": 0}}, "lr: found 0"),
        ({"watchdog": 3}, "did you mean 'watchdog_seconds'"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.build(TrainSettings, values, "train")


def test_settings_survive_the_way_through_a_mapping() -> None:
    settings = quick_settings(optim=OptimSettings(lr=0.5, betas=(0.8, 0.95)), tokens_per_batch="auto", batch_size=None)
    assert config.build(TrainSettings, config.to_mapping(settings), "train") == settings
