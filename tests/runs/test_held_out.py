"""Held-out examples: a sample is drawn once, however many scores ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from protlig_dd.runs.held_out import HeldOut
from protlig_dd.runs.open import open_run
from protlig_dd.sampling.requests import Request, Sample


class Counting:
    """A generator that counts how often it draws."""

    def __init__(self, **settings: Any) -> None:
        self.told, self.drawn = settings, 0

    def settings(self) -> dict[str, Any]:
        return self.told

    def generate(self, requests: Sequence[Request], num: int) -> Iterator[Sample]:
        self.drawn += 1
        for i, request in enumerate(requests):
            yield Sample(id=i, request=request.name, texts={"ligand": "C" * (i + 1)})


@pytest.fixture
def held(smoke_run: Path) -> HeldOut:
    return HeldOut(run=open_run(smoke_run, device="cpu"), split="test", num=3)


def test_samples_of_equal_settings_are_drawn_once(held: HeldOut) -> None:
    first, again, other = Counting(seed=0), Counting(seed=0), Counting(seed=1)
    assert held.samples("ligand", first) == held.samples("ligand", again)
    assert (first.drawn, again.drawn) == (1, 0)
    held.samples("ligand", other)
    held.samples("protein", first)
    assert (first.drawn, other.drawn) == (2, 1), "another setting or another track is another sample"


def test_requests_give_the_other_track_of_each_sampled_example(held: HeldOut) -> None:
    requests = held.requests("ligand")
    assert len(requests) == len(held.sampled) == 3
    assert all(set(request.given) == {"protein"} and set(request.generate) == {"ligand"} for request in requests)
