"""Windows of long proteins: which residues of a protein a model sees.

A window is a function of the whole protein, the rule and the seed, so a protein has one window in all rows, files, epochs and commands.
A cropped column keeps the whole one and cuts when a batch is drawn: splits, clusters and leakage go by `uncropped` tables. Which records
are kept at all is decided in `encode.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int, Int32, Int64, Integer

from protlig_dd.config import settings
from protlig_dd.data.letter_codes import letter_ids
from protlig_dd.data.table import Column, TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.rng import key
from protlig_dd.tokens.tracks import Track, TrackSet

_SPAN = re.compile(r"([1-9]\d*)-([1-9]\d*)")


@settings
class Crop:
    """The window of a protein that `too_long: crop` keeps, and of the tracks aligned to it; end tokens are kept.

    Args:
        window: of a protein longer than its track's max_length: "random" (at a place drawn from the seed and the whole sequence) or "start"
            (the first residues). A protein has the same window in all rows, files, epochs and commands.
        residues: instead, these residues of every protein, such as "10-110", counted from 1 with both ends; a shorter protein is dropped
            and counted.
    """

    window: Literal["random", "start"] = "random"
    residues: str = ""

    def __post_init__(self) -> None:
        if self.residues:
            parse_residues(self.residues, "residues")

    @property
    def span(self) -> tuple[int, int] | None:
        """The first and last of `residues`, counted from 1; None if the window depends on the protein."""
        return parse_residues(self.residues, "residues") if self.residues else None

    @property
    def last(self) -> int:
        """The residues that a protein needs; 0 if any number will do."""
        return self.span[1] if self.span else 0

    @property
    def words(self) -> str:
        """The setting in words."""
        return f"residues {self.residues}" if self.residues else self.window

    def start(self, protein: str, size: int, seed: int) -> int:
        """Return the place, from 0, at which the window of `size` residues of a whole protein that is longer begins."""
        if self.span:
            return self.span[0] - 1
        return 0 if self.window == "start" else key(seed, "crop", protein) % (len(protein) - size + 1)


def parse_residues(text: str, where: str) -> tuple[int, int]:
    """Return the first and last residue of "10-110", counted from 1.

    Raises:
        ValueError: for any other text.
    """
    found = _SPAN.fullmatch(text)
    first, last = (int(number) for number in found.groups()) if found else (1, 0)
    if first > last:
        raise ValueError(f"{where}: found '{text}', expected the first and last residue, counted from 1, such as 10-110")
    return first, last


def can_be_cropped(track: Track) -> bool:
    """Return whether a part of a text of the track still is one: letters of residues can be cut, a SMILES cannot."""
    return track.aligned_to is not None or letter_ids(track) is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class CroppedColumn:
    """The windows of one track, cut out of the whole column when they are gathered.

    Args:
        whole: the whole texts.
        track: their track.
        lengths: tokens of each window, including begin and end; at most those of the whole text.
        root, root_track: the column whose text decides the window, such as the protein of a structure.
        rule, seed: how a window is chosen.
    """

    whole: Column
    track: Track
    lengths: Integer[np.ndarray, " N"]
    root: Column
    root_track: Track
    rule: Crop
    seed: int

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Tokens of all windows."""
        return int(self.lengths.sum(dtype=np.int64))

    def select(self, rows: Int[np.ndarray, " r"]) -> CroppedColumn:
        """Return the column of the given rows, sharing the tokens."""
        whole = self.whole.select(rows)
        root = whole if self.root is self.whole else self.root.select(rows)
        return replace(self, whole=whole, root=root, lengths=self.lengths[rows])

    def gather(self, rows: Int[np.ndarray, " r"]) -> Int32[np.ndarray, " n"]:
        """Return the concatenated windows of the given rows, in their order."""
        tokens = self.whole.gather(rows)
        whole, kept = (np.asarray(lengths[rows], dtype=np.int64) for lengths in (self.whole.lengths, self.lengths))
        cut = np.flatnonzero(whole > kept)
        if not len(cut):
            return tokens
        ends = int(self.track.add_ends)
        starts = np.cumsum(whole) - whole
        starts[cut] += self._starts(rows[cut], kept[cut] - 2 * ends)
        begins = np.cumsum(kept) - kept
        windows = tokens[np.repeat(starts - begins, kept) + np.arange(int(kept.sum()))]
        if ends:  # with its ends a window is two tokens longer: residues before and after it, which the end tokens replace
            windows[begins[cut]] = self.track.vocabulary.begin_id
            windows[begins[cut] + kept[cut] - 1] = self.track.vocabulary.end_id
        return windows

    def _starts(self, rows: Int[np.ndarray, " r"], sizes: Int64[np.ndarray, " r"]) -> Int64[np.ndarray, " r"]:
        """The place of the window of each row in its text, from 0."""
        if self.rule.span or self.rule.window == "start":
            return np.full(len(rows), self.rule.start("", 0, self.seed), np.int64)
        has_root = self.root.lengths[rows] > 0
        starts = np.empty(len(rows), np.int64)
        for column, track, some in (
            (self.root, self.root_track, np.flatnonzero(has_root)),
            (self.whole, self.track, np.flatnonzero(~has_root)),
        ):
            for place, text in zip(some.tolist(), _bodies(column, track, rows[some], self._letters), strict=True):
                starts[place] = self.rule.start(text, int(sizes[place]), self.seed)
        return starts

    @cached_property
    def _letters(self) -> dict[str, Integer[np.ndarray, " k"]]:
        """The code point of each id by track, so that windows do not depend on the order of a vocabulary; its id if it is no letter."""
        tracks = {self.root_track.name: self.root_track, self.track.name: self.track}
        symbols = {name: track.vocabulary.symbols for name, track in tracks.items()}
        return {
            name: np.array([ord(s) if len(s) == 1 else 0xE000 + i for i, s in enumerate(known)], dtype="<u4")
            for name, known in symbols.items()
        }


def _bodies(column: Column, track: Track, rows: Int[np.ndarray, " r"], letters: dict[str, np.ndarray]) -> Iterator[str]:
    """The texts of some rows without their ends, one character a token."""
    ends, codes = int(track.add_ends), letters[track.name][column.gather(rows)]
    stops = np.cumsum(column.lengths[rows], dtype=np.int64)
    for stop, length in zip(stops.tolist(), column.lengths[rows].tolist(), strict=True):
        yield codes[stop - length + ends : stop - ends].tobytes().decode("utf-32-le")


def crop_table(table: TokenTable, tracks: TrackSet, rule: Crop, seed: int) -> tuple[TokenTable, int]:
    """Return the table with windows of long proteins, aligned tracks with the same window, and the number of examples that are cropped.

    Args:
        table: whole records, none of them shorter than the rule's residues.
        tracks: the tracks with their maximum lengths.
        rule: how windows are chosen.
        seed: seed of the random ones.

    Raises:
        ConfigError: for residues that do not fit a track.
    """
    names = [name for name in table.tracks if name in tracks and can_be_cropped(tracks[name])]
    aligned = {name: tracks[name].aligned_to for name in names}
    roots = {name: root if root is not None and root in names else name for name, root in aligned.items()}
    columns, is_cropped = dict(table.tracks), np.zeros(len(table), bool)
    for root in dict.fromkeys(roots.values()):
        group = [name for name in names if roots[name] == root]
        lost = _left_out([table.tracks[name].lengths for name in group], [tracks[name] for name in group], rule)
        if not lost.any():
            continue
        is_cropped |= lost > 0
        for name in group:
            whole = table.tracks[name]
            lengths = whole.lengths - np.where(whole.lengths > 0, lost, 0).astype(whole.lengths.dtype)
            columns[name] = CroppedColumn(
                whole=whole, track=tracks[name], lengths=lengths, root=table.tracks[root], root_track=tracks[root], rule=rule, seed=seed
            )
    return TokenTable(tracks=columns, labels=table.labels, names=table.names), int(is_cropped.sum())


def _left_out(lengths: Sequence[Int[np.ndarray, " N"]], tracks: Sequence[Track], rule: Crop) -> Int[np.ndarray, " N"]:
    """The residues of each example that are outside its window, from the lengths of aligned tracks; 0 for one without these tracks."""
    most = np.full(len(lengths[0]), np.iinfo(np.int32).max, np.int32)
    residues = np.zeros(len(most), np.int32)
    for own, track in zip(lengths, tracks, strict=True):
        there, room = own > 0, track.max_length - 2 * track.add_ends
        if rule.span and there.any() and rule.last - rule.span[0] >= room:
            raise ConfigError(
                f"data.crop.residues: found '{rule.residues}', the {track.name} takes {room} residues; expected no more, or raise "
                f"tracks.{track.name}.max_length"
            )
        most = np.where(there, np.minimum(most, room), most)
        residues = np.where(there, own - 2 * track.add_ends, residues).astype(np.int32)
    if rule.span:
        most = np.full(len(most), rule.last - rule.span[0] + 1, np.int32)
    return np.asarray(np.maximum(residues - most, 0))


def uncropped(table: TokenTable) -> TokenTable:
    """Return the table with whole texts in place of windows."""
    columns = {name: column.whole if isinstance(column, CroppedColumn) else column for name, column in table.tracks.items()}
    return TokenTable(tracks=columns, labels=table.labels, names=table.names)
