"""What a run is worth: bounds, condition dependence, sample quality, each beside its null, printed and written for the report.

For the textbook world also the motif-group table. Every number comes with the part of the data it was measured on.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from protlig_dd.config import to_mapping
from protlig_dd.data.demo import RULES, DemoWorld, generate, motif_of
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation import ligands, proteins, structure_tokens
from protlig_dd.evaluation.conditioning import condition_dependence
from protlig_dd.evaluation.folding import find_fold
from protlig_dd.evaluation.intervals import Score, format_scores
from protlig_dd.evaluation.likelihood import Unigrams, bound, summarise, table_batches
from protlig_dd.evaluation.motifs import MatchTable, column_of, matching
from protlig_dd.evaluation.sections import Section, read_evaluation, write_evaluation
from protlig_dd.evaluation.structures import structure_section
from protlig_dd.generation import Generator, Sample, example_requests
from protlig_dd.output import rank, write_rows
from protlig_dd.run import Run
from protlig_dd.sampling import SamplerSettings
from protlig_dd.tokens.tracks import Track

SYNTHETIC = "A SYNTHETIC world: proteins, ligands and rules are made up from textbook motifs; nothing here is a drug."
_TRAINING_TEXTS = 20_000  # training examples that novelty and neighbours are looked up in


def assess(run: Run, *, split: str = "test", num: int = 0, fold: str = "") -> Iterator[str]:
    """Evaluate a run on a part of its data; yield lines as they come, and leave evaluation.json and samples/ in the run folder.

    Args:
        run: an opened run.
        split: "train", "validation" or "test".
        num: examples and samples at most; 0 takes the config's.
        fold: the folding model for generated proteins; "" takes the config's. Where its weights are absent one line says so.

    Raises:
        ConfigError: if the part is empty.
    """
    table = run.data.part(split)
    if not len(table):
        raise ConfigError(
            f"--split {split}: this run has no {split} data; use another split, or give data.split a {split}_fraction"
        )
    caution = SYNTHETIC if isinstance(run.config.data, DemoWorld) else ""
    if caution:
        yield caution
    sections = []
    for section, lines in _sections(run, table, split, num, fold or run.config.evaluation.fold):
        yield from lines
        sections.append(section)
    path = run.folder / "evaluation.json"
    sections.sort(key=lambda section: not section.title.startswith("Motif"))  # what the world was made for comes first
    write_evaluation(path, sections)
    yield f"evaluation: {path}"


def _sections(run: Run, table: TokenTable, split: str, num: int, fold: str) -> Iterator[tuple[Section, list[str]]]:
    settings = run.config.evaluation
    examples = _spread(table, num or settings.num_examples)
    yield _bounds(run, examples, split)
    conditional = [
        name for name, task in run.parts.tasks.tasks.items() if task.clean and run.parts.tasks.weights[name] > 0
    ]
    for task in conditional:
        yield _dependence(run, examples, split, task)
    yield from _samples(run, _spread(table, num or settings.num_samples), split)
    if fold and settings.generate == "protein":
        yield _folded(run, fold)


_HEADLINES = ("validity", "uniqueness", "novelty", "exact copies", "condition gap")


def summarise_evaluation(run: Run) -> list[str]:
    """Return what evaluation.json holds in a few lines: for each sampler the scores that matter, each beside its null."""
    lines = [SYNTHETIC] if isinstance(run.config.data, DemoWorld) else []
    for section in read_evaluation(run.folder / "evaluation.json"):
        shown = [s for s in section.scores if s.name.startswith(_HEADLINES)]
        told = [*format_scores(shown).splitlines(), *(section.lines if section.title.startswith("Motif") else ())]
        if told:
            lines += [f"{section.title}:", *(f"  {line}" for line in told)]
    return lines


def _spread(table: TokenTable, num: int) -> TokenTable:
    """At most `num` examples, evenly spread over the table."""
    return table if len(table) <= num else table.select(np.linspace(0, len(table) - 1, num).astype(np.int64))


def _bounds(run: Run, table: TokenTable, split: str) -> tuple[Section, list[str]]:
    """The bound of each task and track beside the unigram null."""
    parts, settings = run.parts, run.config.evaluation
    unigrams = Unigrams.of(run.data.train, parts.tracks)
    scores: list[Score] = []
    for name, task in parts.tasks.tasks.items():
        complete = table.select(np.all([table.tracks[t].lengths > 0 for t in task.tracks], axis=0))
        if not len(complete) or parts.tasks.weights[name] == 0:
            continue
        used = {t: parts.tracks[t] for t in parts.tracks if t in task.tracks}
        batches = _with_absent(run, table_batches(complete, used, batch_size=64))
        result = bound(
            run.model, parts.diffusion, batches, task, num_times=settings.num_times, device=run.choice.device
        )
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


def _dependence(run: Run, table: TokenTable, split: str, task: str) -> tuple[Section, list[str]]:
    """Does the output depend on the condition?"""
    parts, settings = run.parts, run.config.evaluation
    needed = parts.tasks.tasks[task].tracks
    complete = table.select(np.all([table.tracks[t].lengths > 0 for t in needed], axis=0))
    title = f"Condition dependence, {task}, {split} split"
    try:
        found = condition_dependence(
            run.model,
            parts.diffusion,
            complete,
            parts.tracks,
            task,
            num_times=settings.num_times,
            device=run.choice.device,
        )
    except ValueError as error:
        return Section(title=title, lines=(str(error),)), [f"{title}: {error}"]
    lines = found.lines() + _negatives(run, split, task)
    return Section(title=title, scores=tuple(found.scores()), lines=tuple(lines)), [f"{title}:", *lines]


def _negatives(run: Run, split: str, task: str) -> list[str]:
    """The bound of pairs that are labelled as not binding, where the data has them: beside the true pairs, not in training."""
    negatives = run.data.negatives.get(split)
    if negatives is None or not len(negatives):
        return []
    some = _spread(negatives, run.config.evaluation.num_examples)
    batches = table_batches(some, run.parts.tracks, batch_size=64)
    result = bound(
        run.model,
        run.parts.diffusion,
        batches,
        task,
        num_times=run.config.evaluation.num_times,
        device=run.choice.device,
    )
    (summary,) = summarise(result)
    return [f"pairs labelled as not binding: {summary.nats_per_token} nats per token (n={len(some)})"]


def _samples(run: Run, table: TokenTable, split: str) -> Iterator[tuple[Section, list[str]]]:
    """Samples of one track for the held-out examples, by each sampler, beside their nulls."""
    generate_track = run.config.evaluation.generate
    requests = example_requests(run.parts, table, generate_track, range(len(table)))
    texts = [request.given.get("protein", "") for request in requests]
    for sampler in run.config.evaluation.samplers:
        started = time.perf_counter()
        generator = Generator(
            run, seed=run.config.seed, sampler=sampler, with_likelihood=sampler == run.config.sampling.sampler
        )
        samples = list(generator.generate(requests, 1))
        seconds = time.perf_counter() - started
        drawn = [s.texts.get(generate_track, "") for s in samples]
        scores = _quality(run, table, drawn)
        name = _name(sampler)
        title = f"Samples by {name}, {split} split"
        heading = f"{title}: {len(samples)} in {seconds:.1f} s"
        yield Section(title=title, scores=tuple(scores), lines=(heading,)), [heading, format_scores(scores)]
        world = run.config.data if isinstance(run.config.data, DemoWorld) and len(run.parts.tracks) > 1 else None
        _keep(run, generator, samples, split, is_demo=world is not None)
        if world is not None and generate_track == "ligand":
            match = _match(world, texts, drawn)
            section = match.section(f"Motif and group, {name}, {split} split")
            yield replace(section, lines=tuple(match.lines())), match.lines()


def _quality(run: Run, table: TokenTable, drawn: Sequence[str]) -> list[Score]:
    """The scores of generated texts, by what they are."""
    track, seed = run.parts.tracks[run.config.evaluation.generate], run.config.seed
    if track.aligned_to is not None and track.aligned_to in run.parts.tracks:
        nulls = structure_tokens.Nulls(_chains(run, run.data.train, track))
        tokens = [track.split(text, where="a sample") if text else [] for text in drawn]
        return structure_tokens.summary(tokens, _chains(run, table, track), nulls, known=_emitted(track), seed=seed)
    known = _texts(run, run.data.train, track.name)
    if track.name == "ligand":
        return ligands.summary(drawn, known, seed=seed)
    return proteins.summary(drawn, known, seed=seed)


def _emitted(track: Track) -> frozenset[str]:
    return frozenset(track.vocabulary.decode(track.vocabulary.emittable_ids))


def _chains(run: Run, table: TokenTable, track: Track) -> list[structure_tokens.Folded]:
    """Proteins with their structure tokens."""
    assert track.aligned_to is not None
    rows = _spread(table, _TRAINING_TEXTS)
    texts = zip(_texts(run, rows, track.aligned_to), _texts(run, rows, track.name), strict=True)
    return [structure_tokens.Folded(sequence=a, tokens=track.split(b, where="data")) for a, b in texts if a and b]


def _folded(run: Run, source: str) -> tuple[Section, list[str]]:
    """What folding says about the samples of the run's own sampler."""
    with (run.folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["protein"] for row in csv.DictReader(file)]
    fold, reason = find_fold(source, device=run.choice.device)
    limit = run.config.evaluation.num_folded
    section = structure_section(texts, fold, reason=reason, max_samples=limit, seed=run.config.seed)
    return section, [f"{section.title}:", *section.lines, format_scores(section.scores)]


def _match(world: DemoWorld, given: Sequence[str], drawn: Sequence[str]) -> MatchTable:
    return matching(list(zip(given, drawn, strict=True)), world=world, training=generate(world)["train"])


def _texts(run: Run, table: TokenTable, track: str) -> list[str]:
    rows = _spread(table, _TRAINING_TEXTS)
    return [run.parts.tracks[track].decode(rows.example(i)[track].tolist()) for i in range(len(rows))]


def _keep(run: Run, generator: Generator, samples: Sequence[Sample], split: str, *, is_demo: bool) -> None:
    """Write the samples under samples/, and those of the run's own sampler (or the first) as samples.csv, which the report shows."""
    folder = run.folder / "samples"
    folder.mkdir(exist_ok=True)
    rows = [s.row() for s in samples]
    if is_demo:
        with ligands.silent_rdkit():
            rows = [{**row, "matched": int(_matches(row.get("protein", ""), row.get("ligand", "")))} for row in rows]
    settings = generator.settings() | {"split": split}
    write_rows(folder / f"{split}_{generator.sampler.kind}.csv", rank(rows), settings)
    if generator.sampler in (run.config.sampling.sampler, run.config.evaluation.samplers[0]):
        write_rows(run.folder / "samples.csv", rank(rows), settings)


def _matches(protein: str, smiles: str) -> bool:
    """Whether a ligand of the textbook world carries the group of its protein's rule."""
    groups = {rule.group for rule in RULES if rule.name in motif_of(protein)}
    return groups == {column_of(smiles)}


def _name(sampler: SamplerSettings) -> str:
    values = {k: v for k, v in to_mapping(sampler).items() if k != "kind" and v}
    return sampler.kind + (f" ({', '.join(f'{k} {v}' for k, v in values.items())})" if values else "")
