"""Generated strings sorted into valid and invalid ones, and subsamples of long lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protlig_dd import rng


@dataclass(frozen=True, kw_only=True)
class Validity:
    """The number of valid strings, and the reasons why the rest are invalid.

    Attributes:
        num_samples: number of strings.
        invalid: the number left out for each reason, most frequent first.
    """

    num_samples: int
    invalid: tuple[tuple[str, int], ...]

    @property
    def num_valid(self) -> int:
        """The number of valid strings."""
        return self.num_samples - sum(n for _, n in self.invalid)

    def describe_invalid(self) -> str:
        """Return for example "3 of 100 left out: 2 syntax, 1 valence", or an empty string."""
        left_out = self.num_samples - self.num_valid
        reasons = ", ".join(f"{n} {reason}" for reason, n in self.invalid)
        return f"{left_out} of {self.num_samples} left out: {reasons}" if left_out else ""


def subsample(items: Sequence[Any], limit: int, seed: int) -> list[Any]:
    """Return at most `limit` of the items, drawn without replacement and in their order."""
    if len(items) <= limit:
        return list(items)
    rows = np.random.default_rng(rng.key(seed, "subsample")).choice(len(items), size=limit, replace=False)
    return [items[i] for i in np.sort(rows).tolist()]
