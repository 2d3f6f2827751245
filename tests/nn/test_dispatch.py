"""Which back-end is chosen on which hardware, with faked properties: `auto` always finds one, an impossible choice is told why."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import get_args

import pytest
import torch

from protlig_dd.errors import DeviceError
from protlig_dd.nn import attention as module
from protlig_dd.nn.attention import Backend, choose_backend

FP16, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32
CUDA = torch.device("cuda")


def fake(monkeypatch: pytest.MonkeyPatch, *, capability: tuple[int, int] = (8, 0), varlen: bool = True, flash: bool = False) -> None:
    monkeypatch.setattr(module, "cuda_capability", lambda device: capability)
    monkeypatch.setattr(module, "has_torch_varlen", lambda: varlen)
    monkeypatch.setattr(module, "has_flash_attn", lambda: flash)


@pytest.mark.parametrize(
    ("capability", "dtype", "varlen", "flash", "expected", "reason"),
    [
        ((7, 0), FP16, True, True, "padded", "this is 7.0"),
        ((7, 0), FP32, True, True, "padded", "this is 7.0"),
        ((7, 0), BF16, True, False, "padded", "this is 7.0"),
        ((7, 5), FP16, True, False, "padded", "this is 7.5"),
        ((8, 0), BF16, True, True, "varlen", "no padding"),
        ((8, 0), FP16, True, False, "varlen", "no padding"),
        ((8, 0), FP32, True, True, "bucketed", "computes in float32"),
        ((8, 0), BF16, False, True, "flash_attn", "has none of its own"),
        ((8, 0), BF16, False, False, "bucketed", "no varlen kernel is installed"),
        ((8, 6), BF16, True, False, "varlen", "no padding"),
        ((9, 0), BF16, True, True, "varlen", "no padding"),
        ((9, 0), FP16, True, False, "varlen", "no padding"),
        ((9, 0), FP32, True, False, "bucketed", "computes in float32"),
        ((12, 0), BF16, True, False, "varlen", "no padding"),
    ],
)
def test_auto_on_cuda(
    capability: tuple[int, int], dtype: torch.dtype, varlen: bool, flash: bool, expected: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, capability=capability, varlen=varlen, flash=flash)
    choice = choose_backend("auto", CUDA, dtype)
    assert choice.name == expected
    assert reason in choice.reason


@pytest.mark.parametrize("dtype", [FP16, BF16, FP32])
@pytest.mark.parametrize(("device", "expected"), [("cpu", "bucketed"), ("mps", "per_sequence"), ("xpu", "per_sequence")])
def test_auto_without_cuda_never_asks_a_cuda_question(
    device: str, expected: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cuda_capability", lambda device: pytest.fail("asked for a CUDA property"))
    choice = choose_backend("auto", torch.device(device), dtype)
    assert choice.name == expected
    assert choice.reason


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu", "cuda", "meta"])
def test_auto_never_fails_and_its_choice_can_be_made_by_name(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = [(5, 0), (7, 0), (8, 0), (9, 0), (10, 0)]
    for dtype, capability, varlen, flash in product([FP16, BF16, FP32, torch.float64], capabilities, [True, False], [True, False]):
        fake(monkeypatch, capability=capability, varlen=varlen, flash=flash)
        choice = choose_backend("auto", torch.device(device), dtype)
        assert choice.name in get_args(Backend)
        assert choose_backend(choice.name, torch.device(device), dtype).name == choice.name


@pytest.mark.parametrize(
    ("requested", "device", "capability", "dtype", "expected"),
    [
        ("varlen", "cpu", (0, 0), BF16, "'varlen' cannot run here: it needs a CUDA device, this is cpu; use attention=auto"),
        ("flash_attn", "mps", (0, 0), FP16, "'flash_attn' cannot run here: it needs a CUDA device, this is mps; use attention=auto"),
        ("varlen", "xpu", (0, 0), BF16, "it needs a CUDA device, this is xpu"),
        ("varlen", "cuda", (7, 0), FP16, "it needs compute capability 8.0 (A100) or newer, this is 7.0; use attention=auto"),
        ("flash_attn", "cuda", (7, 5), FP16, "it needs compute capability 8.0 (A100) or newer, this is 7.5"),
        ("varlen", "cuda", (8, 0), FP32, "it needs half precision, this run computes in float32; use attention=auto"),
        ("flash_attn", "cuda", (9, 0), BF16, "the flash-attn package is not installed (pip install 'protlig_dd[flash]'"),
        ("varlen", "cuda", (9, 0), BF16, "has no varlen attention; install torch 2.11 or later"),
    ],
)  # fmt: skip
def test_an_impossible_choice_is_an_error_with_advice(
    requested: str, device: str, capability: tuple[int, int], dtype: torch.dtype, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    fake(monkeypatch, capability=capability, varlen=False, flash=False)
    with pytest.raises(DeviceError) as error:
        choose_backend(requested, torch.device(device), dtype)
    assert expected in str(error.value)


def test_a_possible_choice_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, capability=(9, 0), flash=True)
    assert choose_backend("flash_attn", CUDA, BF16).name == "flash_attn"
    assert choose_backend("reference", torch.device("cpu"), FP32).reason == "asked for by name"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DeviceError, match="found 'flash', expected auto or one of flash_attn, varlen, padded"):
        choose_backend("flash", torch.device("cpu"), FP32)


def test_this_torch_has_varlen_attention() -> None:
    assert module.has_torch_varlen()


def test_flash_attn_is_never_imported_with_the_package() -> None:
    """Not by importing the models, and not by asking whether it is there or by choosing automatically."""
    code = (
        "import sys, torch\n"
        "import protlig_dd.models\n"
        "from protlig_dd.nn.attention import choose_backend, has_flash_attn\n"
        "has_flash_attn(); choose_backend('auto', torch.device('cpu'), torch.float32)\n"
        "assert not any(name.split('.')[0] == 'flash_attn' for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
