"""What generated proteins look like once folded: confidence, self-consistency, motif, diversity and novelty, each beside a null.

A structure comes from a `Fold` (`runs/folding.py`). TM-scores are by C-alphas: self-consistency at the given residues with a searched
superposition, diversity and novelty by our own alignment (`structures/tm_align.py`). A high pLDDT says that the folding model is sure, not that
it is right; low-complexity helices get it too, so read it beside the sequence scores.
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
from protlig_dd.evaluation.proteins import Proteins, read_proteins, shuffle_residues
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
    """How well a sequence folds back into the backbone it was made with.

    Attributes:
        tm: scTM, by C-alphas, normalised by the backbone's residues.
        rmsd: scRMSD over N, CA and C after superposition, in Angstrom (over C-alphas where the backbone has no more).
        lddt: of the C-alphas.
    """

    tm: float
    rmsd: float
    lddt: float


def self_consistency(designed: Chain, refolded: Chain) -> SelfConsistency:
    """Return scTM, scRMSD and lDDT of a refolded chain against the backbone it was designed with, residue by residue.

    The known evaluator of this field hands [L, 3, 3] arrays to a TM-align wrapper that reads the first third of the residues; ours are
    of all of them.

    Raises:
        ValueError: if the chains differ in length, or share no residue with coordinates.
    """
    if len(designed) != len(refolded):
        raise ValueError(
            f"self_consistency: found chains of {len(designed)} and {len(refolded)} residues, expected equal ones"
        )
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
        raise ValueError(
            f"motif_rmsd: found a chain of {len(folded)} residues, expected {len(template.text)} as in the template"
        )
    atoms = slice(0, 3) if backbone else slice(1, 2)
    return rmsd(folded.coords_angstrom[list(template.positions), atoms], motif.coords_angstrom[:, atoms])


def pairwise_tm(chains: Sequence[Chain], *, thorough: bool = False) -> Float[np.ndarray, "n n"]:
    """Return the TM-scores of all pairs, the mean of both normalisations, 1 on the diagonal."""
    table = np.eye(len(chains))
    for i, first in enumerate(chains):
        for j in range(i):
            table[i, j] = table[j, i] = align_chains(first.ca, chains[j].ca, thorough=thorough).tm
    return table


def cluster(tm: Float[np.ndarray, "n n"], *, threshold: float = SAME_FOLD) -> Int[np.ndarray, " n"]:
    """Return the cluster of each chain: the one with most neighbours above the threshold takes them, then the next of the rest.

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


def nearest_tm(
    chains: Sequence[Chain], references: Sequence[Chain], *, thorough: bool = False
) -> Float[np.ndarray, " n"]:
    """Return for each chain the largest TM-score to any reference, normalised by the chain's own length."""
    return np.array([max(align_chains(c.ca, r.ca, thorough=thorough).tm_first for r in references) for c in chains])


def confidence_scores(folded: Sequence[Chain], null: Sequence[Chain], *, seed: int = 0) -> list[Score]:
    """Return mean pLDDT and the share of confident chains, beside the same of shuffled sequences."""
    values, others = ([mean_plddt(chain) for chain in chains] for chains in (folded, null))
    confident = [sum(value > _CONFIDENT for value in group) for group in (values, others)]
    name = "shuffled residues"
    return [
        Score(
            name="pLDDT",
            value=bootstrap_mean(values, seed=seed),
            null=bootstrap_mean(others, seed=seed),
            null_name=name,
        ),
        Score(
            name=f"pLDDT above {_CONFIDENT:g}",
            value=wilson(confident[0], len(values)),
            null=wilson(confident[1], len(others)),
            null_name=name,
        ),
    ]


def consistency_scores(designed: Sequence[Chain], refolded: Sequence[Chain], *, seed: int = 0) -> list[Score]:
    """Return scTM, scRMSD and lDDT, beside the same of backbones and the refolded chains of others, paired up to the shorter one.

    Raises:
        ValueError: if there is not one refolded chain for each backbone.
    """
    found = [self_consistency(d, r) for d, r in zip(designed, refolded, strict=True)]
    others = (
        [self_consistency(*_shortest(d, refolded[i - 1])) for i, d in enumerate(designed)] if len(designed) > 1 else []
    )
    scores = []
    for name, label in (("tm", "scTM"), ("rmsd", "scRMSD (A)"), ("lddt", "refolded lDDT")):
        value, null = (bootstrap_mean([getattr(f, name) for f in group], seed=seed) for group in (found, others))
        scores.append(Score(name=label, value=value, null=null, null_name="another sample's fold"))
    good = [sum(f.tm >= SAME_FOLD for f in group) for group in (found, others)]
    designable = wilson(good[0], len(found)), wilson(good[1], len(others))
    return [
        *scores,
        Score(
            name=f"scTM at least {SAME_FOLD:g}",
            value=designable[0],
            null=designable[1],
            null_name="another sample's fold",
        ),
    ]


def _shortest(first: Chain, second: Chain) -> tuple[Chain, Chain]:
    length = min(len(first), len(second))
    cut = [Chain.of_coordinates(c.sequence[:length], c.coords_angstrom[:length]) for c in (first, second)]
    return cut[0], cut[1]


def motif_scores(folded: Sequence[Chain], templates: Sequence[Template], motif: Motif, *, seed: int = 0) -> list[Score]:
    """Return the motif's RMSD and the share below 1 A, beside the same at as many residues elsewhere (the motif's places turned about).

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
    value, null = (bootstrap_mean(group, seed=seed) for group in (values, others))
    kept, lost = (wilson(sum(v < _MOTIF_KEPT for v in group), len(group)) for group in (values, others))
    name = "the same places, turned about"
    return [
        Score(name="motif RMSD (A)", value=value, null=null, null_name=name),
        Score(name=f"motif RMSD below {_MOTIF_KEPT:g} A", value=kept, null=lost, null_name=name),
    ]


def diversity_scores(folded: Sequence[Chain], references: Sequence[Chain] = ()) -> list[Score]:
    """Return mean pairwise TM and sequence identity (no chain with itself) and the share of clusters, beside the references' own."""
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
    return [
        Score(name=label, value=v[0], null=v[1] if name else None, null_name=name, note=note) for label, v, note in rows
    ]


def _identity_table(sequences: Sequence[str]) -> Float[np.ndarray, "n n"]:
    """Mean of both directions of the identity over the first sequence of a pair."""
    num = len(sequences)
    table = identity([a for a in sequences for _ in sequences], [*sequences] * num, over="query").reshape(num, num)
    return np.asarray((table + table.T) / 2)


def novelty_scores(folded: Sequence[Chain], references: Sequence[Chain], *, seed: int = 0) -> list[Score]:
    """Return the mean TM to the nearest reference, beside what each reference has to the other references."""
    if not references or not folded:
        return []
    others = (
        [nearest_tm([r], [*references[:i], *references[i + 1 :]])[0] for i, r in enumerate(references)]
        if len(references) > 1
        else []
    )
    value, null = (bootstrap_mean(values, seed=seed) for values in (nearest_tm(folded, references), others))
    return [Score(name="TM to the nearest reference", value=value, null=null, null_name="references among themselves")]


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
    """Return what folding says about samples, as a section of a report; without a fold function the section holds the reason.

    Args:
        samples: generated sequences, invalid ones included; the first `max_samples` valid ones are folded.
        fold: from `folding.find_fold`, or one's own.
        reason: why there is none.
        designed: for each sample the backbone that it was generated with (co-generation), or None.
        references: chains that novelty is measured against, such as those of the training set.
        templates: for each sample its template, beside `motif`.
        motif: the motif that was scaffolded.
        max_samples: folding and all-against-all alignment are slow.
        seed: of nulls and resampling.
    """
    title = "Structures"
    if fold is None:
        return Section(title=title, lines=(reason or "Nothing was folded: no folding model was given.",))
    valid = [i for i, sample in enumerate(samples) if read_proteins([sample]).num_valid][:max_samples]
    proteins = read_proteins(samples)
    if not valid:
        return Section(
            title=title, lines=(f"Nothing was folded: {proteins.describe_invalid() or 'there are no samples'}.",)
        )
    folded = [fold(samples[i]).chains[0] for i in valid]
    shuffled = [
        fold(sequence).chains[0] for sequence in shuffle_residues([samples[i] for i in valid], len(valid), seed=seed)
    ]
    scores = confidence_scores(folded, shuffled, seed=seed)
    if designed is not None:
        scores += consistency_scores([designed[i] for i in valid], folded, seed=seed)
    if motif is not None and templates is not None:
        scores += motif_scores(folded, [templates[i] for i in valid], motif, seed=seed)
    alignable = [chain for chain in folded if len(chain) >= 5]
    scores += diversity_scores(alignable, references) + novelty_scores(alignable, references, seed=seed)
    return Section(title=title, caution=CAUTION, scores=tuple(scores), lines=_lines(proteins, len(folded)))


def _lines(proteins: Proteins, num_folded: int) -> tuple[str, ...]:
    lines = [f"{num_folded} of {proteins.num_samples} samples were folded.", proteins.describe_invalid()]
    return tuple(line for line in lines if line)
