"""The score of the demo: whether a generated ligand carries the group that belongs to the motif of its protein.

Only for the SYNTHETIC world of `data/synthetic/textbook.py`. Its law is known, so a model can be compared with a perfect one (the law),
with one that ignores the protein (shuffled labels), and with a lookup of the most similar training protein (k-NN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from protlig_dd import rng
from protlig_dd.data.synthetic.rules import count_groups
from protlig_dd.data.synthetic.textbook import RULES, DemoWorld, Pair, knn_null, motif_of
from protlig_dd.evaluation.intervals import Estimate, Score, wilson
from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit
from protlig_dd.evaluation.sections import Section, Table

RULE_NAMES = tuple(rule.name for rule in RULES)
GROUP_NAMES = tuple(rule.group for rule in RULES)
OTHER_COLUMNS = ("several groups", "no group", "invalid")
COLUMNS = (*GROUP_NAMES, *OTHER_COLUMNS)

CAUTION = (
    "A synthetic world: proteins, ligands and the rules between them were made up after textbooks. The table says whether the model "
    "learned these rules; it says nothing about real proteins, and nothing here is a drug."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchTable:
    """Which groups the ligands generated for each motif carry.

    Attributes:
        counts: samples by rule of the protein (rows, order of RULES) and group of the ligand (columns, order of `COLUMNS`). A ligand
            matches if it is valid and carries the group of its protein's rule and no other.
        matched: the fraction that matches, with Wilson's interval.
        per_rule: the same for each rule's proteins.
        shuffled: the fraction that matches if every ligand is paired with every other sample's protein: the mean over all shuffles of
            the protein labels that leave no ligand its own.
        learned: (matched - shuffled) / (law - shuffled): 0 if the protein is ignored, 1 for a perfect model; None without the law, or
            if shuffling does as well as the law, as with proteins of a single rule.
        valid: the fraction of valid molecules.
        law: the fraction of true pairs that match, or None.
        knn: the fraction that the ligands of the nearest training proteins match, or None.
        num_left_out: number of samples whose protein carries no motif, or several.
    """

    counts: Int64[np.ndarray, "12 15"]
    matched: Estimate
    per_rule: dict[str, Estimate]
    shuffled: Estimate
    valid: Estimate
    learned: Estimate | None = None
    law: float | None = None
    knn: Estimate | None = None
    num_left_out: int = 0

    def scores(self) -> list[Score]:
        """Return the matched fraction with its null (shuffled labels), validity, the law, the learned share and the k-NN."""
        matched = Score(
            name="matched motif and group",
            value=self.matched,
            null=self.shuffled,
            null_name="shuffled proteins",
            note=f"{self.num_left_out} without exactly one motif left out" if self.num_left_out else "",
        )
        scores = [matched, Score(name="valid molecules", value=self.valid)]
        if self.law is not None:
            law = Estimate.plain(self.law, self.matched.num)
            scores.append(Score(name="matched, the law (a perfect model)", value=law))
        if self.learned is not None:
            scores.append(Score(name="learned: (matched - shuffled) / (law - shuffled)", value=self.learned))
        if self.knn is not None:
            scores.append(Score(name="matched, nearest training protein", value=self.knn))
        return scores

    def lines(self) -> list[str]:
        """Return the result as a few lines of text."""
        law = "" if self.law is None else f", the law {self.law:.2f}"
        lines = [f"matched {self.matched}, shuffled proteins {self.shuffled}{law} (synthetic world, n={self.matched.num})"]
        if self.learned is not None:
            lines.append(f"learned {self.learned} of what there is to learn: (matched - shuffled) / (law - shuffled)")
        if self.knn is not None:
            lines.append(f"nearest training protein (k-NN null) {self.knn}; valid molecules {self.valid}")
        if self.num_left_out:
            lines.append(f"{self.num_left_out} samples left out: their proteins do not carry exactly one motif")
        return lines

    def section(self, title: str = "Motif and group") -> Section:
        """Return the table, the scores and the caution as a section of a report."""
        counts = Table(
            title="Ligands by the motif of their protein (rows) and the group they carry (columns)",
            rows=RULE_NAMES,
            columns=COLUMNS,
            cells=tuple(tuple(int(cell) for cell in row) for row in self.counts),
            heat=True,
            diagonal=True,
        )
        by_rule = Table(
            title="Matched fraction by rule",
            rows=RULE_NAMES,
            columns=("group", "matched", "samples"),
            cells=tuple(
                (group, str(self.per_rule[name]), self.per_rule[name].num) for name, group in zip(RULE_NAMES, GROUP_NAMES, strict=True)
            ),
        )
        return Section(title=title, caution=CAUTION, scores=tuple(self.scores()), tables=(counts, by_rule))


def matching(
    samples: Sequence[tuple[str, str]],
    *,
    world: DemoWorld | None = None,
    training: Sequence[Pair] = (),
    seed: int = 0,
    num_resamples: int = 2000,
) -> MatchTable:
    """Return how well generated ligands fit the proteins they were generated for.

    Args:
        samples: (protein, SMILES) pairs, preferably of families unseen in training; invalid SMILES count as unmatched.
        world: the demo's world, whose law is reported; None reports no law.
        training: the training pairs, for the k-NN null.
        seed: seed of the bootstrap.
        num_resamples: number of bootstrap resamples.

    Raises:
        ValueError: if no sample's protein carries exactly one motif.
        MissingDependencyError: if RDKit is absent.
    """
    counts, num_left_out = count_matches(samples)
    if not counts.sum():
        raise ValueError(
            f"samples: found {len(samples)} and no protein with exactly one motif, expected proteins of the demo's synthetic world"
        )
    law = None if world is None else world.law
    shuffled, learned = _bootstrapped(counts, law, seed=seed, num_resamples=num_resamples)
    knn = None
    if training:
        proteins = [protein for protein, _ in samples]
        found = dict(zip(dict.fromkeys(proteins), knn_null(training, list(dict.fromkeys(proteins))), strict=True))
        knn = _matched(count_matches([(protein, found[protein]) for protein in proteins])[0])
    return MatchTable(
        counts=counts,
        matched=_matched(counts),
        per_rule={name: wilson(int(counts[i, i]), int(counts[i].sum())) for i, name in enumerate(RULE_NAMES)},
        shuffled=shuffled,
        valid=wilson(int(counts[:, :-1].sum()), int(counts.sum())),
        learned=learned,
        law=law,
        knn=knn,
        num_left_out=num_left_out,
    )


def count_matches(samples: Sequence[tuple[str, str]]) -> tuple[Int64[np.ndarray, "12 15"], int]:
    """Return samples counted by rule and column, and how many had a protein without exactly one motif."""
    counts = np.zeros((len(RULE_NAMES), len(COLUMNS)), dtype=np.int64)
    left_out = 0
    for protein, smiles in samples:
        motifs = motif_of(protein)
        if len(motifs) != 1:
            left_out += 1
            continue
        counts[RULE_NAMES.index(motifs.pop()), COLUMNS.index(column_of(smiles))] += 1
    return counts, left_out


def column_of(smiles: str) -> str:
    """Return the column a ligand is counted in: its one group, "several groups", "no group" or "invalid"."""
    with silent_rdkit():
        molecule, _ = parse_molecule(smiles)
    if molecule is None:
        return "invalid"
    groups = list(count_groups(molecule))
    return groups[0] if len(groups) == 1 else "several groups" if groups else "no group"


def _matched(counts: Int64[np.ndarray, "12 15"]) -> Estimate:
    return wilson(int(np.trace(counts)), int(counts.sum()))


def _shuffled_fraction(counts: Float[np.ndarray, "r 12 15"]) -> Float[np.ndarray, " r"]:
    """Return the fraction of matches among all pairs of one sample's protein and another sample's ligand."""
    rules, groups = counts.sum(2), counts.sum(1)[:, : len(RULE_NAMES)]
    num = counts.sum((1, 2))
    # sum_r n(rule r) n(group r) counts every pair; a sample's own pair, which matches on the diagonal, is taken out again.
    return np.asarray(((rules * groups).sum(1) - np.trace(counts, axis1=1, axis2=2)) / (num * (num - 1)))


def _bootstrapped(
    counts: Int64[np.ndarray, "12 15"], law: float | None, *, seed: int, num_resamples: int
) -> tuple[Estimate, Estimate | None]:
    """Return the shuffled fraction and the learned share with bootstrap intervals over samples."""
    num = int(counts.sum())
    if num < 2:
        return Estimate.missing(), None
    draws = np.random.Generator(np.random.PCG64(rng.key(seed, "match bootstrap")))
    resampled = draws.multinomial(num, counts.ravel() / num, size=num_resamples).reshape(-1, *counts.shape)
    every = np.concatenate([counts[None], resampled]).astype(np.float64)
    shuffled = _shuffled_fraction(every)
    matched = np.trace(every, axis1=1, axis2=2) / num
    if law is None or (shuffled >= law).any():
        return _percentiles(shuffled, num), None
    return _percentiles(shuffled, num), _percentiles((matched - shuffled) / (law - shuffled), num)


def _percentiles(values: Float[np.ndarray, " r1"], num: int) -> Estimate:
    """The interval of the first value from its resamples, the other values, shifted to have the first as their mean.

    A resample contains copies of a sample, whose proteins and ligands match as pairs of two different samples do not: without the shift
    the resampled fractions are too high by about 1/num.
    """
    value = float(values[0])
    low, high = np.percentile(values[1:] - values[1:].mean(), [2.5, 97.5]) + value
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value), num=num)
