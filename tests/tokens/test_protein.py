"""Proteins: the ESM alphabet, and what happens to letters outside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.config import build
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.protein import AMINO_ACIDS, looks_like_nucleotides, protein_vocabulary, split_protein
from protlig_dd.tokens.settings import ProteinTrack


def test_ids_are_those_of_esm2() -> None:
    v = protein_vocabulary()
    assert [v.symbols[i] for i in (0, 1, 2, 3, 4, 23, 24, 28, 31, 32)] == [
        "<cls>",
        "<pad>",
        "<eos>",
        "<unk>",
        "L",
        "C",
        "X",
        "O",
        "<null_1>",
        "<mask>",
    ]
    assert (v.num_rows, v.mask_id, v.begin_id, v.pad_id, v.end_id, v.unknown_id) == (33, 32, 0, 1, 2, 3)
    assert v.decode(v.emittable_ids) == list(AMINO_ACIDS) and len(set(AMINO_ACIDS)) == 20


def test_the_published_shape_has_37_rows_and_its_mask_last() -> None:
    v = protein_vocabulary(num_rows=37, mask_id=36)
    assert (v.num_rows, v.mask_id) == (37, 36)
    assert v.emittable_ids == tuple(range(4, 24))


@given(st.text(alphabet=AMINO_ACIDS + "XBUZO", min_size=1, max_size=60))
def test_sequences_come_back(sequence: str) -> None:
    for ends in (False, True):
        track = ProteinTrack(add_ends=ends).build("protein")
        ids = track.encode(sequence)
        assert len(ids) == len(sequence) + 2 * ends
        assert track.decode(ids) == sequence


@pytest.mark.parametrize("text", ["mktAY", "MKTAY\r\n", " MKT\r\nAY ", "MKT AY*", "M K\tT\nA Y"])
def test_case_line_ends_white_space_and_a_final_stop_do_not_matter(text: str) -> None:
    assert "".join(split_protein(text)) == "MKTAY"


@pytest.mark.parametrize(
    ("text", "found"),
    [("MKJ", "'J' at residue 3"), ("MK*T", r"'\*' at residue 3"), ("M-K", "'-' at residue 2"), ("MK**", r"'\*' at residue 3")],
)
def test_a_letter_outside_the_alphabet_is_refused_or_mapped(text: str, found: str) -> None:
    with pytest.raises(
        FormatError, match=f"p.fasta:7: {found} is not an amino acid of the ESM vocabulary; pass unknown='X' to map it, or remove"
    ):
        split_protein(text, where="p.fasta:7")
    assert "X" in split_protein(text, unknown="X")
    assert len(split_protein(text, unknown="X")) == len(text.removesuffix("*"))


@pytest.mark.parametrize("text", ["M\u017fK", "M\ufb01K", "M\u0131K", "M\u00dfK"])
def test_letters_of_other_alphabets_do_not_become_residues(text: str) -> None:
    """str.upper turns a long s into S and a ligature into two letters."""
    with pytest.raises(FormatError, match="at residue 2 is not an amino acid"):
        split_protein(text)
    assert split_protein(text, unknown="X") == ["M", "X", "K"]


@pytest.mark.parametrize("text", ["", "  \r\n", "*"])
def test_an_empty_sequence_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="p.fasta:1: found an empty sequence, expected amino-acid letters; remove the record"):
        split_protein(text, where="p.fasta:1")


@given(st.text(max_size=30))
def test_any_text_is_residues_or_an_error_in_words(text: str) -> None:
    try:
        letters = split_protein(text)
    except FormatError as error:
        assert "sequence" in str(error)
    else:
        assert set(letters) <= {*AMINO_ACIDS, *"XBUZO"}
    try:
        assert set(split_protein(text, unknown="X")) <= {*AMINO_ACIDS, *"XBUZO"}
    except FormatError as error:
        assert "empty sequence" in str(error) or "no letter or gap that could be read as X" in str(error)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"unknown": "Refuse"}, "unknown: found 'Refuse', expected 'refuse' or a letter of the alphabet, such as X"),
        ({"unknown": "J"}, "unknown: found 'J'"),
        ({"most_unknown": 20}, "most_unknown: found 20.0, expected a share from 0 to 1"),
    ],
)
def test_impossible_track_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(ProteinTrack, settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("mask_id", "words"),
    [
        (24, "mask_id: found 24, which is 'X'; expected 32, or a padded row from 33 on"),
        (5, "which is 'A'"),
        (1, "which is '<pad>'"),
        (40, "33 rows cannot hold 33 symbols and mask 40"),
    ],
)
def test_the_mask_is_no_letter_and_has_a_row(mask_id: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        protein_vocabulary(mask_id=mask_id)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(
            ("MK1", "'1' at residue 3"),
            ("1 mktay 5", "'1' at residue 1"),
            ("MK<mask>AY", "'<' at residue 3"),
            ("MK_AY", "'_' at residue 3"),
        ),
        *(("b'MKTAY'", r"''' at residue 2"), ("['M', 'K']", r"'\[' at residue 1"), ("# nnnn", "'#' at residue 1")),
        *(
            ("c1nc2c(n1)N=C", "'1' at residue 2"),
            ("MKT|AY", r"'\|' at residue 4"),
            ("<unk>MKT", "'<' at residue 1"),
            ("MK;T", "';' at residue 3"),
        ),
    ],
)
@pytest.mark.parametrize("unknown", ["refuse", "X"])
def test_signs_and_names_of_tokens_are_never_read_as_a_residue(text: str, found: str, unknown: str) -> None:
    words = (
        f"p.fasta:7: {found} is not an amino acid of the ESM vocabulary, and no letter or gap that could be read as X; correct or remove"
    )
    with pytest.raises(FormatError, match=words):
        split_protein(text, where="p.fasta:7", unknown=unknown)


def test_a_share_of_letters_may_be_replaced_and_no_more() -> None:
    assert ProteinTrack(unknown="X").most_unknown == 0.2
    track = ProteinTrack(unknown="X", most_unknown=0.25).build("protein")
    assert track.decode(track.encode("MKTAYI-J")) == "MKTAYIXX"
    assert track.decode(track.encode("MJ")) == "MX", "a single residue always may"
    with pytest.raises(FormatError) as caught:
        track.encode("MKTAYJ--", where="a.fasta:3")
    assert str(caught.value) == (
        "a.fasta:3: 3 of 8 residues ('-' x 2, 'J' x 1) would be read as 'X', more than the share 0.25 of tracks.protein.most_unknown; take "
        "out the gaps of an alignment, or remove the record"
    )
    assert ProteinTrack(unknown="X", most_unknown=1.0).build("protein").encode("----")[1:-1] == [24] * 4


def test_replaced_letters_are_counted_in_words() -> None:
    track = ProteinTrack(unknown="X").build("protein")
    assert track.replaced is not None and track.replaced("mkj-J XXU*") == {"J as X": 2, "- as X": 1}
    assert not track.replaced("MKTAYIUBZOX") and ProteinTrack().build("protein").replaced is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("ACGTNNACGTAC", True), ("augggccauuga", True), ("ACGTACGTA", False), ("GAGAGAGAGAGA", False), ("MKTAYIAKQRHE", False)),
        *(("NNNNNNNNNNNN", False), ("ACGTACGTACGTE", False)),
    ],
)
def test_a_long_text_of_nucleotides_is_noticed(text: str, expected: bool) -> None:
    assert looks_like_nucleotides(text) is expected
