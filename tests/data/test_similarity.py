"""One alignment under two scorings against plain dynamic programmes, and the k-mer filter against aligning everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.data import similarity
from protlig_dd.data.leakage import measure_leakage
from protlig_dd.data.similarity import SCORINGS, KmerIndex, beyond_chance, count_identical, identity, kmers, nearest_identities
from protlig_dd.errors import FormatError
from protlig_dd.evaluation import proteins
from protlig_dd.tokens.protein import AMINO_ACIDS
from tests.support.tables import token_table

words = st.text(alphabet="ACD", min_size=1, max_size=9)


def plain_count(query: str, target: str, *, match: int, mismatch: int, gap: int, free_query_ends: bool) -> int:
    """The best (score, matches) cell by cell; the ends of the target are free."""
    best = [(0, 0)] * (len(target) + 1)
    ends = []
    for a in query:
        row = [(0, 0) if free_query_ends else (best[0][0] + gap, best[0][1])]
        for j, b in enumerate(target):
            diagonal = (best[j][0] + (match if a == b else mismatch), best[j][1] + (a == b))
            row.append(max(diagonal, (best[j + 1][0] + gap, best[j + 1][1]), (row[-1][0] + gap, row[-1][1])))
        best = row
        ends += [best[-1]] if free_query_ends else []
    return max([*ends, *best])[1]


def over_query(pairs: list[tuple[str, str]]) -> list[float]:
    found: list[float] = identity([q for q, _ in pairs], [t for _, t in pairs], over="query").tolist()
    return found


@given(st.lists(st.tuples(words, words), min_size=1, max_size=6))
@pytest.mark.parametrize("over", ["shorter", "query"])
def test_each_identity_is_one_count_of_the_plain_dynamic_programme_over_its_named_length(
    over: similarity.Denominator, pairs: list[tuple[str, str]]
) -> None:
    queries, targets = [q for q, _ in pairs], [t for _, t in pairs]
    expected = [plain_count(q, t, **vars(SCORINGS[over])) for q, t in pairs]
    assert count_identical(queries, targets, SCORINGS[over]).tolist() == expected
    lengths = [len(q) if over == "query" else min(len(q), len(t)) for q, t in pairs]
    assert identity(queries, targets, over=over).tolist() == [n / size for n, size in zip(expected, lengths, strict=True)]


def test_the_leakage_line_and_the_evaluation_give_the_numbers_their_denominators_say() -> None:
    """A training fragment of four residues in a protein of eight: all of the shorter one, half of the sample."""
    sample, fragment = "MKTAYIAK", "TAYI"
    assert identity([sample], [fragment], over="shorter").tolist() == [1.0]
    assert identity([sample], [fragment], over="query").tolist() == [0.5]
    train, validation = (token_table([{"protein": [ord(c) - ord("A") for c in s]}], ["protein"]) for s in (fragment, sample))
    assert measure_leakage(train, validation).identity == (1.0, 1.0, 1.0, 1.0)
    (score,) = (s for s in proteins.summary([sample], [fragment]) if s.name == "nearest training identity")
    assert score.value.value == 0.5


@pytest.mark.parametrize(
    ("sample", "target", "expected"),
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
def test_identities_over_the_query_of_known_pairs(sample: str, target: str, expected: float) -> None:
    assert over_query([(sample, target)]) == [expected]


def test_pairs_of_unequal_length_do_not_disturb_each_other() -> None:
    draws = np.random.default_rng(0)
    texts = ["".join(draws.choice(list("ACDE"), size=int(n))) for n in draws.integers(1, 30, size=300)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    for over in SCORINGS:
        found = identity(texts[::2], texts[1::2], over=over)
        assert found.tolist() == [identity([q], [t], over=over)[0] for q, t in pairs]


def test_tables_in_64_bits_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("MKTAYIAK", "MKTAWWYIAK"), ("MKTAYIAK", "TAYI")]
    narrow = over_query(pairs)
    monkeypatch.setattr(similarity, "_INT32_LIMIT", 0)
    assert over_query(pairs) == narrow


@pytest.mark.slow
def test_sequences_too_long_for_32_bits_do_not_overflow() -> None:
    sample = "ACDEFGHIKL" * 820
    assert over_query([(sample, "W" * 60_000 + sample)]) == [1.0]


def mutate(sequence: str, rate: float, draws: np.random.Generator) -> str:
    return "".join(str(draws.choice(list(AMINO_ACIDS))) if draws.random() < rate else letter for letter in sequence)


def test_the_filter_finds_relatives_down_to_half_identity() -> None:
    draws = np.random.default_rng(1)
    training = ["".join(draws.choice(list(AMINO_ACIDS), size=n)) for n in draws.integers(60, 400, size=300)]
    parents = draws.integers(300, size=40)
    samples = [mutate(training[p], 0.5, draws) for p in parents]
    found, which = nearest_identities(samples, KmerIndex(training), over="query")
    assert (which == parents).mean() >= 0.95
    assert found.mean() == pytest.approx(0.53, abs=0.03)  # half kept, and one in twenty of the rest drawn equal


def test_a_small_index_is_searched_exactly() -> None:
    draws = np.random.default_rng(2)
    training = ["".join(draws.choice(list(AMINO_ACIDS), size=30)) for _ in range(8)]
    samples = ["".join(draws.choice(list(AMINO_ACIDS), size=25)) for _ in range(5)]
    found, _ = nearest_identities(samples, KmerIndex(training), over="query")
    scoring = vars(SCORINGS["query"])
    assert found.tolist() == [max(plain_count(s, t, **scoring) / 25 for t in training) for s in samples]


def test_long_proteins_do_not_win_by_their_length_alone() -> None:
    draws = np.random.default_rng(3)
    relative = "".join(draws.choice(list(AMINO_ACIDS), size=60))
    giants = ["".join(draws.choice(list(AMINO_ACIDS), size=4000)) for _ in range(10)]
    index = KmerIndex([*giants, relative])
    assert index.nearest(mutate(relative, 0.6, draws), 1, by=beyond_chance).tolist() == [10]


def test_sequences_too_short_for_words_still_have_a_neighbour() -> None:
    found, which = nearest_identities(["MK", "A"], KmerIndex(["MK", "CC"]), over="query")
    assert found.tolist() == [1.0, 0.0]
    assert which[0] == 0
    assert nearest_identities([], KmerIndex(["MK"]), over="query")[0].shape == (0,)


def test_words_overlap_and_odd_letters_are_named() -> None:
    assert len(kmers("ACDEF")) == 3
    assert kmers("ACDACD")[0] == kmers("ACDACD")[3]
    with pytest.raises(FormatError, match="sequence 'MKt': expected capital letters A to Z only"):
        kmers("MKt")


def test_an_empty_index_is_refused() -> None:
    with pytest.raises(ValueError, match="the index holds no sequence"):
        nearest_identities(["MKT"], KmerIndex([]), over="query")
