"""Requests and samples as plain values: what to generate, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to generate.

    Args:
        name: what the samples are called.
        given: for each track a text; tokens written `_` are generated, a text without any is a condition.
        generate: tracks that are generated whole, with a length each; None draws one from the training lengths.
        conditions: class labels, such as {"affinity_bin": 2}.
        about: words kept beside each sample, such as {"motif": "11-15"}.
    """

    name: str
    given: Mapping[str, str] = field(default_factory=dict)
    generate: Mapping[str, int | None] = field(default_factory=dict)
    conditions: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample: its id, the request it answers, the text of every track, its bound in nats per generated token, what else
    was measured (the property it was drawn towards), and what its request says about it."""

    id: int
    request: str
    texts: Mapping[str, str]
    nll_per_token: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the sample as one flat row."""
        row: dict[str, Any] = {"id": self.id, "name": self.request, **self.texts, **self.about, **self.measured}
        return row if self.nll_per_token is None else {**row, "nll_per_token": round(self.nll_per_token, 5)}
