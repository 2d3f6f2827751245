"""Discrete-diffusion transformers on proteins, ligands and structure tokens.

The names below are the public face; they are imported when first used, so that `import protlig_dd` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protlig_dd.runs.experiment import Experiment as Experiment
    from protlig_dd.runs.families.table import train as train
    from protlig_dd.runs.generate import Generator as Generator
    from protlig_dd.runs.open import load_model as load_model
    from protlig_dd.runs.open import open_run as open_run
    from protlig_dd.sampling.requests import Request

__version__ = "0.1.0"
_HOMES = {
    "Experiment": "runs.experiment",
    "Generator": "runs.generate",
    "Request": "runs.generate",
    "load_model": "runs.open",
    "open_run": "runs.open",
    "train": "runs.families.table",
}
__all__ = ["Experiment", "Generator", "Request", "__version__", "load_model", "open_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'protlig_dd' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(import_module(f"protlig_dd.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
