"""Predicted structures against true ones: structure tokens decoded by their autoencoder, compared with C-alphas of a Foldseek database.

Inputs are checked before anything is predicted. The scores are in `evaluation/coordinates.py`. ProstT5 is the baseline for 3Di letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from protlig_dd.data.foldseek.pairs import FoldseekDB
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import CheckpointError, ConfigError, FormatError
from protlig_dd.evaluation import token_accuracy
from protlig_dd.evaluation.coordinates import coordinate_figures, coordinate_scores
from protlig_dd.evaluation.intervals import Score, format_scores
from protlig_dd.evaluation.prostt5 import find_prostt5
from protlig_dd.evaluation.sections import Section, read_evaluation, write_evaluation
from protlig_dd.evaluation.token_accuracy import Nulls
from protlig_dd.evaluation.trace_pairs import TracePair, write_traces
from protlig_dd.runs.experiment import Parts
from protlig_dd.runs.families.tokenizers import StructureTokenizer, has_tokenizer, open_structure_tokenizer
from protlig_dd.runs.families.tokens import family_of
from protlig_dd.runs.held_out import HeldOut, chains_of, emitted
from protlig_dd.runs.run import Run
from protlig_dd.tokens.structure import alphabet_of
from protlig_dd.tokens.tracks import Track

Coords = Float[np.ndarray, "_ 3"]
TRACK = "structure"


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueChains:
    """Examples with their true C-alphas, and the tokenizer that decodes predicted tokens.

    Args:
        names: name of each chain in the database.
        coords: true C-alphas of each chain, [l, 3] in Angstrom.
        tokens: true tokens of each chain, one per residue.
        tokenizer: the autoencoder that made the tokens.
        track: the structure track, which converts tokens to text and back.
        seed: seed of the decoder's noise and of the intervals.
    """

    names: tuple[str, ...]
    coords: tuple[Coords, ...]
    tokens: tuple[tuple[int, ...], ...]
    tokenizer: StructureTokenizer
    track: Track
    seed: int

    @cached_property
    def floor(self) -> list[Coords]:
        """The decoded true tokens: the error that remains if every token is predicted correctly."""
        return self.tokenizer.decode(self.tokens, seed=self.seed)

    def decode(self, texts: Sequence[str]) -> list[Coords | None]:
        """Return C-alphas in Angstrom for the predicted tokens of each chain; None for an empty prediction."""
        tokens = [_codes(self.track, text, name) if text else [] for text, name in zip(texts, self.names, strict=True)]
        found = iter(self.tokenizer.decode([row for row in tokens if row], seed=self.seed))
        return [next(found) if row else None for row in tokens]

    def scores(self, predicted: Sequence[Coords | None]) -> list[Score]:
        """Return the scores of decoded predictions, with their nulls and the floor."""
        return coordinate_scores(predicted, self.coords, floor=self.floor, seed=self.seed)

    def figures(self, predicted: Sequence[Coords | None]) -> dict[str, float]:
        """Return the same scores as plain numbers, for training curves."""
        return coordinate_figures(predicted, self.coords, floor=self.floor)

    def traces(self, predicted: Sequence[Coords | None]) -> list[TracePair]:
        """Return the predictions that have the true length, with the true chains."""
        chains = zip(self.names, predicted, self.coords, strict=True)
        return [TracePair(name=n, predicted=p, true=t) for n, p, t in chains if p is not None and len(p) == len(t)]


def open_true_chains(
    parts: Parts, table: TokenTable, database: str, tokenizer: str, *, device: str = "auto", where: tuple[str, str]
) -> TrueChains:
    """Return the true chains of a table's examples.

    Args:
        parts: parts of a run whose structure tokens an autoencoder made.
        table: the examples; the database must have all of them under the same names.
        database: path of a Foldseek database with C-alphas.
        tokenizer: the autoencoder that made the tokens: a run folder, or a published file.
        device: device that decodes the tokens.
        where: names of the options or settings that gave the database and the tokenizer, for messages.

    Raises:
        ConfigError: for a run of other tokens, examples without names, or an autoencoder of another alphabet.
        FormatError: for a database without C-alphas, a name that it lacks, or a chain of another length.
    """
    track = parts.tracks.get(TRACK)
    alphabet = alphabet_of(track)
    if track is None or not has_tokenizer(alphabet):
        found = "none" if track is None else track.vocabulary.name
        raise ConfigError(f"{where[0]} '{database}': this run's structure tokens are {found}, expected Kanzi's: only they are decoded here")
    if not len(table) or table.names is None:
        raise ConfigError(
            f"{where[0]} '{database}': found {len(table)} examples{' without names' if table.names is None else ''}, expected some whose "
            f"names stand in the database; train on a Foldseek database or a FASTA file"
        )
    try:
        opened = open_structure_tokenizer(alphabet, tokenizer, device=device)
    except (ConfigError, CheckpointError, FormatError) as error:
        raise ConfigError(f"{where[1]} '{tokenizer}': {error}") from error
    expected = len(track.vocabulary.emittable_ids)
    if opened.num_codes != expected:
        raise ConfigError(
            f"{where[1]} '{tokenizer}': found an autoencoder of {opened.num_codes:,} codes, expected the {expected:,} of this run's "
            f"structure track; name the one that made the tokens"
        )
    names = tuple(map(str, table.names))
    texts = [track.decode(table.example(i)[TRACK].tolist()) for i in range(len(table))]
    tokens = tuple(tuple(_codes(track, text, name)) for text, name in zip(texts, names, strict=True))
    return TrueChains(
        names=names,
        coords=_read_coords(database, names, [len(row) for row in tokens], where[0]),
        tokens=tokens,
        tokenizer=opened,
        track=track,
        seed=parts.config.seed,
    )


def _read_coords(database: str, names: Sequence[str], lengths: Sequence[int], where: str) -> tuple[Coords, ...]:
    """Return the true C-alphas of each name; their number must equal that of the tokens."""
    try:
        with FoldseekDB(Path(database)) as letters:
            if not letters.has_calpha:
                raise FormatError("has no C-alphas; name a database that has them")
            coords = tuple(letters.calpha(letters.row_of_name(name)) for name in names)
    except FormatError as error:
        raise FormatError(f"{where} '{database}': {error}") from error
    for name, points, length in zip(names, coords, lengths, strict=True):
        if len(points) != length:
            raise FormatError(
                f"{where} '{database}': '{name}' has {len(points)} C-alphas and {length} structure tokens, expected as many; name the "
                f"database that the tokens were made of"
            )
    return coords


def _codes(track: Track, text: str, where: str) -> list[int]:
    return [int(code) for code in track.split(text, where=where)]


def open_held_out(held: HeldOut, database: str = "", tokenizer: str = "") -> TrueChains:
    """Return the true chains of the sampled examples, for `assess_folding`.

    Args:
        held: a part of a run whose structure tokens an autoencoder made.
        database: Foldseek database with the true C-alphas under the same names; "" takes the config's.
        tokenizer: the autoencoder that made the tokens: a run folder, or a published file; "" takes the config's.

    Raises:
        ConfigError: for a run of other tokens, another autoencoder, or a part without examples or names.
        FormatError: for a name that the database lacks, or chains of other lengths.
    """
    run, settings = held.run, held.run.config.evaluation
    where = ("--coordinates", "--tokenizer") if database else ("evaluation.coordinates", "evaluation.tokenizer")
    names = (database or settings.coordinates, tokenizer or settings.tokenizer)
    if not len(held.sampled):
        raise ConfigError(f"--split {held.split}: this run has no {held.split} data to compare; use another split")
    return open_true_chains(run.parts, held.sampled, *names, device=run.choice.device.type, where=where)


def assess_folding(held: HeldOut, chains: TrueChains) -> Iterator[str]:
    """Compare the folded held-out proteins with the truth; yield lines, add a section to evaluation.json, and write traces.json.

    The samples are those of the run's own sampler, drawn here if `held` does not have them yet.
    """
    run = held.run
    generator = family_of(run).generator(run, seed=run.config.seed, with_likelihood=False)
    predicted = chains.decode([sample.texts.get(TRACK, "") for sample in held.samples(TRACK, generator)])
    scores = chains.scores(predicted)
    lines = _add_section(run, f"Coordinates, {held.split} split", scores)
    write_traces(run.folder / "traces.json", chains.traces(predicted))
    yield from lines


def assess_prostt5(held: HeldOut, source: str) -> Iterator[str]:
    """Score ProstT5 on the held-out proteins of a run; yield one line where its weights are absent.

    Args:
        held: a part of a run whose structure track is 3Di.
        source: a folder or Hub id of ProstT5.

    Raises:
        ConfigError: for a run of other tokens.
    """
    run = held.run
    track = run.tracks.get(TRACK)
    if track is None or not track.vocabulary.name.startswith("3di"):
        raise ConfigError("--prostt5: ProstT5 writes 3Di letters; expected a run with a structure track of alphabet 3di")
    translate, reason = find_prostt5(source, device=run.choice.device)
    if translate is None:
        yield reason
        return
    chains = chains_of(run, held.sampled, track)
    nulls = Nulls(chains_of(run, run.data.train, track))
    predicted = translate([one.sequence for one in chains])
    scores = token_accuracy.summary(predicted, chains, nulls, known=emitted(track), seed=run.config.seed)
    yield from _add_section(run, f"ProstT5, {held.split} split", scores)


def _add_section(run: Run, title: str, scores: Sequence[Score]) -> list[str]:
    """Add a section to evaluation.json, replacing an earlier one with the same title, and return its lines."""
    path = run.folder / "evaluation.json"
    others = [s for s in read_evaluation(path) if s.title != title] if path.is_file() else []
    write_evaluation(path, [*others, Section(title=title, scores=tuple(scores))])
    return [f"{title}:", *format_scores(scores).splitlines()]
