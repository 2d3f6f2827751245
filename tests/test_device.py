"""Devices and precisions, on hardware that is pretended."""

from __future__ import annotations

import pytest
import torch

from protlig_dd import device as devices
from protlig_dd.device import choose_device, choose_precision, describe, is_out_of_memory, peak_flops
from protlig_dd.errors import DeviceError


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that makes the machine look like another one."""

    def look_like(counts: dict[str, int], capability: tuple[int, int] = (9, 0), name: str = "a GPU", bf16: bool = True) -> None:
        monkeypatch.setattr(devices, "count_devices", lambda kind: counts.get(kind, int(kind == "cpu")))
        monkeypatch.setattr(devices, "cuda_capability", lambda device: capability)
        monkeypatch.setattr(devices, "device_name", lambda device: name)
        monkeypatch.setattr(devices, "memory_bytes", lambda device: 2**34)
        monkeypatch.setattr(devices, "mps_has_bf16", lambda: bf16)

    return look_like


@pytest.mark.parametrize(
    ("counts", "capability", "device", "dtype", "scaler", "word"),
    [
        ({}, (0, 0), "cpu", torch.float32, False, "default on a CPU"),
        ({"cuda": 1}, (7, 0), "cuda:0", torch.float16, True, "sm70 has fp16 tensor cores but no bf16"),
        ({"cuda": 1}, (7, 5), "cuda:0", torch.float16, True, "sm75"),
        ({"cuda": 1}, (8, 0), "cuda:0", torch.bfloat16, False, "native on sm80"),
        ({"cuda": 1, "xpu": 1}, (9, 0), "cuda:0", torch.bfloat16, False, "native on sm90"),
        ({"cuda": 1}, (6, 1), "cuda:0", torch.float32, False, "sm61 has no tensor cores"),
        ({"xpu": 1}, (0, 0), "xpu:0", torch.bfloat16, False, "Intel"),
        ({"mps": 1}, (0, 0), "mps", torch.float32, False, "MPS"),
    ],
)
def test_auto_takes_the_fastest_device_and_its_native_precision(  # type: ignore[no-untyped-def]
    pretend, counts, capability, device, dtype, scaler, word
) -> None:
    pretend(counts, capability)
    choice = choose_device()
    assert str(choice.device) == device
    assert (choice.dtype, choice.needs_scaler) == (dtype, scaler)
    assert word in choice.reason
    assert choice.autocast == (dtype != torch.float32)


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_a_named_device_that_is_absent_is_an_error_with_advice(pretend, kind: str) -> None:  # type: ignore[no-untyped-def]
    pretend({})
    with pytest.raises(DeviceError, match=f"device '{kind}': not found here .* use --device auto"):
        choose_device(kind)


def test_a_misspelt_device_gets_a_suggestion() -> None:
    with pytest.raises(DeviceError, match=r"did you mean 'cuda'"):
        choose_device("cudo")


@pytest.mark.parametrize(
    ("requested", "counts", "capability", "words"),
    [
        ("bf16", {"cuda": 1}, (7, 0), "only emulated below sm80.*use precision=fp16"),
        ("fp16", {}, (0, 0), "slower than float32.*use precision=fp32"),
        ("bf16", {"mps": 1}, (0, 0), "macOS 14"),
        ("fp61", {}, (0, 0), "did you mean 'fp16'"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused(pretend, requested, counts, capability, words) -> None:  # type: ignore[no-untyped-def]
    pretend(counts, capability, bf16=False)
    with pytest.raises(DeviceError, match=words):
        choose_device(precision=requested)


def test_a_cpu_gets_bf16_when_it_is_asked_for() -> None:
    choice = choose_precision("bf16", torch.device("cpu"))
    assert choice.dtype == torch.bfloat16
    assert not choice.needs_scaler


def test_each_process_takes_its_own_device(pretend) -> None:  # type: ignore[no-untyped-def]
    pretend({"cuda": 4})
    assert str(choose_device(local_rank=3, processes=4).device) == "cuda:3"
    with pytest.raises(DeviceError, match="at most 4 processes"):
        choose_device(local_rank=4, processes=8)
    pretend({"cuda": 1})
    assert str(choose_device(local_rank=3, processes=4).device) == "cuda:0", "the launcher shows each its own device"
    pretend({"mps": 1})
    assert str(choose_device(processes=2).device) == "cpu"
    with pytest.raises(DeviceError, match="cannot serve 2 processes"):
        choose_device("mps", processes=2)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_of_a_device_follows_its_name(pretend, name: str, peak: float | None) -> None:  # type: ignore[no-untyped-def]
    pretend({"cuda": 1}, name=name)
    assert peak_flops(torch.device("cuda", 0)) == peak
    assert peak_flops(torch.device("cuda", 0), torch.float32) is None
    assert peak_flops(torch.device("cpu")) is None


def test_the_table_of_the_machine_ends_with_the_choice(pretend) -> None:  # type: ignore[no-untyped-def]
    pretend({"cuda": 2}, (7, 0), "Tesla V100-SXM2-16GB")
    rows = dict(describe())
    assert rows["cuda:1"] == "Tesla V100-SXM2-16GB, 16.0 GiB, fp16 (sm70 has fp16 tensor cores but no bf16)"
    assert rows["device"].startswith("cuda:0 (")
    assert "125 TFLOP/s" in rows["peak"]
    assert "built without CUDA" in rows["xpu"] or "no Intel GPU" in rows["xpu"]


def test_running_out_of_memory_is_recognised() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))
