"""`protlig doctor`: what this machine offers, and what is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protlig_dd.cli.common import Commands, add_command

if TYPE_CHECKING:
    import torch

_PACKAGES = {
    "rdkit": ("ligand", "molecules"),
    "wandb": ("train", "online tracking"),
    "tensorboard": ("train", "local curves"),
    "matplotlib": ("plot", "plots"),
    "pyarrow": ("data", "Parquet and shards"),
    "gemmi": ("structure", "PDB and mmCIF"),
    "mini3di": ("structure", "3Di letters"),
    "deepspeed": ("deepspeed", "ZeRO-3"),
    "transformers": ("hf", "Hugging Face models"),
}
_DOCTOR = """It also compares the attention back-end of this device with the float32 reference, and gives the command that installs a missing
optional package. Nothing is written.
  protlig doctor"""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Options of `protlig doctor`: none."""


def add_doctor(commands: Commands) -> None:
    """Add `doctor`."""
    add_command(commands, "doctor", doctor, DoctorOptions, "show devices, precision, attention and optional packages", _DOCTOR)


def doctor(options: DoctorOptions) -> Iterator[str]:
    """Show the devices, check attention against the float32 reference, and say how to install what is missing."""
    from protlig_dd.device import choose_device, describe
    from protlig_dd.nn.attention import choose_backend

    for what, value in describe():
        yield f"{what:<12} {value}"
    choice = choose_device()
    backend = choose_backend("auto", choice.device, choice.dtype)
    yield f"{'attention':<12} {backend.name} ({backend.reason})"
    yield f"{'self-check':<12} {_self_check(choice.device, choice.dtype, backend.name)}"
    for package, (extra, purpose) in _PACKAGES.items():
        present = importlib.util.find_spec(package) is not None
        yield f"{package:<12} {'yes' if present else f'no, for {purpose}: pip install protlig_dd[{extra}]'}"


def _self_check(device: torch.device, dtype: torch.dtype, backend: str) -> str:
    """Compare a back-end with the reference on random sequences of different lengths."""
    import torch

    from protlig_dd.nn.attention import attention
    from protlig_dd.rng import generator
    from protlig_dd.tokens.tracks import Layout

    layout = Layout((1, 5, 33, 64), device)
    draw = generator(0, "doctor")
    q, k, v = (torch.randn(layout.num_tokens, 4, 32, generator=draw).to(device, dtype) for _ in range(3))
    found = attention(q, k, v, layout, layout, backend=backend)  # type: ignore[arg-type]
    expected = attention(q, k, v, layout, layout, backend="reference")
    error = float((found.float() - expected.float()).abs().max())
    limit = 1e-5 if dtype == torch.float32 else 2e-2
    verdict = "agrees with" if error <= limit else "DISAGREES WITH (use attention=reference and report it)"
    return f"{verdict} the float32 reference, largest difference {error:.1e}"
