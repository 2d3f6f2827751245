"""Known answers on small sets of molecules, invalid strings with their reasons, and the nulls."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protlig_dd.errors import ConfigError, FormatError

pytest.importorskip("rdkit", reason="molecules need RDKit: pip install 'protlig_dd[ligand]'")

from rdkit import Chem

from protlig_dd.evaluation import ligands
from protlig_dd.evaluation.intervals import Score, format_scores
from protlig_dd.evaluation.ligands import Molecules, read_molecules, summary
from protlig_dd.tokens.ligand import tokenize_smiles

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
TRAINING = [ASPIRIN, "CCO", "c1ccccc1", "CCN", "Cc1ccccc1", "OCC(O)CO", "C1CCCCC1", "CC(C)=O", "Clc1ccccc1", "CCCCCC"]


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {score.name: score for score in scores}


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("CC", ""),
        ("[Na+].[Cl-]", ""),
        ("", "empty"),
        ("CC(", "syntax"),
        ("C1CC", "syntax"),
        ("CC<unk>", "syntax"),
        ("C(C)(C)(C)(C)C", "valence"),
        ("c1cccc1", "aromaticity"),
        ("CC ethane", "white space"),
        (" CC", "white space"),
        ("CC\n", "white space"),
    ],
)
def test_each_invalid_string_is_left_out_with_its_reason(smiles: str, reason: str) -> None:
    with ligands.silent_rdkit():
        mol, found = ligands.parse_molecule(smiles)
    assert found == reason
    assert (mol is None) == bool(reason)


def test_invalid_strings_are_counted_and_never_averaged() -> None:
    molecules = read_molecules([ASPIRIN, "C(C)(C)(C)(C)C", "CC(", "C1CC"])
    assert molecules.describe_invalid() == "3 of 4 left out: 2 syntax, 1 valence"
    assert ligands.validity(molecules).value == 0.25
    weight = ligands.mean_property(molecules, "MW")
    assert weight.value == pytest.approx(180.159, abs=1e-3)
    assert weight.num == 1
    assert read_molecules(["CC"]).describe_invalid() == ""


def test_copies_count_however_they_are_written() -> None:
    molecules = read_molecules(["CCO", "OCC", "C(C)O", "CC", "xx"])
    known = {"CCO"}
    assert ligands.uniqueness(molecules).value == 2 / 4
    assert ligands.novelty(molecules, known).value == 1 / 2  # of ethanol and ethane, one is new
    assert ligands.exact_copy_rate(molecules, known).value == 3 / 4
    assert ligands.uniqueness(molecules).num == 4


def test_enantiomers_are_different_molecules() -> None:
    assert ligands.uniqueness(read_molecules(["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"])).value == 1.0


def test_diversity_is_zero_for_copies_and_one_for_dissimilar_molecules_but_for_pairs_with_themselves() -> None:
    assert ligands.internal_diversity(read_molecules(["CCO"] * 4)).value == 0.0
    assert ligands.internal_diversity(read_molecules(["CCCC", "c1ccncc1"])).value == 1 / 2  # two of the four pairs are dissimilar
    mixed = ligands.internal_diversity(read_molecules(["CCCC", "CCCC", "c1ccncc1"]))
    assert mixed.value == pytest.approx(4 / 9)
    assert ligands.internal_diversity(read_molecules(["CC"])).num == 0


def test_diversity_sees_atoms_two_bonds_away_and_none_further() -> None:
    hexane_heptane = ligands.internal_diversity(read_molecules(["CCCCCC", "CCCCCCC"]))  # 7 of 8 neighbourhoods are shared
    assert hexane_heptane.value == pytest.approx(1 / 8 / 2)
    assert ligands.internal_diversity(read_molecules(["CCCCCCC", "CCCCCCCCC"])).value == 0


@pytest.mark.data
def test_diversity_of_published_samples_is_the_published_one(shared: Path) -> None:
    folder = shared / "data" / "moses_jtvae"
    published = float(re.search(r"IntDiv = (\S+)", (folder / "metrics.txt").read_text())[1])
    with gzip.open(folder / "samples.smi.gz", "rt") as lines:
        molecules = read_molecules([line.strip() for line in islice(lines, 2000)])
    found = ligands.internal_diversity(molecules, max_molecules=2000)
    assert found.low < published < found.high, found
    assert found.high - found.low < 0.01


def test_diversity_of_many_is_that_of_a_repeatable_draw() -> None:
    molecules = read_molecules(TRAINING)
    first = ligands.internal_diversity(molecules, max_molecules=5)
    assert first.num == 5
    assert first == ligands.internal_diversity(molecules, max_molecules=5)
    assert any(first != ligands.internal_diversity(molecules, max_molecules=5, seed=s) for s in range(1, 4))


def test_scaffolds_keep_rings_and_linkers_only() -> None:
    molecules = read_molecules(["Cc1ccccc1", "Clc1ccccc1", "c1ccccc1CCC1CC1", "CCCC"])
    assert ligands.scaffolds(molecules) == ["c1ccccc1", "c1ccccc1", "c1ccc(CCC2CC2)cc1", ""]
    assert ligands.scaffold_count(molecules).value == 2
    assert ligands.scaffold_count(molecules).num == 3
    assert ligands.scaffold_uniqueness(molecules).value == 2 / 3


def test_rdkit_is_silent_inside_the_block_only(capfd: pytest.CaptureFixture[str]) -> None:
    read_molecules(["CC(", "C(C)(C)(C)(C)C"])
    assert capfd.readouterr().err == ""
    assert Chem.MolFromSmiles("CC(") is None
    assert "SMILES Parse Error" in capfd.readouterr().err


def test_unigrams_have_the_training_letters_and_lengths() -> None:
    drawn = ligands.draw_unigrams(["CCCCCCO", "CBr"], 4000, seed=1)
    assert drawn == ligands.draw_unigrams(["CCCCCCO", "CBr"], 4000, seed=1)
    lengths = Counter(len(tokenize_smiles(s)) for s in drawn)
    assert set(lengths) == {2, 7}
    assert abs(lengths[2] - 2000) < 4 * 31.7  # binomial standard error of 4,000 halves
    tokens = Counter(t for s in drawn for t in tokenize_smiles(s))
    assert tokens["Br"] / tokens.total() == pytest.approx(1 / 9, abs=4 * (8 / 81 / 18_000) ** 0.5)


def test_the_summary_gives_every_score_a_null() -> None:
    scores = by_name(summary(["CCO", "CC(C)O", "c1ccccc1O", "CC(", "CC(C)O"], TRAINING))
    assert all(score.null is not None and score.null_name for score in scores.values())
    assert scores["validity"].value.value == 0.8
    assert scores["validity"].null_name == "unigrams"
    assert scores["validity"].note == "1 of 5 left out: 1 syntax"
    assert scores["uniqueness"].value.value == 3 / 4
    assert scores["exact copies"].value.value == 1 / 4
    assert scores["novelty"].value.value == pytest.approx(2 / 3)
    assert scores["novelty"].null is not None
    assert scores["novelty"].null.value == 1.0  # rows drawn from training are judged against the rows left
    assert {score.null.num for name, score in scores.items() if name in ("MW", "QED") and score.null} == {5}
    assert set(ligands.PROPERTIES) <= set(scores)


def test_copies_within_training_show_in_the_null() -> None:
    scores = by_name(summary(["CCO"] * 4, ["CCN", "NCC"] * 10, properties=["MW"]))
    assert scores["exact copies"].null is not None
    assert scores["exact copies"].null.value == 1.0


def test_a_reference_replaces_the_training_sample() -> None:
    scores = by_name(summary(["CCO"], TRAINING, reference=["CCCl", "CCO"], properties=["MW"]))
    assert scores["exact copies"].null_name == "reference"
    assert scores["exact copies"].null is not None
    assert scores["exact copies"].null.value == 0.5
    assert "QED" not in scores


def test_a_summary_without_a_valid_molecule_prints_none() -> None:
    lines = format_scores(summary(["CC(", "xx"], TRAINING, properties=["QED"])).splitlines()
    assert lines[0].startswith("validity")
    assert "0.00 [0.00, 0.66]" in lines[0]
    assert lines[0].endswith("2 of 2 left out: 2 syntax")
    assert all(line.split("  n=0")[0].split()[-1] in ("none", "0") for line in lines[1:])


def test_summaries_repeat_with_their_seed() -> None:
    assert summary(TRAINING[:6], TRAINING, seed=3) == summary(TRAINING[:6], TRAINING, seed=3)


@pytest.mark.parametrize(
    ("samples", "training", "properties", "error", "message"),
    [
        ([], ["CC"], ["QED"], ConfigError, "samples: found none, expected at least one SMILES"),
        (["CC"], ["xx"], ["QED"], ConfigError, "training: found no valid molecule among 1"),
        (["CC"], [], ["QED"], ConfigError, "training: found no valid molecule among 0"),
        (["CC"], ["CC"], ["qed"], ConfigError, r"property 'qed': unknown.*; expected one of: QED, SA score"),
        (["CC"], ["CC", "C!"], ["QED"], FormatError, r"training\[1\]: '!' at character 2 of 'C!' is not SMILES"),
    ],
)
def test_input_that_cannot_be_summarised_is_refused(
    samples: list[str], training: list[str], properties: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        summary(samples, training, properties=properties)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(TRAINING), st.text(alphabet="CNO()=1c#", max_size=6)), min_size=1, max_size=8))
def test_every_fraction_is_a_fraction_and_every_string_is_accounted_for(strings: list[str]) -> None:
    molecules: Molecules = read_molecules(strings)
    assert molecules.num_valid + sum(n for _, n in molecules.invalid) == len(strings)
    known = {s for s in ligands.canonical_smiles(TRAINING) if s}
    for estimate in (
        ligands.validity(molecules),
        ligands.uniqueness(molecules),
        ligands.novelty(molecules, known),
        ligands.exact_copy_rate(molecules, known),
        ligands.scaffold_uniqueness(molecules),
    ):
        assert estimate.num == 0 or 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    diversity = ligands.internal_diversity(molecules)
    assert diversity.num == 0 or 0 <= diversity.value <= 1
