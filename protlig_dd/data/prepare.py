"""`protlig prepare`: vocabularies and memory-mapped shards from files of any size, read as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from protlig_dd.data.encode import Encoder, EncodeReport, OnUnknown, TooLong, record_labels
from protlig_dd.data.inspect import recognise
from protlig_dd.data.readers.complexes import Columns
from protlig_dd.data.readers.molecules import MoleculePolicy
from protlig_dd.data.readers.records import Record
from protlig_dd.data.settings import TRACKS_OF
from protlig_dd.data.shards import ShardWriter
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.ligand import save_vocabulary, tokenize_smiles
from protlig_dd.tokens.tracks import TrackSet


@dataclass(frozen=True, kw_only=True)
class VocabularyReport:
    """What a vocabulary was built from.

    Args:
        path: the file written.
        fingerprint: of the vocabulary.
        molecules: SMILES counted.
        kept: tokens of the vocabulary, the most frequent first.
        rare: tokens seen fewer than min_count times, with their counts; molecules with them will be unknown.
        refused: SMILES that could not be read, and the first messages.
    """

    path: Path
    fingerprint: str
    molecules: int
    kept: tuple[str, ...]
    rare: tuple[tuple[str, int], ...] = ()
    refused: int = 0
    first: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the report in words."""
        told = [f"{self.path}: {len(self.kept)} tokens from {self.molecules} molecules, fingerprint {self.fingerprint}"]
        if self.rare:
            told.append(
                f"{len(self.rare)} rarer tokens left out: " + ", ".join(f"'{t}' x {n}" for t, n in self.rare[:10])
            )
        if self.refused:
            told += [
                f"{self.refused} records left out because their SMILES cannot be read:",
                *(f"  {message}" for message in self.first),
            ]
        return [*told, f"use it: tracks.ligand.vocabulary={self.path}"]


def prepare_vocab(
    files: Iterable[Path],
    out: Path,
    *,
    min_count: int = 1,
    columns: Columns | None = None,
    molecules: MoleculePolicy | None = None,
) -> VocabularyReport:
    """Write the vocabulary of the SMILES in some files.

    Args:
        files: SMILES files or tables with a SMILES column.
        out: the JSON file to write.
        min_count: tokens seen fewer times are left out and reported.
        columns: names that differ from the usual ones.
        molecules: the policy that training will apply.

    Raises:
        FormatError: for files without molecules.
    """
    counts: Counter[str] = Counter()
    policy, read, refused, first = molecules or MoleculePolicy(), 0, 0, list[str]()
    for file in files:
        kind, _, _, records = recognise(Path(file), columns or Columns())
        if kind == "sequences":
            raise FormatError(f"{file}: found proteins, expected SMILES; proteins have a fixed vocabulary")
        for record in records:
            smiles = record.texts.get("ligand")
            if not smiles:
                continue
            try:
                counts.update(tokenize_smiles(policy.apply(smiles, where=record.where), where=record.where))
                read += 1
            except FormatError as error:
                refused += 1
                first += [str(error)] if len(first) < 3 else []
    if not any(n >= min_count for n in counts.values()):
        raise ConfigError(f"prepare vocab: no token is seen {min_count} times in {read} molecules; lower --min-count")
    out.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = save_vocabulary(out, counts, min_count=min_count)
    return VocabularyReport(
        path=out,
        fingerprint=vocabulary.fingerprint,
        molecules=read,
        kept=tuple(t for t, n in counts.most_common() if n >= min_count),
        rare=tuple((t, n) for t, n in counts.most_common() if n < min_count),
        refused=refused,
        first=tuple(first),
    )


def prepare_shards(
    file: Path,
    tracks: TrackSet,
    out: Path,
    *,
    too_long: TooLong = "drop",
    unknown: OnUnknown = "refuse",
    columns: Columns | None = None,
    molecules: MoleculePolicy | None = None,
    structures: Path | None = None,
    seed: int = 0,
    limit: int = 0,
    tokens_per_shard: int = 8_000_000,
) -> EncodeReport:
    """Write a data file as memory-mapped shards; memory does not grow with the file.

    Args:
        file: anything that the readers take.
        tracks: the tracks to write; those that the file does not have stay empty.
        out: the folder, made if absent.
        too_long, unknown, molecules, seed: as for `Encoder`.
        columns: names that differ from the usual ones.
        structures: a FASTA file of structure tokens that belong to the proteins by name.
        limit: at most so many examples; 0 for all.
        tokens_per_shard: what bounds the memory.

    Raises:
        FormatError: for an unreadable file or what is to be refused, with file and line.
        ConfigError: if the tracks want structure tokens and there are none.
    """
    kind, roles, _, records = recognise(Path(file), columns or Columns(), structures)
    needed = TRACKS_OF[kind]
    if "structure" in tracks and "structure" in needed and structures is None and "structure" not in roles:
        raise ConfigError(
            f"{file}: found no structures, the tracks are {sorted(tracks)}; give a FASTA file of them with --structures, or name their column"
        )
    encoder = Encoder(
        tracks,
        too_long=too_long,
        unknown=unknown,
        needed=[n for n in needed if n in tracks],
        molecules=molecules,
        seed=seed,
    )
    with ShardWriter(Path(out), tracks, tokens_per_shard=tokens_per_shard) as writer:
        for example, labels, name in _examples(records, encoder, limit):
            writer.add(example, labels=labels, name=name)
        writer.about = {"source": str(file), "kind": kind, "report": asdict(encoder.report())}
    return encoder.report()


def _examples(
    records: Iterable[Record], encoder: Encoder, limit: int
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, float | int], str]]:
    count = 0
    for record in records:
        example = encoder.encode(record)
        if example is None:
            continue
        yield example, record_labels(record), record.name
        count += 1
        if limit and count >= limit:
            return
