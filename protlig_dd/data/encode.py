"""Records to token tables: records that are too long, incomplete or have unknown symbols are counted with the reason, never dropped silently."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int, Integer

from protlig_dd.data.crop import can_be_cropped
from protlig_dd.data.letter_codes import encode_text, letter_ids
from protlig_dd.data.readers.molecules import MoleculePolicy
from protlig_dd.data.readers.records import Record
from protlig_dd.data.table import Column, TokenColumn, TokenTable
from protlig_dd.errors import FormatError
from protlig_dd.tokens.protein import REPLACED, looks_like_nucleotides
from protlig_dd.tokens.tracks import TrackSet

TooLong = Literal["refuse", "drop", "crop"]
OnUnknown = Literal["refuse", "drop"]
SPLIT_CODES: Mapping[str, int] = {"train": 0, "validation": 1, "test": 2}
"""The values of the label column "split"; -1 if the file gives no split, 3 for any other word."""

NUCLEOTIDES = "only letters of nucleotides in the protein"

_SHOWN = 3
_TOO_SHORT = "the {} has {} residues, data.crop.residues takes them up to {}"


def _shorter(name: str, last_residue: int) -> str:
    """The reason for which a record is left out that lacks the residues to keep."""
    return f"{name} shorter than {last_residue} residues"


@dataclass(frozen=True, kw_only=True)
class EncodeReport:
    """Counts of kept and dropped records.

    Args:
        seen: records read.
        kept: records that became examples.
        dropped: records left out, by reason.
        first: the first few messages for each reason, with file and line.
        cropped: examples cut to a window.
        remarks: examples of which the reader changed or left out something, or that look wrong, by what it is.
        replaced: letters of examples that were read as another one, in words ("J as X").
    """

    seen: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cropped: int = 0
    remarks: Mapping[str, int] = field(default_factory=dict)
    replaced: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the report in words: a summary line, and for each reason its count and first cases."""
        cropped = f", {self.cropped} of them cropped" if self.cropped else ""
        lines = [f"{self.seen} records read, {self.kept} kept{cropped}, {self.seen - self.kept} dropped"]
        for reason, count in sorted(self.dropped.items(), key=lambda item: -item[1]):
            lines.append(f"  {count} dropped: {reason}")
            lines += [f"    {message}" for message in self.first[reason]]
        for remark, count in self.remarks.items():
            which = ", ".join(f"{letters} ({number})" for letters, number in self.replaced.items()) if remark == REPLACED else ""
            more = ", ..." if count > _SHOWN else ""
            lines.append(f"  {count} kept with {remark}{which}; in {', '.join(self.first[remark])}{more}")
        return lines


class _LeftOut(Exception):
    """A record is left out, with a reason to count and a message to show."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class Encoder:
    """Encodes records one by one and counts those left out.

    Args:
        tracks: the tracks to fill.
        too_long: what to do with a text of more than `max_length` tokens. "refuse" raises an error, "drop" leaves the record out and
            counts it, "crop" keeps a whole protein and the tracks aligned to it, for `crop.crop_table` to cut. Part of a SMILES string is
            not a molecule, so "crop" drops those.
        unknown: what to do with symbols outside the vocabulary, invalid molecules, aligned tracks of different lengths, and records
            with a `problem`. "refuse" raises an error, "drop" leaves the record out and counts it.
        needed: tracks that a record must have; all of them by default.
        molecules: the policy for SMILES.
        last_residue: the residues that a protein needs under "crop"; a shorter one is left out and counted.
    """

    def __init__(
        self,
        tracks: TrackSet,
        *,
        too_long: TooLong = "drop",
        unknown: OnUnknown = "refuse",
        needed: Sequence[str] | None = None,
        molecules: MoleculePolicy | None = None,
        last_residue: int = 0,
    ) -> None:
        self.tracks, self.too_long, self.unknown, self.last_residue = tracks, too_long, unknown, last_residue
        self.needed = list(tracks) if needed is None else list(needed)
        self.molecules = molecules or MoleculePolicy()
        self._letters = {name: letter_ids(track) for name, track in tracks.items()}
        self._can_be_cropped = {name: can_be_cropped(track) for name, track in tracks.items()}
        self._seen = 0
        self._dropped: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}
        self._remarks, self._replaced = Counter[str](), Counter[str]()

    def encode(self, record: Record) -> dict[str, np.ndarray] | None:
        """Return the token ids of a record by track, or None if it was left out and counted.

        Raises:
            FormatError: for a record that the policies refuse, with file and line.
        """
        self._seen += 1
        try:
            ids = self._encode(record)
        except _LeftOut as left_out:
            self._count(self._dropped, left_out.reason, left_out.message)
            return None
        for remark in (*record.remarks, *self._remarks_of(record.texts.get("protein", ""))):
            self._count(self._remarks, remark, record.where)
        return ids

    def _count(self, counts: Counter[str], what: str, message: str) -> None:
        counts[what] += 1
        shown = self._first.setdefault(what, [])
        if len(shown) < _SHOWN:
            shown.append(message)

    def _remarks_of(self, protein: str) -> Iterator[str]:
        """What is remarkable in a protein that is kept: letters read as another one, or those of a nucleic acid."""
        track = self.tracks.get("protein")
        if track is None or not protein:
            return
        if looks_like_nucleotides(protein):
            yield NUCLEOTIDES
        if track.replaced is not None and (replaced := track.replaced(protein)):
            self._replaced += replaced
            yield REPLACED

    def _encode(self, record: Record) -> dict[str, np.ndarray]:
        where = record.where
        if record.problem is not None:
            if self.unknown == "refuse":
                raise FormatError(record.problem[1])
            raise _LeftOut(*record.problem)
        absent = [name for name in self.needed if not record.texts.get(name)]
        if absent:
            raise _LeftOut(f"no {absent[0]}", f"{where}: found no {absent[0]}, expected one; fill the cell, or remove the record")
        present = [name for name in self.tracks if record.texts.get(name)]
        if not present:
            raise _LeftOut("none of the tracks", f"{where}: found none of {', '.join(self.tracks)}, expected at least one")
        ids = {name: self._ids(name, record) for name in present}
        self._check_aligned(ids, where)
        self._check_lengths(ids, where)
        return ids

    def _ids(self, name: str, record: Record) -> np.ndarray:
        track, text, where = self.tracks[name], record.texts[name], record.where
        try:
            if name == "ligand":
                text = self.molecules.apply(text, where=where)
            return encode_text(track, text, where=where, letters=self._letters[name])
        except FormatError as error:
            if self.unknown == "refuse":
                raise
            raise _LeftOut(f"{name} with unknown symbols", str(error)) from error

    def _check_aligned(self, ids: Mapping[str, np.ndarray], where: str) -> None:
        """Leave out a record whose aligned tracks differ in length, since tokens cannot be assigned to residues."""
        for name in ids:
            root = self.tracks[name].aligned_to
            if root is None or root not in ids:
                continue
            own, other = (len(ids[n]) - self._num_ends(n) for n in (name, root))
            if own != other:
                message = f"{where}: the {name} has {own} tokens, the {root} {other}; expected one for each, correct or remove the record"
                if self.unknown == "refuse":
                    raise FormatError(message)
                raise _LeftOut(f"{name} and {root} of different lengths", message)

    def _check_lengths(self, ids: Mapping[str, np.ndarray], where: str) -> None:
        """Refuse or leave out a record that does not fit; one that can be cropped does, but for residues that it lacks."""
        for name, own in ids.items():
            track, residues = self.tracks[name], len(own) - self._num_ends(name)
            if self.too_long == "crop" and self._can_be_cropped[name]:
                if residues < self.last_residue:
                    raise _LeftOut(_shorter(name, self.last_residue), f"{where}: {_TOO_SHORT.format(name, residues, self.last_residue)}")
            elif len(own) > track.max_length:
                message = f"{where}: the {name} has {len(own)} tokens, the track takes {track.max_length}"
                if self.too_long == "refuse":
                    raise FormatError(f"{message}; set data.too_long=drop or crop, or raise tracks.{name}.max_length")
                raise _LeftOut(f"{name} longer than {track.max_length} tokens", message)

    def _num_ends(self, name: str) -> int:
        return 2 * self.tracks[name].add_ends

    def report(self) -> EncodeReport:
        """Return the counts of the records so far."""
        return EncodeReport(
            seen=self._seen,
            kept=self._seen - sum(self._dropped.values()),
            dropped=dict(self._dropped),
            first={reason: tuple(messages) for reason, messages in self._first.items()},
            remarks=dict(self._remarks),
            replaced=dict(self._replaced.most_common()),
        )


def record_labels(record: Record) -> dict[str, float | int]:
    """Return the numeric labels of a record: label, affinity and split."""
    return {
        "label": -1 if record.label is None else record.label,
        "affinity": float("nan") if record.affinity is None else record.affinity,
        "split": -1 if record.split is None else SPLIT_CODES.get(record.split, 3),
    }


def encode_records(records: Iterable[Record], encoder: Encoder, *, limit: int = 0) -> tuple[TokenTable, EncodeReport]:
    """Return the table of all kept records, and the counts of the rest.

    Args:
        records: as a reader yields them.
        encoder: the tracks and the policies.
        limit: stop after this many kept records; 0 for all.

    Raises:
        FormatError: for records that the encoder refuses.
    """
    values = {name: array("i") for name in encoder.tracks}
    offsets = {name: array("q", [0]) for name in encoder.tracks}
    labels: dict[str, list[float | int]] = {"label": [], "affinity": [], "split": []}
    names: list[str] = []
    for record, example in encoded(records, encoder, limit=limit):
        for name in encoder.tracks:
            if name in example:
                values[name].frombytes(example[name].tobytes())
            offsets[name].append(len(values[name]))
        for name, value in record_labels(record).items():
            labels[name].append(value)
        names.append(record.name)
    tracks: dict[str, Column] = {}
    for name, ids in values.items():
        pool = np.frombuffer(ids, np.int32) if ids else np.zeros(0, np.int32)
        tracks[name] = TokenColumn.of(pool, np.frombuffer(offsets[name], np.int64))
    kinds = {"label": np.int64, "affinity": np.float64, "split": np.int64}
    columns = {name: np.array(labels[name], kind) for name, kind in kinds.items()}
    return TokenTable(tracks=tracks, labels=columns, names=np.array(names, dtype=object)), encoder.report()


def encoded(records: Iterable[Record], encoder: Encoder, *, limit: int = 0) -> Iterator[tuple[Record, dict[str, np.ndarray]]]:
    """Yield the records that are kept with their token ids by track, at most `limit` of them unless it is 0."""
    kept = 0
    for record in records:
        example = encoder.encode(record)
        if example is not None:
            yield record, example
            kept += 1
            if kept == limit:
                return


def fitting_rows(
    lengths: Mapping[str, Int[np.ndarray, " N"]],
    tracks: TrackSet,
    *,
    where: Callable[[int], str],
    too_long: TooLong,
    last_residue: int = 0,
    needed: str = "",
) -> tuple[Integer[np.ndarray, " _"], EncodeReport]:
    """Return the rows whose tracks are within their maximum lengths or can be cropped, and the counts of the others as `Encoder` counts them.

    Args:
        lengths: tokens of each example by track, including begin and end.
        tracks: the tracks with their maximum lengths.
        where: returns the place of a row for messages.
        too_long, last_residue: as for `Encoder`.
        needed: a track that every example must have; "" for none.

    Raises:
        FormatError: for long examples under "refuse".
    """
    unfit = []
    if needed:
        absent = lengths[needed] <= 2 * tracks[needed].add_ends
        unfit.append((f"no {needed}", absent, f"found no {needed}, expected one", lengths[needed]))
    for name, own in lengths.items():
        most, residues = tracks[name].max_length, own - 2 * tracks[name].add_ends
        if too_long == "crop" and can_be_cropped(tracks[name]):
            message = _TOO_SHORT.format(name, "{}", last_residue)
            unfit.append((_shorter(name, last_residue), (own > 0) & (residues < last_residue), message, residues))
        else:
            unfit.append((f"{name} longer than {most} tokens", own > most, f"the {name} has {{}} tokens, the track takes {most}", own))
    count = len(next(iter(lengths.values())))
    left, dropped, first = np.ones(count, bool), dict[str, int](), dict[str, tuple[str, ...]]()
    for reason, is_out, message, numbers in unfit:
        out = np.flatnonzero(left & is_out)
        if len(out):
            dropped[reason] = len(out)
            first[reason] = tuple(f"{where(i)}: {message.format(numbers[i])}" for i in out[:_SHOWN].tolist())
        left &= ~is_out
    long = [messages[0] for reason, messages in first.items() if reason != f"no {needed}"]
    if long and too_long == "refuse":
        raise FormatError(f"{long[0]}; set data.too_long=drop, or raise the max_length of the tracks")
    rows = np.flatnonzero(left).astype(np.uint32 if count < 2**32 else np.int64)
    return rows, EncodeReport(seen=count, kept=len(rows), dropped=dropped, first=first)
