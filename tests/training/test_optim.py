"""Learning rates, decay groups and the moving average of the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from protlig_dd import config
from protlig_dd.errors import ConfigError
from protlig_dd.training.optim import EMA, OptimSettings, block_matrices, decay_groups, lr_at, make_optimizer
from protlig_dd.training.settings import TrainSettings
from tests.support.toy import ToyModel


@pytest.mark.data
@pytest.mark.parametrize(("warmup", "total", "lr"), [(10, 100, "0.001"), (2500, 25000, "2e-05")])
def test_the_clamped_cosine_is_the_predecessors_up_to_its_last_step(shared: Path, warmup: int, total: int, lr: str) -> None:
    golden = np.load(shared / "goldens/sedd/goldens_ext.npz")
    name = f"lr_warmup_cosine/w{warmup}_n{total}_max{lr}"
    steps, expected = golden[f"{name}/step"], golden[f"{name}/lr"]
    settings = OptimSettings(lr=float(lr), warmup_steps=warmup, warmup_start_ratio=0.1, min_lr_ratio=0.01)
    found = np.array([lr_at(int(step), settings, total) for step in steps])
    inside = steps <= total
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-12)
    assert np.all(found[~inside] == float(lr) * 0.01), "beyond the last step the rate stays at its minimum"


@pytest.mark.data
def test_a_constant_rate_after_the_warm_up_is_the_original_one(shared: Path) -> None:
    golden = np.load(shared / "goldens/sedd/goldens.npz")
    settings = OptimSettings(lr=3e-4, warmup_steps=2500, lr_schedule="constant")
    found = [lr_at(int(step), settings, 10**6) for step in golden["lr/step"]]
    np.testing.assert_allclose(found, golden["lr/warmup2500_lr3e-4"], rtol=1e-12)


@pytest.mark.data
def test_the_average_follows_the_original_one(shared: Path) -> None:
    golden = np.load(shared / "goldens/sedd/goldens.npz")
    path, expected = torch.from_numpy(golden["ema/params"]), golden["ema/shadow"]
    parameter = path[0].clone()
    ema = EMA([parameter], float(golden["ema/decay"]))
    for values, shadow in zip(path[1:], expected[1:], strict=True):
        parameter.copy_(values)
        ema.update()
        np.testing.assert_allclose(ema.shadow[0].numpy(), shadow, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_rates_rise_then_fall_and_end_where_they_should(schedule: str) -> None:
    settings = OptimSettings(lr=2.0, warmup_steps=4, lr_schedule=schedule, min_lr_ratio=0.25)  # type: ignore[arg-type]
    rates = [lr_at(step, settings, 20) for step in range(1, 31)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert all(b <= a for a, b in zip(rates[3:], rates[4:], strict=False))
    assert rates[19:] == [2.0 if schedule == "constant" else 0.5] * 11


def test_norms_biases_and_embeddings_do_not_decay() -> None:
    model = ToyModel()
    model.head.bias.requires_grad_(False)
    decayed, kept = decay_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"blocks.0.linear.weight", "blocks.1.linear.weight", "head.weight"}
    assert "embedding.weight" in {names[id(p)] for p in kept["params"]}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    held = len(decayed["params"]) + len(kept["params"])
    assert held == len(list(model.parameters())) - 1, "a frozen parameter is in neither group"


def test_a_tied_embedding_does_not_decay() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    (kept,) = decay_groups(model, 0.1)
    assert kept["weight_decay"] == 0.0


def test_the_optimiser_is_fused_and_takes_the_settings() -> None:
    optimizer = make_optimizer(ToyModel(), OptimSettings(lr=0.5, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3))
    assert optimizer.defaults["fused"]
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    assert optimizer.defaults["betas"] == (0.8, 0.9)


def test_averages_are_lent_and_given_back() -> None:
    model = ToyModel()
    ema = EMA(list(model.parameters()), 0.9)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    ema.update()  # d = 2/11, so the average moves 9/11 of the way
    trained = [p.detach().clone() for p in model.parameters()]
    with ema.applied():
        for p, old in zip(model.parameters(), before, strict=True):
            torch.testing.assert_close(p.detach(), old + 9 / 11)
    for p, new in zip(model.parameters(), trained, strict=True):
        assert torch.equal(p, new)


def test_an_average_goes_on_from_its_state() -> None:
    parameter = torch.zeros(3)
    ema, other = EMA([parameter], 0.9), EMA([torch.ones(3)], 0.9)
    parameter.add_(2.0)
    ema.update()
    other.load_state_dict(ema.state_dict())
    assert other.num_updates == 1
    assert torch.equal(other.shadow[0], ema.shadow[0])
    with pytest.raises(ValueError, match="belongs to another model"):
        EMA([torch.ones(4)], 0.9).load_state_dict(ema.state_dict())


def test_no_average_is_kept_at_decay_zero() -> None:
    parameter = torch.zeros(3)
    ema = EMA([parameter], 0.0)
    parameter.add_(1.0)
    ema.update()
    with ema.applied():
        assert torch.equal(parameter, torch.ones(3))
    assert not ema


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lr": -1.0}, "lr: found -1.0, expected a positive number"),
        ({"betas": [0.9, 1.0]}, "betas: found"),
        ({"clip_norm": -0.5}, "clip_norm: found -0.5, expected 0 or more"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"warmup": 5}, "did you mean 'warmup_steps'"),
        ({"lr_schedule": "step"}, "train.optim.lr_schedule: found 'step'"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.build(OptimSettings, values, "train.optim")


def test_the_rate_of_wsd_stays_and_falls_at_the_end() -> None:
    settings = OptimSettings(lr=2.0, warmup_steps=2, lr_schedule="wsd", decay_fraction=0.25, min_lr_ratio=0.5)
    rates = [lr_at(step, settings, 20) for step in range(1, 23)]
    assert rates[:15] == [1.0] + [2.0] * 14
    assert rates[15:] == pytest.approx([1.8, 1.6, 1.4, 1.2, 1.0, 1.0, 1.0])


def test_muon_updates_the_matrices_of_blocks_and_adamw_the_rest() -> None:
    settings = OptimSettings(kind="muon", lr=0.02, weight_decay=0.1)
    model, plain = ToyModel(), ToyModel()
    names = [name for name, _ in model.named_parameters()]
    matrices = [p for n, p in plain.named_parameters() if n.endswith("linear.weight")]
    assert [p.shape for p in block_matrices(model)] == [p.shape for p in matrices]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    rest = [p for n, p in plain.named_parameters() if not n.endswith("linear.weight")]
    decayed = {"params": [p for p in rest if p is plain.head.weight], "weight_decay": 0.1}
    kept = {"params": [p for p in rest if p is not plain.head.weight], "weight_decay": 0.0}
    adamw = torch.optim.AdamW([decayed, kept], lr=0.02, betas=settings.betas, fused=True)
    ours = make_optimizer(model, settings)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        for optimizer in (ours, muon, adamw):
            optimizer.step()
    for name, p, q in zip(names, model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert not torch.equal(p, before[name]), name


def test_a_muon_update_is_skipped_where_the_gradient_is_not_finite() -> None:
    model = ToyModel()
    optimizer = make_optimizer(model, OptimSettings(kind="muon"))
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    optimizer.found_inf = torch.zeros(())  # type: ignore[attr-defined]
    optimizer.step()
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_muon_is_refused_where_matrices_are_sharded() -> None:
    values = {"optim": {"kind": "muon"}, "distributed": "fsdp"}
    with pytest.raises(ConfigError, match=r"optim.kind: found muon with distributed=fsdp, expected adamw"):
        config.build(TrainSettings, values, "train")
