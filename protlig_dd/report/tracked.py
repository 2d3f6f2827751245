"""The results of an evaluation in the wandb run of its training, if there is one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from protlig_dd.evaluation.sections import Section, read_evaluation
from protlig_dd.evaluation.trace_pairs import best_median_worst, read_traces, trace_pdb
from protlig_dd.training.tracking import TrackingSettings, rejoin_wandb

_NO_WORD = re.compile(r"[^a-z0-9.]+")


def track_evaluation(folder: Path, settings: TrackingSettings, *, step: int, with_traces: bool = False) -> None:
    """Log evaluation.json, and best, median and worst of traces.json, to the wandb run that training made; do nothing if there is none.

    Args:
        folder: the run folder, just evaluated.
        settings: the tracking settings of the run's training, which decide whether and how wandb is used.
        step: step of the evaluated weights.
        with_traces: whether traces.json belongs to this evaluation.

    Raises:
        ConfigError: if wandb is required ("on") and there is no key.
    """
    tracking = rejoin_wandb(folder, settings)
    if not tracking.trackers:
        return
    tracking.log(step, evaluation_metrics(read_evaluation(folder / "evaluation.json")))
    traces = read_traces(folder / "traces.json") if with_traces else []
    for word, trace in best_median_worst(traces):
        tracking.log_structure(step, f"evaluation/structures/{word}", trace_pdb(trace))
    tracking.close()


def evaluation_metrics(sections: Sequence[Section]) -> dict[str, float]:
    """Return each score as `evaluation/SECTION/NAME`, its interval's ends as `.../low` and `.../high`, and its null as `.../null/ITS_NAME`.

    Words are in lower case, with `_` instead of all characters except letters, digits and full stops. Missing values are left out.
    """
    found: dict[str, float] = {}
    for section in sections:
        for score in section.scores:
            key = f"evaluation/{_word(section.title)}/{_word(score.name)}"
            found |= {key: score.value.value, f"{key}/low": score.value.low, f"{key}/high": score.value.high}
            if score.null is not None:
                found[f"{key}/null/{_word(score.null_name) or 'value'}"] = score.null.value
    return {key: value for key, value in found.items() if value == value}


def _word(text: str) -> str:
    return _NO_WORD.sub("_", text.lower()).strip("_")
