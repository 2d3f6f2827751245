"""Specificity on a few molecules counted by hand, each null on molecules where its mistake would show, and its symmetries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rdkit", reason="molecules need RDKit: pip install 'protlig_dd[ligand]'")

from protlig_dd.evaluation.intervals import cluster_bootstrap_mean
from protlig_dd.evaluation.specificity import HELD_OUT, SAMPLES, SHUFFLED, Specificity, specificity, values_of
from protlig_dd.evaluation.targets import Targets, Training, nearest_actives, sequence_clusters, tanimoto

ALCOHOLS = ["CCO", "CCCO", "CCCCO"]
RINGS = ["Cc1ccccc1", "Clc1ccccc1", "Brc1ccccc1"]
AMIDES = ["CC(=O)NC", "CC(=O)NCC", "CCC(=O)NC"]
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
COPYING = "training ligands of the target (copying)"
RANDOM = "random training ligands"
LOOK_UP = "training ligands of the nearest other protein"


def protein(number: int) -> str:
    """A protein of 80 residues that is unlike those of other numbers."""
    return "".join(np.random.default_rng(number).choice(list(LETTERS), 80))


def similar_to(sequence: str) -> str:
    """A protein with one residue in ten replaced."""
    return "".join("W" if i % 10 == 5 else letter for i, letter in enumerate(sequence))


PROTEINS = {"a": protein(1), "b": protein(2), "c": protein(3)}
ACTIVES = {"a": ALCOHOLS, "b": RINGS, "c": AMIDES}
TARGETS = Targets.of(PROTEINS, ACTIVES)


def value(found: Specificity, row: str, which: str = "nearest") -> float:
    return float(getattr(found.means[row], which).value)


def test_values_of_a_table_are_those_counted_by_hand() -> None:
    similarities = np.array([[0.5, 0.5, 0.2], [0.1, 0.4, 0.3], [0.0, 0.0, 0.0], [1.0, 0.2, 0.4]])
    found = values_of(similarities, np.array([0, 2, 1, 0]))
    np.testing.assert_allclose(found["nearest"], [1 / 2, 0, 1 / 3, 1])
    np.testing.assert_allclose(found["own"], [0.5, 0.3, 0.0, 1.0])
    np.testing.assert_allclose(found["others"], [0.35, 0.25, 0.0, 0.3])
    np.testing.assert_allclose(found["difference"], [0.15, 0.05, 0.0, 0.7])


def test_similarities_are_those_to_the_nearest_active_by_counted_neighbourhoods() -> None:
    """Ethanol has the neighbourhoods CH3, CH2, OH, C-C of CH3, C-C-O, and C-O of OH; methanol CH3, OH, and C-O, which is another one."""
    targets = Targets.of({"a": protein(1), "b": protein(2)}, {"a": ["CCO", "CCCCCCN", "CCCCCCCCN"], "b": ["CO", "CCCCCCCl", "CCCCCCCCCl"]})
    (found,) = targets.similarities(["CCO"])
    assert found[0] == 1.0
    assert found[1] == pytest.approx(2 / (6 + 3 - 2))


def test_a_few_samples_are_judged_as_by_hand() -> None:
    found = specificity({"a": ["OCC", "Cc1ccccc1"], "b": ["Cc1ccccc1", "C("], "c": ["CC(=O)NC"], "unknown": ["CCO"]}, TARGETS)
    assert value(found, SAMPLES) == 3 / 4  # toluene for a is nearest to b
    assert value(found, SAMPLES, "own") == pytest.approx((3 + max(tanimoto_of("Cc1ccccc1", one) for one in ALCOHOLS)) / 4)
    assert found.validity.value == 4 / 5 and found.invalid == "1 of 5 left out: 1 syntax"
    assert found.means[SAMPLES].own.num == 4, "invalid samples are in no mean"
    assert (found.num_targets, found.num_clusters) == (3, 3)
    assert "chance 0.333" in found.scores()[0].note
    assert found.copies == () and set(found.means) == {SAMPLES, SHUFFLED, HELD_OUT}


def tanimoto_of(one: str, other: str) -> float:
    from protlig_dd.evaluation.targets import fingerprints

    return float(tanimoto(fingerprints([one]), fingerprints([other]))[0, 0])


def test_an_active_of_two_targets_counts_half() -> None:
    targets = Targets.of(PROTEINS, {**ACTIVES, "b": [*RINGS, "CCO"]})
    assert value(specificity({"a": ["CCO"]}, targets), SAMPLES) == 1 / 2


def test_samples_without_a_valid_molecule_have_no_means_and_no_error() -> None:
    found = specificity({"a": ["C("]}, TARGETS)
    assert found.means[SAMPLES].nearest.num == 0 and found.validity.value == 0.0
    assert specificity({}, TARGETS).validity.num == 0
    assert "none" in str(found.section("t").scores[0])


def test_shuffled_targets_are_others_and_never_of_the_own_cluster() -> None:
    """Perfect samples of four targets; b is a homologue of a with the same actives, so within the cluster a shuffle would change nothing."""
    proteins = {"a": protein(1), "b": similar_to(protein(1)), "c": protein(3), "d": protein(4)}
    actives = {"a": ALCOHOLS, "b": ALCOHOLS, "c": RINGS, "d": AMIDES}
    found = specificity(actives, Targets.of(proteins, actives))
    assert found.num_clusters == 3
    assert value(found, SAMPLES) == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
    assert value(found, SHUFFLED) == 0.0, "a sample is never judged at its own target or at a homologue"
    assert value(found, SHUFFLED, "difference") < 0 < value(found, SAMPLES, "difference")


def test_a_model_that_ignores_its_target_does_as_well_at_others() -> None:
    mixed = [*ALCOHOLS, *RINGS, *AMIDES]
    found = specificity(dict.fromkeys(PROTEINS, mixed), TARGETS)
    for which in ("nearest", "own", "others", "difference"):
        assert value(found, SAMPLES, which) == pytest.approx(value(found, SHUFFLED, which)), which


def test_targets_of_one_cluster_have_no_shuffle_and_no_interval() -> None:
    targets = Targets.of({"a": protein(1), "b": similar_to(protein(1))}, {"a": ALCOHOLS, "b": RINGS})
    found = specificity({"a": ["CCO"], "b": ["CCO"]}, targets)
    assert SHUFFLED not in found.means and not found.means[SAMPLES].nearest.has_interval
    assert "all targets are in one cluster" in found.lines()[-1]


HOMOLOGUE = similar_to(PROTEINS["a"])
TRAINING = Training(
    pairs={PROTEINS["a"]: ["OCC", "CCCO", "CCCCCCO"], PROTEINS["b"]: RINGS, HOMOLOGUE: AMIDES, protein(9): ["CCCCCCCC"] * 3}
)


def test_each_null_draws_the_molecules_of_its_name() -> None:
    drawn = TRAINING.molecules(TARGETS, {"a": 2, "b": 5, "c": 12})
    assert set(drawn) == {COPYING, RANDOM, LOOK_UP}
    assert len(drawn[COPYING]["a"]) == 2 and set(drawn[COPYING]["a"]) <= {"CCO", "CCCO", "CCCCCCO"}
    assert set(drawn[COPYING]["b"]) == set(RINGS)
    assert drawn[COPYING]["c"] == [], "it was not trained on"
    assert set(drawn[LOOK_UP]["a"]) <= set(Targets.of(PROTEINS, ACTIVES).actives["c"]), "the homologue's, never its own"
    assert {name: len(some) for name, some in drawn[RANDOM].items()} == {"a": 2, "b": 5, "c": 10}
    assert set(drawn[RANDOM]["c"]) == set(TRAINING.ligands)


def test_nulls_show_copying_and_looking_up() -> None:
    """The homologue of a was trained on ligands of c: looking it up misleads, copying is right, and random ligands are in between."""
    found = specificity({"a": ["CCO"] * 3, "b": ["CCO"] * 3}, TARGETS, TRAINING)
    assert value(found, COPYING) == 1.0
    a_alone = specificity({"a": ["CCO"] * 3}, TARGETS, TRAINING)
    assert value(a_alone, LOOK_UP) == 0.0
    assert 0 < value(specificity({name: ["CCO"] * 10 for name in PROTEINS}, TARGETS, TRAINING), RANDOM) < 1
    assert found.num_known == 2


def test_the_actives_themselves_are_judged_without_themselves() -> None:
    targets = Targets.of({"a": protein(1), "b": protein(2)}, {"a": ["CCO", "c1ccncc1", "O=C=O"], "b": ["CCN", "C1CC1", "CCCO"]})
    found = specificity(dict.fromkeys("ab", ["CCO"] * 3), targets)
    assert value(found, HELD_OUT, "own") < 1
    similar = specificity(dict.fromkeys(PROTEINS, ["CCO"] * 3), TARGETS)
    assert value(similar, HELD_OUT) == 1.0
    shared = Targets.of(PROTEINS, {**ACTIVES, "b": [*RINGS, "CCO"]})
    (row,) = shared.similarities(["CCO"], leave_out_itself=True)
    assert row[1] < row[0] < 1, "nor with itself among another target's"


def test_other_models_stand_beside() -> None:
    found = specificity({"a": ["Cc1ccccc1"]}, TARGETS, beside={"a language model": {"a": ["CCO", "C("], "b": ["CCO"]}})
    assert value(found, "a language model") == 1 / 2 and value(found, SAMPLES) == 0.0
    assert "a language model" in found.table().rows


def test_copies_and_near_copies_are_counted_and_those_of_the_own_target_apart() -> None:
    found = specificity({"a": ["C(O)C", "CCCCCO", "Cc1ccccc1", "NCC(F)(F)F"], "c": ["CCO"]}, TARGETS, TRAINING)
    exact, near, of_own = (score.value for score in found.copies)
    assert exact.value == 3 / 5  # ethanol twice, toluene
    assert tanimoto_of("CCCCCO", "CCCCCCO") >= 0.7
    assert near.value == 4 / 5
    assert (of_own.value, of_own.num) == (2 / 4, 4), "toluene is b's; c has no training ligands"
    assert all(score.null is not None for score in found.copies)


def test_intervals_resample_clusters_of_similar_targets() -> None:
    """Two targets of one family agree, so they are one unit; with four units for five targets the interval is wider."""
    proteins = {**PROTEINS, "d": protein(4), "e": similar_to(protein(4))}
    actives = {**ACTIVES, "d": ["CCCl", "CCCCl", "CCCCCl"], "e": ["CCS", "CCCS", "CCCCS"]}
    targets = Targets.of(proteins, actives)
    assert targets.clusters.tolist()[3] == targets.clusters.tolist()[4] and len(set(targets.clusters.tolist())) == 4
    samples = {"a": ["CCO"] * 4, "b": ["CCO"] * 4, "c": AMIDES, "d": ["CCCl"] * 4, "e": ["CCS"] * 4}
    found = specificity(samples, targets).means[SAMPLES].nearest
    values, families = [1.0] * 4 + [0.0] * 4 + [1.0] * 11, ["a"] * 4 + ["b"] * 4 + ["c"] * 3 + ["d"] * 8
    assert found == cluster_bootstrap_mean(values, families)
    assert found != cluster_bootstrap_mean(values, ["a"] * 4 + ["b"] * 4 + ["c"] * 3 + ["d"] * 4 + ["e"] * 4)


def test_equal_and_similar_sequences_are_one_cluster() -> None:
    one, other = protein(1), protein(2)
    found = sequence_clusters([one, other, similar_to(one), one])
    assert found[0] == found[2] == found[3] != found[1]
    tokens = [np.array([3 + LETTERS.index(x) for x in text]) for text in (one, other, similar_to(one), one)]
    np.testing.assert_array_equal(sequence_clusters(tokens), found)


def test_targets_with_few_actives_are_left_out_and_counted_and_one_target_is_refused() -> None:
    few = {**ACTIVES, "c": ["CCO", "OCC", "C(", "CCN"]}  # two different ones
    targets = Targets.of(PROTEINS, few)
    assert targets.names == ("a", "b") and targets.num_left_out == 1
    assert "1 with fewer than three actives left out" in specificity({}, targets).lines()[0]
    with pytest.raises(ValueError, match="found 1 of 2 targets with 3 different actives or more, expected at least 2"):
        Targets.of({"a": "MK", "c": "MV"}, few)


def test_sequences_are_compared_by_their_letters() -> None:
    training = Training(pairs={"mktay-*": ["CCO"], "MKTAY": ["OCC", "CCN", "C("]})
    assert training.of("MKTAY") == ("CCO", "CCN") and training.ligands == ("CCO", "CCN")


def test_the_nearest_active_is_the_most_similar_one() -> None:
    found = nearest_actives(["CCCCCO", "C(", "CO"], ["c1ccccc1", "OCCCCCC", "CO", "C("])
    assert found == [("CCCCCCO", tanimoto_of("CCCCCO", "CCCCCCO")), ("", 0.0), ("CO", 1.0)]
    assert nearest_actives(["CC"], []) == nearest_actives(["CC"], ["C("]) == [("", 0.0)]


def test_actives_that_were_trained_on_with_their_target_are_no_reference() -> None:
    trained = Training(pairs={PROTEINS["a"]: ["OCC"], PROTEINS["b"]: ["CC(=O)NC"]})
    actives = {"a": [*ALCOHOLS, "CCCCCO"], "b": RINGS, "c": AMIDES}
    targets = Targets.of(PROTEINS, actives, trained)
    assert targets.actives == {**Targets.of(PROTEINS, actives).actives, "a": ("CCCO", "CCCCO", "CCCCCO")}, "b's ligand stays an active of c"
    with pytest.raises(ValueError, match="found 1 of 2 targets with 3 different actives or more that were not trained on"):
        Targets.of({"a": "MK", "b": "MV"}, actives, Training(pairs={"MK": ALCOHOLS}))


def test_some_targets_are_spread_over_all() -> None:
    some = TARGETS.some(2)
    assert some.names == ("a", "c") == tuple(some.proteins) and TARGETS.some(9).names == TARGETS.names


TABLES = st.integers(2, 6).flatmap(
    lambda t: st.tuples(
        st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=t, max_size=t), min_size=1, max_size=8), st.just(t)
    )
)


@given(table=TABLES, seed=st.integers(0, 99))
def test_values_are_bounded_and_do_not_depend_on_the_order_of_targets(table: tuple[list[list[float]], int], seed: int) -> None:
    rows, num_targets = table
    draws = np.random.default_rng(seed)
    similarities, own = np.array(rows), draws.integers(num_targets, size=len(rows))
    found = values_of(similarities, own)
    order = draws.permutation(num_targets)
    again = values_of(similarities[:, order], np.argsort(order)[own])
    for name in found:
        np.testing.assert_allclose(found[name], again[name], atol=1e-12)
        assert (found[name] <= 1).all() and (found[name] >= (-1 if name == "difference" else 0)).all()


@given(table=TABLES)
def test_over_all_own_targets_the_mean_is_chance(table: tuple[list[list[float]], int]) -> None:
    """Whatever the similarities, a molecule that is judged at every target has shares that sum to one, and no difference."""
    rows, num_targets = table
    every = [values_of(np.array(rows), np.full(len(rows), own)) for own in range(num_targets)]
    np.testing.assert_allclose(np.mean([one["nearest"] for one in every], axis=0), 1 / num_targets)
    np.testing.assert_allclose(np.sum([one["difference"] for one in every], axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_the_result_does_not_depend_on_the_order_of_targets(order: str) -> None:
    def ordered(values: Mapping[str, Sequence[str] | str]) -> dict[str, Sequence[str] | str]:
        return {name: values[name] for name in order}

    samples = {"a": ["CCO", "CCCl"], "b": ["CCO"], "c": ["CC(=O)N", "CCCO", "C("]}
    found = specificity(samples, Targets.of(ordered(PROTEINS), ordered(ACTIVES)), TRAINING)  # type: ignore[arg-type]
    usual = specificity(samples, TARGETS, TRAINING)
    for row in (SAMPLES, COPYING, LOOK_UP, RANDOM, HELD_OUT):
        assert value(found, row) == pytest.approx(value(usual, row)), row
        assert value(found, row, "difference") == pytest.approx(value(usual, row, "difference")), row
