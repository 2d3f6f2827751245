"""Data sets over Foldseek databases: splits, filters, shards, orders, and resuming exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from protlig_dd.data.foldseek.pairs import PairedFoldseekDB
from protlig_dd.data.foldseek.sets import Choice, FoldseekDataset, FoldseekStream
from protlig_dd.data.permutation import permuted
from protlig_dd.errors import ConfigError
from tests.support.foldseek_cases import Entry, Form, random_entries, write_database

ALL = Choice(split="all")


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return sorted(random_entries(21, 600, longest=30), key=lambda e: e.key)


@pytest.fixture(scope="module")
def db(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> PairedFoldseekDB:
    return PairedFoldseekDB(write_database(tmp_path_factory.mktemp("sets"), entries), keep_case=True)


def keys(examples: object) -> list[int]:
    return [example["key"] for example in examples]  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [1, 2, 4096, 4097, 50_000])
def test_a_permutation_meets_every_place_once(size: int) -> None:
    """At any size; another seed or name gives another; a part is a part of the whole."""
    whole = permuted(np.arange(size), size=size, seed=1, names=("epoch", 0))
    assert np.array_equal(np.sort(whole), np.arange(size))
    places = np.arange(size)[::7]
    assert np.array_equal(permuted(places, size=size, seed=1, names=("epoch", 0)), whole[::7])
    if size > 2:
        for seed, number in ((2, 0), (1, 1)):
            assert (permuted(np.arange(size), size=size, seed=seed, names=("epoch", number)) != whole).mean() > 0.9


def test_a_permutation_leaves_nothing_near_its_place() -> None:
    """Neighbours end up as far apart as chance has it: mean distance a third of the size, displacement too, no rank correlation."""
    size = 50_000
    found = permuted(np.arange(size), size=size, seed=5, names=())
    for distances in (np.abs(np.diff(found)), np.abs(found - np.arange(size))):
        assert abs(distances.mean() / size - 1 / 3) < 4 * 0.2357 / np.sqrt(size) * 2
    assert abs(np.corrcoef(np.arange(size), found)[0, 1]) < 4 / np.sqrt(size)


def test_the_split_is_one_of_keys(db: PairedFoldseekDB, entries: list[Entry], tmp_path: Path) -> None:
    """Train and validation share nothing and lack nothing; about the fraction; a sub-database puts each key on the same side."""
    sets = {name: FoldseekDataset(db, Choice(split=name, val_fraction=0.1)) for name in ("train", "val")}  # type: ignore[arg-type]
    sides = {name: set(keys(data.__getitems__(range(len(data))))) for name, data in sets.items()}
    assert not sides["train"] & sides["val"] and sides["train"] | sides["val"] == {e.key for e in entries}
    assert abs(len(sides["val"]) - 60) < 4 * np.sqrt(600 * 0.1 * 0.9)
    part = PairedFoldseekDB(write_database(tmp_path, entries[::3], Form(padded=True)))
    val = FoldseekDataset(part, Choice(split="val", val_fraction=0.1))
    assert set(keys(val)) == sides["val"] & {e.key for e in entries[::3]}  # type: ignore[arg-type]
    assert set(keys(FoldseekDataset(db, Choice(split="val", val_fraction=0.1, seed=43)))) != sides["val"]  # type: ignore[arg-type]


def test_examples_are_the_entries_of_the_lengths(db: PairedFoldseekDB, entries: list[Entry]) -> None:
    """Bounds hold at both ends, and examples carry the letters and coordinates of their key."""
    choice = Choice(split="all", min_length=5, max_length=20)
    data = FoldseekDataset(db, choice, calpha=True)
    wanted = [e for e in entries if 5 <= len(e.aa) <= 20]
    assert len(data) == len(wanted) and {len(e.aa) for e in wanted} >= {5, 20}
    for entry, example in zip(wanted, data.__getitems__(range(len(data))), strict=True):
        assert (example["key"], example["aa"], example["ss"]) == (entry.key, entry.aa, entry.ss)
        assert np.array_equal(example["calpha"], np.array(entry.coords, np.float32))
    with pytest.raises(IndexError):
        data[len(data)]


def test_ranks_share_the_entries_in_equal_parts(db: PairedFoldseekDB, entries: list[Entry]) -> None:
    """By number and as a stream: no entry twice, as many on each rank, all of them unless the rest is dropped."""
    for world in (1, 4, 7):
        maps = [FoldseekDataset(db, ALL, world_size=world, rank=rank) for rank in range(world)]
        streams = [FoldseekStream(db, ALL, world_size=world, rank=rank) for rank in range(world)]
        for shares in ([keys(data.__getitems__(range(len(data)))) for data in maps], [keys(stream) for stream in streams]):  # type: ignore[arg-type]
            together = [key for share in shares for key in share]
            assert {len(share) for share in shares} == {600 // world} and len(set(together)) == len(together)
        kept = [FoldseekStream(db, ALL, world_size=world, rank=rank, drop_last=False) for rank in range(world)]
        assert sorted(key for stream in kept for key in keys(stream)) == [e.key for e in entries]


@pytest.mark.parametrize("buffer", [None, 0, 64, 7, 4000])
def test_a_stream_has_every_entry_once_an_epoch_in_another_order(buffer: int | None, db: PairedFoldseekDB, entries: list[Entry]) -> None:
    """In the order of the keys without shuffling, else in one of each epoch; windows stay together."""
    stream, order = FoldseekStream(db, ALL, shuffle_buffer_size=buffer), [e.key for e in entries]
    first, second = keys(stream), keys(stream)
    assert sorted(first) == sorted(second) == order
    if buffer == 0:
        assert first == second == order
        return
    assert sum(a == b for a, b in zip(first, order, strict=True)) < 40 and first != second
    assert keys(FoldseekStream(db, ALL, shuffle_buffer_size=buffer)) == first
    assert keys(FoldseekStream(db, ALL, shuffle_buffer_size=buffer, seed=1)) != first
    if buffer == 64:
        windows = [[order.index(key) // 64 for key in first]]
        changes = sum(a != b for window in windows for a, b in zip(window[:-1], window[1:], strict=True))
        assert changes == -(-600 // 64) - 1


@pytest.mark.parametrize("stop", [0, 1, 300, 599])
def test_a_stream_resumes_exactly(stop: int, db: PairedFoldseekDB) -> None:
    """From a state taken in the midst of an epoch, the rest of it and the next one are those of an undisturbed run."""
    make: Callable[[], FoldseekStream] = lambda: FoldseekStream(db, ALL, shuffle_buffer_size=100, world_size=1)  # noqa: E731
    whole, stream, resumed = make(), make(), make()
    expected = keys(whole) + keys(whole)
    begun = iter(stream)
    seen = [next(begun)["key"] for _ in range(stop)]
    resumed.load_state_dict(stream.state_dict())
    assert seen + keys(resumed) + keys(resumed) == expected


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_the_workers(workers: int, db: PairedFoldseekDB) -> None:
    """A loader's workers deal the batches of one order; it goes on from a number of batches all the same."""
    make: Callable[[], FoldseekStream] = lambda: FoldseekStream(db, Choice(max_length=40), batch_size=16)  # noqa: E731
    expected = [keys(batch) for batch in DataLoader(make(), batch_size=16, collate_fn=list)]
    found = [keys(batch) for batch in DataLoader(make(), batch_size=16, num_workers=workers, collate_fn=list)]
    assert found == expected and len(expected) > 30
    resumed = make()
    resumed.load_state_dict(resumed.state_dict(examples=20 * 16))
    assert [keys(b) for b in DataLoader(resumed, batch_size=16, num_workers=workers, collate_fn=list)] == expected[20:]
    mapped = FoldseekDataset(db, Choice(max_length=40))
    batches = DataLoader(mapped, batch_size=16, num_workers=workers, collate_fn=list)
    assert sorted(key for batch in batches for key in keys(batch)) == sorted(key for batch in expected for key in batch)


def test_a_state_of_another_order_and_impossible_settings_are_refused(db: PairedFoldseekDB) -> None:
    """Each with what was found and what to do."""
    state = FoldseekStream(db, ALL).state_dict()
    for other in (FoldseekStream(db, ALL, seed=1), FoldseekStream(db, ALL, shuffle_buffer_size=5), FoldseekStream(db, Choice())):
        with pytest.raises(ConfigError, match="the saved position has (seed|shuffle_buffer_size|choice) .*resume with the same"):
            other.load_state_dict(state)
    for message, make in {
        "rank: found 2 with world_size 2": lambda: FoldseekDataset(db, ALL, world_size=2, rank=2),
        "val_fraction: found 1": lambda: Choice(val_fraction=1.0),
        "max_length: found 3": lambda: Choice(min_length=4, max_length=3),
        r"found no entry for split 'all' .* of 500 to None residues among 600, of 1 to 63": lambda: FoldseekStream(
            db, Choice(split="all", min_length=500)
        ),
        "found batch_size 0": lambda: FoldseekStream(db, ALL, batch_size=0),
        "600 entries cannot be dealt to 2000": lambda: FoldseekDataset(db, ALL, world_size=2000),
    }.items():
        with pytest.raises(ConfigError, match=message):
            make()
