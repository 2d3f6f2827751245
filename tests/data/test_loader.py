"""The loader is a pure function of the step, deals every example once an epoch, and gives any split the same global batch."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from protlig_dd.data.loader import Loader
from protlig_dd.data.permutation import keyed_order
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
from protlig_dd.tokens.tracks import pack
from tests.support.tables import token_table

TRACKS = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
COUNT = 103


@pytest.fixture(scope="module")
def table() -> TokenTable:
    rng = np.random.default_rng(1)
    rows = [{"protein": rng.integers(3, 26, rng.integers(1, 30)), "ligand": rng.integers(5, 30, rng.integers(0, 9))} for _ in range(COUNT)]
    return token_table(rows, list(TRACKS), labels={"affinity_bin": np.arange(COUNT) % 4 - 1, "affinity": np.zeros(COUNT)})


PLANS = [{"batch_size": 16}, {"tokens_per_batch": 400}]


def content(batch):
    """Everything a batch says about each example, in the order of the example ids."""
    split = {name: track.split() for name, track in batch.tracks.items()}
    return {
        int(i): (int(s), batch.global_size, {n: rows[k] for n, rows in split.items()}, {n: int(c[k]) for n, c in batch.conditions.items()})
        for k, (i, s) in enumerate(zip(batch.example_ids, batch.slots, strict=True))
    }


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(x.example_ids, y.example_ids)
        and torch.equal(x.slots, y.slots)
        and all(
            torch.equal(x.tracks[n].tokens, y.tracks[n].tokens) and x.tracks[n].layout.lengths == y.tracks[n].layout.lengths
            for n in x.tracks
        )
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("world", "accumulation"), [(1, 2), (2, 1), (2, 3), (4, 1), (3, 2)])
def test_any_split_deals_the_same_global_batch(table, plan, world, accumulation):
    if "tokens_per_batch" in plan:
        plan = {"tokens_per_batch": 700}  # enough for an example in each of six
    whole = Loader(table, TRACKS, seed=5, **plan)
    for step in range(12):
        merged = {}
        for rank in range(world):
            share = Loader(table, TRACKS, seed=5, rank=rank, world=world, accumulation=accumulation, **plan)
            batches = share.micro_batches(step)
            assert len(batches) == accumulation
            for batch in batches:
                assert batch.num_examples > 0
                assert not set(content(batch)) & set(merged)
                merged |= content(batch)
        assert merged == content(whole.micro_batches(step)[0])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("plan", PLANS)
def test_an_epoch_meets_every_example_once(table, plan, shuffle):
    loader = Loader(table, TRACKS, seed=5, shuffle=shuffle, **plan)
    ids = np.concatenate([loader.global_batch(step) for step in range(4 * loader.steps_per_epoch)])
    for epoch in range(3):
        assert sorted(ids[ids // COUNT == epoch] % COUNT) == list(range(COUNT))
    if shuffle:
        assert (ids[:COUNT] % COUNT).tolist() != (ids[COUNT : 2 * COUNT] % COUNT).tolist()


@pytest.mark.parametrize("plan", PLANS)
def test_resuming_is_asking_for_the_next_step(table, plan):
    whole = list(Loader(table, TRACKS, seed=2, accumulation=2, **plan).prefetch(0, 20))
    head = list(Loader(table, TRACKS, seed=2, accumulation=2, **plan).prefetch(0, 7))
    tail = list(Loader(table, TRACKS, seed=2, accumulation=2, **plan).prefetch(7, 20))
    assert len(whole) == 20
    assert all(same(a, b) for a, b in zip(whole, [*head, *tail], strict=True))


@pytest.mark.parametrize(("world", "accumulation"), [(1, 1), (2, 1), (3, 2)])
def test_ranks_share_a_token_budget_epoch_and_resume_in_the_middle_of_it(world, accumulation):
    """Long-tailed lengths: each example once an epoch over all ranks, no token invented, and a later start goes on exactly."""
    lengths = np.exp(np.random.default_rng(3).normal(4, 0.7, 500)).astype(int).clip(10, 300)
    track = {"protein": ProteinTrack(max_length=400).build("protein")}
    table = token_table([{"protein": np.full(n, 5)} for n in lengths], list(track))

    def loaders():
        return [Loader(table, track, tokens_per_batch=6000, seed=1, rank=r, world=world, accumulation=accumulation) for r in range(world)]

    steps = loaders()[0].steps_per_epoch
    half = steps + steps // 2
    seen, sums = [], []
    for first, last in ((0, half), (half, 2 * steps)):
        for share in zip(*(loader.prefetch(first, last) for loader in loaders()), strict=True):
            batches = [batch for micro in share for batch in micro]
            seen.append(np.concatenate([batch.example_ids.numpy() for batch in batches]))
            sums.append(sum(len(batch.tracks["protein"].tokens) for batch in batches))
            assert sums[-1] == lengths[seen[-1] % 500].sum() <= 6000
    assert len(seen) == 2 * steps
    for epoch in range(2):
        ids = np.concatenate(seen[epoch * steps : (epoch + 1) * steps])
        assert sorted(ids.tolist()) == list(range(500 * epoch, 500 * (epoch + 1)))
    assert sum(sums) == 2 * lengths.sum()


def test_slots_are_a_permutation_that_ignores_length(table):
    loader = Loader(table, TRACKS, seed=2, tokens_per_batch=400)
    slots, lengths = [], []
    for step in range(loader.steps_per_epoch * 8):
        (batch,) = loader.micro_batches(step)
        assert sorted(batch.slots.tolist()) == list(range(batch.global_size)) and batch.global_size == batch.num_examples
        slots += (batch.slots / batch.global_size).tolist()
        size = np.array(batch.tracks["protein"].layout.lengths)
        lengths += (size - size.mean()).tolist()
    assert abs(np.corrcoef(slots, lengths)[0, 1]) < 4 / np.sqrt(len(slots))


def test_token_batches_stay_under_the_ceiling_and_group_lengths(table):
    loader = Loader(table, TRACKS, seed=2, tokens_per_batch=400)
    spread = []
    for step in range(loader.steps_per_epoch):
        (batch,) = loader.micro_batches(step)
        assert 0 < batch.num_tokens <= 400
        spread.append(np.std([a + b for a, b in zip(*(t.layout.lengths for t in batch.tracks.values()), strict=True)]))
    assert np.mean(spread) < 0.5 * np.std(sum(column.lengths for column in table.tracks.values()))


def test_micro_batches_cost_nearly_the_same(table):
    loader = Loader(table, TRACKS, seed=2, batch_size=48, accumulation=3)
    for step in range(5):
        tokens = [b.num_tokens for b in loader.micro_batches(step)]
        assert max(tokens) < 1.15 * min(tokens)


def test_batches_equal_the_plain_packing(table):
    loader = Loader(table, TRACKS, seed=3, batch_size=8)
    (batch,) = loader.micro_batches(2)
    plain = pack([{n: v.tolist() for n, v in table.example(int(i) % COUNT).items()} for i in batch.example_ids], TRACKS)
    for name in TRACKS:
        assert torch.equal(batch.tracks[name].tokens, plain.tracks[name].tokens)
        assert torch.equal(batch.tracks[name].maskable, plain.tracks[name].maskable)
        assert batch.tracks[name].layout.lengths == plain.tracks[name].layout.lengths
    assert batch.conditions["affinity_bin"].tolist() == [int(i) % COUNT % 4 - 1 for i in batch.example_ids]
    assert list(batch.conditions) == ["affinity_bin"]


def test_a_batch_may_be_larger_than_the_table(table):
    small = table.select(np.arange(5))
    ids = np.concatenate([Loader(small, TRACKS, seed=1, batch_size=12).global_batch(s) for s in range(5)])
    assert sorted(ids.tolist()) == list(range(60))


def test_the_order_is_the_same_for_ever():
    assert keyed_order(7, "epoch", 0, size=8).tolist() == [6, 0, 4, 7, 2, 1, 5, 3]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "set exactly one of them"),
        ({"batch_size": 4, "world": 5}, r"a batch of 4 cannot be dealt to world 5 x accumulation 1 = 5 micro-batches; use at least 5"),
        ({"tokens_per_batch": 60}, r"found 60, the longest example has \d+ tokens; expected at least \d+"),
        ({"tokens_per_batch": 200, "accumulation": 8}, r"cannot be dealt to world 1 x accumulation 8"),
    ],
)
def test_impossible_plans_are_refused(table, plan, message):
    with pytest.raises(ConfigError, match=message):
        Loader(table, TRACKS, seed=1, **plan)


def test_an_empty_table_and_an_absent_track_are_refused(table):
    with pytest.raises(ConfigError, match="found no examples"):
        Loader(table.select([]), TRACKS, seed=1, batch_size=1)
    with pytest.raises(ConfigError, match=r"found tracks \['ligand', 'protein'\], expected also \['codes'\]"):
        Loader(table, {"codes": TRACKS["protein"]}, seed=1, batch_size=1)


def test_leaving_prefetch_stops_its_thread_and_failures_come_through(table, monkeypatch):
    loader = Loader(table, TRACKS, seed=1, batch_size=4)
    before = threading.active_count()
    for _ in loader.prefetch(0, 1000):
        break
    assert threading.active_count() == before
    monkeypatch.setattr(loader, "global_batch", lambda step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(loader.prefetch(0, 3))


def test_an_epoch_without_a_list_of_its_order_meets_every_example_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protlig_dd.data.loader._LISTED", 4100)
    table = token_table([{"protein": [5 + i % 20]} for i in range(4200)], ["protein"])
    loader = Loader(table, {"protein": TRACKS["protein"]}, batch_size=600, seed=3)
    epochs = [np.concatenate([loader.global_batch(s) for s in range(7 * e, 7 * e + 7)]) for e in (0, 1)]
    assert loader._plans == {}, "a list was made"
    for e, ids in enumerate(epochs):
        assert np.array_equal(np.sort(ids), np.arange(4200) + 4200 * e)
    assert not np.array_equal(epochs[0], epochs[1] - 4200) and not np.array_equal(epochs[0], np.sort(epochs[0]))
