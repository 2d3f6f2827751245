"""Vocabularies: ids both ways, and what must not be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protlig_dd.errors import ConfigError
from protlig_dd.tokens.vocabulary import Vocabulary

TOY = Vocabulary(name="toy", symbols=("<pad>", "a", "b", "<mask>"), mask_id=3, pad_id=0, emittable_ids=(1, 2))


def test_symbols_and_ids_are_inverse() -> None:
    assert TOY.encode("abba") == [1, 2, 2, 1]
    assert TOY.decode([1, 2, 2, 1]) == list("abba")
    assert all(TOY.ids[symbol] == i for i, symbol in enumerate(TOY.symbols))
    assert TOY.special_ids == {0, 3} and TOY.num_rows == 4


def test_an_unknown_symbol_is_quoted_with_its_place() -> None:
    with pytest.raises(ValueError, match="'c' at position 3 is not a symbol of the toy vocabulary"):
        TOY.encode("abc")


def test_rows_without_a_symbol_have_a_name() -> None:
    padded = replace(TOY, mask_id=6, num_rows=9)
    assert padded.num_rows == 9
    assert padded.decode([6, 5, -1]) == ["<6>", "<5>", "<-1>"]
    assert replace(TOY, mask_id=6, num_rows=0).num_rows == 7


def test_the_fingerprint_changes_with_what_ids_mean_and_not_with_the_name() -> None:
    changed = [
        replace(TOY, symbols=("<pad>", "b", "a", "<mask>")),
        replace(TOY, mask_id=4, num_rows=0),
        replace(TOY, emittable_ids=(1,)),
        replace(TOY, pad_id=None),
        replace(TOY, begin_id=0, pad_id=None),
        replace(TOY, num_rows=8),
    ]
    assert len({v.fingerprint for v in (TOY, *changed)}) == len(changed) + 1
    assert replace(TOY, name="other").fingerprint == TOY.fingerprint
    assert replace(TOY, emittable_ids=(2, 1)).fingerprint == TOY.fingerprint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symbols": ("a", "a", "b", "<mask>")}, "vocabulary 'toy': a symbol occurs twice"),
        ({"num_rows": 3}, "vocabulary 'toy': 3 rows cannot hold 4 symbols and mask 3"),
        ({"mask_id": 9, "num_rows": 8}, "8 rows cannot hold 4 symbols and mask 9"),
        ({"emittable_ids": (1, 2, 3)}, "emittable ids must be non-empty and not special; found special [3]"),
        ({"emittable_ids": ()}, "emittable ids must be non-empty"),
        ({"emittable_ids": (1, 1, 2)}, "expected distinct ids from 0 to 3, found [0, 1, 1, 2, 3]"),
        ({"emittable_ids": (1, 7)}, "expected distinct ids from 0 to 3"),
        ({"emittable_ids": (-1, 1)}, "expected distinct ids from 0 to 3"),
        ({"unknown_id": 0}, "expected distinct ids from 0 to 3, found [0, 0, 1, 2, 3]"),
    ],
)
def test_impossible_vocabularies_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(TOY, **changes)  # type: ignore[arg-type]
    assert words in str(caught.value)
