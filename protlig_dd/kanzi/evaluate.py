"""Evaluation of a structure autoencoder: scores of reconstructed chains with their nulls, and traces for the report."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from protlig_dd.checkpoints.matching import warn_of_changed_data
from protlig_dd.checkpoints.run_folder import require_data_here
from protlig_dd.config import to_mapping
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.coordinates import coordinate_scores
from protlig_dd.evaluation.intervals import Estimate, Score, format_scores
from protlig_dd.evaluation.sections import Section, write_evaluation
from protlig_dd.evaluation.trace_pairs import TracePair, write_traces
from protlig_dd.kanzi.data import load_traces, trace_fingerprint
from protlig_dd.kanzi.experiment import AutoencoderRun
from protlig_dd.kanzi.reconstruction import token_figures, turned_chains

_CAUTION = "The chains that it was trained on: what is learned by heart says nothing about others."


def assess_autoencoder(run: AutoencoderRun, *, num: int = 0) -> Iterator[str]:
    """Evaluate an autoencoder on its validation chains; yield lines, and leave evaluation.json and traces.json in the run folder.

    Each chain is turned at random, encoded and decoded.

    Args:
        run: an opened run.
        num: maximum number of chains; 0 takes the config's `data.num_validation`.

    Raises:
        ConfigError: for a published file, which has no data.
        FormatError: if the data cannot be read.
    """
    if run.config is None:
        raise ConfigError(f"{run.folder}: a published file has no data to evaluate on; give a run folder")
    config = run.config
    require_data_here(to_mapping(config.data), run.folder)
    training, held_out = load_traces(config.data).split(config.data.validation_fraction, config.seed)
    warn_of_changed_data(run.trained_on, trace_fingerprint(training=training, validation=held_out), str(run.folder))
    count = min(len(held_out), num or config.data.num_validation)
    chains = [np.asarray(held_out.read(i)) for i in range(count)]
    tokenizer = run.tokenizer()
    turned = turned_chains(chains, config.seed, 0)
    tokens = tokenizer.encode(turned)
    decoded = tokenizer.decode(tokens, seed=config.seed)
    scores = coordinate_scores(decoded, chains, seed=config.seed)
    found = token_figures(tokenizer, chains, tokens, seed=config.seed)
    for key, name in (
        ("tokens_kept", "tokens kept under a rotation"),
        ("codes_used", "codes used"),
        ("perplexity", "perplexity of the codes"),
    ):
        scores.append(Score(name=name, value=Estimate.plain(found[key], count)))
    part = "validation chains" if config.data.validation_fraction else "training chains"
    lines = () if config.data.validation_fraction else (_CAUTION,)
    title = f"Reconstruction, {count} {part}"
    write_evaluation(run.folder / "evaluation.json", [Section(title=title, scores=tuple(scores), lines=lines)])
    traces = [
        TracePair(name=held_out.name(i), predicted=predicted, true=true)
        for i, (predicted, true) in enumerate(zip(decoded, chains, strict=True))
    ]
    write_traces(run.folder / "traces.json", traces)
    yield from (f"{title}:", *lines, *format_scores(scores).splitlines())
    yield f"evaluation: {run.folder / 'evaluation.json'}; pictures: protlig report {run.folder}"
