"""Causal models on two processes: they train, save, go on and write structures as one process does, and one process opens their run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from protlig_dd.runs.experiment import Experiment, load_experiment
from protlig_dd.runs.open import open_run
from protlig_dd.runs.train import train_experiment
from tests.support.causal_child import drawn, train_child
from tests.support.causal_runs import ADAMW, QUICK, write_pairs
from tests.support.processes import free_port, require_deepspeed
from tests.support.small_bases import SHAPE, write_base
from tests.support.toy import start_processes

pytest.importorskip("transformers", reason="causal models come with protlig_dd[hf]")
SETTINGS = (
    *QUICK,
    *ADAMW,
    *(f"model.{name}={value}" for name, value in SHAPE.items()),
    *("train.optim.lr_schedule=constant", "train.optim.lr=0.003", "train.validate_every=2", "train.checkpoint_every=2"),
    *("train.log_every=1", "model.activation_checkpointing=true"),
)
STEPS = 4
LORA = "model.lora={rank: 2, alpha: 8, dropout: 0}"
SHARDING = ("fsdp", "zero3")
slow = pytest.mark.slow


def overrides(folder: Path, kind: str) -> list[str]:
    """Data and model: from scratch, from another run, or a base with adapters in one of two types, or trained whole."""
    given = [*write_pairs(folder), *SETTINGS]
    if kind == "scratch":
        return given
    if kind == "continued":
        given += ["model.tied_head=true"]
        train_experiment(load(given, "train.steps=1", "seed=7"), folder / "source", device="cpu")
        return [*given, f"train.init_from={folder / 'source'}", "train.freeze=[embed_tokens, layers.0]"]
    given += [f"model.base={write_base(folder / 'base', tied=kind == 'tied')}"]
    return given if kind == "tied" else [*given, LORA, f"model.base_dtype={kind}"]


@pytest.mark.parametrize(
    ("strategy", "kind", "goes_on"),
    [
        ("fsdp", "bf16", 1),
        pytest.param("zero3", "bf16", 1, marks=slow),
        pytest.param("zero3", "bf16", 2, marks=slow),
        *(pytest.param(strategy, kind, 2, marks=slow) for strategy in SHARDING for kind in ("tied", "continued")),
        pytest.param("fsdp", "scratch", 2, marks=slow),
        pytest.param("ddp", "scratch", 2, marks=slow),
        pytest.param("zero3", "scratch", 2, marks=slow),
        pytest.param("fsdp", "bf16", 2, marks=slow),
        pytest.param("ddp", "fp32", 2, marks=slow),
        pytest.param("zero3", "fp32", 2, marks=slow),
    ],
)
def test_two_processes_do_what_one_does(tmp_path: Path, strategy: str, kind: str, goes_on: int) -> None:
    """Losses, validation, weights, and structures drawn on the way with unequal work; one or two processes go on after a stop."""
    require_deepspeed(strategy)
    given, folder = overrides(tmp_path, kind), tmp_path / "two"
    run_on(2, folder, [*given, f"distributed={strategy}", "train.steps=2"])
    opened = open_run(folder, device="cpu")
    for mine in (1, 2):
        shown = json.loads((folder / f"drawn_2_{mine}.json").read_text())
        assert shown == drawn(opened, mine, together=False) and len(shown) == {1: 6, 2: 0}[mine]
    read = [json.loads((folder / f"bases_read_{rank}.json").read_text()) for rank in (0, 1)]
    has_base = kind not in ("scratch", "continued")
    assert read == [has_base, has_base and strategy == "ddp"], "where weights are shared out, only rank 0 reads them"
    if goes_on == 2:
        run_on(2, folder, [*given, f"distributed={strategy}", f"train.steps={STEPS}"])
    else:
        train_experiment(load(given, "train.accumulation=2"), folder, device="cpu")
    train_experiment(load(given, "train.accumulation=2"), tmp_path / "one", device="cpu")
    # DeepSpeed's hooks add up the gradients of bfloat16 activations in another order; on one process it gives the same figures as on two
    rough = 1e-3 if (strategy, kind) == ("zero3", "bf16") else 1e-5
    for name in ("train/loss", "train/grad_norm", "validation/nll"):
        found, expected = (values(tmp_path / run, name) for run in ("two", "one"))
        assert list(found) == list(expected) and found == pytest.approx(expected, rel=rough), name
    paths = [tmp_path / run / f"checkpoints/step_{STEPS:08d}/weights.safetensors" for run in ("two", "one")]
    found_state, state = map(load_file, paths)
    assert found_state.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(found_state[name], tensor, rtol=0, atol=5e-3 if rough > 1e-5 else 5e-5, msg=name)


def load(given: list[str], *more: str) -> Experiment:
    return load_experiment("structure/3di_tiny", [*given, f"train.steps={STEPS}", *more])


def run_on(world: int, folder: Path, given: list[str]) -> None:
    children = start_processes(world, train_child, free_port(), folder=folder, overrides=given)
    for child in children:
        child.join(280)
    assert [child.exitcode for child in children] == [0] * world


def values(folder: Path, name: str) -> dict[int, float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row[name] for row in rows if name in row}
