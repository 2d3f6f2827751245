"""Requests and samples: plain values that every generator takes and returns.

A request is a template for each track: a text with `_` for every token to generate, a whole text that is given, or a length only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to generate.

    Args:
        name: name of the samples.
        given: text of each given track; tokens written `_` are generated, a text without `_` is a condition.
        generate: tracks to generate whole, with the length of each in tokens; None draws it from the training lengths.
        conditions: class labels, such as {"affinity_bin": 2}.
        about: remarks stored with each sample, such as {"motif": "11-15"}.

    >>> Request(name="design", given={"protein": "MKTAYIAK"}, generate={"ligand": None}).generate
    {'ligand': None}
    """

    name: str
    given: Mapping[str, str] = field(default_factory=dict)
    generate: Mapping[str, int | None] = field(default_factory=dict)
    conditions: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample.

    Attributes:
        id: number of the sample among all samples of a call.
        request: name of its request.
        texts: text of every track.
        nll_per_token: likelihood bound in nats per generated token; None if it was not computed.
        measured: other values, such as the property that it was drawn towards.
        about: the remarks of its request.
    """

    id: int
    request: str
    texts: Mapping[str, str]
    nll_per_token: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the sample as one flat row of a table."""
        row: dict[str, Any] = {"id": self.id, "name": self.request, **self.texts, **self.about, **self.measured}
        return row if self.nll_per_token is None else {**row, "nll_per_token": round(self.nll_per_token, 5)}
