"""Hardware detection, and the choice of device and precision with its reason.

Only this file and `nn/attention.py` query hardware, through small functions (`count_devices`, `cuda_capability`, ...) that tests replace to
simulate a V100, an H100, a Mac or an Intel GPU. Importing this file queries nothing.
"""

from __future__ import annotations

import platform
import re
import resource
import sys
from dataclasses import dataclass
from typing import Literal

import torch

from protlig_dd.errors import DeviceError, nearest

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
KINDS = ("cuda", "xpu", "mps", "cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Dense half-precision tensor peak in FLOP/s (bf16, or fp16 without bf16), from the vendors' data sheets, by a word of the device's name.
_PEAKS = {"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "A10G": 70e12, "A10": 125e12, "L40S": 362e12}
_PEAKS |= {"L4": 121e12, "RTX 4090": 165e12, "V100": 125e12, "T4": 65e12, "Max 1550": 839e12}


@dataclass(frozen=True, kw_only=True)
class PrecisionChoice:
    """The dtype of the forward pass, whether fp16 gradients need a loss scaler, and the reason."""

    dtype: torch.dtype
    needs_scaler: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class DeviceChoice(PrecisionChoice):
    """A device with its precision, and the reason for both. Weights are always float32; `dtype` is autocast's."""

    device: torch.device

    @property
    def autocast(self) -> bool:
        """Whether the forward pass runs under autocast."""
        return self.dtype != torch.float32


def count_devices(kind: str) -> int:
    """Return the number of devices of a kind that are visible to this process (mps: 0 or 1; cpu: 1)."""
    if kind in ("cuda", "xpu"):
        library = getattr(torch, kind)
        return int(library.device_count()) if library.is_available() else 0
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return 1


def cuda_capability(device: torch.device) -> tuple[int, int]:
    """Return the compute capability of a CUDA device, such as (7, 0) for a V100 and (9, 0) for an H100."""
    return torch.cuda.get_device_capability(device)


def device_name(device: torch.device) -> str:
    """Return the name of a device, as reported by its driver."""
    if device.type in ("cuda", "xpu"):
        return str(getattr(torch, device.type).get_device_name(device))
    if device.type == "mps":
        return f"Apple {platform.machine()}"
    return f"{platform.processor() or platform.machine()} ({torch.get_num_threads()} threads)"


def memory_bytes(device: torch.device) -> int | None:
    """Return the memory of an accelerator in bytes, or None if it is shared with the host."""
    if device.type not in ("cuda", "xpu"):
        return None
    return int(getattr(torch, device.type).get_device_properties(device).total_memory)


def mps_has_bf16() -> bool:
    """Return whether this macOS supports bfloat16 on its GPU (14 and newer)."""
    return bool(torch.backends.mps.is_macos_or_newer(14, 0))


def choose_device(requested: str = "auto", *, precision: str = "auto", local_rank: int = 0, processes: int = 1) -> DeviceChoice:
    """Return the device to use, its precision, and the reason.

    Args:
        requested: "cuda", "xpu", "mps" or "cpu"; "auto" takes the first of them that is available.
        precision: see `choose_precision`.
        local_rank: index of this process on its machine, and so of its device.
        processes: number of processes of the whole run; only one can use an MPS device.

    Raises:
        DeviceError: if a requested device is absent, or there are too many processes for it; the message has advice.

    >>> choice = choose_device("cpu")
    >>> choice.device, choice.dtype, choice.autocast
    (device(type='cpu'), torch.float32, False)
    """
    if requested not in ("auto", *KINDS):
        raise DeviceError(f"device '{requested}': expected auto, {', '.join(KINDS)}{nearest(requested, ('auto', *KINDS))}")
    kind, reason = requested, "asked for"
    if requested == "auto":
        usable = [k for k in KINDS if count_devices(k) and not (k == "mps" and processes > 1)]
        kind = usable[0]
        reason = "the only one here" if kind == "cpu" else f"first of {', '.join(KINDS)} that is here"
    device = _numbered(kind, local_rank, processes)
    chosen = choose_precision(precision, device)
    reason = f"{device}: {device_name(device)}, {reason}; {chosen.reason}"
    return DeviceChoice(device=device, dtype=chosen.dtype, needs_scaler=chosen.needs_scaler, reason=reason)


def _numbered(kind: str, local_rank: int, processes: int) -> torch.device:
    count = count_devices(kind)
    if count == 0:
        raise DeviceError(f"device '{kind}': not found here ({_advice(kind)}); use --device auto to take what is there, or --device cpu")
    if kind == "cpu":
        return torch.device("cpu")
    if kind == "mps":
        if processes > 1:
            raise DeviceError(f"device 'mps': one device cannot serve {processes} processes; start one process, or use --device cpu")
        return torch.device("mps")
    if count == 1:
        return torch.device(kind, 0)  # a launcher may make one device visible to each process, as number 0
    if local_rank >= count:
        raise DeviceError(
            f"device '{kind}': process {local_rank} of this machine has no device of its own, {count} are visible; "
            f"start at most {count} processes a machine (train.devices={count})"
        )
    return torch.device(kind, local_rank)


def _advice(kind: str) -> str:
    if kind == "cuda":
        built = torch.version.cuda
        if built is None:
            return f"torch {torch.__version__} was built without CUDA; install with ./run_train.sh --cuda"
        return f"torch was built for CUDA {built} but sees no GPU; see what nvidia-smi and CUDA_VISIBLE_DEVICES say"
    if kind == "xpu":
        return f"torch {torch.__version__} sees no Intel GPU; install with ./run_train.sh --xpu and see what sycl-ls says"
    return "needs a Mac with Apple silicon, macOS 12.3 or newer, and a torch built for it"


def choose_precision(requested: str, device: torch.device) -> PrecisionChoice:
    """Return the dtype of the forward pass and the reason: native bf16, fp16 with a scaler on V100 and T4, float32 elsewhere.

    Args:
        requested: "auto", "fp32", "bf16" or "fp16". A CPU gets float32 unless bf16 is requested.
        device: the device to compute on.

    Raises:
        DeviceError: if the device does not support the requested precision.
    """
    if requested not in ("auto", *DTYPES):
        raise DeviceError(f"precision '{requested}': expected auto, {', '.join(DTYPES)}{nearest(requested, ('auto', *DTYPES))}")
    best, why = _native_precision(device)
    if requested in ("auto", best):
        return _precision(best, why if requested == "auto" else "asked for")
    refusal = _why_not(requested, device)
    if refusal:
        raise DeviceError(f"precision '{requested}' on {device}: {refusal}; use precision={best}, or auto")
    return _precision(requested, f"asked for (auto would take {best})")


def _precision(name: str, why: str) -> PrecisionChoice:
    needs_scaler = name == "fp16"
    scaled = " with a loss scaler" if needs_scaler else ""
    return PrecisionChoice(dtype=DTYPES[name], needs_scaler=needs_scaler, reason=f"{name}{scaled}: {why}")


def _native_precision(device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        major, minor = cuda_capability(device)
        if major >= 8:
            return "bf16", f"native on sm{major}{minor}"
        if major == 7:
            return "fp16", f"sm{major}{minor} has fp16 tensor cores but no bf16"
        return "fp32", f"sm{major}{minor} has no tensor cores"
    if device.type == "xpu":
        return "bf16", "native on Intel GPUs"
    if device.type == "mps":
        return "fp32", "half precision has had silent errors on MPS"
    return "fp32", "the default on a CPU"


def _why_not(requested: str, device: torch.device) -> str:
    """Return why a precision is not available on a device, or an empty string."""
    if requested == "bf16" and device.type == "cuda" and cuda_capability(device)[0] < 8:
        return "it is only emulated below sm80, and slower than float32"
    if requested == "bf16" and device.type == "mps" and not mps_has_bf16():
        return "it needs macOS 14 or newer"
    if requested == "fp16" and device.type == "cpu":
        return "float16 arithmetic on a CPU is slower than float32 and overflows"
    return ""


def peak_flops(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Return the dense half-precision peak of an accelerator in FLOP/s, or None if it is not known (CPU, MPS, float32)."""
    if device.type not in ("cuda", "xpu") or dtype == torch.float32:
        return None
    return peak_of(device_name(device))


def peak_of(name: str) -> float | None:
    """Return the dense half-precision peak in FLOP/s of an accelerator by its name, or None if it is not known."""
    return next((peak for part, peak in _PEAKS.items() if re.search(rf"\b{part}\b", name)), None)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory since the last `reset_peak_memory`, in bytes (CPU: of the process so far; MPS: the memory in use now)."""
    if device.type in ("cuda", "xpu"):
        return int(getattr(torch, device.type).max_memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: torch.device) -> None:
    """Reset the measurement of `peak_memory`, if the device supports it."""
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).reset_peak_memory_stats(device)


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on the device is done."""
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def use_device(device: torch.device) -> None:
    """Make a device the current one of this process, for collectives and kernels."""
    if device.type in ("cuda", "xpu"):
        getattr(torch, device.type).set_device(device)


def seed_library_draws(device: torch.device, seed: int) -> None:
    """Seed torch's global generators, which its own layers use (dropout), for one step of a run on one device."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.4 ms, mostly for devices that are absent
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device or the host ran out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def describe() -> list[tuple[str, str]]:
    """Return the hardware and software found as rows (name, value), for `protlig doctor`; the last rows are the automatic choice."""
    built = f"{torch.__version__} (CUDA {torch.version.cuda or 'not built in'})"
    rows = [("python", platform.python_version()), ("torch", built), ("threads", f"{torch.get_num_threads()}")]
    for kind in ("cuda", "xpu", "mps"):
        count = count_devices(kind)
        rows.append((kind, f"{count} found" if count else f"none ({_advice(kind)})"))
        for index in range(count):
            device = torch.device(kind) if kind == "mps" else torch.device(kind, index)
            memory = memory_bytes(device)
            size = f", {memory / 2**30:.1f} GiB" if memory else ""
            best, why = _native_precision(device)
            rows.append((f"{kind}:{index}", f"{device_name(device)}{size}, {best} ({why})"))
    choice = choose_device()
    rows.append(("device", f"{choice.device} ({choice.reason})"))
    peak = peak_flops(choice.device, choice.dtype)
    rows.append(("peak", f"{peak / 1e12:.0f} TFLOP/s, for MFU" if peak else "unknown, so no MFU"))
    return rows
