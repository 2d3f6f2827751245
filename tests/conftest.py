"""Set-up of every test: one thread, fixed seeds, the folder of real data, skips with reasons, and one shared smoke run.

Neither protlig_dd nor torch is imported here: the shape-checking hook of jaxtyping has to be installed first, and tests of the
command line and of the house style need neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.optional import absent_package
from tests.support.smoke import SMOKE

# Before torch is imported, and inherited by subprocesses: a fixed order of sums, and cores left for other workers.
os.environ["OMP_NUM_THREADS"] = "1"
# No test contacts a tracking server; tests of wandb set their own mode.
os.environ["WANDB_MODE"] = "disabled"
# Figures are drawn to files.
os.environ["MPLBACKEND"] = "Agg"

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


def shared_folder() -> Path:
    """Return the path of the shared folder, which may be absent: $PROTLIG_SHARED, or `shared` next to the checkout."""
    return Path(os.environ.get("PROTLIG_SHARED") or ROOT.parent / "shared")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data and golden values, for tests marked `data`; skip if it is absent."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"the shared data folder is absent: {folder} (set PROTLIG_SHARED to it)")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top of the checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def deterministic() -> None:
    """Give each test one thread, deterministic kernels and a fixed global seed, if it uses torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test that cannot run here, and say why."""
    if item.get_closest_marker("data") and not shared_folder().is_dir():
        pytest.skip(f"the shared data folder is absent: {shared_folder()} (set PROTLIG_SHARED to it)")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")
    return (yield from skipped_without_optional_packages())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test that meets an optional package which is not installed, and name the package."""
    return (yield from skipped_without_optional_packages())


def skipped_without_optional_packages() -> Generator[None, object, object]:
    """Run a phase of a test; an ImportError for an optional package that is absent becomes a skip."""
    try:
        return (yield)
    except ImportError as error:
        package = absent_package(error)
        if package is None:
            raise
        pytest.skip(f"{package} is not installed: {error}")


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a dual-track run of four steps on a tiny textbook data set: all files of a run, nothing learned."""
    from protlig_dd.runs.experiment import load_experiment
    from protlig_dd.runs.train import train_experiment

    folder = tmp_path_factory.mktemp("runs") / "smoke"
    train_experiment(load_experiment("demo/smoke", SMOKE), folder, device="cpu")
    return folder
