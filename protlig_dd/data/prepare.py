"""`protlig prepare`: vocabularies and memory-mapped shards from files of any size, which are read as streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from protlig_dd.data.encode import Encoder, EncodeReport, OnUnknown, TooLong, encoded, record_labels
from protlig_dd.data.readers.affinity import AffinityPolicy
from protlig_dd.data.readers.complexes import Columns
from protlig_dd.data.readers.files import MAX_RECORD
from protlig_dd.data.readers.molecules import MoleculePolicy
from protlig_dd.data.recognise import recognise
from protlig_dd.data.settings import TRACKS_OF
from protlig_dd.data.shards import ShardWriter
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.ligand import save_vocabulary, tokenize_smiles
from protlig_dd.tokens.tracks import TrackSet


@dataclass(frozen=True, kw_only=True)
class VocabularyReport:
    """How a vocabulary was built.

    Args:
        path: the file written.
        fingerprint: fingerprint of the vocabulary.
        molecules: SMILES counted.
        kept: tokens of the vocabulary, the most frequent first.
        rare: tokens seen fewer than min_count times, with their counts; molecules with them cannot be encoded.
        refused: number of records without a SMILES, or with one that could not be read.
        first: the first of their messages.
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
        lines = [f"{self.path}: {len(self.kept)} tokens from {self.molecules} molecules, fingerprint {self.fingerprint}"]
        if self.rare:
            rare = ", ".join(f"'{token}' x {count}" for token, count in self.rare[:10])
            lines.append(f"{len(self.rare)} rarer tokens left out: {rare}")
        if self.refused:
            lines.append(f"{self.refused} records left out because they have no SMILES, or one that cannot be read:")
            lines += [f"  {message}" for message in self.first]
        return [*lines, f"use it: tracks.ligand.vocabulary={self.path}"]


def prepare_vocab(
    files: Iterable[Path],
    out: Path,
    *,
    min_count: int = 1,
    columns: Columns | None = None,
    molecules: MoleculePolicy | None = None,
    max_record: int = MAX_RECORD,
    split: Callable[..., list[str]] = tokenize_smiles,
) -> VocabularyReport:
    """Write the vocabulary of the SMILES in the given files.

    Args:
        files: SMILES files or tables with a SMILES column.
        out: the JSON file to write.
        min_count: tokens seen fewer times are left out and reported.
        columns: column names that differ from the usual ones.
        molecules: the policy that training will apply.
        max_record: most characters of a SMILES.
        split: cuts a SMILES into the symbols of the track's notation.

    Raises:
        ConfigError: for a folder in the place of the file.
        FormatError: for files without molecules.
    """
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder, expected the name of a file such as vocab.json; give another one")
    counts: Counter[str] = Counter()
    policy, read, refused, first = molecules or MoleculePolicy(), 0, 0, list[str]()
    for file in files:
        found = recognise(Path(file), columns or Columns(), max_record=max_record)
        if found.kind == "sequences":
            raise FormatError(f"{file}: found proteins, expected SMILES; proteins have a fixed vocabulary")
        for record in found.records:
            smiles = record.texts.get("ligand", "")
            try:
                if record.problem is not None and not smiles:
                    raise FormatError(record.problem[1])
                if not smiles:
                    raise FormatError(f"{record.where}: found no ligand, expected one; fill the cell, or remove the record")
                counts.update(split(policy.apply(smiles, where=record.where), where=record.where))
                read += 1
            except FormatError as error:
                refused += 1
                first += [str(error)] if len(first) < 3 else []
    if refused and not read:
        raise FormatError(f"prepare vocab: none of {refused} records has a SMILES that can be read, the first: {first[0]}")
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
    affinity: AffinityPolicy | None = None,
    max_record: int = MAX_RECORD,
    limit: int = 0,
    tokens_per_shard: int = 8_000_000,
) -> EncodeReport:
    """Write a data file as memory-mapped shards; memory does not grow with the file.

    Args:
        file: any file or folder that the readers accept.
        tracks: the tracks to write; those that the file lacks stay empty.
        out: the folder to write, created if it does not exist.
        too_long, unknown, molecules: as for `Encoder`: "crop" writes whole proteins, for training with `data.too_long: crop`.
        columns: column names that differ from the usual ones.
        structures: a FASTA file of structure tokens, joined to the proteins by name.
        affinity, max_record: as in `PairData`.
        limit: most examples; 0 for all.
        tokens_per_shard: tokens after which a shard is closed; bounds the memory.

    Raises:
        FormatError: for an unreadable file or a refused record, with file and line.
        ConfigError: if there is a structure track but no structure tokens.
    """
    found = recognise(Path(file), columns or Columns(), structures, affinity=affinity, max_record=max_record)
    needed = TRACKS_OF[found.kind]
    if "structure" in tracks and "structure" in needed and structures is None and "structure" not in found.roles:
        raise ConfigError(
            f"{file}: found no structures, the tracks are {sorted(tracks)}; give a FASTA file of them with --structures, or name their column"
        )
    needed = tuple(name for name in needed if name in tracks)
    encoder = Encoder(tracks, too_long=too_long, unknown=unknown, needed=needed, molecules=molecules)
    with ShardWriter(Path(out), tracks, tokens_per_shard=tokens_per_shard) as writer:
        for record, example in encoded(found.records, encoder, limit=limit):
            writer.add(example, labels=record_labels(record), name=record.name)
        writer.about = {"source": str(file), "kind": found.kind, "report": asdict(encoder.report())}
    return encoder.report()
