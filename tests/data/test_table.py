"""Token tables give back what went in, in memory, as a view, and memory-mapped from shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protlig_dd.data.shards import ShardWriter, open_shards, read_manifest
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
from tests.support.tables import token_table, write_shards

TRACKS = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
ROWS = st.lists(
    st.fixed_dictionaries({"protein": st.lists(st.integers(4, 23), max_size=6), "ligand": st.lists(st.integers(5, 30), max_size=4)}),
    min_size=1,
    max_size=12,
)


def listed(table: TokenTable) -> list[dict[str, list[int]]]:
    return [{name: ids.tolist() for name, ids in table.example(i).items()} for i in range(len(table))]


@given(rows=ROWS)
@settings(max_examples=40, deadline=None)
def test_a_table_gives_back_its_examples(rows):
    table = token_table(rows, ["protein", "ligand"])
    assert listed(table) == rows
    assert table.num_tokens == sum(len(r["protein"]) + len(r["ligand"]) for r in rows)


@given(rows=ROWS, data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_selection_shares_memory_and_stays_consistent(rows, data):
    table = token_table(rows, ["protein", "ligand"], labels={"label": np.arange(len(rows))})
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=20))
    view = table.select(picked)
    assert listed(view) == [rows[i] for i in picked]
    assert view.labels["label"].tolist() == picked
    column = view.tracks["protein"]
    assert column.pools[0] is table.tracks["protein"].pools[0]
    assert column.gather(np.arange(len(column))).tolist() == [token for i in picked for token in rows[i]["protein"]]


def test_a_boolean_mask_selects():
    table = token_table([{"protein": [4]}, {"protein": [5]}], ["protein"], names=["a", "b"])
    assert listed(table.select(np.array([False, True]))) == [{"protein": [5]}]
    assert table.select([1]).names.tolist() == ["b"]


def test_shards_round_trip_over_several_files(tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"protein": rng.integers(4, 24, rng.integers(0, 9)).tolist(), "ligand": rng.integers(5, 30, 3).tolist()} for _ in range(50)]
    labels = {"label": np.arange(50) % 2, "affinity": np.linspace(0, 1, 50)}
    table = token_table(rows, list(TRACKS), labels=labels, names=[f"n{i}" for i in range(50)])
    write_shards(table, tmp_path / "s", TRACKS, tokens_per_shard=60)
    assert len(read_manifest(tmp_path / "s")["shards"]) > 3
    back = open_shards(tmp_path / "s", TRACKS)
    assert listed(back) == rows
    assert listed(back.select([49, 3, 20])) == [rows[i] for i in (49, 3, 20)]
    assert back.labels["label"].tolist() == labels["label"].tolist()
    assert back.labels["affinity"].tolist() == labels["affinity"].tolist()
    assert list(back.names) == table.names.tolist()
    assert list(back.select([49, 3, 20]).names) == ["n49", "n3", "n20"] and back.names[17] == "n17"
    assert not back.tracks["protein"].pools[0].flags.owndata


def test_shards_refuse_another_vocabulary_by_name(tmp_path):
    with ShardWriter(tmp_path / "s", TRACKS) as writer:
        writer.add({"protein": [4, 5]})
    other = {"protein": ProteinTrack(num_rows=37, mask_id=36).build("protein")}
    with pytest.raises(FormatError, match=r"track 'protein' was written with vocabulary \w+, the config's is \w+ .*use the same"):
        open_shards(tmp_path / "s", other)
    with pytest.raises(FormatError, match=r"found tracks \['ligand', 'protein'\], expected 'dna'"):
        open_shards(tmp_path / "s", {"dna": TRACKS["protein"]})


def test_damaged_or_missing_shards_are_one_clear_error(tmp_path):
    with pytest.raises(FormatError, match=r"shards\.json: not readable .*protlig prepare shards"):
        open_shards(tmp_path)
    with ShardWriter(tmp_path / "s", TRACKS) as writer:
        writer.add({"protein": [4, 5]})
    shard = tmp_path / "s" / "shard-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"shard-00000\.arrow: damaged or missing shard"):
        open_shards(tmp_path / "s")
    with pytest.raises(FormatError, match="found shards there already"):
        ShardWriter(tmp_path / "s", TRACKS)


def test_an_interrupted_writer_leaves_no_manifest(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "s", TRACKS) as writer:
        writer.add({"protein": [4]})
        raise RuntimeError
    assert not (tmp_path / "s" / "shards.json").exists()


def test_examples_are_called_by_their_names_or_by_their_numbers() -> None:
    named = token_table([{"protein": [5]}, {"protein": [6]}], ["protein"], names=["p1", ""])
    nameless = token_table([{"protein": [5]}], ["protein"])
    assert [named.name_of(i) for i in (0, 1)] == ["p1", "example1"] and nameless.name_of(0) == "example0"
