"""Proteins and their structure tokens as one sequence for a causal language model: `<AA> M K T ... <SEP> <3Di> d d p ... <EOS>`.

This file has the ids of such sequences, their packing without padding, and the set of learned tokens (the structure tokens and the end).
Training maps ids to ids by a table: no text is tokenized, so none can be split wrongly. The ids of a pretrained model's tokenizer come from
`causal.bases`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from protlig_dd.errors import ConfigError
from protlig_dd.tokens.structure import alphabet_of
from protlig_dd.tokens.tracks import Layout, Track, TrackBatch, TrackTokens

RESIDUES = "ACDEFGHIKLMNPQRSTVWYX"
"""Residues in the order of their ids; X is every residue other than the twenty."""

SPECIALS = ("<PAD>", "<EOS>", "<BOS>", "<UNK>", "<AA>", "<SEP>")
_MARKERS = {"3di": "<3Di>", "kanzi": "<KANZI>"}
_PREFIXES = {"kanzi": "K"}
_LEFT_OUT, _REFUSED = -1, -2


@dataclass(frozen=True, kw_only=True)
class CausalVocabulary:
    """The ids of a causal model's sequences.

    Args:
        num_rows: rows of the embedding.
        num_new: number of new rows, the last ones, that a pretrained base does not have.
        symbols: the text of each id that occurs in sequences.
        begin: ids before `<AA>`, such as a pretrained model's begin token.
        protein_mark: the id of `<AA>`.
        separator: the id of `<SEP>`.
        structure_mark: the id of `<3Di>`, `<KANZI>` or the like.
        end_id: the end of a sequence, which is learned, since it determines the length of a structure.
        pad_id: the padding id of stock software; not used here.
        residues: the id of each id of the protein track; -1 for ids that are omitted (begin, end, padding).
        codes: the id of each id of the structure track; -1 for ids that are omitted, -2 for ids that cannot be learned.
    """

    num_rows: int
    num_new: int = 0
    symbols: Mapping[int, str]
    begin: tuple[int, ...] = ()
    protein_mark: int
    separator: int
    structure_mark: int
    end_id: int
    pad_id: int
    residues: tuple[int, ...]
    codes: tuple[int, ...]

    @cached_property
    def code_ids(self) -> tuple[int, ...]:
        """The ids of structure tokens, in the order of the track's ids."""
        return tuple(i for i in self.codes if i >= 0)

    @cached_property
    def _track_ids(self) -> dict[int, int]:
        return {own: theirs for theirs, own in enumerate(self.codes) if own >= 0}

    @property
    def num_around(self) -> int:
        """Number of tokens of a sequence that are neither residues nor structure tokens."""
        return len(self.begin) + 4

    def prompt(self, protein: Sequence[int]) -> list[int]:
        """Return the prompt for a protein given in the track's ids: everything up to the structure's mark."""
        residues = [i for i in (self.residues[token] for token in protein) if i >= 0]
        return [*self.begin, self.protein_mark, *residues, self.separator, self.structure_mark]

    def structure(self, tokens: Sequence[int]) -> list[int]:
        """Return the structure track's ids of generated tokens, up to the end."""
        inside = tokens[: tokens.index(self.end_id)] if self.end_id in tokens else tokens
        return [self._track_ids[i] for i in inside if i in self._track_ids]

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, separated by spaces."""
        return " ".join(self.symbols.get(i, f"<{i}>") for i in tokens)


def structure_symbols(structure: Track) -> tuple[str, ...]:
    """Return the text of each structure token: letters in lower case (capitals are residues), numbered codes as `<K599>`."""
    vocabulary = structure.vocabulary
    prefix = _PREFIXES.get(alphabet_of(structure), "S")
    plain = [vocabulary.symbols[i] for i in sorted(vocabulary.emittable_ids)]
    return tuple(s.lower() if s.isalpha() else f"<{prefix}{int(re.sub(r'[^0-9]', '', s))}>" for s in plain)


def new_symbols(structure: Track) -> tuple[str, ...]:
    """Return the symbols to add to a pretrained tokenizer: the marks, and numbered codes; it has the letters."""
    codes = tuple(symbol for symbol in structure_symbols(structure) if not symbol.isalpha())
    return ("<AA>", "<SEP>", structure_mark(structure), *codes)


def structure_mark(structure: Track) -> str:
    """Return the mark before the structure: `<3Di>`, `<KANZI>`."""
    alphabet = alphabet_of(structure)
    return _MARKERS.get(alphabet, f"<{alphabet.upper()}>")


def minimal_symbols(structure: Track) -> tuple[str, ...]:
    """Return the symbols of the minimal vocabulary, in the order of their ids: 48 for 3Di, 1,028 for Kanzi."""
    return (*SPECIALS, structure_mark(structure), *RESIDUES, *structure_symbols(structure))


def minimal_vocabulary(protein: Track, structure: Track) -> CausalVocabulary:
    """Return the vocabulary of a model trained from scratch."""
    symbols = minimal_symbols(structure)
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    return vocabulary_of(protein, structure, ids, num_rows=len(symbols), end=ids["<EOS>"], pad=ids["<PAD>"])


def vocabulary_of(
    protein: Track,
    structure: Track,
    ids: Mapping[str, int],
    *,
    num_rows: int,
    end: int,
    pad: int,
    begin: tuple[int, ...] = (),
    num_new: int = 0,
) -> CausalVocabulary:
    """Return the vocabulary with given ids of symbols.

    Args:
        protein, structure: the tracks.
        ids: the id of each mark, of `RESIDUES` and of `structure_symbols`.
        num_rows, end, pad, begin, num_new: see `CausalVocabulary`.

    Raises:
        ConfigError: if two symbols have one id.
    """
    mark = structure_mark(structure)
    used = {s: ids[s] for s in ("<AA>", "<SEP>", mark, *RESIDUES, *structure_symbols(structure))}
    if len(set(used.values()) | {end}) < len(used) + 1:
        raise ConfigError("model: the vocabulary gives two of its symbols one id; expected an id for each")
    ends = {protein.vocabulary.begin_id, protein.vocabulary.end_id, protein.vocabulary.pad_id}
    rows = range(protein.vocabulary.num_rows)
    names = dict(enumerate(protein.vocabulary.symbols))
    residues = (_LEFT_OUT if i in ends else ids[names.get(i, "X") if names.get(i) in set(RESIDUES) else "X"] for i in rows)
    codes = [_REFUSED] * structure.vocabulary.num_rows
    for i in {structure.vocabulary.begin_id, structure.vocabulary.end_id, structure.vocabulary.pad_id} - {None}:
        codes[i] = _LEFT_OUT  # type: ignore[index]
    for i, symbol in zip(sorted(structure.vocabulary.emittable_ids), structure_symbols(structure), strict=True):
        codes[i] = ids[symbol]
    return CausalVocabulary(
        num_rows=num_rows,
        num_new=num_new,
        symbols={**{i: s for s, i in used.items()}, end: "<EOS>"},
        begin=begin,
        protein_mark=ids["<AA>"],
        separator=ids["<SEP>"],
        structure_mark=ids[mark],
        end_id=end,
        pad_id=pad,
        residues=tuple(residues),
        codes=tuple(codes),
    )


@dataclass(frozen=True, kw_only=True)
class CausalBatch:
    """Packed sequences, and the tokens that are learned.

    Args:
        tokens: token ids of all sequences [n].
        layout: their layout.
        rows: packed positions before the learned tokens [a], whose logits predict them.
        targets: the learned tokens [a].
    """

    tokens: Int[Tensor, " n"]
    layout: Layout
    rows: Int[Tensor, " a"]
    targets: Int[Tensor, " a"]

    @property
    def num_tokens(self) -> int:
        """Number of learned tokens, ends included."""
        return len(self.targets)

    def describe(self) -> str:
        """Return a text with the sizes, for messages about a failed step."""
        return f"{self.layout.num_examples} sequences of up to {self.layout.max_length} tokens, {self.num_tokens} learned"

    def to(self, device: torch.device) -> CausalBatch:
        """Return a copy on a device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("tokens", "rows", "targets")}
        return replace(self, layout=self.layout.to(device), **moved)


def pack_sequences(batch: TrackBatch, vocabulary: CausalVocabulary) -> CausalBatch:
    """Return the sequences of a batch with a protein and a structure track, on the host.

    Raises:
        ValueError: for an example that lacks one of the two, or a structure token that cannot be learned.
    """
    protein, structure = (batch.tracks[name] for name in ("protein", "structure"))
    residues, num_residues, inside = _mapped(protein, vocabulary.residues, "protein")
    codes, num_codes, code_inside = _mapped(structure, vocabulary.codes, "structure")
    before, around = len(vocabulary.begin) + 1, vocabulary.num_around
    layout = Layout(tuple((num_residues + num_codes + around).tolist()))
    starts = torch.tensor(layout.offsets[:-1], dtype=torch.int64)
    marks = starts + before + num_residues + 1
    tokens = torch.full((layout.num_tokens,), vocabulary.end_id)
    for place, token in enumerate((*vocabulary.begin, vocabulary.protein_mark)):
        tokens[starts + place] = token
    tokens[starts.repeat_interleave(num_residues) + before + inside] = residues
    tokens[marks - 1], tokens[marks] = vocabulary.separator, vocabulary.structure_mark
    tokens[marks.repeat_interleave(num_codes) + 1 + code_inside] = codes
    learned = num_codes + 1  # the end as well
    rows = marks.repeat_interleave(learned) + _places(learned)
    return CausalBatch(tokens=tokens, layout=layout, rows=rows, targets=tokens[rows + 1])


def _mapped(track: TrackTokens, table: tuple[int, ...], name: str) -> tuple[Tensor, Tensor, Tensor]:
    """A track's tokens in the model's ids, their number in each example, and the position of each in its example."""
    ids = torch.tensor(table)[track.tokens]
    if bool((ids == _REFUSED).any()):
        raise ValueError(f"an example has the token {int(track.tokens[ids == _REFUSED][0])} in track '{name}', which is no code")
    kept = ids >= 0
    counts = torch.zeros(track.layout.num_examples, dtype=torch.int64).index_add(0, track.layout.segment, kept.long())
    if bool((counts == 0).any()):
        raise ValueError(
            f"example {int((counts == 0).nonzero()[0])} of a batch has no {name}; a causal model needs both tracks of every "
            f"example: remove the records that lack one"
        )
    return ids[kept], counts, _places(counts)


def _places(counts: Int[Tensor, " b"]) -> Int[Tensor, " n"]:
    """Concatenated ranges 0 .. count - 1."""
    return torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
