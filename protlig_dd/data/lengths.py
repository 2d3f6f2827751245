"""Lengths of samples, drawn from the lengths of the training examples, conditioned on a given partner's length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.files import write_text
from protlig_dd.rng import Draws

_NEIGHBOURS = 0.05
"""The fraction of the training examples, nearest in the partner's length, from which a conditional length is drawn."""


@dataclass(frozen=True)
class LengthDistribution:
    """Token counts of training examples [N] by track; 0 if an example lacks the track."""

    lengths: Mapping[str, Int[np.ndarray, " N"]]

    @staticmethod
    def of(table: TokenTable, *, limit: int = 20_000) -> LengthDistribution:
        """Return the lengths of a table, or of `limit` evenly spaced examples if it has more."""
        rows = np.unique(np.linspace(0, len(table) - 1, min(limit, len(table))).astype(np.int64))
        return LengthDistribution({name: column.lengths[rows] for name, column in table.tracks.items()})

    def draw(self, track: str, given: Mapping[str, int], draws: Draws) -> int:
        """Return a length of a track.

        Args:
            track: the track whose length is drawn.
            given: known lengths of other tracks; the draw is from training examples close to them.
            draws: a scalar stream of random numbers.

        Raises:
            ConfigError: if no training example has the track.
        """
        if track not in self.lengths:
            raise ConfigError(f"lengths.json has {', '.join(self.lengths)}, not the track '{track}': give its length with --length")
        usable = self.lengths[track] > 0
        distance = np.zeros(len(usable))
        for name, length in given.items():
            if name in self.lengths:
                distance = distance + np.abs(np.log(np.maximum(self.lengths[name], 1) / length))
                usable = usable & (self.lengths[name] > 0)
        rows = np.flatnonzero(usable)
        if not len(rows):
            rows, distance = np.flatnonzero(self.lengths[track] > 0), np.zeros(len(usable))
        if not len(rows):
            raise ConfigError(f"no training example has the track '{track}': give its length with --length")
        if distance[rows].any():
            kept = max(int(_NEIGHBOURS * len(rows)), min(len(rows), 100))
            rows = rows[np.argsort(distance[rows], kind="stable")[:kept]]
        return int(self.lengths[track][rows[int(draws.integers(len(rows)))]])

    def save(self, path: Path) -> None:
        """Write the lengths as JSON."""
        write_text(path, json.dumps({name: values.tolist() for name, values in self.lengths.items()}))

    @staticmethod
    def load(path: Path) -> LengthDistribution:
        """Read lengths written by `save`.

        Raises:
            FormatError: if the file is missing or not of that format.
        """
        try:
            content = json.loads(path.read_text())
            lengths = {name: np.asarray(values, dtype=np.int64) for name, values in content.items()}
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise FormatError(f"{path}: found no readable lengths ({error}); expected the file that training writes") from error
        shapes = {values.shape for values in lengths.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not all(len(values) and values.min() >= 0 for values in lengths.values()):
            found = ", ".join(f"{name} {list(values.shape)}" for name, values in lengths.items()) or "no track"
            raise FormatError(
                f"{path}: found {found}, expected a list of token counts for each track, one for each training example; "
                f"copy the file that training wrote, or give --length"
            )
        return LengthDistribution(lengths)


def draw_length(distribution: LengthDistribution, track: str, given: Mapping[str, int], key: int, seed: int) -> int:
    """Return the length of a sample, which depends on the seed and the sample's key only."""
    return distribution.draw(track, given, Draws.root(seed, "length", track).fold_in(torch.tensor(key)))
