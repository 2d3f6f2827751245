"""Are generated ligands specific to their targets? Their similarity to the actives of their own target and to those of the others.

A molecule has, for each target, the Tanimoto similarity to the nearest active of that target. From these come four numbers:

    own         the similarity to the own target
    others      the mean of the similarities to the other targets
    difference  own - others
    nearest     1/k if the own target is among the k targets of the highest similarity, else 0; 1 / (number of targets) by chance

The means are over valid molecules; their intervals resample clusters of targets with similar sequences. A similarity is no affinity: a
molecule unlike all known actives may bind, and one like them may not. Beside the samples stand the same numbers of other molecules at the
same targets (`targets.py`), above all of the model's own samples at targets of other clusters: what a model that ignores its target gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from protlig_dd import rng
from protlig_dd.evaluation.conditioning import shuffle_across
from protlig_dd.evaluation.intervals import Estimate, Score, cluster_bootstrap_mean, wilson
from protlig_dd.evaluation.ligands import read_molecules
from protlig_dd.evaluation.samples import Validity
from protlig_dd.evaluation.sections import Section, Table
from protlig_dd.evaluation.targets import Targets, Training, draw_some, fingerprints, nearest_similarity

NEAR_COPY = 0.7
"""A molecule of at least this Tanimoto similarity to a training ligand is a near copy of it."""
SAMPLES, SHUFFLED, HELD_OUT = "samples", "samples at other targets (shuffled)", "the actives themselves, each left out"
_NUM_SHUFFLES = 100
_CAUTION = "Similarity to known actives is no affinity. Compare with the same molecules at other targets, and with copied training ligands."

Values = dict[str, Float[np.ndarray, " n"]]
"""The values of each molecule by the name of the number."""


def values_of(similarities: Float[np.ndarray, "n t"], own: Int64[np.ndarray, " n"]) -> Values:
    """Return "nearest", "own", "others" and "difference" of each molecule.

    Args:
        similarities: of each molecule to the nearest active of each of at least two targets.
        own: the column of each molecule's own target.
    """
    is_own = np.arange(similarities.shape[1]) == own[:, None]
    to_own = similarities[is_own]
    others = np.where(is_own, 0.0, similarities).sum(1) / (similarities.shape[1] - 1)
    is_highest = similarities == similarities.max(1, keepdims=True)
    shared = is_highest[is_own] / is_highest.sum(1)
    return {"nearest": shared, "own": to_own, "others": others, "difference": to_own - others}


@dataclass(frozen=True, kw_only=True)
class Means:
    """The four means over some molecules; see the module. `num` of each is the number of valid molecules."""

    nearest: Estimate
    own: Estimate
    others: Estimate
    difference: Estimate


@dataclass(frozen=True, kw_only=True)
class Specificity:
    """How specific molecules are to their targets.

    Attributes:
        means: of the samples, and of what they are compared with, by name.
        validity: the share of valid molecules among the samples.
        copies: the share of training ligands, of near copies of one, and of near copies of one of the own target's, among the valid
            samples; beside each, where it is known, the same of the actives themselves. Empty if the training ligands are not known.
        num_targets: number of targets compared.
        num_clusters: number of clusters of their sequences, the units of the bootstrap.
        num_known: targets with training ligands.
        num_left_out: targets without three actives.
        invalid: the invalid samples, in words.
    """

    means: Mapping[str, Means]
    validity: Estimate
    copies: tuple[Score, ...]
    num_targets: int
    num_clusters: int
    num_known: int
    num_left_out: int
    invalid: str = ""

    def scores(self) -> list[Score]:
        """Return the scores of the samples, with the same samples at other targets as the null."""
        own, null = self.means[SAMPLES], self.means.get(SHUFFLED)
        chance = f"chance {1 / self.num_targets:.3g}"
        named = {
            "specificity: the nearest active is one of the own target": ("nearest", "; ".join(filter(None, (chance, self.invalid)))),
            "specificity: similarity to own minus other targets": ("difference", ""),
            "similarity to the nearest active of the own target": ("own", ""),
            "similarity to the nearest active of another target": ("others", ""),
        }
        scores = [
            Score(
                name=name, value=getattr(own, which), null=getattr(null, which) if null else None, null_name="shuffled targets", note=note
            )
            for name, (which, note) in named.items()
        ]
        return [*scores, Score(name="valid molecules", value=self.validity, note=self.invalid), *self.copies]

    def lines(self) -> list[str]:
        """Return what was compared, in words."""
        lines = [
            f"{self.num_targets} targets in {self.num_clusters} clusters of similar sequences; {self.num_known} of them were trained on"
            + (f"; {self.num_left_out} with fewer than three actives left out" if self.num_left_out else "")
        ]
        if SHUFFLED not in self.means:
            lines.append("all targets are in one cluster: no shuffled targets, no intervals")
        return lines

    def table(self) -> Table:
        """Return the means of the samples and of everything they are compared with."""
        columns = ("own is nearest", "own - others", "own", "others", "molecules")
        return Table(
            title="The same numbers for other molecules at the same targets",
            rows=tuple(self.means),
            columns=columns,
            cells=tuple((str(m.nearest), str(m.difference), str(m.own), str(m.others), m.own.num) for m in self.means.values()),
        )

    def section(self, title: str, *, lines: Sequence[str] = ()) -> Section:
        """Return scores, table and lines as a section of a report, after other lines."""
        tables = (self.table(),)
        return Section(title=title, caution=_CAUTION, scores=tuple(self.scores()), tables=tables, lines=(*lines, *self.lines()))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judged(Validity):
    """Canonical SMILES of valid molecules, the column of each one's own target, and their similarities to all targets."""

    smiles: tuple[str, ...]
    own: Int64[np.ndarray, " n"]
    similarities: Float[np.ndarray, "n t"]

    @staticmethod
    def of(molecules: Mapping[str, Sequence[str]], targets: Targets, *, leave_out_itself: bool = False) -> _Judged:
        read = [read_molecules(molecules.get(name, ())) for name in targets.names]
        smiles = tuple(one for of_target in read for one in of_target.smiles)
        invalid = sum((Counter(dict(of_target.invalid)) for of_target in read), Counter[str]())
        return _Judged(
            num_samples=sum(of_target.num_samples for of_target in read),
            invalid=tuple(invalid.most_common()),
            smiles=smiles,
            own=np.repeat(np.arange(len(targets)), [of_target.num_valid for of_target in read]),
            similarities=targets.similarities(smiles, leave_out_itself=leave_out_itself),
        )


def specificity(
    samples: Mapping[str, Sequence[str]],
    targets: Targets,
    training: Training | None = None,
    *,
    beside: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    seed: int = 0,
) -> Specificity:
    """Return how specific generated ligands are to their targets, beside what other molecules reach.

    Args:
        samples: the generated SMILES of each target, invalid ones included; names that are not among the targets are ignored.
        targets: at least two targets with reference actives that the model was not trained on.
        training: what the model was trained on; without it, there are neither copies nor the nulls that draw training ligands.
        beside: samples of other models by the model's name, such as a language model of molecules fine-tuned on each target's actives.
        seed: seed of the nulls and the bootstrap.

    Source: the share of molecules whose nearest active belongs to their own target is the measure of the ProtoBind-Diff preprint (2025);
    that ties are shared, the nulls and the intervals over clusters are ours.
    """
    judged = _Judged.of(samples, targets)
    means = {SAMPLES: _means(values_of(judged.similarities, judged.own), judged.own, targets, seed)}
    if len(np.unique(targets.clusters)) > 1:
        means[SHUFFLED] = _means(_shuffled(judged, targets, seed), judged.own, targets, seed)
    counts = {name: len(samples.get(name, ())) for name in targets.names}
    others = training.molecules(targets, counts, seed=seed) if training is not None else {}
    actives = {name: draw_some(targets.actives[name], counts[name], seed, HELD_OUT, name) for name in targets.names}
    held_out = _Judged.of(actives, targets, leave_out_itself=True)
    for name, molecules in {**others, **(beside or {})}.items():
        one = _Judged.of(molecules, targets)
        means[name] = _means(values_of(one.similarities, one.own), one.own, targets, seed)
    means[HELD_OUT] = _means(values_of(held_out.similarities, held_out.own), held_out.own, targets, seed)
    return Specificity(
        means=means,
        validity=wilson(judged.num_valid, judged.num_samples),
        copies=_copies(judged, held_out, targets, training) if training is not None else (),
        num_targets=len(targets),
        num_clusters=len(np.unique(targets.clusters)),
        num_known=0 if training is None else sum(bool(training.of(protein)) for protein in targets.proteins.values()),
        num_left_out=targets.num_left_out,
        invalid=judged.describe_invalid(),
    )


def _means(values: Values, own: Int64[np.ndarray, " n"], targets: Targets, seed: int) -> Means:
    return Means(**{name: _mean(of_each, own, targets, seed) for name, of_each in values.items()})


def _mean(values: Float[np.ndarray, " n"], own: Int64[np.ndarray, " n"], targets: Targets, seed: int) -> Estimate:
    """The mean over molecules, with its interval over clusters of their own targets."""
    return cluster_bootstrap_mean(values, targets.clusters[own].tolist(), seed=seed)


def _shuffled(judged: _Judged, targets: Targets, seed: int) -> Values:
    """The values of the samples as if they were another target's, the mean over 100 shuffles of targets across clusters."""
    sums: Values = {}
    for i in range(_NUM_SHUFFLES):
        partner, _ = shuffle_across(targets.clusters, seed=rng.key(seed, "shuffled targets", i))
        for name, values in values_of(judged.similarities, partner[judged.own]).items():
            sums[name] = sums.get(name, 0.0) + values / _NUM_SHUFFLES
    return sums


def _copies(judged: _Judged, held_out: _Judged, targets: Targets, training: Training) -> tuple[Score, ...]:
    """The shares of training ligands and of near copies among the samples, with those among the actives."""
    known, prints = set(training.ligands), training.prints
    everything = list(prints.values())

    def shares(one: _Judged) -> dict[str, Estimate]:
        exact = np.array([float(smiles in known) for smiles in one.smiles])
        own_prints = fingerprints(one.smiles)
        near = nearest_similarity(own_prints, everything) >= NEAR_COPY
        of_own = np.full(len(exact), np.nan)
        for column, name in enumerate(targets.names):
            if ligands := [prints[smiles] for smiles in training.of(targets.proteins[name])]:
                rows = np.flatnonzero(one.own == column)
                of_own[rows] = nearest_similarity([own_prints[row] for row in rows], ligands) >= NEAR_COPY
        known_own = of_own[~np.isnan(of_own)]
        return {
            name: wilson(int(values.sum()), len(values))
            for name, values in {
                "exact copies of training ligands": exact,
                f"near copies of training ligands (Tanimoto >= {NEAR_COPY})": near,
                "near copies of training ligands of the own target": known_own,
            }.items()
        }

    nulls = shares(held_out)
    return tuple(
        Score(name=name, value=value, null=nulls[name], null_name="the actives themselves") for name, value in shares(judged).items()
    )
