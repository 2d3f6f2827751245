"""What a run is worth: bounds, condition dependence, sample quality, each beside its null, printed and written for the report.

For the textbook world also the motif-group table. Every number comes with the part of the data it was measured on.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from protlig_dd.config import to_mapping
from protlig_dd.data.synthetic.textbook import RULES, DemoWorld, generate, motif_of
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation import ligands, proteins, token_accuracy
from protlig_dd.evaluation.esmfold import find_fold
from protlig_dd.evaluation.intervals import Score, format_scores
from protlig_dd.evaluation.motif_match import MatchTable, column_of, matching
from protlig_dd.evaluation.sections import Section, read_evaluation, write_evaluation
from protlig_dd.evaluation.structures import structure_section
from protlig_dd.runs.generate import Generator, Sample, example_requests
from protlig_dd.runs.generate_causal import CausalGenerator
from protlig_dd.runs.held_out import chains_of, emitted, spread, texts_of
from protlig_dd.runs.likelihoods import Told, bounds, causal_likelihood, dependence
from protlig_dd.runs.output import rank, write_rows
from protlig_dd.runs.run import Run
from protlig_dd.sampling import SamplerSettings

SYNTHETIC = "A SYNTHETIC world: proteins, ligands and rules are made up from textbook motifs; nothing here is a drug."


def assess(run: Run, *, split: str = "test", num: int = 0, fold: str = "") -> Iterator[str]:
    """Evaluate a run on a part of its data; yield lines as they come, and leave evaluation.json and samples/ in the run folder.

    Args:
        run: an opened run.
        split: "train", "validation" or "test".
        num: examples and samples at most; 0 takes the config's.
        fold: the folding model for generated proteins; "" takes the config's. Where its weights are absent one line says so.

    Raises:
        ConfigError: if the part is empty, or the config names a track to generate that the run lacks.
    """
    wanted = run.config.evaluation.generate
    if wanted not in run.parts.tracks:
        raise ConfigError(
            f"{run.folder / 'config.yaml'}: evaluation.generate: found '{wanted}', the run has the tracks {', '.join(run.parts.tracks)}; "
            "name one of them there"
        )
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


def _sections(run: Run, table: TokenTable, split: str, num: int, fold: str) -> Iterator[Told]:
    settings = run.config.evaluation
    examples = spread(table, num or settings.num_examples)
    if run.parts.is_causal:
        yield causal_likelihood(run, examples, split)
        yield from _samples(run, spread(table, num or settings.num_samples), split)
        return
    yield bounds(run, examples, split)
    conditional = [
        name for name, task in run.parts.tasks.tasks.items() if task.clean and run.parts.tasks.weights[name] > 0
    ]
    for task in conditional:
        yield dependence(run, examples, split, task)
    yield from _samples(run, spread(table, num or settings.num_samples), split)
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


def _samples(run: Run, table: TokenTable, split: str) -> Iterator[Told]:
    """Samples of one track for the held-out examples, in each way, beside their nulls."""
    generate_track = run.config.evaluation.generate
    requests = example_requests(run.parts, table, generate_track, range(len(table)))
    texts = [request.given.get("protein", "") for request in requests]
    judge = _judge(run, table)
    for name, kind, generator, is_shown in _generators(run):
        started = time.perf_counter()
        samples = list(generator.generate(requests, 1))
        seconds = time.perf_counter() - started
        drawn = [s.texts.get(generate_track, "") for s in samples]
        scores = judge(drawn)
        title = f"Samples by {name}, {split} split"
        heading = f"{title}: {len(samples)} in {seconds:.1f} s"
        yield Section(title=title, scores=tuple(scores), lines=(heading,)), [heading, format_scores(scores)]
        world = run.config.data if isinstance(run.config.data, DemoWorld) and len(run.parts.tracks) > 1 else None
        rows = _rows(samples, is_demo=world is not None)
        _keep(run, rows, generator.settings() | {"split": split}, f"{split}_{kind}", is_shown=is_shown)
        if world is not None and generate_track == "ligand":
            match = _match(world, texts, drawn)
            section = match.section(f"Motif and group, {name}, {split} split")
            yield replace(section, lines=tuple(match.lines())), match.lines()


def _generators(run: Run) -> Iterator[tuple[str, str, Generator | CausalGenerator, bool]]:
    """The ways to generate: in words, in short, what does it, and whether its samples are those that the report shows."""
    config = run.config
    if run.parts.is_causal:
        for length in ("given", "learned"):
            decoding = replace(config.sampling.decoding, length=length)
            name = f"causal decoding, length {length}, temperature {decoding.temperature:g}"
            generator = CausalGenerator(run, seed=config.seed, decoding=decoding, with_likelihood=False)
            yield name, f"causal_{length}", generator, length == "given"
        return
    for sampler in config.evaluation.samplers:
        is_own = sampler == config.sampling.sampler
        one = Generator(run, seed=config.seed, sampler=sampler, with_likelihood=is_own)
        yield _name(sampler), sampler.kind, one, is_own or sampler == config.evaluation.samplers[0]


def _judge(run: Run, table: TokenTable) -> Callable[[Sequence[str]], list[Score]]:
    """Return what scores generated texts, by what they are; training data are looked at once for all ways of generating."""
    track, seed = run.parts.tracks[run.config.evaluation.generate], run.config.seed
    if track.aligned_to is not None and track.aligned_to in run.parts.tracks:
        nulls, true = token_accuracy.Nulls(chains_of(run, run.data.train, track)), chains_of(run, table, track)

        def judge(drawn: Sequence[str]) -> list[Score]:
            tokens = [track.split(text, where="a sample") if text else [] for text in drawn]
            return token_accuracy.summary(tokens, true, nulls, known=emitted(track), seed=seed)

        return judge
    known = texts_of(run, run.data.train, track.name)
    summary = ligands.summary if track.name == "ligand" else proteins.summary
    return partial(summary, training=known, seed=seed)


def _folded(run: Run, source: str) -> Told:
    """What folding says about the samples of the run's own sampler."""
    with (run.folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["protein"] for row in csv.DictReader(file)]
    fold, reason = find_fold(source, device=run.choice.device)
    limit = run.config.evaluation.num_folded
    section = structure_section(texts, fold, reason=reason, max_samples=limit, seed=run.config.seed)
    return section, [f"{section.title}:", *section.lines, format_scores(section.scores)]


def _match(world: DemoWorld, given: Sequence[str], drawn: Sequence[str]) -> MatchTable:
    return matching(list(zip(given, drawn, strict=True)), world=world, training=generate(world)["train"])


def _rows(samples: Sequence[Sample], *, is_demo: bool) -> list[dict[str, Any]]:
    rows = [s.row() for s in samples]
    if is_demo:
        with ligands.silent_rdkit():
            rows = [{**row, "matched": int(_matches(row.get("protein", ""), row.get("ligand", "")))} for row in rows]
    return rows


def _keep(run: Run, rows: list[dict[str, Any]], settings: dict[str, Any], name: str, *, is_shown: bool) -> None:
    """Write the samples under samples/, and those that the report shows as samples.csv too."""
    folder = run.folder / "samples"
    folder.mkdir(exist_ok=True)
    write_rows(folder / f"{name}.csv", rank(rows), settings)
    if is_shown:
        write_rows(run.folder / "samples.csv", rank(rows), settings)


def _matches(protein: str, smiles: str) -> bool:
    """Whether a ligand of the textbook world carries the group of its protein's rule."""
    groups = {rule.group for rule in RULES if rule.name in motif_of(protein)}
    return groups == {column_of(smiles)}


def _name(sampler: SamplerSettings) -> str:
    values = {k: v for k, v in to_mapping(sampler).items() if k != "kind" and v}
    return sampler.kind + (f" ({', '.join(f'{k} {v}' for k, v in values.items())})" if values else "")
