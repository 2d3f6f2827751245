"""Inspection of a data file before training: how it is interpreted, what would be dropped and why, symbols outside the vocabulary."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from protlig_dd.data.encode import SPLIT_CODES, Encoder, EncodeReport, encode_records, letter_ids
from protlig_dd.data.foldseek.table import has_structures, is_database, read_database
from protlig_dd.data.leakage import Leakage, measure_leakage
from protlig_dd.data.readers.complexes import ALIASES, Columns, find_columns, open_pairs
from protlig_dd.data.readers.files import data_suffix, read_lines
from protlig_dd.data.readers.folders import open_folder
from protlig_dd.data.readers.molecules import MoleculePolicy, read_smiles
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sequences import join_structures, read_fasta
from protlig_dd.data.readers.tables import TABLE_SUFFIXES, open_table
from protlig_dd.data.settings import TRACKS_OF
from protlig_dd.data.splits import GivenSplit, RandomSplit, same_sequence_groups, split_rows
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack, StructureTrack
from protlig_dd.tokens.structure import Alphabet
from protlig_dd.tokens.tracks import Track, TrackSet

_QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
_UNBOUNDED = 1 << 30
_ADVICE = {"ligand": "make a vocabulary with: protlig prepare vocab", "structure": "check tracks.structure.alphabet"}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """How a data file is interpreted.

    Args:
        path: the file.
        kind: "pairs", "sequences" or "molecules", the value for `data.kind`.
        roles: the column of each role, for tables.
        unused: unused columns.
        complete: whether all records were read, or only the first ones.
        encoded: counts of records that would be kept and dropped.
        lengths: tokens of each track at the quantiles 0, 0.1, 0.5, 0.9, 0.99 and 1, including too long ones.
        distinct: distinct texts of each track.
        labels: records labelled 1, 0 and unlabelled, including dropped ones.
        splits: examples by the file's own split.
        affinity: smallest, median and largest affinity, and the number of examples with one; or None.
        misses: symbols outside the vocabulary, by track, with their counts.
        leakage: identity between the parts of the file's own split, or of a random split.
    """

    path: Path
    kind: str
    roles: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    complete: bool = True
    encoded: EncodeReport
    lengths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    distinct: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    affinity: tuple[float, float, float, int] | None = None
    misses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    leakage: Leakage | None = None

    def lines(self) -> list[str]:
        """Return what `protlig inspect` prints."""
        lines = [f"{self.path}: {self.kind} (data.kind={self.kind})"]
        if self.roles:
            lines.append("columns: " + ", ".join(f"{role} = '{column}'" for role, column in self.roles.items()))
        if self.unused:
            shown = ", ".join(f"'{c}'" for c in self.unused[:8])
            more = f" and {len(self.unused) - 8} more" if len(self.unused) > 8 else ""
            lines.append(f"unused columns: {shown}{more}")
        first, *rest = self.encoded.lines()
        lines += [first if self.complete else f"{first} (the file goes on)", *rest]
        for track, numbers in self.lengths.items():
            lines.append(
                f"{track} tokens: shortest {numbers[0]}, 10 % up to {numbers[1]}, half up to {numbers[2]}, 90 % up to {numbers[3]}, "
                f"99 % up to {numbers[4]}, longest {numbers[5]}; {self.distinct[track]} distinct"
            )
        if self.labels.get("1") or self.labels.get("0"):
            words = {label: "unlabelled" if label == "none" else f"of {label}" for label in self.labels}
            lines.append("labels: " + ", ".join(f"{count} {words[label]}" for label, count in self.labels.items()))
        if self.affinity:
            low, middle, high, count = self.affinity
            lines.append(f"affinity: {low:.4g} to {high:.4g}, median {middle:.4g}, in {count} rows")
        if self.splits:
            lines.append("own split: " + ", ".join(f"{count} {name}" for name, count in self.splits.items()))
        for track, counts in self.misses.items():
            shown = ", ".join(f"'{symbol}' x {count}" for symbol, count in list(counts.items())[:12])
            advice = _ADVICE.get(track, f"map them with tracks.{track}.unknown=X")
            shown += " ..." if len(counts) > 12 else ""
            lines.append(f"{track} symbols outside the vocabulary: {shown}; {advice}")
        if self.leakage:
            lines.append(f"{'own split' if self.splits else 'a random tenth as validation'}: {self.leakage.line()}")
        return lines


def inspect(
    path: Path,
    tracks: TrackSet | None = None,
    *,
    columns: Columns | None = None,
    molecules: MoleculePolicy | None = None,
    structures: Path | None = None,
    limit: int = 1_000_000,
) -> Inspection:
    """Return how a data file is interpreted; invalid records are reported, not refused.

    Args:
        path: any file or folder that the readers accept.
        tracks: the tracks whose lengths and vocabularies are checked; the default ones if None.
        columns: column names that differ from the usual ones.
        molecules: the policy for SMILES.
        structures: a FASTA file of structure tokens, joined to the proteins by name.
        limit: most records to read.

    Raises:
        FormatError: if the file as a whole cannot be read.
    """
    path = Path(path)
    kind, roles, unused, records = recognise(path, columns or Columns(), structures)
    head = list(itertools.islice(records, 1))
    records = itertools.chain(head, records)
    known = tracks or usual_tracks(next((record.texts.get("structure", "") for record in head), ""))
    absent = () if structures or "structure" in roles else ("structure",)
    used = {name: known[name] for name in TRACKS_OF[kind] if name in known and name not in absent}
    misses: dict[str, Counter[str]] = {}
    seen_labels: Counter[int | None] = Counter()
    endless = {name: dataclasses.replace(track, max_length=_UNBOUNDED) for name, track in used.items()}
    encoder = Encoder(endless, unknown="drop", molecules=molecules)
    read = _counted(itertools.islice(records, limit), used, misses, seen_labels)
    table, report = encode_records(read, encoder)
    complete = next(records, None) is None
    report, kept = _lengths_applied(report, table, used)
    return Inspection(
        path=path,
        kind=kind,
        roles=roles,
        unused=unused,
        complete=complete,
        encoded=report,
        lengths={
            n: tuple(int(q) for q in np.quantile(c.lengths, _QUANTILES, method="lower")) for n, c in table.tracks.items() if len(table)
        },
        distinct={n: len(set(same_sequence_groups(c).tolist())) for n, c in table.tracks.items()},
        labels={name: seen_labels[code] for name, code in (("1", 1), ("0", 0), ("none", None))},
        splits=_split_counts(table),
        affinity=_affinities(table),
        misses={name: dict(counts.most_common()) for name, counts in misses.items()},
        leakage=_leakage(table.select(kept), used),
    )


def usual_tracks(structure: str = "") -> dict[str, Track]:
    """Return the default tracks, with a structure track if an example of structure tokens is given."""
    tracks = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
    if structure:
        tracks["structure"] = StructureTrack(alphabet=_alphabet(structure)).build("structure")
    return tracks


def _alphabet(structure: str) -> Alphabet:
    """The alphabet of a structure, from its first token or its letters."""
    first = structure.split(",")[0].strip()
    if first[:1].isdigit() or first.startswith("<K"):
        return "kanzi" if len(first) % 4 or first.startswith("<K") else "dplm2"
    return "ss3" if set(first.upper()) <= set("CEH") else "3di"


def recognise(
    path: Path, columns: Columns, structures: Path | None = None
) -> tuple[str, Mapping[str, str], tuple[str, ...], Iterator[Record]]:
    """Return a file's or folder's kind ("pairs", "sequences" or "molecules"), columns by role, unused columns, and records.

    Args:
        path: the file or folder; the parts of a folder follow one another, each record with its split.
        columns: column names that differ from the usual ones.
        structures: a FASTA file of structure tokens, joined by name.

    Raises:
        FormatError: if the file cannot be read, or is a table with neither proteins nor ligands.
    """
    if structures is not None:
        return *recognise(path, columns)[:3], join_structures(lambda: recognise(path, columns)[3], structures)
    if path.is_dir():
        folder = open_folder(path)
        parts = [part.records(lambda file: recognise(file, columns)[3]) for part in folder.parts.values()]
        return *recognise(folder.whole.files[0], columns)[:3], itertools.chain.from_iterable(parts)
    if is_database(path):
        return "sequences", {"structure": "3Di letters"} if has_structures(path) else {}, (), read_database(path)
    if data_suffix(path) not in TABLE_SUFFIXES:
        start = next((line for _, line in read_lines(path) if line.strip()), "")
        if start.startswith((">", ";")):
            return "sequences", {}, (), read_fasta(path)
        return "molecules", {}, (), read_smiles(path)
    header = open_table(path).header
    found = find_columns(path, header, columns, needed=())
    kinds = {(True, True): "pairs", (True, False): "sequences", (False, True): "molecules"}
    kind = kinds.get(("protein" in found.roles, "ligand" in found.roles))
    if kind is None:
        usual = f"'{ALIASES['protein'][0]}' and '{ALIASES['ligand'][0]}'"
        raise FormatError(
            f"{path}: found the columns {', '.join(map(repr, header[:12]))}, none of them a protein or a ligand; rename them to {usual}, "
            f"or set data.columns"
        )
    understood, records = open_pairs(path, columns, needed=())
    return kind, understood.roles, understood.unused, records


def _counted(records: Iterator[Record], tracks: TrackSet, misses: dict[str, Counter[str]], labels: Counter[int | None]) -> Iterator[Record]:
    """Pass records on, counting labels and symbols outside the vocabularies."""
    letters = {name: letter_ids(track) for name, track in tracks.items()}
    known = {name: {chr(i) for i in np.flatnonzero(ids >= 0)} for name, ids in letters.items() if ids is not None}
    for record in records:
        labels[record.label] += 1
        for name, track in tracks.items():
            unknown = _unknown(track, record.texts.get(name, ""), known.get(name))
            if unknown:
                misses.setdefault(name, Counter()).update(unknown)
        yield record


def _unknown(track: Track, text: str, known: set[str] | None) -> list[str]:
    if known is not None:
        if set(text) <= known:
            return []
        # A final stop sign and white space are not residues; the track leaves them out.
        return [letter for letter in "".join(text.split()).removesuffix("*") if letter not in known]
    try:
        symbols = track.split(text, where=track.name) if text else []
        return [symbol for symbol in symbols if symbol not in track.vocabulary.ids]
    except FormatError:
        return []


def _lengths_applied(report: EncodeReport, table: TokenTable, tracks: TrackSet) -> tuple[EncodeReport, np.ndarray]:
    """Count the examples that the tracks' maximum lengths would drop; the encoding had no limit."""
    dropped, kept = dict(report.dropped), np.ones(len(table), bool)
    for name, track in tracks.items():
        long = kept & (table.tracks[name].lengths > track.max_length)
        if long.any():
            dropped[f"{name} longer than {track.max_length} tokens"] = int(long.sum())
        kept &= ~long
    first = {reason: report.first.get(reason, ()) for reason in dropped}
    return dataclasses.replace(report, kept=int(kept.sum()), dropped=dropped, first=first), kept


def _split_counts(table: TokenTable) -> dict[str, int]:
    codes = table.labels["split"]
    if (codes == -1).all():
        return {}
    named = {**SPLIT_CODES, "of another split": 3, "of none": -1}
    return {name: int((codes == code).sum()) for name, code in named.items() if (codes == code).any()}


def _affinities(table: TokenTable) -> tuple[float, float, float, int] | None:
    values = table.labels["affinity"]
    values = values[~np.isnan(values)]
    return (float(values.min()), float(np.median(values)), float(values.max()), len(values)) if len(values) else None


def _leakage(table: TokenTable, tracks: TrackSet) -> Leakage | None:
    """Measure the file's own split; without one, a random tenth, which shows how similar the records are to each other."""
    if len(table) < 20:
        return None
    codes = table.labels["split"]
    own = (codes == 0).any() and (codes > 0).any()
    split = split_rows(table, tracks, GivenSplit() if own else RandomSplit(validation_fraction=0.1), seed=0)
    part = split.validation if len(split.validation) else split.test
    ends = int("protein" in tracks and tracks["protein"].add_ends)
    return measure_leakage(table.select(split.train), table.select(part), ends=ends, among=5_000, compared=50)
