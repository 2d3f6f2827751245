"""Tracks and batches of them, packed without padding.

A `Track` says how one kind of data becomes tokens. A `TrackBatch` holds, for each track, the concatenated tokens of all examples ([n],
no padding) and a `Layout` with the examples' lengths; a length of 0 says that the example lacks that track.
Shape letters: b examples, n packed tokens of one track.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Track:
    """One kind of data as tokens.

    Args:
        name: its key in configs and batches: "protein", "ligand", ...
        vocabulary: symbols, mask and emittable ids.
        max_length: the largest number of tokens, specials included.
        split: splits text into symbols; called with the text and `where=` for messages.
        aligned_to: the track that this one shares positions with (3Di tokens and residues), or None.
        add_ends: whether begin and end tokens surround the sequence (they are never noised).
        separator: text between two symbols.
        replaced: counts the letters of a text that `split` reads as another one, in words ("J as X"); None if it never does.
        read: returns the text that joined symbols stand for; None if it is the symbols themselves.
    """

    name: str
    vocabulary: Vocabulary
    max_length: int
    split: Callable[..., list[str]]
    aligned_to: str | None = None
    add_ends: bool = False
    separator: str = ""
    replaced: Callable[[str], Counter[str]] | None = None
    read: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        if self.max_length < 1 + 2 * self.add_ends:
            raise ConfigError(
                f"tracks.{self.name}.max_length: found {self.max_length}, expected {1 + 2 * self.add_ends} or more tokens, the ends included"
            )
        if self.add_ends and (self.vocabulary.begin_id is None or self.vocabulary.end_id is None):
            raise ConfigError(
                f"track '{self.name}': add_ends needs begin and end tokens, which the vocabulary '{self.vocabulary.name}' lacks; "
                f"set add_ends: false"
            )

    def encode(self, text: str, *, where: str = "") -> list[int]:
        """Return the token ids of a text.

        Raises:
            FormatError: for unknown symbols, with `where`.
        """
        try:
            ids = self.vocabulary.encode(self.split(text, where=where or self.name))
        except FormatError:
            raise
        except ValueError as error:
            raise FormatError(f"{where or self.name}: {error}; add it with 'protlig prepare vocab', or remove the record") from error
        if self.add_ends:
            assert self.vocabulary.begin_id is not None and self.vocabulary.end_id is not None
            ids = [self.vocabulary.begin_id, *ids, self.vocabulary.end_id]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; begin, end and padding tokens are omitted, a mask is shown as `_`."""
        v = self.vocabulary
        kept = [i for i in ids if i not in (v.begin_id, v.end_id, v.pad_id)]
        text = self.separator.join("_" if i == v.mask_id else s for i, s in zip(kept, v.decode(kept), strict=True))
        return text if self.read is None else self.read(text)

    @cached_property
    def emittable(self) -> Bool[Tensor, " k"]:
        """Which ids of the track's rows a model may emit."""
        allowed = torch.zeros(self.vocabulary.num_rows, dtype=torch.bool)
        allowed[list(self.vocabulary.emittable_ids)] = True
        return allowed


TrackSet = Mapping[str, Track]


@dataclass(frozen=True)
class Layout:
    """The position of each example in a packed tensor. The lengths are on the host, so no code waits for the device.

    Args:
        lengths: tokens of each example [b]; 0 where the example lacks the track.
        device: the device of the tensors below.
    """

    lengths: tuple[int, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def num_examples(self) -> int:
        """Number of examples, including those of length 0 (b)."""
        return len(self.lengths)

    @cached_property
    def num_tokens(self) -> int:
        """Number of packed tokens (n)."""
        return sum(self.lengths)

    @cached_property
    def max_length(self) -> int:
        """Length of the longest example."""
        return max(self.lengths, default=0)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each example, followed by n: b + 1 numbers."""
        return (0, *accumulate(self.lengths))

    @cached_property
    def cu_seqlens(self) -> Int[Tensor, " b1"]:
        """The offsets as an int32 tensor on the device, as varlen kernels expect them."""
        return torch.tensor(self.offsets, dtype=torch.int32, device=self.device)

    @cached_property
    def segment(self) -> Int[Tensor, " n"]:
        """The example each token belongs to."""
        lengths = torch.tensor(self.lengths, dtype=torch.int64)
        return torch.repeat_interleave(lengths).to(self.device)

    @cached_property
    def position(self) -> Int[Tensor, " n"]:
        """The position of each token in its example, from 0."""
        starts = torch.tensor(self.offsets[:-1], dtype=torch.int64, device=self.device)
        return torch.arange(self.num_tokens, device=self.device) - starts[self.segment]

    def to(self, device: torch.device) -> Layout:
        """Return the same layout with its tensors on another device."""
        return self if device == self.device else Layout(self.lengths, device)

    def select(self, examples: Sequence[int]) -> Layout:
        """Return the layout of some examples, in the order given; an example may be given several times."""
        return Layout(tuple(self.lengths[i] for i in examples), self.device)

    def rows_of(self, examples: Sequence[int]) -> Int[Tensor, " m"]:
        """Return the packed positions of the tokens of some examples: what takes packed values to `select`'s layout.

        >>> Layout((2, 0, 3)).rows_of([2, 0]).tolist()
        [2, 3, 4, 0, 1]
        """
        selected = self.select(examples)
        starts = torch.tensor([self.offsets[i] for i in examples], dtype=torch.int64, device=self.device)
        return starts[selected.segment] + selected.position


@dataclass(frozen=True, kw_only=True)
class TrackTokens:
    """One track of a batch: packed tokens, which of them may be noised or generated, and the layout."""

    tokens: Int[Tensor, " n"]
    maskable: Bool[Tensor, " n"]
    layout: Layout

    def to(self, device: torch.device) -> TrackTokens:
        """Return a copy on a device."""
        return TrackTokens(
            tokens=self.tokens.to(device, non_blocking=True),
            maskable=self.maskable.to(device, non_blocking=True),
            layout=self.layout.to(device),
        )

    def keep(self, kept: Sequence[bool]) -> TrackTokens:
        """Return the track with all examples that are not kept set to length 0."""
        if all(kept):
            return self
        lengths = tuple(n if k else 0 for n, k in zip(self.layout.lengths, kept, strict=True))
        rows = torch.repeat_interleave(torch.tensor(kept, dtype=torch.bool), torch.tensor(self.layout.lengths))
        index = rows.nonzero().squeeze(1).to(self.tokens.device)
        return TrackTokens(tokens=self.tokens[index], maskable=self.maskable[index], layout=Layout(lengths, self.layout.device))

    def select(self, examples: Sequence[int]) -> TrackTokens:
        """Return the track of some examples, in the order given; an example may be given several times."""
        rows = self.layout.rows_of(examples)
        return TrackTokens(tokens=self.tokens[rows], maskable=self.maskable[rows], layout=self.layout.select(examples))

    def split(self) -> list[list[int]]:
        """Return the token ids of each example, as lists."""
        flat, at = self.tokens.tolist(), self.layout.offsets
        return [flat[a:b] for a, b in zip(at[:-1], at[1:], strict=True)]


@dataclass(frozen=True, kw_only=True)
class TrackBatch:
    """Examples of several tracks.

    Args:
        tracks: the tokens of each track, all with the same number of examples b.
        example_ids: the global index of each example; with the seed and the step it keys the example's random numbers. On the host.
        slots: the index of each example in the global batch, over which times are stratified. On the host.
        global_size: number of examples in the global batch (all ranks and micro-batches).
        conditions: class labels of each example by name, such as an affinity bin (-1: not given).
        apart: for each example, whether attention between its tracks is blocked; None where it never is.
    """

    tracks: Mapping[str, TrackTokens]
    example_ids: Int[Tensor, " b"]
    slots: Int[Tensor, " b"]
    global_size: int
    conditions: Mapping[str, Int[Tensor, " b"]] = field(default_factory=dict)
    apart: tuple[bool, ...] | None = None

    @property
    def num_examples(self) -> int:
        """Number of examples in the batch (b)."""
        return len(self.example_ids)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all tracks."""
        return sum(t.layout.num_tokens for t in self.tracks.values())

    @property
    def device(self) -> torch.device:
        """The device of the tokens."""
        return next(iter(self.tracks.values())).tokens.device

    def to(self, device: torch.device) -> TrackBatch:
        """Return a copy on a device; `example_ids` and `slots` stay on the host."""
        return replace(
            self,
            tracks={name: track.to(device) for name, track in self.tracks.items()},
            conditions={name: c.to(device) for name, c in self.conditions.items()},
        )

    def select(self, examples: Sequence[int]) -> TrackBatch:
        """Return the batch of some examples, in the order given; an example may be given several times.

        Each brings its id, slot and conditions, and so its random numbers; `global_size` stays.

        Args:
            examples: indices of examples, 0 to b - 1, on the host.
        """
        index = torch.tensor(examples, dtype=torch.int64)
        return replace(
            self,
            tracks={name: track.select(examples) for name, track in self.tracks.items()},
            example_ids=self.example_ids[index],
            slots=self.slots[index],
            conditions={name: c[index.to(c.device)] for name, c in self.conditions.items()},
            apart=None if self.apart is None else tuple(self.apart[i] for i in examples),
        )

    def with_tokens(self, **tokens: Int[Tensor, " _"]) -> TrackBatch:
        """Return the batch with the tokens of some tracks replaced."""
        tracks = {n: replace(t, tokens=tokens[n]) if n in tokens else t for n, t in self.tracks.items()}
        return replace(self, tracks=tracks)


Example = Mapping[str, Sequence[int]]
"""Token ids by track; a track that an example lacks is absent or empty."""


def pack(
    examples: Sequence[Example],
    tracks: TrackSet,
    *,
    example_ids: Iterable[int] | None = None,
    slots: Iterable[int] | None = None,
    global_size: int | None = None,
    conditions: Mapping[str, Sequence[int]] | None = None,
) -> TrackBatch:
    """Return a batch of examples, on the host. Emittable tokens are maskable; special tokens and unknown residues never are.

    Args:
        examples: token ids by track.
        tracks: the tracks of the batch; an example may lack some of them.
        example_ids: see `TrackBatch`; 0, 1, ... by default.
        slots: see `TrackBatch`; 0, 1, ... by default.
        global_size: see `TrackBatch`; the number of examples by default.
        conditions: class labels by name, one for each example.

    Raises:
        ValueError: if an example has a track that is not among `tracks`.

    >>> from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
    >>> tracks = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
    >>> pairs = [("MKT", "CCO"), ("MKTAY", "c1ccccc1")]
    >>> batch = pack([{"protein": tracks["protein"].encode(p), "ligand": tracks["ligand"].encode(s)} for p, s in pairs], tracks)
    >>> batch.num_examples, batch.tracks["protein"].layout.lengths  # begin and end tokens included
    (2, (5, 7))
    >>> [tracks["ligand"].decode(ids) for ids in batch.tracks["ligand"].split()]
    ['CCO', 'c1ccccc1']
    """
    for example in examples:
        if set(example) - set(tracks):
            raise ValueError(f"example with tracks {sorted(example)}: expected only {sorted(tracks)}")
    packed = {}
    for name, track in tracks.items():
        rows = [example.get(name, ()) for example in examples]
        tokens = torch.tensor([i for row in rows for i in row], dtype=torch.int64)
        packed[name] = TrackTokens(tokens=tokens, maskable=track.emittable[tokens], layout=Layout(tuple(len(row) for row in rows)))
    ids = torch.tensor(list(range(len(examples)) if example_ids is None else example_ids), dtype=torch.int64)
    places = torch.tensor(list(range(len(examples)) if slots is None else slots), dtype=torch.int64)
    return TrackBatch(
        tracks=packed,
        example_ids=ids,
        slots=places,
        global_size=len(examples) if global_size is None else global_size,
        conditions={name: torch.tensor(list(c), dtype=torch.int64) for name, c in (conditions or {}).items()},
    )
