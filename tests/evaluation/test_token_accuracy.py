"""Structure tokens against truth: accuracy over the true length, and nulls with known answers."""

from __future__ import annotations

import pytest

from protlig_dd.evaluation.token_accuracy import Folded, Nulls, summary, token_accuracy

TRAINING = [
    Folded(sequence="AAAAGGGG", tokens="HHHHCCCC"),
    Folded(sequence="MKTWYVLN", tokens="EEEECCCC"),
    Folded(sequence="PPAC", tokens="CCHC"),
]


def test_accuracy_divides_by_the_true_length() -> None:
    true = ["HHHH", "CCCCCC"]
    assert token_accuracy(true, true).value == 1
    assert token_accuracy(["H", "C"], true).value == pytest.approx(2 / 10), "a short prediction gains nothing"
    assert token_accuracy(["HHHHHHHH", "EEEEEE"], true).value == pytest.approx(4 / 10)
    assert token_accuracy(["", ""], true).value == 0
    with pytest.raises(ValueError, match="expected one each"):
        token_accuracy(["H"], true)


def test_nulls_have_their_answers() -> None:
    nulls = Nulls(TRAINING)
    assert nulls.most_common == "C"
    assert nulls.always(["MK"]) == [["C", "C"]]
    assert nulls.by_residue["A"] == "H" and nulls.by_residue["G"] == "C" and nulls.by_residue["M"] == "E"
    assert nulls.of_residues(["AGMX"]) == [["H", "C", "E", "C"]], "a residue that training never had gets the most common"


def test_a_copy_takes_its_neighbours_tokens_and_a_gap_the_residues() -> None:
    nulls = Nulls(TRAINING)
    assert "".join(nulls.of_neighbours(["MKTWYVLN"])[0]) == "EEEECCCC"
    assert "".join(nulls.of_neighbours(["MKTWAAYVLN"])[0]) == "EEEEHHCCCC", "two inserted residues"
    assert "".join(nulls.of_neighbours(["KTWYV"])[0]) == "EEECC"


def test_the_summary_has_the_accuracy_with_every_null() -> None:
    true = [Folded(sequence="MKTWYVLN", tokens="EEEECCCC"), Folded(sequence="PPAC", tokens="CCHC")]
    scores = summary(["EEEECCCC", "CC?"], true, Nulls(TRAINING), known=frozenset("HEC"))
    assert [s.name for s in scores] == ["token accuracy"] * 3 + ["length match", "valid tokens"]
    assert {s.value.value for s in scores[:3]} == {10 / 12}
    always, residue, neighbour = (s.null.value for s in scores[:3] if s.null)
    assert (always, residue, neighbour) == (7 / 12, 1, 1)
    assert scores[3].value.value == 1 / 2 and scores[4].value.value == pytest.approx(10 / 11)
