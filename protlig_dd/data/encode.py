"""Records to token tables: records that are too long, incomplete or have unknown symbols are counted with the reason, never dropped silently."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int, Integer

from protlig_dd.data.readers.molecules import MoleculePolicy
from protlig_dd.data.readers.records import Record
from protlig_dd.data.table import Column, TokenColumn, TokenTable
from protlig_dd.errors import FormatError
from protlig_dd.rng import key
from protlig_dd.tokens.tracks import Track, TrackSet

TooLong = Literal["refuse", "drop", "crop"]
OnUnknown = Literal["refuse", "drop"]
SPLIT_CODES: Mapping[str, int] = {"train": 0, "validation": 1, "test": 2}
"""The values of the label column "split"; -1 if the file gives no split, 3 for any other word."""

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class EncodeReport:
    """Counts of kept and dropped records.

    Args:
        seen: records read.
        kept: records that became examples.
        dropped: records left out, by reason.
        first: the first few messages for each reason, with file and line.
        cropped: examples cut to a window.
    """

    seen: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cropped: int = 0

    def lines(self) -> list[str]:
        """Return the report in words: a summary line, and for each reason its count and first cases."""
        cropped = f", {self.cropped} of them cropped" if self.cropped else ""
        lines = [f"{self.seen} records read, {self.kept} kept{cropped}, {self.seen - self.kept} dropped"]
        for reason, count in sorted(self.dropped.items(), key=lambda item: -item[1]):
            lines.append(f"  {count} dropped: {reason}")
            lines += [f"    {message}" for message in self.first[reason]]
        return lines


def letter_ids(track: Track) -> np.ndarray | None:
    """Return the token id of each ASCII character (-1 if `track.encode` has to decide); None if tokens are not single letters."""
    if any(len(track.vocabulary.symbols[i]) != 1 for i in track.vocabulary.emittable_ids):
        return None
    ids = np.full(128, -1, np.int32)
    for code in range(33, 127):
        try:
            found = track.encode(chr(code))
        except FormatError:
            continue
        ids[code] = found[1] if track.add_ends else found[0]
    return ids


def encode_text(track: Track, text: str, *, where: str, letters: np.ndarray | None = None) -> np.ndarray:
    """Return the token ids of a text as int32, equal to those of `track.encode`; faster with the track's `letter_ids`."""
    if letters is not None and text.isascii():
        ids: np.ndarray = letters[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]
        if len(ids) and ids.min() >= 0:
            v = track.vocabulary
            return np.concatenate([[v.begin_id], ids, [v.end_id]]).astype(np.int32) if track.add_ends else ids
    return np.asarray(track.encode(text, where=where), dtype=np.int32)


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
            counts it, "crop" cuts a window of a protein, chosen by (seed, record), and the same window of the tracks aligned to it. Part
            of a SMILES string is not a molecule, so "crop" drops those.
        unknown: what to do with symbols outside the vocabulary, invalid molecules, aligned tracks of different lengths, and records
            with a `problem`. "refuse" raises an error, "drop" leaves the record out and counts it.
        needed: tracks that a record must have; all of them by default.
        molecules: the policy for SMILES.
        seed: seed of the windows of "crop".
    """

    def __init__(
        self,
        tracks: TrackSet,
        *,
        too_long: TooLong = "drop",
        unknown: OnUnknown = "refuse",
        needed: Sequence[str] | None = None,
        molecules: MoleculePolicy | None = None,
        seed: int = 0,
    ) -> None:
        self.tracks, self.too_long, self.unknown, self.seed = tracks, too_long, unknown, seed
        self.needed = list(tracks) if needed is None else list(needed)
        self.molecules = molecules or MoleculePolicy()
        self._letters = {name: letter_ids(track) for name, track in tracks.items()}
        self._seen = self._cropped = 0
        self._dropped: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def encode(self, record: Record) -> dict[str, np.ndarray] | None:
        """Return the token ids of a record by track, or None if it was left out and counted.

        Raises:
            FormatError: for a record that the policies refuse, with file and line.
        """
        self._seen += 1
        try:
            return self._encode(record)
        except _LeftOut as left_out:
            self._dropped[left_out.reason] += 1
            shown = self._first.setdefault(left_out.reason, [])
            if len(shown) < _SHOWN:
                shown.append(left_out.message)
            return None

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
        return self._fitted(ids, record)

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

    def _fitted(self, ids: dict[str, np.ndarray], record: Record) -> dict[str, np.ndarray]:
        """Return the tracks within their maximum lengths: long ones are refused, dropped or cropped, aligned tracks with one window."""
        long = [name for name in ids if len(ids[name]) > self.tracks[name].max_length]
        if not long:
            return ids
        for name in long:
            track = self.tracks[name]
            message = f"{record.where}: the {name} has {len(ids[name])} tokens, the track takes {track.max_length}"
            if self.too_long == "refuse":
                raise FormatError(f"{message}; set data.too_long=drop or crop, or raise tracks.{name}.max_length")
            if self.too_long == "drop" or (self._letters[name] is None and track.aligned_to is None):
                raise _LeftOut(f"{name} longer than {track.max_length} tokens", message)
        aligned = {name: self.tracks[name].aligned_to for name in ids}
        roots = {name: root if root is not None and root in ids else name for name, root in aligned.items()}
        for root in {roots[name] for name in long}:
            self._crop(ids, [name for name in ids if roots[name] == root], record)
        self._cropped += 1
        return ids

    def _num_ends(self, name: str) -> int:
        return 2 * self.tracks[name].add_ends

    def _crop(self, ids: dict[str, np.ndarray], names: Sequence[str], record: Record) -> None:
        """Cut the same window, chosen by (seed, record), out of aligned tracks; the end tokens are kept."""
        body = len(ids[names[0]]) - self._num_ends(names[0])
        size = min(self.tracks[name].max_length - self._num_ends(name) for name in names)
        start = key(self.seed, "crop", self._seen, record.name) % (body - size + 1)
        for name in names:
            ends = int(self.tracks[name].add_ends)
            whole = ids[name]
            inner = whole[ends + start : ends + start + size]
            ids[name] = np.concatenate([whole[:ends], inner, whole[len(whole) - ends :]])

    def report(self) -> EncodeReport:
        """Return the counts of the records so far."""
        return EncodeReport(
            seen=self._seen,
            kept=self._seen - sum(self._dropped.values()),
            dropped=dict(self._dropped),
            first={reason: tuple(messages) for reason, messages in self._first.items()},
            cropped=self._cropped,
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
    lengths: Mapping[str, Int[np.ndarray, " N"]], tracks: TrackSet, *, where: Callable[[int], str], drop_long: bool, needed: str = ""
) -> tuple[Integer[np.ndarray, " _"], EncodeReport]:
    """Return the rows whose tracks are within their maximum lengths, and the counts of the others as `Encoder` counts them.

    Args:
        lengths: tokens of each example by track, including begin and end.
        tracks: the tracks with their maximum lengths.
        where: returns the place of a row for messages.
        drop_long: leave out long examples; otherwise they are an error.
        needed: a track that every example must have; "" for none.

    Raises:
        FormatError: for long examples without `drop_long`.
    """
    unfit = []
    if needed:
        absent = lengths[needed] <= 2 * tracks[needed].add_ends
        unfit.append((f"no {needed}", absent, f"found no {needed}, expected one", lengths[needed]))
    for name, own in lengths.items():
        most = tracks[name].max_length
        message = f"the {name} has {{}} tokens, the track takes {most}"
        unfit.append((f"{name} longer than {most} tokens", own > most, message, own))
    count = len(next(iter(lengths.values())))
    left, dropped, first = np.ones(count, bool), dict[str, int](), dict[str, tuple[str, ...]]()
    for reason, is_out, message, numbers in unfit:
        out = np.flatnonzero(left & is_out)
        if len(out):
            dropped[reason] = len(out)
            first[reason] = tuple(f"{where(i)}: {message.format(numbers[i])}" for i in out[:_SHOWN].tolist())
        left &= ~is_out
    long = [messages[0] for reason, messages in first.items() if reason != f"no {needed}"]
    if long and not drop_long:
        raise FormatError(f"{long[0]}; set data.too_long=drop, or raise the max_length of the tracks")
    rows = np.flatnonzero(left).astype(np.uint32 if count < 2**32 else np.int64)
    return rows, EncodeReport(seen=count, kept=len(rows), dropped=dropped, first=first)
