"""Evaluation of a run: likelihood bounds, condition dependence and sample quality, each with its null, printed and written for the report.

For the textbook world also the motif-group table. Every number names the part of the data it was measured on.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from protlig_dd.data.synthetic.textbook import RULES, DemoWorld, generate, motif_of
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation import ligands, proteins, token_accuracy
from protlig_dd.evaluation.esmfold import find_fold
from protlig_dd.evaluation.intervals import Score, format_scores
from protlig_dd.evaluation.motif_match import column_of, matching
from protlig_dd.evaluation.sections import Section, read_evaluation, write_evaluation
from protlig_dd.evaluation.specificity import specificity
from protlig_dd.evaluation.structures import structure_section
from protlig_dd.evaluation.targets import nearest_actives
from protlig_dd.report.tracked import track_evaluation
from protlig_dd.runs.families.tokens import family_of
from protlig_dd.runs.folding import assess_folding, assess_prostt5, open_held_out
from protlig_dd.runs.generate import Generator
from protlig_dd.runs.held_out import HeldOut, chains_of, emitted, texts_of
from protlig_dd.runs.likelihoods import Told
from protlig_dd.runs.output import rank, write_rows
from protlig_dd.runs.run import Run
from protlig_dd.sampling.requests import Sample

SYNTHETIC = "A SYNTHETIC world: proteins, ligands and rules are made up from textbook motifs; nothing here is a drug."


def evaluate_run(
    run: Run, *, split: str, num: int = 0, fold: str = "", prostt5: str = "", coordinates: str = "", tokenizer: str = ""
) -> Iterator[str]:
    """Evaluate a run, in Angstrom too if the arguments or its config name the true chains, and log the scores to its wandb run.

    Args:
        run: an opened run.
        split: "train", "validation" or "test".
        num: examples and samples at most; 0 takes the config's.
        fold: folding model for generated proteins; "" takes the config's.
        prostt5: folder or Hub id of ProstT5, as a baseline for 3Di letters; "" for no baseline.
        coordinates, tokenizer: as in `folding.open_held_out`.

    Raises:
        ConfigError, FormatError: as in `assess` and `folding.open_held_out`.
    """
    held = HeldOut(run=run, split=split, num=num)
    in_angstrom = bool(coordinates or run.config.evaluation.coordinates)
    # Errors about the true chains come before the rest, which may take an hour.
    chains = open_held_out(held, coordinates, tokenizer) if in_angstrom else None
    yield from assess(held, fold=fold)
    if prostt5:
        yield from assess_prostt5(held, prostt5)
    if chains is not None:
        yield from assess_folding(held, chains)
    track_evaluation(run.folder, run.config.train.tracking, step=run.step, with_traces=in_angstrom)


def assess(held: HeldOut, *, fold: str = "") -> Iterator[str]:
    """Evaluate a part of a run's data; yield lines as they come, and write evaluation.json and samples/ into the run folder.

    Args:
        held: the part.
        fold: folding model for generated proteins; "" takes the config's. If its weights are absent, a line says so.

    Raises:
        ConfigError: if the part is empty, or the config names a track to generate that the run lacks.
    """
    run, split = held.run, held.split
    wanted = run.config.evaluation.generate
    if wanted not in run.tracks:
        raise ConfigError(
            f"{run.folder / 'config.yaml'}: evaluation.generate: found '{wanted}', the run has the tracks {', '.join(run.tracks)}; "
            "name one of them there"
        )
    if not len(held.part):
        raise ConfigError(f"--split {split}: this run has no {split} data; use another split, or give data.split a {split}_fraction")
    caution = SYNTHETIC if isinstance(run.config.data, DemoWorld) else ""
    if caution:
        yield caution
    sections = []
    for section, lines in _sections(held, fold or run.config.evaluation.fold):
        yield from lines
        sections.append(section)
    path = run.folder / "evaluation.json"
    sections.sort(key=lambda section: not section.title.startswith("Motif"))  # the textbook world's main result comes first
    write_evaluation(path, sections)
    yield f"evaluation: {path}"


def _sections(held: HeldOut, fold: str) -> Iterator[Told]:
    yield from family_of(held.run).true_examples(held.run, held.scored, held.split)
    yield from _samples(held)
    if held.has_targets and held.run.config.evaluation.specificity.num_targets:
        yield _specificity(held)
    if fold and held.run.config.evaluation.generate == "protein":
        yield _folded(held.run, fold)


_HEADLINES = ("validity", "uniqueness", "novelty", "exact copies", "condition gap", "specificity")


def summarise_evaluation(run: Run) -> list[str]:
    """Return a summary of evaluation.json in a few lines: the main scores of each sampler, each with its null."""
    lines = [SYNTHETIC] if isinstance(run.config.data, DemoWorld) else []
    for section in read_evaluation(run.folder / "evaluation.json"):
        shown = [s for s in section.scores if s.name.startswith(_HEADLINES)]
        told = [*format_scores(shown).splitlines(), *(section.lines if section.title.startswith("Motif") else ())]
        if told:
            lines += [f"{section.title}:", *(f"  {line}" for line in told)]
    return lines


def _samples(held: HeldOut) -> Iterator[Told]:
    """Yield the scores of samples for the held-out examples, with their nulls, for each way to sample."""
    run, track = held.run, held.run.config.evaluation.generate
    texts = [request.given.get("protein", "") for request in held.requests(track)]
    judge = _judge(run, held.sampled)
    for way in family_of(run).ways(run):
        started = time.perf_counter()
        samples = held.samples(track, way.generator)
        seconds = time.perf_counter() - started
        drawn = [s.texts.get(track, "") for s in samples]
        scores = judge(drawn)
        title = f"Samples by {way.name}, {held.split} split"
        heading = f"{title}: {len(samples)} in {seconds:.1f} s"
        yield Section(title=title, scores=tuple(scores), lines=(heading,)), [heading, format_scores(scores)]
        world = run.config.data if isinstance(run.config.data, DemoWorld) and len(run.tracks) > 1 else None
        rows = with_nearest_actives(_rows(samples, is_demo=world is not None), held.pairs if held.has_targets else {})
        settings = way.generator.settings() | {"split": held.split}
        (run.folder / "samples").mkdir(exist_ok=True)
        # the report shows samples.csv
        for name in (f"samples/{held.split}_{way.short}.csv", *(["samples.csv"] if way.is_shown else ())):
            write_rows(run.folder / name, rank(rows), settings)
        if world is not None and track == "ligand":
            match = matching(list(zip(texts, drawn, strict=True)), world=world, training=generate(world)["train"])
            section = match.section(f"Motif and group, {way.name}, {held.split} split")
            yield replace(section, lines=tuple(match.lines())), match.lines()


def with_nearest_actives(rows: list[dict[str, Any]], pairs: Mapping[str, Sequence[tuple[int, str]]]) -> list[dict[str, Any]]:
    """Return rows of samples with the most similar of the known ligands of their protein, and the Tanimoto similarity to it."""
    for protein, own in pairs.items():
        of_protein = [row for row in rows if row.get("protein") == protein and row.get("ligand")]
        found = nearest_actives([row["ligand"] for row in of_protein], [smiles for _, smiles in own]) if of_protein else []
        for row, (smiles, similarity) in zip(of_protein, found, strict=True):
            row |= {"nearest_active": smiles, "similarity": round(similarity, 3)} if smiles else {}
    return rows


_KINDS = {
    "random over": "warm: targets may be known, their pairs are new",
    "ligand over": "warm: targets may be known, their ligands are new",
    "scaffold over": "new scaffolds: targets may be known, the scaffolds of their ligands are new",
    "protein over": "new proteins; similar ones may be known",
    "cluster over": "cold: new clusters of similar proteins",
}
"""What a split measures, by the beginning of its description."""


def _specificity(held: HeldOut) -> Told:
    """Return the section about ligands generated for several targets, with all that they are compared with; write the ligands."""
    run, title = held.run, f"Specificity, {held.split} split"
    try:
        targets = held.targets
    except ValueError as error:
        return Section(title=title, lines=(str(error),)), [f"{title}: {error}"]
    way = [way for way in family_of(run).ways(run) if way.is_shown][-1]
    samples = held.samples_of_targets(way.generator)
    drawn, beside, generator = _ligands(samples), {}, way.generator
    if isinstance(generator, Generator):
        others = [weight for weight in run.config.evaluation.specificity.guidance if weight != generator.guidance.weight]
        beside = {f"samples with guidance {w:g}": _ligands(held.samples_of_targets(generator.guided(w))) for w in others}
    found = specificity(drawn, targets, held.training, beside=beside, seed=run.config.seed)
    rows = with_nearest_actives([sample.row() for of_target in samples.values() for sample in of_target], held.pairs)
    settings = way.generator.settings() | {"split": held.split}
    write_rows(run.folder / "samples" / f"{held.split}_specificity.csv", rank(rows), settings)
    split = run.data.report.split
    kind = "".join(f" ({words})" for start, words in _KINDS.items() if split.startswith(start))
    about = f"samples by {way.name}; split {split}{kind}"
    section = found.section(title, lines=(about,))
    return section, [f"{title}:", *section.lines, format_scores(section.scores), *found.table().lines()]


def _ligands(samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[str]]:
    return {name: [sample.texts.get("ligand", "") for sample in of_target] for name, of_target in samples.items()}


def _judge(run: Run, table: TokenTable) -> Callable[[Sequence[str]], list[Score]]:
    """Return the function that scores generated texts of the run's track; the training data are read once for all ways to sample."""
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
    """Return the section about folding the samples of the run's own sampler."""
    with (run.folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["protein"] for row in csv.DictReader(file)]
    fold, reason = find_fold(source, device=run.choice.device)
    limit = run.config.evaluation.num_folded
    section = structure_section(texts, fold, reason=reason, max_samples=limit, seed=run.config.seed)
    return section, [f"{section.title}:", *section.lines, format_scores(section.scores)]


def _rows(samples: Sequence[Sample], *, is_demo: bool) -> list[dict[str, Any]]:
    rows = [s.row() for s in samples]
    if is_demo:
        with ligands.silent_rdkit():
            rows = [{**row, "matched": int(_matches(row.get("protein", ""), row.get("ligand", "")))} for row in rows]
    return rows


def _matches(protein: str, smiles: str) -> bool:
    """Whether a ligand of the textbook world has the group of its protein's rule."""
    groups = {rule.group for rule in RULES if rule.name in motif_of(protein)}
    return groups == {column_of(smiles)}
