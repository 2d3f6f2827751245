"""Known answers on small sequences, invalid sequences with their reasons, and the nulls."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.evaluation import proteins
from protlig_dd.evaluation.intervals import Score, format_scores
from protlig_dd.evaluation.proteins import read_proteins, summary
from protlig_dd.tokens.protein import AMINO_ACIDS

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
CRAMBIN = "TTCCPSIVARSNFNVCRLPGTPEALCATYTGCIIIPGATCPGDYAN"
protein_text = st.text(alphabet=AMINO_ACIDS, min_size=1, max_size=30)


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {score.name: score for score in scores}


def test_hydropathy_and_charge_of_known_sequences() -> None:
    assert proteins.hydropathy("MKWV") == pytest.approx((1.9 - 3.9 - 0.9 + 4.2) / 4)
    assert proteins.hydropathy(AMINO_ACIDS) == pytest.approx(-0.49)  # the mean of the published scale
    assert proteins.hydropathy(CRAMBIN) > 0 > proteins.hydropathy(UBIQUITIN)  # crambin is the hydrophobic one
    assert proteins.net_charge(UBIQUITIN) == 0  # 7 K + 4 R, 5 D + 6 E
    assert proteins.net_charge("KRHDE") == 0
    assert proteins.net_charge("KKRH") == 3


def test_hydropathy_covers_the_alphabet_from_arginine_to_isoleucine() -> None:
    assert set(proteins.HYDROPATHY) == set(AMINO_ACIDS)
    assert proteins.hydropathy("R") == -4.5
    assert proteins.hydropathy("I") == 4.5


@pytest.mark.parametrize(("sequence", "run"), [("MKKKA", 3), ("MKAKA", 1), ("AAAA", 4), ("AACCCAA", 3), ("", 0)])
def test_the_longest_run_is_counted(sequence: str, run: int) -> None:
    assert proteins.longest_run(sequence) == run


@pytest.mark.parametrize(("sequence", "fraction"), [("AAAAAA", 3 / 4), ("ACDACDACD", 4 / 7), ("ACDEFGHIK", 0.0), ("AC", 0.0)])
def test_repeats_are_words_seen_before(sequence: str, fraction: float) -> None:
    assert proteins.repeat_fraction(sequence) == pytest.approx(fraction)


def test_entropy_runs_from_one_letter_to_twenty() -> None:
    assert proteins.sequence_entropy("AAAA") == 0
    assert proteins.sequence_entropy("ACAC") == 1
    assert proteins.sequence_entropy(AMINO_ACIDS) == pytest.approx(math.log2(20))


def test_divergence_is_zero_for_the_same_and_one_for_disjoint_letters() -> None:
    reference = proteins.composition(["AACC"])
    divergence = proteins.jensen_shannon(proteins.letter_counts(["ACAC", "DEDE", "AAAA"]), reference)
    # JS of (1, 0) and (1/2, 1/2): H(3/4, 1/4) - 1/2
    assert divergence.tolist() == pytest.approx([0, 1, 0.75 * math.log2(4 / 3) + 0.25 * 2 - 0.5])


@given(st.lists(protein_text, min_size=1, max_size=6), protein_text)
def test_divergence_lies_between_zero_and_one(sequences: list[str], other: str) -> None:
    estimate = proteins.composition_divergence(read_proteins(sequences), proteins.composition([other]))
    assert 0 <= estimate.value <= 1 + 1e-12
    assert not estimate.has_interval or 0 <= estimate.low <= estimate.value <= estimate.high


@given(st.lists(protein_text, min_size=3, max_size=8))
def test_the_spread_of_lengths_is_jackknifed(sequences: list[str]) -> None:
    lengths = np.array([len(s) for s in sequences], dtype=float)
    estimate = proteins.length_spread(read_proteins(sequences))
    left_out = [np.delete(lengths, i).std(ddof=1) for i in range(len(lengths))]
    standard_error = math.sqrt((len(lengths) - 1) * np.var(left_out))
    assert estimate.value == pytest.approx(lengths.std(ddof=1))
    assert estimate.high - estimate.value == pytest.approx(1.959964 * standard_error, abs=1e-6)


def test_spread_needs_two_lengths_and_an_interval_three() -> None:
    assert proteins.length_spread(read_proteins(["MK"])).num == 0
    assert str(proteins.length_spread(read_proteins(["MK", "MKTA"]))) == "1.414"


def test_invalid_sequences_are_counted_and_never_averaged() -> None:
    found = read_proteins(["MKT", "", "MXK", "MK*", "mkt", "AXB"])
    assert found.sequences == ("MKT",)
    assert found.describe_invalid() == "5 of 6 left out: 2 letter 'X', 1 empty, 1 letter '*', 1 letter 'm'"
    assert read_proteins(["MKT"]).describe_invalid() == ""


def test_shuffling_keeps_each_sequences_letters_and_changes_their_order() -> None:
    shuffled = proteins.shuffle_residues([UBIQUITIN, CRAMBIN], 5, seed=1)
    assert sorted(map(sorted, shuffled)) == sorted(map(sorted, [UBIQUITIN, CRAMBIN]))
    assert not {UBIQUITIN, CRAMBIN} & set(shuffled)
    assert shuffled == proteins.shuffle_residues([UBIQUITIN, CRAMBIN], 5, seed=1)


def test_drawn_residues_have_the_training_frequencies_and_lengths() -> None:
    drawn = proteins.draw_residues(["AAAC", "AXAAAAAA"], 3000, seed=1)
    letters = Counter("".join(drawn))
    assert set(letters) == {"A", "C"}
    assert {len(s) for s in drawn} == {4, 8}
    probability = 1 / 11  # X is not an amino acid
    assert letters["C"] / letters.total() == pytest.approx(probability, abs=4 * math.sqrt(probability / letters.total()))


def test_copies_and_fragments_of_training_are_seen() -> None:
    scores = by_name(summary([UBIQUITIN, CRAMBIN[5:35], "MX"], [UBIQUITIN, CRAMBIN]))
    assert scores["exact copies"].value.value == 0.5
    assert scores["nearest training identity"].value.value == 1.0
    null = scores["nearest training identity"].null
    assert null is not None
    assert null.value < 0.5
    assert scores["validity"].note == "1 of 3 left out: 1 letter 'X'"


def test_the_summary_gives_every_score_a_null() -> None:
    scores = summary([UBIQUITIN, UBIQUITIN, CRAMBIN], [UBIQUITIN, CRAMBIN, "AAAX"])
    assert all(score.null is not None and score.null_name for score in scores)
    named = by_name(scores)
    assert named["uniqueness"].value.value == 2 / 3
    assert named["length"].value.value == pytest.approx((76 + 76 + 46) / 3)
    validity = named["validity"].null
    assert validity is not None
    assert validity.value == 2 / 3  # of the training sequences
    assert scores == summary([UBIQUITIN, UBIQUITIN, CRAMBIN], [UBIQUITIN, CRAMBIN, "AAAX"])


def test_repeats_exceed_their_shuffled_null() -> None:
    training = ["ACDEFGHIKLMNPQRSTVWY" * 3] * 5
    repeats = by_name(summary(training, training))["repeated words"]
    assert repeats.null is not None
    assert repeats.value.low > repeats.null.high


def test_a_summary_without_a_valid_sequence_prints_none() -> None:
    lines = format_scores(summary(["", "XX"], [UBIQUITIN])).splitlines()
    assert lines[0].endswith("2 of 2 left out: 1 empty, 1 letter 'X'")
    assert all("none" in line and "n=0" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("samples", "training", "error", "message"),
    [
        ([], ["MK"], ConfigError, "samples: found none, expected at least one sequence"),
        (["MK"], [], ConfigError, "composition: found no amino acid in 0 sequences"),
        (["MK"], ["MK", "MK-T"], FormatError, "sequence 'MK-T': expected capital letters A to Z only"),
    ],
)
def test_input_that_cannot_be_summarised_is_refused(samples: list[str], training: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        summary(samples, training)
