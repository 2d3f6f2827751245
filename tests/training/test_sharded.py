"""Weights go from rank 0's host to all processes, tensor by tensor: ties, types, buffers, and what a process holds meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from protlig_dd.training.optim import make_optimizer
from protlig_dd.training.sharded import place, places_of
from tests.support.processes import free_port, require_deepspeed
from tests.support.sharded_child import NUM_BLOCKS, REFUSED, ROWS, SETTINGS, WIDTH, Tied, built, logits_of, outline, step_child, wrap_child
from tests.support.toy import start_processes

STRATEGIES = ["fsdp", pytest.param("zero3", marks=pytest.mark.slow)]
BLOCK = 2 * (4 * WIDTH * (WIDTH + 1)) + 4 * (4 * WIDTH + 1) * WIDTH
LARGEST = {"fsdp": BLOCK, "zero3": 4 * 4 * WIDTH * WIDTH}
WHOLE = NUM_BLOCKS * BLOCK + 4 * ROWS * WIDTH
SLACK = 4 * (WIDTH + 1) + 4 * WIDTH * (2 * NUM_BLOCKS + 1)  # buffers, and parts that are padded to equal size


def run_two(folder: Path, strategy: str, brought: str) -> list[int | None]:
    require_deepspeed(strategy)
    children = start_processes(2, wrap_child, free_port(), folder=folder, strategy=strategy, brought=brought)
    for child in children:
        child.join(200)
    return [child.exitcode for child in children]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_process_without_weights_gets_its_part_of_rank_0s(tmp_path: Path, strategy: str) -> None:
    """Two types beside each other, a tied head and both kinds of buffers come out as one process has them, and train as there."""
    assert run_two(tmp_path, strategy, "empty") == [0, 0]
    alone = built(0)
    before = load_file(tmp_path / "states/before.safetensors")
    assert before.keys() == alone.state_dict().keys()
    for name, value in alone.state_dict().items():
        assert before[name].dtype == value.dtype
        assert torch.equal(before[name], value), name
    facts: list[dict[str, Any]] = [json.loads((tmp_path / f"facts_{rank}.json").read_text()) for rank in (0, 1)]
    for rank in (0, 1):
        seen = load_file(tmp_path / f"seen_{rank}.safetensors")
        assert torch.equal(seen["kept"], alone.kept) and facts[rank]["left_out"] == float(alone.left_out)
        torch.testing.assert_close(seen["logits"], logits_of(alone), rtol=0, atol=1e-6)
        assert facts[rank]["is_tied"]
        assert facts[rank]["trained"] == [name for name, p in alone.named_parameters() if p.requires_grad]
    train_alone(alone)
    after = load_file(tmp_path / "states/after.safetensors")
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=2e-6, msg=name)
    assert facts[1]["held"] <= WHOLE / 2 + LARGEST[strategy] + SLACK < WHOLE


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.slow
def test_all_processes_start_from_rank_0s_weights(tmp_path: Path, strategy: str) -> None:
    assert run_two(tmp_path, strategy, "others") == [0, 0]
    before = load_file(tmp_path / "states/before.safetensors")
    for name, value in built(0).state_dict().items():
        assert torch.equal(before[name], value), name
    for rank in (0, 1):
        seen = load_file(tmp_path / f"seen_{rank}.safetensors")
        torch.testing.assert_close(seen["logits"], logits_of(built(0)), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_no_process_keeps_the_whole_model_for_its_backward_pass(tmp_path: Path, strategy: str) -> None:
    require_deepspeed(strategy)
    children = start_processes(2, step_child, free_port(), folder=tmp_path, strategy=strategy)
    for child in children:
        child.join(200)
    ahead = {"fsdp": 0, "zero3": 2 * 4 * WIDTH * (8 * WIDTH + 5)}  # the elements of two blocks, if all were float32
    for rank in (0, 1):
        held = json.loads((tmp_path / f"held_{rank}.json").read_text())
        assert held <= WHOLE / 2 + SLACK + ahead[strategy] < WHOLE


def test_models_that_differ_are_refused_by_all(tmp_path: Path) -> None:
    assert run_two(tmp_path, "fsdp", "another type") == [REFUSED, REFUSED]
    message = (
        "train.distributed=fsdp: process 1 has 'blocks.1.frozen.weight (64, 16) torch.float32 frozen' in its model where process 0 has "
        "'blocks.1.frozen.weight (64, 16) torch.bfloat16 frozen'; expected the same model"
    )
    for rank in (0, 1):
        assert (tmp_path / f"refused_{rank}.txt").read_text().startswith(message)


def train_alone(model: Tied) -> None:
    optimizer = make_optimizer(model, SETTINGS)
    model(torch.arange(ROWS)).square().mean().backward()
    optimizer.step()


def test_a_tensor_that_modules_share_is_placed_once() -> None:
    model = outline()
    places = places_of(model)
    names = [[name for _, name in one] for one in places]
    assert names.count(["weight", "weight"]) == 1 and len(places) == len([*model.parameters(), *model.buffers()])
    sent: list[torch.Tensor] = []
    for one in places:
        place(one, torch.device("cpu"), sent.append)
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))
    assert model.head.weight is model.embedding.weight and model.head.weight.requires_grad
    assert not model.blocks[0].frozen.weight.requires_grad and model.blocks[0].frozen.weight.dtype == torch.bfloat16
    assert len(sent) == len(places) and "left_out" not in model.state_dict() and isinstance(model.embedding.weight, nn.Parameter)
