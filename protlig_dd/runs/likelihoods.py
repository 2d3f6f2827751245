"""Evaluation on true examples: likelihood bounds with the unigram null, and whether the output depends on the condition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from protlig_dd.data.table import TokenTable, spread
from protlig_dd.evaluation.conditioning import condition_dependence
from protlig_dd.evaluation.intervals import Score, format_scores
from protlig_dd.evaluation.likelihood import Unigrams, bound, summarise, table_batches
from protlig_dd.evaluation.sections import Section
from protlig_dd.evaluation.targets import sequence_clusters
from protlig_dd.runs.run import Run
from protlig_dd.runs.validation import NUM_COUNTED

Told = tuple[Section, list[str]]
"""A section of the report, and the lines printed for it."""


def bounds(run: Run, table: TokenTable, split: str) -> Told:
    """Return the likelihood bound of each task and track, with the unigram null."""
    parts, settings = run.parts, run.config.evaluation
    unigrams = Unigrams.of(spread(run.data.train, NUM_COUNTED), parts.tracks)
    scores: list[Score] = []
    for name, task in parts.tasks.tasks.items():
        complete = table.select(np.all([table.tracks[t].lengths > 0 for t in task.tracks], axis=0))
        if not len(complete) or parts.tasks.weights[name] == 0:
            continue
        used = {t: parts.tracks[t] for t in parts.tracks if t in task.tracks}
        # with all tracks of the model; those that the task does not use are empty
        batches = map(parts.complete, table_batches(complete, used, batch_size=64))
        result = bound(run.denoising, batches, task, num_times=settings.num_times)
        for summary in summarise(result, unigrams):
            scores += [replace(s, name=s.name.replace(f"in {summary.task}", f"in {name}")) for s in summary.scores()]
    title = f"Likelihood bound, {split} split"
    return Section(title=title, scores=tuple(scores)), [f"{title}:", format_scores(scores)]


def dependence(run: Run, table: TokenTable, split: str, task: str) -> Told:
    """Return how much the bound of a task depends on its condition."""
    parts, settings = run.parts, run.config.evaluation
    needed = parts.tasks.tasks[task].tracks
    complete = table.select(np.all([table.tracks[t].lengths > 0 for t in needed], axis=0))
    title = f"Condition dependence, {task}, {split} split"
    try:
        found = condition_dependence(
            run.denoising, complete, task, clusters=_condition_clusters(run, complete, task), num_times=settings.num_times
        )
    except ValueError as error:
        return Section(title=title, lines=(str(error),)), [f"{title}: {error}"]
    lines = found.lines() + _negatives(run, split, task)
    return Section(title=title, scores=tuple(found.scores()), lines=tuple(lines)), [f"{title}:", *lines]


def _condition_clusters(run: Run, table: TokenTable, task: str) -> list[int] | None:
    """The cluster of similar sequences of each row's protein, if the condition is the protein or tokens aligned to it; else None."""
    tracks, column = run.parts.tracks, table.tracks.get("protein")
    is_of_protein = any("protein" in (name, tracks[name].aligned_to) for name in run.parts.tasks.tasks[task].clean)
    if column is None or not is_of_protein or not column.lengths.all():
        return None
    clusters: list[int] = sequence_clusters([column.gather(np.array([row])) for row in range(len(table))]).tolist()
    return clusters


def _negatives(run: Run, split: str, task: str) -> list[str]:
    """Return the bound of pairs labelled as not binding, if the data has them; they are never trained on."""
    negatives = run.data.negatives.get(split)
    if negatives is None or not len(negatives):
        return []
    some = spread(negatives, run.config.evaluation.num_examples)
    batches = table_batches(some, run.parts.tracks, batch_size=64)
    result = bound(run.denoising, batches, task, num_times=run.config.evaluation.num_times)
    (summary,) = summarise(result)
    return [f"pairs labelled as not binding: {summary.nats_per_token} nats per token (n={len(some)})"]
