"""Autoencoders that turn C-alphas into structure tokens and back, by the alphabet of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from protlig_dd.causal import sequences
from protlig_dd.kanzi.experiment import open_tokenizer
from protlig_dd.kanzi.tokenizer import KanziTokenizer
from protlig_dd.tokens.tracks import Track

StructureTokenizer = KanziTokenizer
"""Encodes chains of C-alphas as tokens, and decodes tokens as C-alphas."""

_OPEN: Mapping[str, Callable[..., StructureTokenizer]] = {"kanzi": open_tokenizer}


def alphabet_of(track: Track | None) -> str:
    """Return the alphabet of a structure track, such as "3di"; "none" without a track."""
    return "none" if track is None else sequences.alphabet_of(track)


def has_tokenizer(alphabet: str) -> bool:
    """Whether tokens of an alphabet are made by an autoencoder, which can also decode them."""
    return alphabet in _OPEN


def open_structure_tokenizer(alphabet: str, source: str, *, device: str = "auto") -> StructureTokenizer:
    """Return the tokenizer of an alphabet from a run folder or a published file.

    Raises:
        ConfigError, CheckpointError, FormatError: if it cannot be opened.
    """
    return _OPEN[alphabet](source, device=device)
