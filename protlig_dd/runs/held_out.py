"""The held-out examples of a run, their texts, and the samples drawn for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from protlig_dd.data.table import TokenTable, spread
from protlig_dd.evaluation.token_accuracy import Folded
from protlig_dd.runs.generate import example_requests
from protlig_dd.runs.run import Run
from protlig_dd.sampling.requests import Request, Sample
from protlig_dd.tokens.tracks import Track

_TRAINING_TEXTS = 20_000  # training examples searched for novelty and nearest neighbours


def texts_of(run: Run, table: TokenTable, track: str) -> list[str]:
    """Return the texts of a track, of at most 20,000 examples."""
    rows = spread(table, _TRAINING_TEXTS)
    return [run.parts.tracks[track].decode(rows.example(i)[track].tolist()) for i in range(len(rows))]


def chains_of(run: Run, table: TokenTable, track: Track) -> list[Folded]:
    """Return proteins with the tokens of a track aligned to them, of at most 20,000 examples."""
    assert track.aligned_to is not None
    rows = spread(table, _TRAINING_TEXTS)
    texts = zip(texts_of(run, rows, track.aligned_to), texts_of(run, rows, track.name), strict=True)
    return [Folded(sequence=a, tokens=track.split(b, where="data")) for a, b in texts if a and b]


def emitted(track: Track) -> frozenset[str]:
    """Return the symbols that may be generated on a track."""
    return frozenset(track.vocabulary.decode(track.vocabulary.emittable_ids))


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """One part of a run's data, with the samples drawn for its examples; what is drawn once is kept.

    Args:
        run: an opened run.
        split: "train", "validation" or "test".
        num: examples and samples at most; 0 takes the config's numbers.
    """

    run: Run
    split: str = "test"
    num: int = 0
    _samples: dict[str, list[Sample]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def part(self) -> TokenTable:
        """All examples of the part."""
        return self.run.data.part(self.split)

    @property
    def scored(self) -> TokenTable:
        """The examples whose likelihood is computed."""
        return spread(self.part, self.num or self.run.config.evaluation.num_examples)

    @cached_property
    def sampled(self) -> TokenTable:
        """The examples that samples are drawn for."""
        return spread(self.part, self.num or self.run.config.evaluation.num_samples)

    def requests(self, track: str) -> list[Request]:
        """Return a request for each sampled example: its other tracks are given."""
        return example_requests(self.run.parts, self.sampled, track, range(len(self.sampled)))

    def samples(self, track: str, generator: Sampler) -> list[Sample]:
        """Return one sample of a track for each sampled example; drawn once for each setting of the generator."""
        key = json.dumps([track, generator.settings()], sort_keys=True, default=str)
        if key not in self._samples:
            self._samples[key] = list(generator.generate(self.requests(track), 1))
        return self._samples[key]


@runtime_checkable
class Sampler(Protocol):
    """What draws samples: a generator of any family."""

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the samples."""

    def generate(self, requests: Sequence[Request], num: int) -> Iterator[Sample]:
        """Yield `num` samples of each request."""
