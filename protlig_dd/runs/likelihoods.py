"""What a run says about true examples: bounds or likelihoods beside the unigram null, and whether the output depends on the condition."""

from __future__ import annotations

import numpy as np
import torch

from protlig_dd.data.table import TokenTable
from protlig_dd.evaluation.conditioning import condition_dependence
from protlig_dd.evaluation.intervals import Score, format_scores, ratio_bootstrap
from protlig_dd.evaluation.likelihood import Unigrams, bound, summarise, table_batches
from protlig_dd.evaluation.sections import Section
from protlig_dd.runs.held_out import _COUNTED, spread
from protlig_dd.runs.run import Run
from protlig_dd.runs.train import validation_objective

Told = tuple[Section, list[str]]
"""A section of the report, and its lines on the screen."""


def bounds(run: Run, table: TokenTable, split: str) -> Told:
    """The bound of each task and track beside the unigram null."""
    parts, settings = run.parts, run.config.evaluation
    unigrams = Unigrams.of(spread(run.data.train, _COUNTED), parts.tracks)
    scores: list[Score] = []
    for name, task in parts.tasks.tasks.items():
        complete = table.select(np.all([table.tracks[t].lengths > 0 for t in task.tracks], axis=0))
        if not len(complete) or parts.tasks.weights[name] == 0:
            continue
        used = {t: parts.tracks[t] for t in parts.tracks if t in task.tracks}
        batches = _with_absent(run, table_batches(complete, used, batch_size=64))
        result = bound(run.denoising, batches, task, num_times=settings.num_times)
        for summary in summarise(result, unigrams):
            scores += [_renamed(s, summary.task, name) for s in summary.scores()]
    title = f"Likelihood bound, {split} split"
    return Section(title=title, scores=tuple(scores)), [f"{title}:", format_scores(scores)]


def _renamed(score: Score, old: str, new: str) -> Score:
    return Score(
        name=score.name.replace(f"in {old}", f"in {new}"),
        value=score.value,
        null=score.null,
        null_name=score.null_name,
        note=score.note,
    )


def _with_absent(run: Run, batches):  # type: ignore[no-untyped-def]
    """Give every track of the model a place in each batch; those a task does not use are empty."""
    for batch in batches:
        yield run.parts.complete(batch)


def dependence(run: Run, table: TokenTable, split: str, task: str) -> Told:
    """Does the output depend on the condition?"""
    parts, settings = run.parts, run.config.evaluation
    needed = parts.tasks.tasks[task].tracks
    complete = table.select(np.all([table.tracks[t].lengths > 0 for t in needed], axis=0))
    title = f"Condition dependence, {task}, {split} split"
    try:
        found = condition_dependence(run.denoising, complete, task, num_times=settings.num_times)
    except ValueError as error:
        return Section(title=title, lines=(str(error),)), [f"{title}: {error}"]
    lines = found.lines() + _negatives(run, split, task)
    return Section(title=title, scores=tuple(found.scores()), lines=tuple(lines)), [f"{title}:", *lines]


def _negatives(run: Run, split: str, task: str) -> list[str]:
    """The bound of pairs that are labelled as not binding, where the data has them: beside the true pairs, not in training."""
    negatives = run.data.negatives.get(split)
    if negatives is None or not len(negatives):
        return []
    some = spread(negatives, run.config.evaluation.num_examples)
    batches = table_batches(some, run.parts.tracks, batch_size=64)
    result = bound(run.denoising, batches, task, num_times=run.config.evaluation.num_times)
    (summary,) = summarise(result)
    return [f"pairs labelled as not binding: {summary.nats_per_token} nats per token (n={len(some)})"]


def causal_likelihood(run: Run, table: TokenTable, split: str) -> Told:
    """Minus the log-likelihood of true structures given their proteins, their ends included."""
    objective = validation_objective(run.parts, run.choice, "evaluation")
    nats, counts, hits = [], [], []
    with torch.no_grad():
        for batch in table_batches(table, run.parts.tracks, batch_size=1):
            terms = objective.loss(run.model, objective.prepare(batch, 0))
            found = {name.partition("/")[0]: float(value) for name, value in terms.sums.items()}
            nats.append(found["nll"])
            hits.append(found["accuracy"])
            counts.append(next(iter(terms.counts.values())))
    title = f"Likelihood, {split} split"
    scores = (
        Score(name="nats per structure token", value=ratio_bootstrap(np.array(nats), np.array(counts))),
        Score(
            name="next-token accuracy",
            value=ratio_bootstrap(np.array(hits), np.array(counts)),
            note="given the true tokens before it: no prediction of a structure",
        ),
    )
    return Section(title=title, scores=scores), [f"{title}:", format_scores(scores)]
