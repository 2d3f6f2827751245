"""The held-out examples of a run, their texts, and the samples drawn for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from protlig_dd.data.settings import PairData, ShardData
from protlig_dd.data.table import TokenTable, spread
from protlig_dd.evaluation.targets import Targets, Training
from protlig_dd.evaluation.token_accuracy import Folded
from protlig_dd.runs.embed import numbered
from protlig_dd.runs.generate import example_requests
from protlig_dd.runs.run import Run
from protlig_dd.sampling.requests import Request, Sample
from protlig_dd.tokens.tracks import Track

_PAIRS = 100_000  # pairs whose ligands are compared
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


def pairs_of(run: Run, table: TokenTable) -> dict[str, list[tuple[int, str]]]:
    """Return the row and the ligand of each pair by its protein, of at most 100,000 rows, evenly spread."""
    rows = np.flatnonzero(np.all([table.tracks[name].lengths > 0 for name in ("protein", "ligand")], axis=0))
    kept = rows[np.linspace(0, len(rows) - 1, min(len(rows), _PAIRS)).astype(np.int64)] if len(rows) else rows
    texts, found = dict[bytes, str](), dict[str, list[tuple[int, str]]]()
    for row in kept.tolist():
        protein, ligand = (table.tracks[name].gather(np.array([row])) for name in ("protein", "ligand"))
        key = protein.tobytes()
        if key not in texts:  # a protein of many ligands is decoded once
            texts[key] = run.parts.tracks["protein"].decode(protein.tolist())
        found.setdefault(texts[key], []).append((row, run.parts.tracks["ligand"].decode(ligand.tolist())))
    return found


def training_of(run: Run, table: TokenTable) -> Training:
    """Return the pairs of a table, such as the one that a run was trained on, as `pairs_of` finds them."""
    return Training(pairs={protein: [smiles for _, smiles in own] for protein, own in pairs_of(run, table).items()})


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

    @property
    def has_targets(self) -> bool:
        """Whether ligands are generated for the proteins of a data set of pairs."""
        is_of_pairs = isinstance(self.run.config.data, PairData | ShardData) and {"protein", "ligand"} <= set(self.run.tracks)
        return is_of_pairs and self.run.config.evaluation.generate == "ligand"

    @cached_property
    def pairs(self) -> dict[str, list[tuple[int, str]]]:
        """The row and the ligand of each pair of the part, by protein."""
        return pairs_of(self.run, self.part)

    @cached_property
    def proteins(self) -> dict[str, str]:
        """The proteins of these pairs by name: that of their first pair, numbered where several have it."""
        return dict(numbered([(self.part.name_of(own[0][0]), protein) for protein, own in self.pairs.items()]))

    @cached_property
    def training(self) -> Training:
        """The pairs that the run was trained on."""
        return training_of(self.run, self.run.data.train)

    @cached_property
    def targets(self) -> Targets:
        """The proteins of the part, by name, with their ligands that were not trained on; of the training part, with all ligands.

        Raises:
            ValueError: as `Targets.of`.
        """
        actives = {name: [smiles for _, smiles in self.pairs[protein]] for name, protein in self.proteins.items()}
        settings = self.run.config.evaluation.specificity
        num = min(settings.num_targets, max(self.num, 2)) if self.num else settings.num_targets
        return Targets.of(self.proteins, actives, None if self.split == "train" else self.training).some(num)

    def samples_of_targets(self, generator: Sampler) -> dict[str, list[Sample]]:
        """Return some generated ligands for each target, given all other tracks of its first pair."""
        targets, settings = self.targets, self.run.config.evaluation.specificity
        num = max(1, min(settings.samples_per_target, self.num // len(targets))) if self.num else settings.samples_per_target
        rows = [self.pairs[self.proteins[name]][0][0] for name in targets.names]
        requests = example_requests(self.run.parts, self.part, "ligand", rows)
        named = [replace(request, name=name) for request, name in zip(requests, targets.names, strict=True)]
        found: dict[str, list[Sample]] = {name: [] for name in targets.names}
        for sample in generator.generate(named, num):
            found[sample.request].append(sample)
        return found

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
