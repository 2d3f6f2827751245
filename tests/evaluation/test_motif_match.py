"""Tests of the demo's matching table: counted by hand, the law recovered from true pairs, shuffling exact."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from protlig_dd.data.synthetic.textbook import RULES, DemoWorld, Pair, generate
from protlig_dd.evaluation.motif_match import COLUMNS, GROUP_NAMES, RULE_NAMES, column_of, count_matches, matching
from protlig_dd.evaluation.sections import Section

pytest.importorskip("rdkit.Chem", reason="the demo's molecules need RDKit")

WORLD = DemoWorld(num_train=300, num_validation=0, num_test=400, families_per_rule=4, ligands_per_rule=120)
ZINC, TRYPSIN = "MKTHELTHAV", "GGDSCQGDSGGP"
HYDROXAMATE, AMIDINE, BENZENE = "CC(=O)NO", "NC(=N)c1ccccc1", "Cc1ccccc1"


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[Pair]]:
    return generate(WORLD)


def samples_of(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.protein, pair.ligand) for pair in pairs]


def test_a_handful_of_samples_is_counted_as_by_hand() -> None:
    samples = [
        (ZINC, HYDROXAMATE),
        (ZINC, AMIDINE),
        (ZINC, BENZENE),
        (ZINC, "c1ccccc"),
        (TRYPSIN, AMIDINE),
        (TRYPSIN, "NC(=N)c1ccc(cc1)C(=O)NO"),
        ("GGGGGGGG", AMIDINE),
        (ZINC + TRYPSIN, AMIDINE),
    ]
    table = matching(samples)
    row = {name: dict(zip(COLUMNS, table.counts[i], strict=True)) for i, name in enumerate(RULE_NAMES)}
    assert row["zinc protease"]["hydroxamate"] == row["zinc protease"]["aryl amidine"] == 1
    assert row["zinc protease"]["no group"] == row["zinc protease"]["invalid"] == 1
    assert row["trypsin S1 pocket"]["aryl amidine"] == row["trypsin S1 pocket"]["several groups"] == 1
    assert (table.counts.sum(), table.num_left_out) == (6, 2)
    assert (table.matched.value, table.valid.value) == (pytest.approx(2 / 6), pytest.approx(5 / 6))
    assert (table.per_rule["zinc protease"].value, table.per_rule["zinc protease"].num) == (0.25, 4)
    assert table.per_rule["kinase hinge"].num == 0
    assert table.shuffled.value == pytest.approx((4 * 1 + 2 * 2 - 2) / 30)
    assert table.law is None and table.learned is None and table.knn is None
    assert "2 samples left out" in table.lines()[-1]


def test_the_shuffled_fraction_is_the_mean_over_all_derangements_of_the_proteins() -> None:
    samples = [(ZINC, HYDROXAMATE), (ZINC, AMIDINE), (TRYPSIN, AMIDINE), (TRYPSIN, BENZENE), (ZINC, HYDROXAMATE)]
    right = {ZINC: HYDROXAMATE, TRYPSIN: AMIDINE}
    every = [
        np.mean([right[samples[j][0]] == samples[i][1] for i, j in enumerate(order)])
        for order in permutations(range(5))
        if all(i != j for i, j in enumerate(order))
    ]
    assert len(every) == 44
    shuffled = matching(samples).shuffled
    assert shuffled.value == pytest.approx(np.mean(every))
    assert shuffled.low < shuffled.value < shuffled.high


def test_true_pairs_reach_the_law_and_shuffled_ones_chance(pairs: dict[str, list[Pair]]) -> None:
    table = matching(samples_of(pairs["test"]), world=WORLD, training=pairs["train"])
    assert table.law == 0.85
    assert table.matched.low < WORLD.law < table.matched.high
    assert table.shuffled.low < WORLD.chance < table.shuffled.high
    assert table.learned is not None and table.learned.low < 1 < table.learned.high
    assert table.valid.value == 1 and table.num_left_out == 0
    assert table.knn is not None and table.knn.num == 400 and table.knn.value < table.matched.low
    truth = [(RULE_NAMES.index(p.rule), GROUP_NAMES.index(p.group)) for p in pairs["test"]]
    assert all(table.counts[i, j] == truth.count((i, j)) for i in range(12) for j in range(12))


def test_ligands_of_other_proteins_have_learned_nothing(pairs: dict[str, list[Pair]]) -> None:
    test = pairs["test"]
    order = np.random.default_rng(1).permutation(len(test))
    table = matching([(test[i].protein, test[j].ligand) for i, j in enumerate(order)], world=WORLD)
    assert table.learned is not None and table.learned.low < 0 < table.learned.high < 0.2
    assert table.matched.low < table.shuffled.value < table.matched.high


def test_no_share_is_given_where_shuffling_does_as_well_as_the_law() -> None:
    table = matching([(ZINC, HYDROXAMATE)] * 5, world=WORLD)
    assert (table.matched.value, table.shuffled.value, table.learned) == (1, 1, None)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_has_its_row_and_its_column(rule: object, pairs: dict[str, list[Pair]]) -> None:
    pair = next(p for p in pairs["train"] if p.rule == rule.name and p.group == rule.group)  # type: ignore[attr-defined]
    counts, left_out = count_matches([(pair.protein, pair.ligand)])
    assert (counts[RULES.index(rule), RULES.index(rule)], counts.sum(), left_out) == (1, 1, 0)  # type: ignore[arg-type]


def test_a_string_that_is_only_in_part_a_molecule_is_invalid(capfd: pytest.CaptureFixture[str]) -> None:
    found = [column_of(s) for s in ("", "CC(=O)NO extra", "C(C", BENZENE)]
    assert found == ["invalid", "invalid", "invalid", "no group"]
    count_matches([(ZINC, "C(C"), (ZINC, "F(F)F")])
    assert capfd.readouterr().err == ""


def test_the_section_says_that_the_world_is_synthetic_and_frames_the_diagonal() -> None:
    section = matching([(ZINC, HYDROXAMATE), (TRYPSIN, BENZENE)], world=WORLD).section()
    assert isinstance(section, Section)
    assert "synthetic world" in section.caution and "nothing here is a drug" in section.caution
    counts, by_rule = section.tables
    assert (counts.rows, counts.columns, counts.heat, counts.diagonal) == (RULE_NAMES, COLUMNS, True, True)
    assert by_rule.cells[0][0] == "hydroxamate"
    names = [score.name for score in section.scores]
    assert names[0] == "matched motif and group" and section.scores[0].null_name == "shuffled proteins"
    assert section.scores[names.index("matched, the law (a perfect model)")].value.value == 0.85


def test_samples_without_any_motif_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="found 1 and no protein with exactly one motif, expected proteins of the demo"):
        matching([("GGGG", HYDROXAMATE)])
