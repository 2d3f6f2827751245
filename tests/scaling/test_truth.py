"""The exact floor of a study's data, where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from protlig_dd.runs.experiment import load_experiment
from protlig_dd.scaling.truth import truth_of


def test_the_floor_of_the_chain_is_known_and_close_to_that_of_its_validation_set() -> None:
    config = load_experiment("scaling/markov", ["data.num_validation=400"])
    truth = truth_of(config)
    assert truth is not None and truth.entropy == config.data.entropy
    assert truth.on_validation == pytest.approx(truth.entropy, abs=0.05) and truth.on_validation != truth.entropy
    assert 0.5 < truth.entropy < np.log(20)
    assert "true floor: 1." in truth.line()


def test_the_floor_of_the_textbook_ligands_is_known() -> None:
    pytest.importorskip("rdkit", reason="the textbook world's ligands are assembled by RDKit (extra ligand)")
    few = ["data.ligands_per_rule=100", "data.families_per_rule=2", "data.num_validation=300"]
    alone = truth_of(load_experiment("scaling/textbook", few))
    given = truth_of(
        load_experiment("dual_track/demo", [*few, "diffusion.tasks={ligand_given_protein: 1, joint: 0, ligand_only: 0, protein_only: 0}"])
    )
    assert alone is not None and given is not None
    assert given.entropy < alone.entropy
    for truth in (alone, given):
        assert truth.on_validation == pytest.approx(truth.entropy, rel=0.1)


def test_no_floor_is_claimed_where_none_is_known() -> None:
    assert truth_of(load_experiment("dual_track/demo")) is None
    assert truth_of(load_experiment("scaling/proteins")) is None
