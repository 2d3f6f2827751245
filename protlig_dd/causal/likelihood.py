"""How likely true structures are under a causal model, for evaluation."""

from __future__ import annotations

import numpy as np
import torch

from protlig_dd.causal.generate import CausalRun
from protlig_dd.causal.objective import CausalObjective
from protlig_dd.data.table import TokenTable
from protlig_dd.evaluation.intervals import Score, format_scores, ratio_bootstrap
from protlig_dd.evaluation.likelihood import table_batches
from protlig_dd.evaluation.sections import Section


def causal_likelihood(run: CausalRun, table: TokenTable, split: str) -> tuple[Section, list[str]]:
    """Return the negative log-likelihood of true structures given their proteins, ends included: a section and its lines."""
    objective = CausalObjective(run.config.model.vocabulary(run.tracks), device=run.choice.device)
    nats, counts, hits = [], [], []
    with torch.no_grad():
        for batch in table_batches(table, run.tracks, batch_size=1):
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
