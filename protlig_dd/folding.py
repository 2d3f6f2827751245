"""What predicted structures are worth: decoded tokens beside the true C-alphas of a Foldseek database; and ProstT5 as a baseline."""

from __future__ import annotations

from collections.abc import Iterator

from protlig_dd.causal_generation import generator_for
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation import structure_tokens
from protlig_dd.evaluation.intervals import format_scores
from protlig_dd.evaluation.prostt5 import find_prostt5
from protlig_dd.evaluation.sections import Section, read_evaluation, write_evaluation
from protlig_dd.evaluation.structure_tokens import Nulls
from protlig_dd.evaluation.traces import write_traces
from protlig_dd.generation import example_requests
from protlig_dd.likelihoods import chains_of, emitted, spread
from protlig_dd.run import Run
from protlig_dd.true_chains import TrueChains, open_true_chains


def open_held_out(
    run: Run, database: str = "", tokenizer: str = "", *, split: str = "test", num: int = 0
) -> TrueChains:
    """Return the true chains of a run's part, with what decodes its tokens: what `assess_folding` compares with.

    Args:
        run: an opened run whose structure track is Kanzi's.
        database: where the proteins have their true C-alphas, under the same names; "" takes the config's.
        tokenizer: the autoencoder that the tokens are of: a run folder, or a published file; "" takes the config's.
        split: the part of the run's data.
        num: chains at most; 0 takes the config's.

    Raises:
        ConfigError: for a run of other tokens, an autoencoder of others, or a part without examples or names.
        FormatError: for a name that the database lacks, or chains of other lengths.
    """
    settings = run.config.evaluation
    where = ("--coordinates", "--tokenizer") if database else ("evaluation.coordinates", "evaluation.tokenizer")
    names = (database or settings.coordinates, tokenizer or settings.tokenizer)
    table = spread(run.data.part(split), num or settings.num_samples)
    if not len(table):
        raise ConfigError(f"--split {split}: this run has no {split} data to compare; use another split")
    return open_true_chains(run.parts, table, *names, device=run.choice.device.type, where=where)


def assess_folding(run: Run, chains: TrueChains, *, split: str = "test", num: int = 0) -> Iterator[str]:
    """Fold held-out proteins and compare with the truth; yield lines, add a section to evaluation.json, and leave traces.json.

    Args:
        run: an opened run.
        chains: of `open_held_out`, with the same split and num.
        split: the part of the run's data.
        num: chains at most; 0 takes the config's.
    """
    table = spread(run.data.part(split), num or run.config.evaluation.num_samples)
    requests = example_requests(run.parts, table, "structure", range(len(table)))
    samples = generator_for(run, seed=run.config.seed, with_likelihood=False).generate(requests, 1)
    predicted = chains.decode([sample.texts.get("structure", "") for sample in samples])
    scores = chains.scores(predicted)
    title = f"Coordinates, {split} split"
    _add_section(run, Section(title=title, scores=tuple(scores)))
    write_traces(run.folder / "traces.json", chains.traces(predicted))
    yield from (f"{title}:", *format_scores(scores).splitlines())


def assess_prostt5(run: Run, source: str, *, split: str = "test", num: int = 0) -> Iterator[str]:
    """Say what ProstT5 reaches on the proteins of a run's part; one line where its weights are absent.

    Args:
        run: an opened run whose structure track is 3Di.
        source: a folder or Hub id of ProstT5.
        split: the part of the run's data.
        num: chains at most; 0 takes the config's.

    Raises:
        ConfigError: for a run of other tokens.
    """
    track = run.parts.tracks.get("structure")
    if track is None or not track.vocabulary.name.startswith("3di"):
        raise ConfigError(
            "--prostt5: ProstT5 writes 3Di letters; expected a run with a structure track of alphabet 3di"
        )
    translate, reason = find_prostt5(source, device=run.choice.device)
    if translate is None:
        yield reason
        return
    chains = chains_of(run, spread(run.data.part(split), num or run.config.evaluation.num_samples), track)
    nulls = Nulls(chains_of(run, run.data.train, track))
    predicted = translate([one.sequence for one in chains])
    scores = structure_tokens.summary(predicted, chains, nulls, known=emitted(track), seed=run.config.seed)
    title = f"ProstT5, {split} split"
    _add_section(run, Section(title=title, scores=tuple(scores)))
    yield from (f"{title}:", *format_scores(scores).splitlines())


def _add_section(run: Run, section: Section) -> None:
    """Put a section into evaluation.json, in the place of an earlier one of its title."""
    path = run.folder / "evaluation.json"
    others = [s for s in read_evaluation(path) if s.title != section.title] if path.is_file() else []
    write_evaluation(path, [*others, section])
