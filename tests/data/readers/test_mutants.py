"""Tests of mutant tables: what is read, and one clear line for each thing that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from protlig_dd.data.readers.mutants import Mutation, compare_sequences, parse_mutant, read_mutants
from protlig_dd.errors import FormatError

WILD = "MKTAYIAK"


def table(folder: Path, *rows: str, header: str = "mutant,mutated_sequence,DMS_score") -> Path:
    path = folder / "dms.csv"
    path.write_text("\r\n".join([header, *rows]) + "\r\n", newline="")
    return path


def test_singles_and_multi_mutants_are_read_in_order_of_position(tmp_path: Path) -> None:
    mutants = read_mutants(table(tmp_path, "K2R,MRTAYIAK,0.5", "A7G:K2R,MRTAYIGK,-1.25"), WILD)
    assert mutants.mutations == (
        (Mutation(position=1, wild="K", mutant="R"),),
        (Mutation(position=1, wild="K", mutant="R"), Mutation(position=6, wild="A", mutant="G")),
    )
    assert mutants.scores is not None
    assert mutants.scores.tolist() == [0.5, -1.25]
    assert mutants.names == ("K2R", "A7G:K2R")
    assert [mutants.sequence(i) for i in range(2)] == ["MRTAYIAK", "MRTAYIGK"]


def test_either_column_is_enough_and_the_offset_is_taken_off(tmp_path: Path) -> None:
    by_name = read_mutants(table(tmp_path, "K25R,1", "M24L:K31M,2", header="mutant,DMS_score"), WILD, offset=23)
    by_sequence = read_mutants(table(tmp_path, "MRTAYIAK", "LKTAYIAM", header="mutated_sequence"), WILD, offset=23, score_column=None)
    assert by_name.mutations == by_sequence.mutations
    assert by_name.names == by_sequence.names == ("K25R", "M24L:K31M")
    assert by_sequence.scores is None
    assert parse_mutant("K2R", WILD) == by_name.mutations[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A2R,MRTAYIAK,1", "dms.csv:3: 'A2R' says that residue 2 is A, the wild type has K there"),
        ("K9R,MKTAYIAK,1", "dms.csv:3: 'K9R' lies outside the wild type, whose 8 residues are numbers 1 to 8"),
        ("K0R,MKTAYIAK,1", "dms.csv:3: 'K0R' lies outside the wild type"),
        ("K2R,MRTAYIAKK,1", "dms.csv:3: found a sequence of 9 residues, the wild type has 8; insertions and deletions"),
        ("K2del,,1", "dms.csv:3: found 'K2del' in the mutant 'K2del', expected substitutions .* insertions, deletions"),
        ("K2R:T3_A4insG,,1", "found 'T3_A4insG' in the mutant 'K2R:T3_A4insG'"),
        ("K2*,,1", r"found 'K2\*' in the mutant"),
        ("K2X,,1", "dms.csv:3: found 'X' in the mutant 'K2X', expected one of the twenty"),
        ("K2R:K2A,,1", "found residue 2 twice in the mutant 'K2R:K2A'"),
        ("K2R,MKTAYIGK,1", "dms.csv:3: the mutant 'K2R' and its mutated_sequence differ at residue 2"),
        ("K2R,,nan", "dms.csv:3: found 'nan' in DMS_score, expected a finite number; remove the row, or leave such"),
        ("K2R,,", "dms.csv:3: found '' in DMS_score, expected a finite number"),
        ("K2R,,inf", "found 'inf' in DMS_score"),
        ("K2R,,high", "found 'high' in DMS_score, expected a number"),
        (",,1", "dms.csv:3: found no mutant"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_mutants(table(tmp_path, "K2R,MRTAYIAK,0.5", row), WILD)
    assert "\n" not in str(caught.value)


def test_missing_scores_are_dropped_and_counted_on_demand_only(tmp_path: Path) -> None:
    mutants = read_mutants(table(tmp_path, "K2R,,nan", "K2A,,", "K2M,,3", "K2G,,NA"), WILD, drop_missing=True)
    assert (mutants.names, mutants.num_dropped) == (("K2M",), 3)
    with pytest.raises(FormatError, match="found all 1 without a score"):
        read_mutants(table(tmp_path, "K2R,,nan"), WILD, drop_missing=True)
    with pytest.raises(FormatError, match="found 'inf'"):
        read_mutants(table(tmp_path, "K2R,,inf"), WILD, drop_missing=True)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"expected the score 'DMS_score' \(did you mean 'DMS_scores'\?\)"):
        read_mutants(table(tmp_path, "K2R,1", header="mutant,DMS_scores"), WILD)
    with pytest.raises(FormatError, match="expected 'mutant' or 'mutated_sequence'"):
        read_mutants(table(tmp_path, "K2R,1", header="variant,DMS_score"), WILD)
    with pytest.raises(FormatError, match="found no rows"):
        read_mutants(table(tmp_path), WILD)


def test_a_sequence_with_an_unknown_new_residue_is_refused() -> None:
    with pytest.raises(FormatError, match="found 'X' in the mutant 'K2X'"):
        compare_sequences("MXTAYIAK", WILD)
