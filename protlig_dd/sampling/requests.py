"""Requests and samples: plain values that every generator takes and returns.

A request is a template for each track: a text with `_` for every token to generate, a whole text that is given, or a length only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from protlig_dd import rng
from protlig_dd.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to generate.

    Args:
        name: name of the samples.
        given: text of each given track; tokens written `_` are generated, a text without `_` is a condition.
        generate: tracks to generate whole, with the length of each in tokens; None draws it from the training lengths.
        conditions: class labels, such as {"affinity_bin": 2}.
        about: remarks stored with each sample, such as {"motif": "11-15"}.

    Raises:
        ConfigError: for a length below 1.

    >>> Request(name="design", given={"protein": "MKTAYIAK"}, generate={"ligand": None}).generate
    {'ligand': None}
    """

    name: str
    given: Mapping[str, str] = field(default_factory=dict)
    generate: Mapping[str, int | None] = field(default_factory=dict)
    conditions: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for track, length in self.generate.items():
            if length is not None and length < 1:
                raise ConfigError(f"{self.name}: found length {length} for {track}, expected 1 or more, or None to draw it")


def checked_batch_size(size: int) -> int:
    """Return a number of samples per network call.

    Raises:
        ConfigError: below 1.
    """
    if size < 1:
        raise ConfigError(f"batch_size: found {size}, expected 1 or more samples per network call; leave it out for the run's own")
    return size


def sample_keys(requests: Sequence[Request], num: int) -> list[int]:
    """Return the key of each sample, in the order request x num + copy; with the seed it is the root of all draws of the sample.

    A key is made of what is asked for (given texts, tracks and lengths to generate, conditions) and the number of the copy. So other
    requests, their order and `num` change no sample. Requests that ask for the same are told apart by a count, in the order of their names.

    >>> one, other = Request(name="a", given={"protein": "MK_"}), Request(name="b", given={"protein": "M__"})
    >>> sample_keys([one, other], 2) == sample_keys([other, one], 2)[2:] + sample_keys([other], 3)[:2]
    True
    >>> len(set(sample_keys([one, one], 2)))
    4
    """
    asked = [json.dumps([dict(r.given), dict(r.generate), dict(r.conditions)], sort_keys=True) for r in requests]
    seen, turn = Counter[str](), [0] * len(requests)
    for i in sorted(range(len(requests)), key=lambda i: requests[i].name):
        turn[i] = seen[asked[i]]
        seen[asked[i]] += 1
    return [rng.key(0, "sample", text, own, copy) for text, own in zip(asked, turn, strict=True) for copy in range(num)]


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
