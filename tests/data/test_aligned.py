"""Tracks that are aligned have equal lengths, and are cut with one window."""

from __future__ import annotations

import numpy as np
import pytest

from protlig_dd.data.encode import Encoder, encode_records
from protlig_dd.data.readers.records import Record
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
PROTEIN = ProteinTrack(max_length=24).build("protein")
TRACKS = {"protein": PROTEIN, "structure": StructureTrack(alphabet="3di", max_length=20).build("structure")}
CODES = {"protein": PROTEIN, "structure": StructureTrack(max_length=24).build("structure")}


def shifted(protein: str) -> str:
    """A structure from which the protein can be derived: each letter's successor."""
    return "".join(LETTERS[(LETTERS.index(letter) + 1) % 20] for letter in protein)


def protein(i: int, length: int) -> str:
    rng = np.random.default_rng(i)
    return "".join(rng.choice(list(LETTERS), length))


def test_lengths_that_differ_are_refused_or_counted_with_both_lengths():
    short = Record(where="a.fasta:3 and s.fasta:9", texts={"protein": "MKVLA", "structure": "DVDV"}, name="x")
    message = r"a\.fasta:3 and s\.fasta:9: the structure has 4 tokens, the protein 5; expected one for each"
    with pytest.raises(FormatError, match=message):
        encode_records([short], Encoder(TRACKS))
    _, report = encode_records([short], Encoder(TRACKS, unknown="drop"))
    assert report.dropped == {"structure and protein of different lengths": 1}
    assert "4 tokens, the protein 5" in report.first["structure and protein of different lengths"][0]


def test_too_long_structures_are_dropped_or_refused_by_their_own_length():
    long = Record(where="a:1", texts={"protein": protein(1, 20), "structure": shifted(protein(1, 20))})
    _, report = encode_records([long], Encoder(TRACKS))
    assert report.dropped == {"structure longer than 20 tokens": 1}
    with pytest.raises(FormatError, match=r"a:1: the structure has 22 tokens, the track takes 20; set data\.too_long"):
        encode_records([long], Encoder(TRACKS, too_long="refuse"))
