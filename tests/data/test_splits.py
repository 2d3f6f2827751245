"""Splits keep groups together and leave nothing out; similarity and leakage are right on sequences whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from protlig_dd.data.encode import Encoder, encode_records
from protlig_dd.data.leakage import _some, measure_leakage
from protlig_dd.data.readers.records import Record
from protlig_dd.data.similarity import KmerIndex, cluster_proteins, identity, per_root_length
from protlig_dd.data.splits import (
    ClusterSplit,
    GivenSplit,
    ProteinSplit,
    RandomSplit,
    ScaffoldSplit,
    same_sequence_groups,
    scaffold_groups,
    split_rows,
)
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack

TRACKS = {"protein": ProteinTrack(add_ends=False).build("protein"), "ligand": LigandTrack().build("ligand")}
LIGANDS = ["CCO", "CCCO", "c1ccccc1", "Cc1ccccc1", "CCc1ccccc1", "C1CCCCC1", "CC1CCCCC1", "c1ccncc1", "Cc1ccncc1", "C1CCOC1"]


def mutated(protein, rate, rng):
    hit = rng.random(len(protein)) < rate
    return np.where(hit, rng.integers(4, 24, len(protein)), protein)


@pytest.fixture(scope="module")
def families():
    """Return 12 families of 8 proteins, members at about 85 % identity to the founder."""
    rng = np.random.default_rng(0)
    founders = [rng.integers(4, 24, rng.integers(80, 120)) for _ in range(12)]
    return [mutated(f, 0.15, rng) for f in founders for _ in range(8)]


def table_of(proteins, splits=None):
    spell = TRACKS["protein"].decode
    records = [
        Record(
            where=f"a:{i}",
            texts={"protein": spell(p.tolist()), "ligand": LIGANDS[i % len(LIGANDS)]},
            split=None if splits is None else splits[i],
        )
        for i, p in enumerate(proteins)
    ]
    return encode_records(records, Encoder(TRACKS))[0]


KINDS = [
    RandomSplit(validation_fraction=0.2, test_fraction=0.2),
    ProteinSplit(validation_fraction=0.2, test_fraction=0.2),
    ScaffoldSplit(validation_fraction=0.2, test_fraction=0.2),
    ClusterSplit(validation_fraction=0.2, test_fraction=0.2),
]


@pytest.mark.parametrize("how", KINDS, ids=lambda how: how.kind)
def test_every_row_is_in_one_part_and_groups_stay_together(families, how):
    proteins = [families[i // 2 * 2] for i in range(len(families))]  # each protein twice
    table = table_of(proteins)
    split = split_rows(table, TRACKS, how, seed=4)
    parts = (split.train, split.validation, split.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(table)))
    assert all(0.1 <= len(part) / len(table) <= 0.35 for part in parts[1:])
    groups = {
        "random": np.arange(len(table)),
        "protein": same_sequence_groups(table.tracks["protein"]),
        "scaffold": scaffold_groups(table.tracks["ligand"], TRACKS["ligand"]),
        "cluster": np.arange(len(table)) // 8,
    }[how.kind]
    owners = [set(groups[part].tolist()) for part in parts]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]
    again = split_rows(table, TRACKS, how, seed=4)
    assert np.array_equal(again.validation, split.validation)
    assert not np.array_equal(split_rows(table, TRACKS, how, seed=5).validation, split.validation)
    assert how.kind in split.how


def test_a_given_split_is_taken_and_what_it_leaves_out_is_said(families):
    table = table_of(families[:6], ["train", "validation", "test", "removed", None, "train"])
    split = split_rows(table, TRACKS, GivenSplit(), seed=0)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 5], [1], [2])
    assert split.how == "given by the file; 1 rows without a split left out; 1 rows of other splits left out"
    only_train = table_of(families[:20], ["train"] * 20)
    assert len(split_rows(only_train, TRACKS, GivenSplit(validation_fraction=0.1), seed=0).validation) == 2


def test_impossible_splits_are_refused_with_advice(families):
    with pytest.raises(ConfigError, match=r"the file assigns no row to 'train' .*name it with data\.columns\.split"):
        split_rows(table_of(families[:4]), TRACKS, GivenSplit(), seed=0)
    with pytest.raises(ConfigError, match="no group of a protein split is small enough"):
        split_rows(table_of([families[0]] * 40), TRACKS, ProteinSplit(), seed=0)
    with pytest.raises(ConfigError, match="the data have no track 'ligand'"):
        proteins = encode_records([Record(where="a", texts={"protein": "MKV"})], Encoder({"protein": TRACKS["protein"]}))[0]
        split_rows(proteins, TRACKS, ScaffoldSplit(), seed=0)
    with pytest.raises(ValueError, match="together below 1"):
        RandomSplit(validation_fraction=0.6, test_fraction=0.5)


def test_clusters_are_the_families(families):
    clusters = cluster_proteins(families, 0.5)
    assert all(len(set(clusters[i : i + 8].tolist())) == 1 for i in range(0, 96, 8))
    assert len(set(clusters.tolist())) == 12


def test_the_nearest_of_an_index_is_of_the_family(families):
    index = KmerIndex(families[8:])
    assert index.nearest(families[9], 1, by=per_root_length).tolist() == [1]
    assert set(index.nearest(families[20], 3, by=per_root_length).tolist()) <= set(range(8, 16))


def test_identity_survives_insertions():
    rng = np.random.default_rng(3)
    protein = rng.integers(4, 24, 200)
    broken = np.concatenate([protein[:70], rng.integers(4, 24, 5), protein[70:150], protein[160:]])
    assert identity([broken], [protein], over="shorter")[0] > 0.94
    assert identity([rng.integers(4, 24, 200)], [protein], over="shorter")[0] < 0.3


def test_leakage_tells_copies_relatives_and_strangers_apart(families):
    table = table_of(families)
    family = np.arange(96) // 8
    cold = measure_leakage(table.select(family < 9), table.select(family >= 9))
    warm = measure_leakage(table.select(np.arange(96) % 8 > 0), table.select(np.arange(96) % 8 == 0))
    copied = measure_leakage(table, table.select([3, 50]))
    assert cold.identity[1] < 0.4 and cold.exact_proteins == 0 and cold.exact_ligands == 1
    assert 0.65 < warm.identity[1] < 0.95
    assert copied.identity == (1, 1, 1, 1) and copied.exact_proteins == 1
    assert cold.null_identity < 0.35
    assert cold.line().startswith("leakage: identity of validation proteins to the nearest training protein: median 0.")
    few = measure_leakage(table, table.select([3, 50]), most=40)
    assert few.line().startswith("leakage (in 40 of 96 training examples): ") and copied.sampled is None
    read = [part.tracks["protein"].num_tokens for part in (table, _some(table, 40, 0))]
    assert len(_some(table, 40, 0)) == 40 and read[1] < read[0]
