"""Memory by ZeRO stage and hours on devices that are not here, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from protlig_dd.cli.entry import main
from protlig_dd.errors import ConfigError
from protlig_dd.training.footprint import _MEMORY_GB, MFU, States, describe_footprint, parse_devices


def test_devices_are_parsed_and_others_refused() -> None:
    fleet = parse_devices("8xh100")
    assert (fleet.count, fleet.name, fleet.memory_gb, fleet.peak) == (8, "H100", 80, 989e12)
    assert all(parse_devices(f"1x{name}").peak > 0 for name in _MEMORY_GB)
    for text, words in (("H100", "expected NUMBERxNAME"), ("0xH100", "NUMBERxNAME"), ("2xH10", "did you mean 'H100'")):
        with pytest.raises(ConfigError, match=words):
            parse_devices(text)


def test_each_stage_shares_one_thing_more() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False).requires_grad_(False))
    states = States.of(model, averaged=True)
    assert (states.weights, states.gradients, states.optimizer) == (800, 400, 1200), "frozen weights have neither"
    assert [states.per_device(stage, 4) for stage in range(4)] == [2400, 1500, 1200, 600]
    half = States.of(nn.Linear(10, 10, bias=False).to(torch.bfloat16), averaged=False)
    assert (half.weights, half.gradients, half.optimizer) == (200, 200, 800)


def test_hours_are_operations_over_speed() -> None:
    fleet = parse_devices("2xA100")
    flops = 10 * 3600 * 2 * 312e12 * MFU
    lines = list(describe_footprint(fleet, States(weights=1, gradients=1, optimizer=1), activations=0.0, flops=flops))
    assert any(line.strip() == "10 hours" for line in lines) and "assumed" in lines[-1]
    big = States(weights=40 * 10**9, gradients=40 * 10**9, optimizer=80 * 10**9)
    told = "\n".join(describe_footprint(fleet, big, activations=0.0, flops=flops))
    assert [line.endswith("does not fit") for line in told.splitlines()[1:5]] == [True, True, True, True], "80 GB are not quite enough"
    few = "\n".join(describe_footprint(parse_devices("8xA100"), big, activations=0.0, flops=flops))
    assert [line.endswith("does not fit") for line in few.splitlines()[1:5]] == [True, True, False, False]


def test_check_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rdkit", reason="the demo's molecules need RDKit (extra ligand)")
    assert main(["check", "demo/smoke", "--device", "cpu", "--devices", "8xH100"]) == 0
    told = capsys.readouterr().out
    assert "stage 3 (zero3 and fsdp)" in told and "hours" in told and "assumed: MFU 40%" in told
