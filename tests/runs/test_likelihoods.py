"""What evaluation says about true examples of a run: the units of the condition gap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protlig_dd.data.table import TokenTable
from protlig_dd.evaluation import conditioning
from protlig_dd.runs.experiment import Parts, load_experiment
from protlig_dd.runs.likelihoods import dependence
from protlig_dd.runs.open import open_run
from protlig_dd.runs.run import Run
from tests.support.tables import token_table

pytestmark = pytest.mark.xdist_group("run")
LIGANDS = ("CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCO", "CCCN", "CCC", "CNC")


@pytest.fixture(scope="module")
def run(smoke_run: Path) -> Run:
    return open_run(smoke_run, device="cpu")


def families_of_two(run: Run) -> TokenTable:
    """Eight pairs: two proteins with one residue changed in each of four unlike families."""
    rows = []
    for family in range(4):
        letters = np.random.default_rng(family).choice(list("ACDEFGHIKLMNPQRSTVWY"), 40)
        for changed in ("", "W"):
            text = "".join(letters[:20]) + changed + "".join(letters[20 + len(changed) :])
            ids = {"protein": text, "ligand": LIGANDS[len(rows)]}
            rows.append({name: run.parts.tracks[name].encode(one, where="test") for name, one in ids.items()})
    return token_table(rows, list(run.parts.tracks))


def test_the_units_of_the_condition_gap_are_families_of_proteins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled: list[tuple[np.ndarray, np.ndarray]] = []
    shuffle = conditioning.shuffle_across

    def watch(clusters: Any, *, seed: int) -> Any:
        partner, is_permutation = shuffle(clusters, seed=seed)
        shuffled.append((clusters, partner))
        return partner, is_permutation

    monkeypatch.setattr(conditioning, "shuffle_across", watch)
    section, _ = dependence(run, families_of_two(run), "test", "ligand_given_protein")
    assert "8 pairs in 4 clusters" in section.lines[0]
    ((_, partner),) = shuffled
    family = np.arange(8) // 2
    assert (family[partner] != family).all(), "no ligand is scored with a protein of its own family"


def test_a_ligand_as_the_condition_is_a_unit_of_its_own(run: Run) -> None:
    parts = Parts(load_experiment("demo/smoke", ["diffusion.tasks.protein_given_ligand=0.1"]))
    section, _ = dependence(replace(run, parts=parts), families_of_two(run), "test", "protein_given_ligand")
    assert "8 pairs in 8 clusters" in section.lines[0]
