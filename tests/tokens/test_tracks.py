"""Tracks, layouts and packed batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.errors import ConfigError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
from protlig_dd.tokens.tracks import Layout, pack

TRACKS = {"protein": ProteinTrack(unknown="X").build("protein"), "ligand": LigandTrack().build("ligand")}
LENGTHS = st.lists(st.integers(0, 9), max_size=12)
ROWS = st.lists(st.lists(st.integers(4, 28), max_size=8), max_size=8)


@pytest.mark.parametrize("length", [-100, 0, 2])
def test_a_track_that_holds_nothing_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=rf"tracks\.protein\.max_length: found {length}, expected 3 or more"):
        ProteinTrack(max_length=length).build("protein")


@given(LENGTHS)
def test_a_layout_says_where_everything_lies(lengths: list[int]) -> None:
    layout = Layout(tuple(lengths))
    places = [(i, j) for i, n in enumerate(lengths) for j in range(n)]
    assert list(zip(layout.segment.tolist(), layout.position.tolist(), strict=True)) == places
    assert layout.num_tokens == len(places) and layout.num_examples == len(lengths)
    assert layout.max_length == max(lengths, default=0)
    assert layout.offsets == tuple(sum(lengths[:i]) for i in range(len(lengths) + 1))
    assert layout.cu_seqlens.tolist() == list(layout.offsets) and layout.cu_seqlens.dtype == torch.int32


@given(ROWS)
def test_packing_and_splitting_are_inverse(rows: list[list[int]]) -> None:
    batch = pack([{"protein": row} for row in rows], TRACKS)
    assert batch.tracks["protein"].split() == rows
    assert batch.tracks["ligand"].split() == [[] for _ in rows], "a track that an example lacks has length 0"
    assert batch.num_examples == len(rows) and batch.num_tokens == sum(map(len, rows))
    assert batch.example_ids.tolist() == batch.slots.tolist() == list(range(len(rows)))
    assert batch.global_size == len(rows)


@given(ROWS, st.data())
def test_keeping_empties_the_others(rows: list[list[int]], data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    track = pack([{"protein": row} for row in rows], TRACKS).tracks["protein"]
    after = track.keep(kept)
    assert after.split() == [row if keep else [] for row, keep in zip(rows, kept, strict=True)]
    assert after.maskable.tolist() == TRACKS["protein"].emittable[after.tokens].tolist()
    assert track.split() == rows, "the track itself is not changed"


PAIRS = st.lists(st.tuples(*[st.lists(st.integers(4, 20), max_size=6)] * 2), min_size=1, max_size=6)


@given(PAIRS, st.data())
def test_selecting_examples_is_selecting_from_lists(pairs: list[tuple[list[int], list[int]]], data: st.DataObject) -> None:
    """Every part of the batch follows its example, repeated and reordered, as plain lists do."""
    num = len(pairs)
    chosen = data.draw(st.lists(st.integers(0, num - 1), max_size=8))
    ids, slots, labels = ([10 * i + 3 for i in range(num)], [num - i for i in range(num)], [i % 3 - 1 for i in range(num)])
    examples = [{"protein": a, "ligand": b} for a, b in pairs]
    whole = pack(examples, TRACKS, example_ids=ids, slots=slots, global_size=77, conditions={"affinity": labels})
    whole = replace(whole, apart=tuple(i % 2 == 0 for i in range(num)))
    some = whole.select(chosen)
    for name, track in some.tracks.items():
        assert track.split() == [list(examples[i][name]) for i in chosen]
        masks = [TRACKS[name].emittable[torch.tensor(examples[i][name], dtype=torch.int64)].tolist() for i in chosen]
        assert track.maskable.tolist() == [one for row in masks for one in row]
        assert track.layout == Layout(tuple(len(examples[i][name]) for i in chosen))
    assert some.example_ids.tolist() == [ids[i] for i in chosen] and some.slots.tolist() == [slots[i] for i in chosen]
    assert some.conditions["affinity"].tolist() == [labels[i] for i in chosen]
    assert some.apart == tuple(i % 2 == 0 for i in chosen) and some.global_size == 77


def test_only_emittable_tokens_are_maskable() -> None:
    batch = pack([{"protein": TRACKS["protein"].encode("MXKB"), "ligand": TRACKS["ligand"].encode("CO")}], TRACKS)
    assert batch.tracks["protein"].maskable.tolist() == [False, True, False, True, False, False]
    assert batch.tracks["ligand"].maskable.tolist() == [False, True, True, False]


def test_batches_carry_their_place_in_the_global_batch() -> None:
    batch = pack([{}, {}], TRACKS, example_ids=[70, 9], slots=[3, 1], global_size=8, conditions={"affinity": [2, -1]})
    assert (batch.example_ids.tolist(), batch.slots.tolist(), batch.global_size) == ([70, 9], [3, 1], 8)
    assert batch.conditions["affinity"].tolist() == [2, -1]
    there = batch.to(torch.device("cpu"))
    assert there.conditions["affinity"].tolist() == [2, -1] and there.device == torch.device("cpu")


def test_tokens_are_replaced_in_a_copy() -> None:
    batch = pack([{"protein": [4, 5], "ligand": [7]}], TRACKS)
    changed = batch.with_tokens(protein=torch.tensor([6, 6]), ligand=torch.tensor([8]))
    assert changed.tracks["protein"].split() == [[6, 6]] and changed.tracks["ligand"].split() == [[8]]
    assert batch.tracks["protein"].split() == [[4, 5]]


def test_an_unknown_track_is_refused() -> None:
    with pytest.raises(ValueError, match=r"example with tracks \['structure'\]: expected only \['ligand', 'protein'\]"):
        pack([{"structure": [1]}], TRACKS)


def test_no_examples_make_an_empty_batch() -> None:
    batch = pack([], TRACKS)
    assert batch.num_examples == batch.num_tokens == 0
    assert batch.tracks["protein"].layout.segment.tolist() == []


def test_masks_show_as_blanks_and_ends_do_not_show() -> None:
    track = TRACKS["protein"]
    ids = track.encode("MKT")
    assert ids[0] == track.vocabulary.begin_id and ids[-1] == track.vocabulary.end_id
    ids[2] = track.vocabulary.mask_id
    assert track.decode([*ids, 1]) == "M_T"


def test_ends_need_tokens_for_them(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"C": 0, "<mask>": 1}))
    with pytest.raises(
        ConfigError, match="track 'ligand': add_ends needs begin and end tokens, which the vocabulary 'vocab' lacks; set add_ends: false"
    ):
        LigandTrack(vocabulary=str(path)).build("ligand")
    assert LigandTrack(vocabulary=str(path), add_ends=False).build("ligand").encode("CC") == [0, 0]
