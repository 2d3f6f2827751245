"""Discrete-diffusion transformers on proteins, ligands and structure tokens.

The public names are `train`, `open_run`, `load_model`, `Generator`, `Request` and `Experiment`. They are imported on first use, so
`import protlig_dd` does not import torch.

Train an experiment (two steps of a very small one), open the run, generate two proteins of 32 residues:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from protlig_dd import Experiment, Generator, Request, load_model, open_run, train
    >>> from protlig_dd.runs.experiment import load_experiment
    >>> experiment = load_experiment("scaling/markov", ["data.num_train=64", "data.num_validation=8", "train.steps=2"])
    >>> isinstance(experiment, Experiment)
    True
    >>> with TemporaryDirectory() as folder:
    ...     result = train(experiment, Path(folder), device="cpu")
    ...     model = load_model(folder, device="cpu")
    ...     generator = Generator(open_run(folder, device="cpu"), seed=0)
    ...     samples = list(generator.generate([Request(name="new", generate={"protein": 32})], num=2))
    >>> result.steps, sum(parameter.numel() for parameter in model.parameters())
    (2, 204641)
    >>> [len(sample.texts["protein"]) for sample in samples]
    [32, 32]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protlig_dd.runs.experiment import Experiment as Experiment
    from protlig_dd.runs.families.table import train as train
    from protlig_dd.runs.generate import Generator as Generator
    from protlig_dd.runs.open import load_model as load_model
    from protlig_dd.runs.open import open_run as open_run
    from protlig_dd.sampling.requests import Request as Request

__version__ = "0.1.0"
_HOMES = {"Experiment": "runs.experiment", "Generator": "runs.generate", "Request": "sampling.requests"}
_HOMES |= {"load_model": "runs.open", "open_run": "runs.open", "train": "runs.families.table"}
__all__ = ["Experiment", "Generator", "Request", "__version__", "load_model", "open_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'protlig_dd' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(import_module(f"protlig_dd.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
