"""Ranking ligands for a protein by pointwise mutual information: how much the protein lowers the bound of the ligand.

log p(ligand | protein) - log p(ligand), each by its bound with the same noise, so that a model that ignores its protein gives exactly 0. The
difference of two bounds is no bound itself. It says which ligands the model expects at this protein more than elsewhere, not how strongly they bind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from protlig_dd import rng
from protlig_dd.data.table import TokenTable
from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.evaluation.intervals import Estimate, cluster_bootstrap_mean, percentile_interval
from protlig_dd.evaluation.likelihood import bound, table_batches
from protlig_dd.evaluation.targets import Training, fingerprints, nearest_similarity, sequence_clusters

Values = Float[np.ndarray, " n"]
_NUM_RESAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class Information:
    """The bound of each ligand in nats, given its protein and alone, and its tokens."""

    given: Values
    alone: Values
    tokens: Values

    @property
    def pmi(self) -> Values:
        """How many nats the protein saves."""
        return np.asarray(self.alone - self.given)


def information(denoising: Denoising, table: TokenTable, *, num_times: int = 8, seed: int = 0, batch_size: int = 64) -> Information:
    """Return the bounds of the ligands of some pairs with and without their proteins, with the same noise.

    Args:
        denoising: a model in evaluation mode that was trained on `ligand_given_protein` and `ligand_only`.
        table: pairs; each has both tracks.
        num_times: noise levels for each pair.
        seed: seed of the noise.
        batch_size: pairs in a network call.
    """
    tracks = {name: denoising.tracks[name] for name in ("protein", "ligand")}

    def nats(pairs: TokenTable, task: str) -> tuple[Values, Values]:
        found = bound(denoising, table_batches(pairs, tracks, batch_size=batch_size), task, num_times=num_times, seed=seed)
        return np.asarray(found.total), np.asarray(found.total_tokens, dtype=np.float64)

    given, tokens = nats(table, "ligand_given_protein")
    return Information(given=given, alone=nats(table, "ligand_only")[0], tokens=tokens)


def auroc(scores: Values, labels: Bool[np.ndarray, " n"]) -> float:
    """Return the chance that a positive scores above a negative, ties counted half; NaN without one of each.

    >>> auroc(np.array([3.0, 1.0, 1.0]), np.array([True, True, False]))
    0.75
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # ties share their mean rank
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well scores tell labelled pairs apart: over all pairs, and within targets that have both labels."""

    overall: Estimate
    within: Estimate


def agreement(
    scores: Values, labels: Bool[np.ndarray, " n"], targets: Int64[np.ndarray, " n"], clusters: Int64[np.ndarray, " t"], seed: int = 0
) -> Agreement:
    """Return the AUROC over all pairs and its mean within targets; intervals resample clusters of targets.

    Args:
        scores: higher for pairs that are expected to bind.
        labels: which pairs bind.
        targets: the target of each pair, from 0.
        clusters: the cluster of each target.
        seed: seed of the resampling.
    """
    rows = {target: np.flatnonzero(targets == target) for target in np.unique(targets).tolist()}
    within = {target: auroc(scores[own], labels[own]) for target, own in rows.items()}
    known = [target for target, value in within.items() if not np.isnan(value)]
    groups: dict[int, list[int]] = {}
    for target, own in rows.items():
        groups.setdefault(int(clusters[target]), []).extend(own.tolist())
    draws, own_groups = np.random.default_rng(rng.key(seed, "auroc")), [np.array(group) for group in groups.values()]
    resampled = []
    for _ in range(_NUM_RESAMPLES if len(own_groups) > 1 else 0):
        some = np.concatenate([own_groups[i] for i in draws.integers(0, len(own_groups), len(own_groups))])
        resampled.append(auroc(scores[some], labels[some]))
    whole, drawn = auroc(scores, labels), np.array([value for value in resampled if not np.isnan(value)])
    return Agreement(
        overall=percentile_interval(whole, drawn, len(scores)) if len(drawn) else Estimate.plain(whole, len(scores)),
        within=cluster_bootstrap_mean([within[t] for t in known], [int(clusters[t]) for t in known], seed=seed)
        if known
        else Estimate.missing(),
    )


def nulls(proteins: Sequence[str], ligands: Sequence[str], training: Training, negatives: Mapping[str, Sequence[str]]) -> dict[str, Values]:
    """Return scores that need no model: similarity to known actives, and how often the target and the ligand were active in training.

    Args:
        proteins, ligands: the pairs; ligands as canonical SMILES.
        training: the training pairs that bind.
        negatives: the ligands of each protein that were measured in training not to bind.
    """
    prints = dict(zip(dict.fromkeys(ligands), fingerprints(list(dict.fromkeys(ligands))), strict=True))
    similar = np.zeros(len(ligands))
    for protein in dict.fromkeys(proteins):
        rows = [i for i, one in enumerate(proteins) if one == protein]
        known = training.of(protein) or training.of_nearest(protein)
        similar[rows] = nearest_similarity([prints[ligands[i]] for i in rows], [training.prints[one] for one in known])
    active = {protein: len(own) for protein, own in training.by_protein.items()}
    of_ligand: dict[str, list[int]] = {}
    for is_active, pairs in ((1, training.by_protein), (0, negatives)):
        for own in pairs.values():
            for one in own:
                of_ligand.setdefault(one, []).append(is_active)

    def share(num: int, others: int) -> float:
        return (num + 1) / (num + others + 2)  # one of each is assumed, so that the unknown stand in the middle

    return {
        "fingerprint k-NN": similar,
        "target's share of actives": np.array([share(active.get(p, 0), len(negatives.get(p, ()))) for p in proteins]),
        "ligand's share of actives": np.array([share(sum(of_ligand.get(s, [])), of_ligand.get(s, []).count(0)) for s in ligands]),
    }


def target_codes(proteins: Sequence[str]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " t"]]:
    """Return the target of each pair, from 0, and the cluster of each target."""
    names = {protein: i for i, protein in enumerate(dict.fromkeys(proteins))}
    return np.array([names[p] for p in proteins], np.int64), sequence_clusters(list(names))
