"""Tests of the synthetic textbook world: its law is exact, its rules do not overlap, and it is a function of its seed."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from protlig_dd import config
from protlig_dd.data.synthetic import textbook as demo
from protlig_dd.data.synthetic.rules import SCAFFOLDS, SMALL_SUBSTITUENTS, SUBSTITUENTS, count_groups, count_motifs
from protlig_dd.data.synthetic.textbook import RULES, DemoWorld, Pair, generate, group_of, knn_null, motif_of
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.ligand import tokenize_smiles
from protlig_dd.tokens.protein import AMINO_ACIDS

Chem = pytest.importorskip("rdkit.Chem", reason="the demo's molecules need RDKit")

WORLD = DemoWorld(num_train=2000, num_validation=300, num_test=300, families_per_rule=10, heldout_families_per_rule=4, ligands_per_rule=120)
GROUP_OF_RULE = {rule.name: rule.group for rule in RULES}


@functools.cache
def world_pairs() -> dict[str, list[Pair]]:
    return generate(WORLD)


def all_pairs() -> list[Pair]:
    return [pair for pairs in world_pairs().values() for pair in pairs]


def test_there_are_twelve_rules_with_names_groups_and_motifs_of_their_own() -> None:
    assert len(RULES) == 12
    for field in ("name", "motif", "group", "smarts", "attachment"):
        assert len({getattr(rule, field) for rule in RULES}) == 12, field
    assert all(len(rule.source) > 30 for rule in RULES)
    assert len(SCAFFOLDS) >= 5


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_motif_is_found_in_its_own_examples_and_in_no_near_one(rule: demo.Rule) -> None:
    example = "".join(choice[0] for choice in rule.choices)
    assert motif_of(f"GGG{example}GG") == {rule.name}
    for place in rule.key_positions:
        wrong = next(letter for letter in "YNI" if letter not in rule.choices[place])
        assert motif_of(example[:place] + wrong + example[place + 1 :]) == set(), (rule.name, place)


@pytest.mark.parametrize(
    ("protein", "name"),
    [
        ("VVAHELTHAVTDY", "zinc protease"),  # thermolysin
        ("LIQFHFHWGSLDGQ", "carbonic anhydrase"),  # human carbonic anhydrase II
        ("GGKDSCQGDSGGPVV", "trypsin S1 pocket"),  # bovine trypsin
        ("YIITEFMTYGNLLDY", "kinase hinge"),  # ABL1
        ("LLDTGADDTVL", "aspartyl protease"),  # HIV-1 protease
        ("QGSCGSCWAFSAV", "papain cysteine"),  # papain
        ("PFGSGPRNCIGMRFA", "cytochrome P450"),  # CYP3A4
        ("QFAWPFQQPVDAVK", "bromodomain WPF shelf"),  # BRD4
        ("GTFLVRESETTKG", "SH2 phosphotyrosine pocket"),  # SRC
        ("FPMMSTFKVLLCG", "penicillin-binding serine"),  # TEM-1
        ("VTIFGESAGGASV", "acetylcholinesterase serine"),  # Torpedo acetylcholinesterase
        ("KLFIIQACRGTEL", "caspase cysteine"),  # caspase-3
    ],
)
def test_a_motif_is_found_in_the_natural_protein_it_was_taken_from(protein: str, name: str) -> None:
    assert motif_of(protein) == {name}


@pytest.mark.parametrize(
    ("smiles", "group"),
    [
        ("CC(C)CC(CC(=O)NO)C(=O)NC(C)(C)C", "hydroxamate"),
        ("CC(=O)Nc1nnc(s1)S(N)(=O)=O", "primary sulfonamide"),  # acetazolamide
        ("NC(=N)c1ccccc1", "aryl amidine"),  # benzamidine
        ("c1ccc(Nc2ncccn2)cc1", "2-aminopyrimidine"),
        ("c1ccc(cc1)C(c1ccccc1)(c1ccccc1Cl)n1ccnc1", "N-imidazole"),  # clotrimazole
        ("CC(=O)NCCCCC(N)C(=O)O", "acetamide"),  # acetyl-lysine
        ("OC(=O)C(N)Cc1ccc(CP(O)(O)=O)cc1", "methylphosphonate"),  # phosphonomethyl phenylalanine
        ("CNC(=O)Oc1ccc2c(c1)C1(C)CCN(C)C1N2C", "N-methylcarbamate"),  # physostigmine
    ],
)
def test_a_group_is_found_in_a_molecule_known_for_it(smiles: str, group: str) -> None:
    assert group in group_of(smiles)


def test_group_of_finds_nothing_in_invalid_empty_or_plain_smiles(capfd: pytest.CaptureFixture[str]) -> None:
    assert [group_of(s) for s in ("c1ccccc", "C(C", "F(F)F", "", "CCc1ccccc1OC", "CC(=O)O")] == [set()] * 6
    assert capfd.readouterr().err == ""


def test_every_ligand_is_valid_written_once_and_carries_its_group_once_and_no_other() -> None:
    pairs, written = world_pairs()["train"][:2000], {}
    for smiles, group in {pair.ligand: pair.group for pair in pairs}.items():
        molecule = Chem.MolFromSmiles(smiles)
        assert count_groups(molecule) == {group: 1}, smiles
        assert written.setdefault(Chem.MolToSmiles(molecule), smiles) == smiles
        assert not re.search(r"[+\-]\]|@|\.", smiles)
    assert {pair.group for pair in pairs} == set(GROUP_OF_RULE.values())


def test_scaffolds_and_substituents_carry_no_group() -> None:
    for scaffold in SCAFFOLDS.values():
        for substituent in SUBSTITUENTS.values():
            for second in SMALL_SUBSTITUENTS:
                smiles = scaffold.replace("[1]", "C").replace("[2]", substituent).replace("[3]", SUBSTITUENTS[second])
                assert group_of(smiles) == set(), smiles


def test_the_law_holds_within_four_standard_errors_overall_and_for_every_rule() -> None:
    pairs = all_pairs()
    matched = np.array([GROUP_OF_RULE[pair.rule] == pair.group for pair in pairs])
    assert WORLD.law == 0.85
    assert abs(matched.mean() - WORLD.law) < 4 * np.sqrt(WORLD.law * (1 - WORLD.law) / len(pairs))
    for rule in RULES:
        own = matched[[pair.rule == rule.name for pair in pairs]]
        assert abs(own.mean() - WORLD.law) < 4 * np.sqrt(WORLD.law * (1 - WORLD.law) / len(own)), rule.name


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_rule_of_strength_zero_never_holds_and_one_of_strength_one_always(strength: float) -> None:
    pairs = generate(dataclasses.replace(WORLD, num_train=400, rule_strength=strength))["train"]
    assert {GROUP_OF_RULE[pair.rule] == pair.group for pair in pairs} == {strength == 1}


def test_wrong_groups_are_uniform_over_the_other_eleven() -> None:
    order, groups = [rule.name for rule in RULES], [rule.group for rule in RULES]
    offsets = [(groups.index(p.group) - order.index(p.rule)) % 12 for p in all_pairs()]
    counts = np.bincount(offsets, minlength=12)[1:]
    expected = counts.sum() / 11
    assert ((counts - expected) ** 2 / expected).sum() < 10 + 4 * np.sqrt(20)  # chi-squared, 10 degrees of freedom


def test_shuffled_proteins_match_at_the_stated_chance() -> None:
    pairs = all_pairs()
    order = np.random.default_rng(0).permutation(len(pairs))
    shuffled = np.mean([GROUP_OF_RULE[pairs[i].rule] == pair.group for i, pair in zip(order, pairs, strict=True)])
    assert WORLD.chance == 1 / 12 <= 0.12
    assert abs(shuffled - WORLD.chance) < 4 * np.sqrt(WORLD.chance * (1 - WORLD.chance) / len(pairs))


def test_the_law_table_has_rows_that_sum_to_one_and_the_law_on_its_diagonal() -> None:
    table = WORLD.law_table()
    np.testing.assert_allclose(np.diag(table), 0.85)
    np.testing.assert_allclose([table.sum(1), table.sum(0)], np.ones((2, 12)))  # columns too: groups are equally likely


def test_the_number_of_ligand_tokens_says_nothing_about_the_group() -> None:
    pairs = all_pairs()
    lengths = np.array([len(tokenize_smiles(pair.ligand)) for pair in pairs], dtype=float)
    for rule in RULES:
        own = lengths[[pair.group == rule.group for pair in pairs]]
        assert abs(own.mean() - lengths.mean()) < 4 * lengths.std() / np.sqrt(len(own)), rule.group


def test_every_protein_carries_exactly_one_motif_the_one_of_its_rule() -> None:
    for pair in all_pairs():
        assert count_motifs(pair.protein) == {pair.rule: 1}, pair


def test_lengths_and_letters_stay_within_bounds() -> None:
    pairs = all_pairs()
    assert {len(pair.protein) for pair in pairs} == set(range(24, 33))
    assert set("".join(pair.protein for pair in pairs)) <= set(AMINO_ACIDS)
    assert max(len(tokenize_smiles(pair.ligand)) for pair in pairs) <= WORLD.max_ligand_tokens
    tighter = generate(dataclasses.replace(WORLD, num_train=300, num_validation=0, num_test=0, max_ligand_tokens=22))["train"]
    assert max(len(tokenize_smiles(pair.ligand)) for pair in tighter) == 22


def test_no_family_of_long_proteins_has_a_motif_in_its_consensus() -> None:
    families = demo._families(dataclasses.replace(WORLD, protein_length=(300, 300)), "train", 0)
    assert [motif_of("".join(family.consensus)) for family in families] == [set()] * 120


def test_a_motif_stands_at_many_places_within_one_family() -> None:
    regex = {rule.name: rule.regex for rule in RULES}
    pairs = world_pairs()["train"]
    family = [pair for pair in pairs if pair.family == pairs[0].family]
    starts = {regex[pair.rule].search(pair.protein).start() for pair in family}  # type: ignore[union-attr]
    assert len(starts) > len(family) / 4


def has_decoy(pair: Pair) -> bool:
    for rule in RULES:
        for place in rule.key_positions if rule.name != pair.rule and len(rule.key_positions) > 3 else ():
            choices = [f"[^{c}]" if i == place else f"[{c}]" for i, c in enumerate(rule.choices)]
            if re.search("".join(choices), pair.protein):
                return True
    return False


@pytest.mark.parametrize(("prob", "low", "high"), [(0.0, 0.0, 0.15), (1.0, 0.8, 1.0)])
def test_decoys_are_near_motifs_of_other_rules(prob: float, low: float, high: float) -> None:
    world = DemoWorld(num_train=300, num_validation=0, num_test=0, decoy_prob=prob, families_per_rule=5, ligands_per_rule=120)
    pairs = generate(world)["train"]
    assert low <= np.mean([has_decoy(pair) for pair in pairs]) <= high
    assert all(count_motifs(pair.protein) == {pair.rule: 1} for pair in pairs)


def test_families_of_the_splits_are_disjoint_and_members_resemble_their_own_family() -> None:
    families = {split: {pair.family for pair in pairs} for split, pairs in world_pairs().items()}
    assert not families["train"] & (families["validation"] | families["test"])
    assert not families["validation"] & families["test"]
    consensus = {"".join(f.consensus) for split in families for f in demo._families(WORLD, split, 0)}
    assert len(consensus) == 12 * (10 + 4 + 4)
    assert not {pair.protein for pair in world_pairs()["train"]} & {pair.protein for pair in world_pairs()["test"]}


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others() -> None:
    demo._pool.cache_clear()
    again, other = (generate(dataclasses.replace(WORLD, num_train=300, num_test=9, seed=seed)) for seed in (0, 1))
    assert again["train"] == world_pairs()["train"][:300]
    assert not {pair.protein for pair in other["train"]} & {pair.protein for pair in world_pairs()["train"]}


def test_pair_i_does_not_depend_on_the_number_of_pairs() -> None:
    smaller = generate(dataclasses.replace(WORLD, num_train=50, num_test=7))
    assert smaller["train"] == world_pairs()["train"][:50]
    assert smaller["test"] == world_pairs()["test"][:7]


def test_pairs_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    code = (
        "from protlig_dd.data.synthetic.textbook import DemoWorld, generate\n"
        "pairs = generate(DemoWorld(num_train=60, num_validation=0, num_test=0, ligands_per_rule=120))['train']\n"
        "import sys; sys.stdout.write(repr(pairs))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    world = DemoWorld(num_train=60, num_validation=0, num_test=0, ligands_per_rule=120)
    assert run.stdout == repr(generate(world)["train"])


def test_knn_null_agrees_with_the_definition_written_out() -> None:
    train, test = world_pairs()["train"][:150], [pair.protein for pair in world_pairs()["test"][:20]]

    def words(protein: str) -> set[str]:
        return {protein[i : i + 2] for i in range(len(protein) - 1)}

    def jaccard(a: str, b: str) -> float:
        return len(words(a) & words(b)) / len(words(a) | words(b))

    expected = [train[int(np.argmax([jaccard(protein, pair.protein) for pair in train]))].ligand for protein in test]
    assert knn_null(train, test, kmer=2) == expected


def test_knn_null_finds_a_training_protein_again_and_copes_with_strangers() -> None:
    train = world_pairs()["train"][:100]
    assert knn_null(train, [pair.protein for pair in train]) == [pair.ligand for pair in train]
    assert knn_null(train, ["", "G", "XXXXX"]) == [train[0].ligand] * 3


def test_a_world_is_built_from_plain_values_and_read_back() -> None:
    built: DemoWorld = config.build(DemoWorld, {"num_train": 10, "protein_length": [24, 30]}, "data")
    assert built == DemoWorld(num_train=10, protein_length=(24, 30))
    assert config.build(DemoWorld, config.to_mapping(built), "data") == built


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_train": 0}, "num_train: found 0, expected 1 or more"),
        ({"num_test": -1}, "num_test: found -1, expected 0 or more"),
        ({"rule_strength": 1.2}, r"rule_strength: found 1.2, expected a number from 0 to 1.0"),
        ({"protein_length": (9, 30)}, "protein_length: found 9 to 30, expected fewest first, at least 10"),
        ({"protein_length": (32, 24)}, "protein_length: found 32 to 24"),
    ],
)
def test_impossible_worlds_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DemoWorld(**values)  # type: ignore[arg-type]


def test_a_token_limit_that_leaves_no_ligands_is_refused_with_advice() -> None:
    world = DemoWorld(num_train=1, max_ligand_tokens=8, ligands_per_rule=20)
    with pytest.raises(ConfigError, match=r"max_ligand_tokens: found 8.*or ligands_per_rule .found 20"):
        generate(world)
