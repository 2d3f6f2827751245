"""Batches from a token table: deterministic, sharded without repetition, resumable at any step.

`Loader.micro_batches(step)` is a pure function without state between steps, so resuming means asking for the next step. The global batch of
a step depends on (seed, step) only; the numbers of ranks and micro-batches only decide where each example is computed.

There are two plans. `batch_size` takes that many examples from an endless stream of epochs, each a keyed permutation of the table, so no
example is left out or repeated within an epoch. `tokens_per_batch` cuts each epoch into batches of nearly equal numbers of tokens, of
similar or of mixed lengths (`length_window`). Nothing is padded; every token of a batch is real.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int64

from protlig_dd.data.permutation import keyed_order, permuted
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackSet, TrackTokens

Ids = Int64[np.ndarray, " _"]
_LISTED = 1 << 22
"""Most examples for which an epoch's order is kept as an array; for more, each place is computed when its batch is drawn."""


class Loader:
    """Draws batches of a table for one rank.

    Args:
        table: the examples.
        tracks: the tracks to load; their columns must be in the table.
        batch_size: examples in the global batch of a step (all ranks and micro-batches); or
        tokens_per_batch: most tokens of all tracks in it. Exactly one of the two is given.
        seed: seed of the order.
        rank: this process, from 0.
        world: number of processes.
        accumulation: micro-batches for each step and process.
        shuffle: use a different order in each epoch. Otherwise the table's order is used, and the last batch of an epoch is short.
        conditions: integer labels copied to the batch's `conditions`; by default those whose name ends in "_bin".
        ahead: steps that `prefetch` prepares in advance.
        length_window: with `tokens_per_batch`, examples are sorted by length within this many batches, so that a batch has similar
            lengths; 0 mixes all lengths in every batch.

    Raises:
        ConfigError: for an empty table, or a batch too small for all ranks and micro-batches.
    """

    def __init__(
        self,
        table: TokenTable,
        tracks: TrackSet,
        *,
        batch_size: int | None = None,
        tokens_per_batch: int | None = None,
        seed: int,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
        shuffle: bool = True,
        conditions: Sequence[str] | None = None,
        ahead: int = 4,
        length_window: int = 32,
    ) -> None:
        assert 0 <= rank < world and accumulation >= 1, (rank, world, accumulation)
        if (batch_size is None) == (tokens_per_batch is None):
            raise ConfigError(f"train: found batch_size={batch_size} and tokens_per_batch={tokens_per_batch}; set exactly one of them")
        if len(table) == 0:
            raise ConfigError("data: found no examples; see what was dropped with: protlig inspect FILE")
        absent = [name for name in tracks if name not in table.tracks]
        if absent:
            raise ConfigError(f"data: found tracks {sorted(table.tracks)}, expected also {absent}; name their columns, or remove the track")
        self.table, self.tracks, self.seed, self.shuffle = table, tracks, seed, shuffle
        self.batch_size, self.tokens_per_batch = batch_size, tokens_per_batch
        self.rank, self.world, self.accumulation, self.ahead = rank, world, accumulation, ahead
        self.length_window = length_window
        self.conditions = [n for n in table.labels if n.endswith("_bin")] if conditions is None else list(conditions)
        self._lengths: Ids = np.stack([table.tracks[name].lengths for name in tracks]).sum(axis=0)
        self._plans: dict[int, tuple[Ids, Ids]] = {}
        self._check_sizes()

    def _check_sizes(self) -> None:
        chunks = self.world * self.accumulation
        dealt = f"world {self.world} x accumulation {self.accumulation}"
        smallest = self.batch_size if self.batch_size is not None else 0
        if self.batch_size is not None and not self.shuffle:
            smallest = (len(self.table) - 1) % self.batch_size + 1
        if self.batch_size is not None and smallest < chunks:
            raise ConfigError(
                f"train.batch_size: a batch of {smallest} cannot be dealt to {dealt} = {chunks} micro-batches; use at least {chunks}"
            )
        if self.tokens_per_batch is None:
            return
        longest = int(self._lengths.max())
        if self.tokens_per_batch < 4 * longest:
            raise ConfigError(
                f"train.tokens_per_batch: found {self.tokens_per_batch}, the longest example has {longest} tokens; "
                f"expected at least {4 * longest}, or lower max_length"
            )
        # A batch may be one example below the mean; the rest must have an example for every chunk.
        mean = int(self._lengths.sum()) / self.steps_per_epoch
        enough = len(self.table) >= chunks if self.steps_per_epoch == 1 else mean >= (chunks + 1) * longest
        if chunks > 1 and not enough:
            raise ConfigError(
                f"train.tokens_per_batch: batches of about {mean:.0f} tokens, with examples of up to {longest}, cannot be "
                f"dealt to {dealt} = {chunks} micro-batches; raise tokens_per_batch or lower accumulation"
            )

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps in which every example is used once (rounded up if batches continue into the next epoch)."""
        if self.batch_size is not None:
            return -(-len(self.table) // self.batch_size)
        assert self.tokens_per_batch is not None
        # Aiming one example lower makes tokens_per_batch an upper bound: a cut overshoots by less than one example.
        aim = max(self.tokens_per_batch - int(self._lengths.max()), 1)
        return max(1, -(-int(self._lengths.sum()) // aim))

    def epoch(self, step: int) -> float:
        """Return the number of passes over the table before a step."""
        if self.batch_size is not None and self.shuffle:
            return step * self.batch_size / len(self.table)
        return step / self.steps_per_epoch

    def global_batch(self, step: int) -> Ids:
        """Return the example ids of a step, in no meaningful order: epoch x len(table) + index."""
        count = len(self.table)
        if self.batch_size is None:
            epoch, place = divmod(step, self.steps_per_epoch)
            order, cuts = self._plan(epoch)
            return order[cuts[place] : cuts[place + 1]] + epoch * count
        if not self.shuffle:
            epoch, place = divmod(step, self.steps_per_epoch)
            return np.arange(place * self.batch_size, min((place + 1) * self.batch_size, count)) + epoch * count
        stream = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = stream // count, stream % count
        pieces = [self._shuffled(int(e), places[epochs == e]) + e * count for e in np.unique(epochs)]
        return np.concatenate(pieces)

    def _shuffled(self, epoch: int, places: Ids) -> Ids:
        """Return the examples at the given places of an epoch's order."""
        if len(self.table) > _LISTED:
            return permuted(places, size=len(self.table), seed=self.seed, names=("epoch", epoch))
        return np.asarray(self._plan(epoch)[0][places])

    def _plan(self, epoch: int) -> tuple[Ids, Ids]:
        """Return the order of an epoch and the boundaries of its batches (the plans of two epochs are cached)."""
        found = self._plans.get(epoch)
        if found is None:
            found = self._bucketed(epoch) if self.batch_size is None else (self._order(epoch), np.zeros(0, np.int64))
            latest = dict(list(self._plans.items())[-1:])
            self._plans = {**latest, epoch: found}  # replaced, not modified: the prefetching thread may be reading it
        return found

    def _order(self, epoch: int) -> Ids:
        if not self.shuffle:
            return np.arange(len(self.table))
        return keyed_order(self.seed, "epoch", epoch, size=len(self.table))

    def _bucketed(self, epoch: int) -> tuple[Ids, Ids]:
        """Sort by length within windows, cut at equal token counts, and put the batches in keyed order."""
        order, batches = self._order(epoch), self.steps_per_epoch

        if self.shuffle and self.length_window:
            per_window = max(1, -(-len(order) // batches)) * self.length_window
            window = np.arange(len(order)) // per_window
            order = order[np.lexsort((self._lengths[order], window))]
        ends = np.cumsum(self._lengths[order])
        # Example i is in the batch that contains its last token: a fixed number of batches, each less than one example above the mean.
        of_batch = np.minimum((ends - 1).clip(min=0) * batches // max(int(ends[-1]), 1), batches - 1)
        if not self.shuffle:
            return order, np.searchsorted(of_batch, np.arange(batches + 1))
        place = np.empty(batches, np.int64)
        place[keyed_order(self.seed, "batches", epoch, size=batches)] = np.arange(batches)
        of_batch = place[of_batch]
        by_batch = np.argsort(of_batch, kind="stable")
        return order[by_batch], np.searchsorted(of_batch[by_batch], np.arange(batches + 1))

    def micro_batches(self, step: int) -> list[TrackBatch]:
        """Return this rank's share of the global batch of a step (from 0): `accumulation` batches of nearly equal cost."""
        ids = self.global_batch(step)
        # Slots are the strata of the diffusion times; a keyed order makes them independent of length and file order.
        slots = keyed_order(self.seed, "slots", step, size=len(ids))
        lengths = self._lengths[ids % len(self.table)]
        chunks = self.world * self.accumulation
        turn = np.arange(len(ids))
        # longest first, to chunks 0, 1, ..., n - 1, n - 1, ..., 1, 0, 0, ...
        dealt = np.where(turn // chunks % 2 == 0, turn % chunks, chunks - 1 - turn % chunks)
        by_length = np.lexsort((slots, -lengths))
        shares = [np.sort(by_length[dealt == m * self.world + self.rank]) for m in range(self.accumulation)]
        return [self._collate(ids[share], slots[share], len(ids)) for share in shares]

    def _collate(self, ids: Ids, slots: Ids, global_size: int) -> TrackBatch:
        rows: Ids = ids % len(self.table)
        tracks = {}
        for name, track in self.tracks.items():
            column = self.table.tracks[name]
            tokens = torch.from_numpy(column.gather(rows)).to(torch.int64)
            layout = Layout(tuple(column.lengths[rows].tolist()))
            tracks[name] = TrackTokens(tokens=tokens, maskable=track.emittable[tokens], layout=layout)
        return TrackBatch(
            tracks=tracks,
            example_ids=torch.from_numpy(ids.astype(np.int64)),
            slots=torch.from_numpy(slots.astype(np.int64)),
            global_size=global_size,
            conditions={n: torch.from_numpy(self.table.labels[n][rows].astype(np.int64)) for n in self.conditions},
        )

    def prefetch(self, first_step: int, last_step: int) -> Iterator[list[TrackBatch]]:
        """Iterate over the micro-batches of steps first_step .. last_step - 1, prepared ahead by a thread."""
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="protlig-loader")
        ready: deque[Future[list[TrackBatch]]] = deque()
        steps = iter(range(first_step, last_step))
        try:
            first = itertools.islice(steps, max(1, self.ahead))
            ready.extend(worker.submit(self.micro_batches, step) for step in first)
            while ready:
                batches = ready.popleft().result()
                ready.extend(worker.submit(self.micro_batches, step) for step in itertools.islice(steps, 1))
                yield batches
        finally:
            worker.shutdown(wait=True, cancel_futures=True)
