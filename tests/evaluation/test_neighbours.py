"""The alignment against a plain dynamic programme, the k-mer filter against aligning everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.errors import FormatError
from protlig_dd.evaluation import neighbours
from protlig_dd.evaluation.neighbours import KmerIndex, identities, kmers, nearest_identities
from protlig_dd.tokens.protein import AMINO_ACIDS

words = st.text(alphabet="ACD", min_size=1, max_size=9)


def plain_identity(sample: str, target: str) -> float:
    """The best (score, matches) cell by cell: match 2, mismatch -1, gap -2, ends of the target free."""
    best = [(0, 0)] * (len(target) + 1)
    for a in sample:
        row = [(best[0][0] - 2, best[0][1])]
        for j, b in enumerate(target):
            diagonal = (best[j][0] + (2 if a == b else -1), best[j][1] + (a == b))
            row.append(max(diagonal, (best[j + 1][0] - 2, best[j + 1][1]), (row[-1][0] - 2, row[-1][1])))
        best = row
    return max(best)[1] / len(sample)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=6))
def test_the_alignment_is_the_plain_dynamic_programme(pairs: list[tuple[str, str]]) -> None:
    assert identities(pairs).tolist() == [plain_identity(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("sample", "target", "identity"),
    [
        ("MKTAYIAK", "MKTAYIAK", 1.0),
        ("TAYI", "MKTAYIAK", 1.0),  # a copied fragment
        ("MKTAYIAK", "TAYI", 0.5),  # half of the sample has nothing to stand opposite
        ("MKTAYIAK", "MKTWYIAK", 7 / 8),
        ("MKTAYIAK", "MKTAWWYIAK", 1.0),  # two residues inserted, all of the sample matched
        ("AAAA", "CCCC", 0.0),
        ("", "MKT", 0.0),
        ("MKT", "", 0.0),
    ],
)
def test_identities_of_known_pairs(sample: str, target: str, identity: float) -> None:
    assert identities([(sample, target)]).tolist() == [identity]


def test_pairs_of_unequal_length_do_not_disturb_each_other() -> None:
    draws = np.random.default_rng(0)
    texts = ["".join(draws.choice(list("ACDE"), size=int(n))) for n in draws.integers(1, 30, size=300)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    assert identities(pairs).tolist() == [identities([pair])[0] for pair in pairs]


def test_tables_in_64_bits_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("MKTAYIAK", "MKTAWWYIAK"), ("MKTAYIAK", "TAYI")]
    narrow = identities(pairs)
    monkeypatch.setattr(neighbours, "_INT32_LIMIT", 0)
    assert identities(pairs).tolist() == narrow.tolist()


@pytest.mark.slow
def test_sequences_too_long_for_32_bits_do_not_overflow() -> None:
    sample = "ACDEFGHIKL" * 820
    assert identities([(sample, "W" * 60_000 + sample)]).tolist() == [1.0]


def mutate(sequence: str, rate: float, draws: np.random.Generator) -> str:
    return "".join(str(draws.choice(list(AMINO_ACIDS))) if draws.random() < rate else letter for letter in sequence)


def test_the_filter_finds_relatives_down_to_half_identity() -> None:
    draws = np.random.default_rng(1)
    training = ["".join(draws.choice(list(AMINO_ACIDS), size=n)) for n in draws.integers(60, 400, size=300)]
    parents = draws.integers(300, size=40)
    samples = [mutate(training[p], 0.5, draws) for p in parents]
    found, which = nearest_identities(samples, KmerIndex.build(training))
    assert (which == parents).mean() >= 0.95
    assert found.mean() == pytest.approx(0.53, abs=0.03)  # half kept, and one in twenty of the rest drawn equal


def test_a_small_index_is_searched_exactly() -> None:
    draws = np.random.default_rng(2)
    training = ["".join(draws.choice(list(AMINO_ACIDS), size=30)) for _ in range(8)]
    samples = ["".join(draws.choice(list(AMINO_ACIDS), size=25)) for _ in range(5)]
    found, _ = nearest_identities(samples, KmerIndex.build(training))
    assert found.tolist() == [max(plain_identity(s, t) for t in training) for s in samples]


def test_long_proteins_do_not_win_by_their_length_alone() -> None:
    draws = np.random.default_rng(3)
    relative = "".join(draws.choice(list(AMINO_ACIDS), size=60))
    giants = ["".join(draws.choice(list(AMINO_ACIDS), size=4000)) for _ in range(10)]
    index = KmerIndex.build([*giants, relative])
    assert index.candidates(mutate(relative, 0.6, draws), 1).tolist() == [10]


def test_sequences_too_short_for_words_still_have_a_neighbour() -> None:
    found, which = nearest_identities(["MK", "A"], KmerIndex.build(["MK", "CC"]))
    assert found.tolist() == [1.0, 0.0]
    assert which[0] == 0
    assert nearest_identities([], KmerIndex.build(["MK"]))[0].shape == (0,)


def test_words_overlap_and_odd_letters_are_named() -> None:
    assert len(kmers("ACDEF")) == 3
    assert kmers("ACDACD")[0] == kmers("ACDACD")[3]
    with pytest.raises(FormatError, match="sequence 'MKt': expected capital letters A to Z only"):
        kmers("MKt")


def test_an_empty_index_is_refused() -> None:
    with pytest.raises(ValueError, match="the index holds no sequence"):
        nearest_identities(["MKT"], KmerIndex.build([]))
