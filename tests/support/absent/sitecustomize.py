"""Makes Python behave as if some packages were not installed: put this folder first on PYTHONPATH and name them in PROTLIG_ABSENT.

PYTHONPATH=tests/support/absent:. PROTLIG_ABSENT="rdkit scipy" python -m pytest

Python imports `sitecustomize` at its start, so subprocesses that keep the two variables lack the packages too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder
from types import ModuleType

ABSENT = frozenset(name.lower().replace("-", "_") for name in os.environ.get("PROTLIG_ABSENT", "").split())
find_installed, find_metadata = PathFinder.find_spec, PathFinder.find_distributions


def find_spec(cls: type, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
    """Return where a module is, or None if there is none or its package counts as absent."""
    return None if name.split(".")[0] in ABSENT else find_installed(name, path, target)


def find_distributions(cls: type, context: DistributionFinder.Context | None = None) -> Iterable[Distribution]:
    """Return the metadata of installed distributions, those of absent packages left out."""
    found = find_metadata(context or DistributionFinder.Context())
    return (d for d in found if d.metadata["Name"].lower().replace("-", "_") not in ABSENT)


# The class itself is changed, not replaced in sys.meta_path: jaxtyping's import hook looks for it there.
PathFinder.find_spec = classmethod(find_spec)  # type: ignore[method-assign, assignment]
PathFinder.find_distributions = classmethod(find_distributions)  # type: ignore[method-assign, assignment]
