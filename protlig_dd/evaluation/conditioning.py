"""Does a model read its condition? The bound of true pairs against the bound of the same targets under shuffled conditions.

The shuffled bound uses the same noise (same masked tokens, same times), so a model that ignores its condition has a gap of exactly 0 and
any other gap is due to the condition. `motif_match.py` counts the effect of the condition on generated samples.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int64

from protlig_dd import rng
from protlig_dd.data.table import TokenTable
from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.diffusion.times import Task, TaskMixture
from protlig_dd.evaluation.intervals import Estimate, Score, cluster_bootstrap_mean
from protlig_dd.evaluation.likelihood import ExampleBounds, bound, table_batches

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConditionDependence:
    """How much worse a model predicts its targets under the conditions of other pairs, in nats per target token.

    Attributes:
        task: the conditional task.
        true: the bound of the targets given their own conditions.
        shuffled: the bound of the same targets, with the same noise, given conditions of other clusters.
        gap: shuffled minus true. Positive: the model uses the condition. If the interval contains 0, no dependence is shown.
        num_pairs: number of pairs compared.
        num_clusters: number of clusters of conditions, the units of the bootstrap.
        num_left_out: number of rows without all of the task's tracks.
        is_permutation: whether every condition was used once, which is impossible if one cluster has more than half of the pairs.
    """

    task: str
    true: Estimate
    shuffled: Estimate
    gap: Estimate
    num_pairs: int
    num_clusters: int
    num_left_out: int = 0
    is_permutation: bool = True

    @property
    def is_shown(self) -> bool:
        """Whether the interval of the gap is above 0."""
        return self.gap.has_interval and self.gap.low > 0

    def scores(self) -> list[Score]:
        """Return the gap with its null, 0, and the two bounds."""
        null = Estimate.plain(0.0, self.num_pairs)
        return [
            Score(name=f"condition gap, {self.task}", value=self.gap, null=null, null_name="condition ignored"),
            Score(name=f"nats per token, true pairs, {self.task}", value=self.true),
            Score(name=f"nats per token, shuffled pairs, {self.task}", value=self.shuffled),
        ]

    def lines(self) -> list[str]:
        """Return the result in words."""
        verdict = "the interval holds 0: no dependence on the condition is shown"
        if self.is_shown:
            verdict = "the model predicts better with the right condition"
        elif self.gap.has_interval and self.gap.high < 0:
            verdict = "the right condition makes the prediction worse, which points to over-fitting"
        elif not self.gap.has_interval:
            verdict = "too few clusters for an interval"
        lines = [
            f"condition dependence of {self.task}: {self.num_pairs} pairs in {self.num_clusters} clusters, common noise",
            f"  true pairs      {self.true} nats per token",
            f"  shuffled pairs  {self.shuffled} nats per token",
            f"  gap             {self.gap} nats per token; {verdict}",
        ]
        if not self.is_permutation:
            lines.append("  one cluster holds more than half of the pairs: conditions were drawn from the others, some repeatedly")
        if self.num_left_out:
            lines.append(f"  {self.num_left_out} rows without all tracks of the task were left out")
        return lines


def condition_dependence(
    denoising: Denoising,
    table: TokenTable,
    task: str | Task,
    *,
    clusters: Sequence[Hashable] | None = None,
    num_times: int = 8,
    seed: int = 0,
    batch_size: int = 32,
) -> ConditionDependence:
    """Return how much a model's bound on some pairs depends on the condition.

    Args:
        denoising: the model in evaluation mode, with all tracks of the table that it takes.
        table: pairs, preferably of a split whose conditions were not trained on; rows without all of the task's tracks are left out.
        task: a task with a clean track, such as "ligand_given_protein".
        clusters: for each row of the table the cluster of its condition (a protein family, say); by default the condition itself.
        num_times: noise levels for each example.
        seed: seed of noise, shuffling and bootstrap.
        batch_size: examples in one network call.

    Raises:
        ConfigError: for an unknown task.
        ValueError: if the task has no clean track, or there are fewer than two different conditions.
    """
    mixture = TaskMixture({"given": task} if isinstance(task, Task) else {task: 1.0}, tuple(denoising.tracks))
    spec, name = mixture.tasks[mixture.names[0]], mixture.names[0]
    if not spec.clean:
        raise ValueError(f"task '{name}': found no clean track, expected a conditional task such as ligand_given_protein")
    if clusters is not None and len(clusters) != len(table):
        raise ValueError(f"clusters: found {len(clusters)} labels, expected one for each of the {len(table)} rows")
    whole = np.flatnonzero(np.all([table.tracks[t].lengths > 0 for t in spec.tracks], axis=0))
    pairs = table.select(whole)
    codes = _cluster_codes(pairs, spec.clean, None if clusters is None else [clusters[i] for i in whole.tolist()])
    partner, is_permutation = shuffle_across(codes, seed=seed)
    others = {t: pairs.tracks[t].select(partner) for t in spec.clean}
    mixed = replace(pairs, tracks={**pairs.tracks, **others})
    used = {t: denoising.tracks[t] for t in spec.tracks}

    def bounds_of(pairs: TokenTable) -> ExampleBounds:
        batches = table_batches(pairs, used, batch_size=batch_size)
        return bound(denoising, batches, task, num_times=num_times, seed=seed)

    true, shuffled = bounds_of(pairs), bounds_of(mixed)
    per_token = float(true.total_tokens.mean())  # lengths are given, so the denominator is not random

    def estimate(nats: Float[np.ndarray, " b"]) -> Estimate:
        return cluster_bootstrap_mean(nats / per_token, codes.tolist(), seed=seed)

    return ConditionDependence(
        task=name,
        true=estimate(true.total),
        shuffled=estimate(shuffled.total),
        gap=estimate(shuffled.total - true.total),
        num_pairs=len(codes),
        num_clusters=len(np.unique(codes)),
        num_left_out=len(table) - len(whole),
        is_permutation=is_permutation,
    )


def _cluster_codes(pairs: TokenTable, clean: Sequence[str], clusters: Sequence[Hashable] | None) -> Int64[np.ndarray, " b"]:
    """Return a number for the cluster of each row. Clusters that share a condition are merged, so that no condition is paired with its own target."""
    parent: dict[Hashable, Hashable] = {}

    def root(label: Hashable) -> Hashable:
        while parent.setdefault(label, label) != label:
            parent[label] = label = parent[parent[label]]
        return label

    conditions = []
    for row in range(len(pairs)):
        tokens = [pairs.tracks[name].gather(np.array([row])) for name in clean]
        conditions.append(("condition", *(t.tobytes() for t in tokens)))
        if clusters is not None:
            parent[root(conditions[-1])] = root(("cluster", clusters[row]))
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(root(c), len(numbers)) for c in conditions], dtype=np.int64)


def shuffle_across(clusters: Int64[np.ndarray, " b"], *, seed: int = 0) -> tuple[Int64[np.ndarray, " b"], bool]:
    """Return a random partner of another cluster for each row, and whether the partners are a permutation of the rows.

    A random permutation is repaired by swaps. Row i with partner i' of its own cluster c swaps with a row j that is not of c and whose
    partner is not of c; if c has at most half of the rows there always is such a j, and each swap leaves fewer to repair. If a cluster
    has more than half, no such permutation exists, and each row draws a partner from the other clusters.

    Raises:
        ValueError: if there are fewer than two clusters.
    """
    counts = np.bincount(clusters)
    if len(counts) < 2:
        raise ValueError(
            f"conditions: found {len(counts)} different one{'s' if len(counts) != 1 else ''} among {len(clusters)} pairs, "
            "expected at least 2; shuffling needs pairs of several proteins or clusters"
        )
    draws = np.random.Generator(np.random.PCG64(rng.key(seed, "shuffled conditions")))
    if 2 * counts.max() > len(clusters):
        log.info("conditions: one cluster holds %d of %d pairs; partners are drawn, not permuted", counts.max(), len(clusters))
        return np.array([draws.choice(np.flatnonzero(clusters != own)) for own in clusters], dtype=np.int64), False
    partner = draws.permutation(len(clusters)).astype(np.int64)
    for row in np.flatnonzero(clusters[partner] == clusters):
        own = clusters[row]
        if clusters[partner[row]] != own:
            continue  # repaired by an earlier swap
        other = draws.choice(np.flatnonzero((clusters != own) & (clusters[partner] != own)))
        partner[[row, other]] = partner[[other, row]]
    return partner, True
