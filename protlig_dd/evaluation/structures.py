"""Scores of generated proteins after folding: confidence, self-consistency, motif, diversity and novelty, each with a null.

A structure comes from a `Fold` (`esmfold.py`). TM-scores are by C-alphas: self-consistency at the given residues with a searched
superposition, diversity and novelty by our own alignment (`structures/tm_align.py`). A high pLDDT means that the folding model is
confident, not that it is right; low-complexity helices get one too, so compare it with the sequence scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from protlig_dd import rng
from protlig_dd.data.similarity import identity
from protlig_dd.evaluation.esmfold import Fold
from protlig_dd.evaluation.intervals import Estimate, Score, bootstrap_mean, pair_mean, wilson
from protlig_dd.evaluation.proteins import read_proteins, shuffle_residues
from protlig_dd.evaluation.sections import Section
from protlig_dd.structures.lddt import lddt
from protlig_dd.structures.scaffolds import Motif, Template
from protlig_dd.structures.structure_io import Chain
from protlig_dd.structures.superpose import rmsd
from protlig_dd.structures.tm_align import align_chains
from protlig_dd.structures.tm_score import tm_score

SAME_FOLD = 0.5
"""The TM-score above which two chains count as one fold (Xu and Zhang 2010)."""

CAUTION = (
    "Structures are predictions of a folding model. Confidence is not correctness, and nothing here says that a protein expresses, is "
    "soluble, or does anything."
)
_CONFIDENT = 70.0  # mean pLDDT
_MOTIF_KEPT = 1.0  # Angstrom


def mean_plddt(chain: Chain) -> float:
    """Return the mean over residues of the pLDDT of the C-alphas, 0 to 100."""
    return float(np.mean(chain.b_factors))


@dataclass(frozen=True, kw_only=True)
class SelfConsistency:
    """How well a sequence folds back into the backbone it was generated with.

    Attributes:
        tm: scTM, by C-alphas, normalised by the backbone's residues.
        rmsd: scRMSD over N, CA and C after superposition, in Angstrom (over C-alphas if the backbone has only these).
        lddt: lDDT of the C-alphas.
    """

    tm: float
    rmsd: float
    lddt: float


def self_consistency(designed: Chain, refolded: Chain) -> SelfConsistency:
    """Return scTM, scRMSD and lDDT of a refolded chain against the backbone it was designed with, residue by residue.

    A common evaluator passes [L, 3, 3] arrays to a TM-align wrapper that reads only the first third of the residues; ours uses all of them.

    Raises:
        ValueError: if the chains differ in length, or share no residue with coordinates.
    """
    if len(designed) != len(refolded):
        raise ValueError(f"self_consistency: found chains of {len(designed)} and {len(refolded)} residues, expected equal ones")
    atoms = (designed.backbone, refolded.backbone)
    full = all(np.isfinite(a).all(-1).any(0).all() for a in atoms)
    return SelfConsistency(
        tm=tm_score(refolded.ca, designed.ca).value,
        rmsd=rmsd(atoms[1], atoms[0]) if full else rmsd(refolded.ca, designed.ca),
        lddt=lddt(refolded.ca, designed.ca).value,
    )


def motif_rmsd(folded: Chain, template: Template, motif: Motif, *, backbone: bool = False) -> float:
    """Return the RMSD in Angstrom of a motif's C-alphas (or N, CA and C) in a folded chain, all segments superposed as one.

    Raises:
        ValueError: if the chain is not as long as the template.
    """
    if len(folded) != len(template.text):
        raise ValueError(f"motif_rmsd: found a chain of {len(folded)} residues, expected {len(template.text)} as in the template")
    atoms = slice(0, 3) if backbone else slice(1, 2)
    return rmsd(folded.coords_angstrom[list(template.positions), atoms], motif.coords_angstrom[:, atoms])


def pairwise_tm(chains: Sequence[Chain], *, thorough: bool = False) -> Float[np.ndarray, "n n"]:
    """Return the TM-scores of all pairs, the mean of both normalisations, 1 on the diagonal.

    The alignments are searched by `align_chains`: a score may be lower than TM-align's (`benchmarks/tm_align.py`).
    """
    table = np.eye(len(chains))
    for i, first in enumerate(chains):
        for j in range(i):
            table[i, j] = table[j, i] = align_chains(first.ca, chains[j].ca, thorough=thorough).tm
    return table


def cluster(tm: Float[np.ndarray, "n n"], *, threshold: float = SAME_FOLD) -> Int[np.ndarray, " n"]:
    """Return the cluster of each chain: the chain with most neighbours above the threshold takes them, then the next among the rest.

    Greedy set cover, as MMseqs2 and Foldseek cluster by default; every member is near its cluster's centre, not near every other member.
    """
    left, labels, near = np.ones(len(tm), dtype=bool), np.full(len(tm), -1), tm >= threshold
    number = 0
    while left.any():
        centre = int(np.where(left, (near & left).sum(1), -1).argmax())
        members = left & (near[centre] | (np.arange(len(tm)) == centre))
        labels[members], number = number, number + 1
        left &= ~members
    return labels


def nearest_tm(chains: Sequence[Chain], references: Sequence[Chain], *, thorough: bool = False) -> Float[np.ndarray, " n"]:
    """Return for each chain the largest TM-score to any reference, normalised by the chain's own length."""
    return np.array([max(align_chains(c.ca, r.ca, thorough=thorough).tm_first for r in references) for c in chains])


def confidence_scores(folded: Sequence[Chain], null: Sequence[Chain], *, seed: int = 0) -> list[Score]:
    """Return mean pLDDT and the share of confident chains; the null is the same for shuffled sequences."""
    values, others = ([mean_plddt(chain) for chain in chains] for chains in (folded, null))
    name = "shuffled residues"
    return [
        _mean("pLDDT", values, others, name, seed),
        _share(f"pLDDT above {_CONFIDENT:g}", [v > _CONFIDENT for v in values], [v > _CONFIDENT for v in others], name),
    ]


def _mean(name: str, values: Sequence[float], null: Sequence[float], null_name: str, seed: int) -> Score:
    value, other = (bootstrap_mean(group, seed=seed) for group in (values, null))
    return Score(name=name, value=value, null=other, null_name=null_name)


def _share(name: str, values: Sequence[bool], null: Sequence[bool], null_name: str) -> Score:
    value, other = (wilson(sum(group), len(group)) for group in (values, null))
    return Score(name=name, value=value, null=other, null_name=null_name)


def consistency_scores(designed: Sequence[Chain], refolded: Sequence[Chain], *, seed: int = 0) -> list[Score]:
    """Return scTM, scRMSD and lDDT; the null compares each backbone with another sample's refolded chain, both cut to the shorter.

    Raises:
        ValueError: if there is not one refolded chain for each backbone.
    """
    found = [self_consistency(d, r) for d, r in zip(designed, refolded, strict=True)]
    shifted = [_shortest(d, refolded[i - 1]) for i, d in enumerate(designed)] if len(designed) > 1 else []
    others, name = [self_consistency(*pair) for pair in shifted], "another sample's fold"
    scores = []
    for key, label in (("tm", "scTM"), ("rmsd", "scRMSD (A)"), ("lddt", "refolded lDDT")):
        scores.append(_mean(label, [getattr(f, key) for f in found], [getattr(f, key) for f in others], name, seed))
    good, by_chance = ([f.tm >= SAME_FOLD for f in group] for group in (found, others))
    return [*scores, _share(f"scTM at least {SAME_FOLD:g}", good, by_chance, name)]


def _shortest(first: Chain, second: Chain) -> tuple[Chain, Chain]:
    length = min(len(first), len(second))
    cut = [Chain.of_coordinates(c.sequence[:length], c.coords_angstrom[:length]) for c in (first, second)]
    return cut[0], cut[1]


def motif_scores(folded: Sequence[Chain], templates: Sequence[Template], motif: Motif, *, seed: int = 0) -> list[Score]:
    """Return the motif's RMSD and the share below 1 A; the null is the same at other residues (the motif's positions shifted cyclically).

    Raises:
        ValueError: if there is not one template for each chain.
    """
    values = [motif_rmsd(f, t, motif) for f, t in zip(folded, templates, strict=True)]
    draws = np.random.default_rng(rng.key(seed, "motif null"))
    others = []
    for chain, template in zip(folded, templates, strict=True):
        length = len(template.text)
        turned = (np.array(template.positions) + draws.integers(1, max(length, 2))) % length
        others.append(rmsd(chain.ca[turned], motif.coords_angstrom[:, 1]))
    kept, lost = ([v < _MOTIF_KEPT for v in group] for group in (values, others))
    name = "the same places, turned about"
    return [_mean("motif RMSD (A)", values, others, name, seed), _share(f"motif RMSD below {_MOTIF_KEPT:g} A", kept, lost, name)]


def diversity_scores(folded: Sequence[Chain], references: Sequence[Chain] = ()) -> list[Score]:
    """Return mean pairwise TM and sequence identity (no chain with itself) and the number of clusters per chain; the null is the same for the references."""
    groups = [group for group in (list(folded), list(references)) if len(group) > 1]
    if not groups or len(folded) < 2:
        return []
    tables = [pairwise_tm(group) for group in groups]
    similarity = [_identity_table([chain.sequence for chain in group]) for group in groups]
    fractions = [Estimate.plain((int(cluster(table).max()) + 1) / len(table), len(table)) for table in tables]
    rows: list[tuple[str, list[Estimate], str]] = [
        ("pairwise TM", [pair_mean(table) for table in tables], ""),
        ("pairwise identity", [pair_mean(table) for table in similarity], ""),
        (f"clusters at TM {SAME_FOLD:g} per chain", fractions, f"{int(cluster(tables[0]).max()) + 1} clusters"),
    ]
    name = "references" if len(groups) > 1 else ""
    return [Score(name=label, value=v[0], null=v[1] if name else None, null_name=name, note=note) for label, v, note in rows]


def _identity_table(sequences: Sequence[str]) -> Float[np.ndarray, "n n"]:
    """Mean of both directions of the identity over the first sequence of a pair."""
    num = len(sequences)
    table = identity([a for a in sequences for _ in sequences], [*sequences] * num, over="query").reshape(num, num)
    return np.asarray((table + table.T) / 2)


def novelty_scores(folded: Sequence[Chain], references: Sequence[Chain], *, seed: int = 0) -> list[Score]:
    """Return the mean TM-score to the nearest reference; the null is the same of each reference to the other references."""
    if not references or not folded:
        return []
    rest = [[*references[:i], *references[i + 1 :]] for i in range(len(references))] if len(references) > 1 else []
    others = [nearest_tm([one], others)[0] for one, others in zip(references, rest, strict=False)]
    found = nearest_tm(folded, references).tolist()
    return [_mean("TM to the nearest reference", found, others, "references among themselves", seed)]


def structure_section(
    samples: Sequence[str],
    fold: Fold | None,
    *,
    reason: str = "",
    designed: Sequence[Chain] | None = None,
    references: Sequence[Chain] = (),
    templates: Sequence[Template] | None = None,
    motif: Motif | None = None,
    max_samples: int = 50,
    seed: int = 0,
) -> Section:
    """Return the scores of folded samples as a section of a report; without a fold function the section has the reason.

    Args:
        samples: generated sequences, invalid ones included; the first `max_samples` valid ones are folded.
        fold: a fold function, such as from `esmfold.find_fold`; None folds nothing.
        reason: why there is none.
        designed: the backbone that each sample was generated with (co-generation), or None.
        references: chains that novelty is measured against, such as those of the training set.
        templates: the template of each sample; needed with `motif`.
        motif: the motif that was scaffolded.
        max_samples: maximum number of folded samples; folding and all-against-all alignment are slow.
        seed: seed of nulls and resampling.
    """
    title = "Structures"
    if fold is None:
        return Section(title=title, lines=(reason or "Nothing was folded: no folding model was given.",))
    valid = [i for i, sample in enumerate(samples) if read_proteins([sample]).num_valid][:max_samples]
    proteins = read_proteins(samples)
    if not valid:
        return Section(title=title, lines=(f"Nothing was folded: {proteins.describe_invalid() or 'there are no samples'}.",))
    folded = [fold(samples[i]).chains[0] for i in valid]
    shuffled = [fold(s).chains[0] for s in shuffle_residues([samples[i] for i in valid], len(valid), seed=seed)]
    scores = confidence_scores(folded, shuffled, seed=seed)
    if designed is not None:
        scores += consistency_scores([designed[i] for i in valid], folded, seed=seed)
    if motif is not None and templates is not None:
        scores += motif_scores(folded, [templates[i] for i in valid], motif, seed=seed)
    alignable = [chain for chain in folded if len(chain) >= 5]
    scores += diversity_scores(alignable, references) + novelty_scores(alignable, references, seed=seed)
    lines = (f"{len(folded)} of {proteins.num_samples} samples were folded.", proteins.describe_invalid())
    return Section(title=title, caution=CAUTION, scores=tuple(scores), lines=tuple(line for line in lines if line))
