"""Structure alphabets: sizes, ids in the joint table, how texts are cut, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.structure import num_joint_rows, split_codes, structure_vocabulary

SIZES = {"dplm2": 8192, "kanzi": 1000, "3di": 20, "ss3": 3}


@pytest.mark.parametrize("alphabet", SIZES)
def test_codes_follow_the_protein_in_one_table(alphabet) -> None:
    vocabulary = structure_vocabulary(alphabet)
    assert len(vocabulary.emittable_ids) == SIZES[alphabet]
    assert vocabulary.num_rows == num_joint_rows(alphabet) == 33 + 4 + SIZES[alphabet]
    assert vocabulary.emittable_ids[0] == 36 and vocabulary.mask_id == vocabulary.num_rows - 1
    assert ProteinTrack(beside=alphabet).build("protein").vocabulary.num_rows == vocabulary.num_rows


@given(st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_texts_come_back(alphabet, numbers) -> None:
    track = StructureTrack(alphabet=alphabet).build("structure")
    ids = [track.vocabulary.emittable_ids[n % SIZES[alphabet]] for n in numbers]
    assert track.encode(track.decode(ids))[1:-1] == ids


def test_kanzi_codes_in_every_spelling() -> None:
    expected = ["599", "358", "005"]
    for text in ("599,358,005", "599 358 005", "599358005", "<K599> <K358> <K5>", "<K599><K358><K5>", "K599 K358 K5"):
        assert split_codes(text, "kanzi") == expected, text


@pytest.mark.parametrize(
    ("alphabet", "text", "words"),
    [
        ("kanzi", "1000", "'100' at residue 1|'0' at residue 2"),
        ("kanzi", "<K5> <K1000>", "'<K1000>' at residue 2"),
        ("kanzi", "<K100200>", "'<K100200>' at residue 1"),
        ("kanzi", "12", "codes of 3 digits, 000 to 999"),
        ("kanzi", "<K12", "'<K12' at residue 1 is no kanzi code"),
        ("ss3", "HEX", "'X' at residue 3 is no ss3 code; expected the letters CEH"),
        ("3di", "ACB", "'B' at residue 3"),
        ("dplm2", "8192", "0000 to 8191"),
        ("ss3", " ", "empty structure"),
    ],
)
def test_what_is_no_code_is_refused_with_its_place(alphabet, text, words) -> None:
    with pytest.raises(FormatError, match=words):
        split_codes(text, alphabet, where="here")
