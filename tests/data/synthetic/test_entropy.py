"""The exact entropy of the textbook world's ligands, against an enumeration of every ligand and against draws."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from protlig_dd.data.synthetic.entropy import ligand_entropy, ligand_nll
from protlig_dd.data.synthetic.textbook import RULES, DemoWorld, generate, ligand_law

pytest.importorskip("rdkit", reason="the textbook world's ligands are assembled by RDKit (extra ligand)")
TINY = DemoWorld(ligands_per_rule=60, num_train=2000, num_validation=0, num_test=0, families_per_rule=2)


@pytest.mark.parametrize("given_protein", [True, False])
def test_the_entropy_is_that_of_the_enumerated_law(given_protein: bool) -> None:
    """Every ligand's probability is added up over the ways to draw it, length by length and rule by rule."""
    table, total = TINY.law_table(), 0.0
    for _, length_prob, cells in ligand_law(TINY):
        by_rule = []
        for rule in range(len(RULES)):
            law: dict[str, float] = defaultdict(float)
            for group, cell in enumerate(cells):
                for smiles in cell:
                    law[smiles] += table[rule, group] / len(cell)
            by_rule.append(law)
        if not given_protein:
            mixed: dict[str, float] = defaultdict(float)
            for law in by_rule:
                for smiles, prob in law.items():
                    mixed[smiles] += prob / len(RULES)
            by_rule = [mixed]
        total += length_prob * np.mean([-sum(p * np.log(p) for p in law.values()) for law in by_rule])
        assert all(sum(law.values()) == pytest.approx(1.0) for law in by_rule)
    assert ligand_entropy(TINY, given_protein=given_protein).nats == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("given_protein", [True, False])
def test_the_mean_surprise_of_drawn_pairs_is_the_entropy(given_protein: bool) -> None:
    each = ligand_nll(TINY, generate(TINY)["train"], given_protein=given_protein)
    exact = ligand_entropy(TINY, given_protein=given_protein)
    assert abs(each.mean() - exact.nats) < 4 * each.std() / np.sqrt(len(each))
    assert exact.per_token == exact.nats / exact.tokens


def test_the_protein_tells_what_its_group_is_worth() -> None:
    row = TINY.law_table()[0]
    gained = ligand_entropy(TINY, given_protein=False).nats - ligand_entropy(TINY, given_protein=True).nats
    assert gained == pytest.approx(np.log(12) + (row * np.log(row)).sum())
