"""C-alpha traces to train on, from a folder of PDB and mmCIF files or a Foldseek database, and batches of them.

Folders are read as `protlig tokenize` reads them, so a run trains on the chains that it will tokenize. A batch is a pure function of the
step: its chains depend on (seed, step) only, not on the number of processes that share it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from protlig_dd.config import settings
from protlig_dd.data.fingerprint import evenly_spread
from protlig_dd.data.foldseek.pairs import FoldseekDB
from protlig_dd.data.foldseek.structure_files import read_chains, structure_files
from protlig_dd.data.foldseek.table import is_database
from protlig_dd.data.permutation import keyed_order
from protlig_dd.data.skipped import ALIKE_RESIDUES, LOST_RESIDUES, UNREADABLE
from protlig_dd.errors import ConfigError, FormatError, refuse_unless
from protlig_dd.kanzi.batches import TraceBatch, pack_traces
from protlig_dd.structures.foldseek_chains import MIN_RESIDUES
from protlig_dd.structures.structure_io import is_structure_name

_logger = logging.getLogger(__name__)
_TOO_SHORT, _TOO_LONG = "chains below {} residues", "chains above {} residues"
_KINDS = {"no protein": "chains without protein", "all residues unknown": "chains of unknown residues only"}


@settings
class TraceData:
    """The chains that an autoencoder is trained on.

    Args:
        path: a folder, with its subfolders, of PDB and mmCIF files (.gz too), one such file, or a Foldseek database with C-alphas.
        min_length, max_length: residues; other chains are left out and counted. 0 is no limit. Files never give chains below 4.
        num_chains: use only the first this many chains; 0 for all.
        distinct: leave out chains with the sequence of an earlier chain (ignored for databases: cluster those).
        validation_fraction: fraction of the chains kept for validation; 0 validates on the training chains.
        num_validation: most validation chains.
        copies: copies of each chain in a batch, each in another orientation.
        rotate: rotate chains at random.
    """

    path: str
    min_length: int = 4
    max_length: int = 0
    num_chains: int = 0
    distinct: bool = True
    validation_fraction: float = 0.0
    num_validation: int = 32
    copies: int = 8
    rotate: bool = True

    def __post_init__(self) -> None:
        refuse_unless(0 <= self.validation_fraction < 1, "validation_fraction", self.validation_fraction, "0 to below 1")
        for name, least in (("min_length", 1), ("max_length", 0), ("num_chains", 0), ("num_validation", 1), ("copies", 1)):
            refuse_unless(getattr(self, name) >= least, name, getattr(self, name), f"{least} or more")


@dataclass(frozen=True, kw_only=True, eq=False)
class Traces:
    """Chains that can be read one by one.

    Args:
        number: number of chains.
        name: returns the name of chain i.
        read: returns the C-alphas of chain i in Angstrom.
        dropped: files and chains left out, by reason.
    """

    number: int
    name: Callable[[int], str]
    read: Callable[[int], Float[np.ndarray, "_ 3"]]
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.number

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all chains."""
        return tuple(self.name(i) for i in range(self.number))

    def select(self, indices: Int64[np.ndarray, " _"]) -> Traces:
        """Return the chains at the given indices."""
        name, read = self.name, self.read
        return Traces(number=len(indices), name=lambda i: name(int(indices[i])), read=lambda i: read(int(indices[i])))

    def split(self, fraction: float, seed: int) -> tuple[Traces, Traces]:
        """Return the training and the validation chains; with fraction 0 both are all chains."""
        if not fraction:
            return self, self
        order = keyed_order(seed, "validation chains", size=len(self))
        number = max(1, round(fraction * len(self)))
        if number >= len(self):
            raise ConfigError(f"data.validation_fraction: {fraction} of {len(self)} chains leaves none to train on")
        return self.select(np.sort(order[number:])), self.select(np.sort(order[:number]))

    def lines(self) -> Iterator[str]:
        """Yield the numbers of chains read and left out, in words."""
        yield f"chains: {len(self):,}"
        for reason, number in self.dropped.items():
            yield f"left out: {number:,} {reason}"


def load_traces(data: TraceData) -> Traces:
    """Return the chains that the settings describe.

    Raises:
        FormatError: if the path does not exist, or no chain is left.
    """
    path = Path(data.path)
    if data.path and (path.is_dir() or (path.is_file() and not is_database(path))):
        found = _from_files(path, data)
    elif data.path and is_database(path):
        found = _from_database(path, data)
    else:
        raise FormatError(f"{data.path or 'data.path'}: found neither a folder of structures nor a Foldseek database; set data.path")
    if not len(found):
        reasons = "; ".join(f"{n} {reason}" for reason, n in found.dropped.items()) or "no structure files there"
        raise FormatError(f"{path}: found no chain to train on ({reasons})")
    return found


def trace_fingerprint(**parts: Traces) -> dict[str, dict[str, Any]]:
    """Return the number and a fingerprint of the chains of each part, of at most 4,096 of its chains, evenly spread."""
    found = {}
    for part, traces in parts.items():
        digest = hashlib.sha256()
        for i in evenly_spread(len(traces), _FINGERPRINTED).tolist():
            digest.update(np.asarray(traces.read(i), dtype="<f4").tobytes() + b"\n")
        found[part] = {"examples": len(traces), "fingerprint": digest.hexdigest()[:16]}
    return found


_FINGERPRINTED = 4096


def _from_files(path: Path, data: TraceData) -> Traces:
    """The chains of a folder and its subfolders, or of one file, named "file:chain" (and the model of a file of several)."""
    names: list[str] = []
    chains: list[np.ndarray] = []
    seen: set[str] = set()
    dropped = Counter[str]()
    for file in map(read_chains, structure_files(path)):
        for left_out in file.skipped:
            if left_out.kind == UNREADABLE and is_structure_name(file.path):
                _logger.warning("left out: %s: %s", left_out.what, left_out.reason)
            if left_out.kind not in (LOST_RESIDUES, ALIKE_RESIDUES):  # the chain itself is there
                dropped[_words(left_out.kind, file.path, data)] += 1
        place = file.path.name if file.path == path else str(file.path.relative_to(path))
        for chain in file.chains:
            reason = _reason(len(chain.sequence), data)
            if not reason and data.distinct and chain.sequence in seen:
                reason = "chains whose sequence was met before"
            if not reason and data.num_chains and len(names) >= data.num_chains:
                reason = f"chains beyond the first {data.num_chains}"
            if reason:
                dropped[reason] += 1
                continue
            seen.add(chain.sequence)
            names.append(f"{place}:{chain.name}" + (f" model {chain.model}" if file.num_models > 1 else ""))
            chains.append(chain.ca.astype(np.float32))
    return Traces(number=len(names), name=names.__getitem__, read=chains.__getitem__, dropped=dict(dropped))


def _words(kind: str, file: Path, data: TraceData) -> str:
    """What the report calls a kind of `Skipped`."""
    if kind == UNREADABLE:
        return "files that cannot be read" if is_structure_name(file) else "files that are no PDB or mmCIF"
    return _TOO_SHORT.format(max(data.min_length, MIN_RESIDUES)) if kind == "too short" else _KINDS[kind]


def _reason(length: int, data: TraceData) -> str:
    """Why a chain of this length is left out, or nothing."""
    if length < data.min_length:
        return _TOO_SHORT.format(data.min_length)
    return _TOO_LONG.format(data.max_length) if data.max_length and length > data.max_length else ""


def _from_database(path: Path, data: TraceData) -> Traces:
    """Chains of a database are read on access; only their lengths are read in advance."""
    database = FoldseekDB(path)
    lengths = np.asarray(database.lengths)
    short = lengths < data.min_length
    long = (lengths > data.max_length) & bool(data.max_length)
    rows = np.flatnonzero(~short & ~long)
    dropped = {
        _TOO_SHORT.format(data.min_length): int(short.sum()),
        _TOO_LONG.format(data.max_length): int(long.sum()),
        f"chains beyond the first {data.num_chains}": len(rows) - data.num_chains if data.num_chains else 0,
    }
    rows = rows[: data.num_chains or None]
    return Traces(
        number=len(rows),
        name=lambda i: str(database.name(int(rows[i]))),
        read=lambda i: np.asarray(database.calpha(int(rows[i]))),
        dropped={reason: number for reason, number in dropped.items() if number > 0},
    )


class TraceLoader:
    """Batches of chains for one rank: `batch_size` examples a step, with `copies` consecutive copies of each chain.

    Args:
        traces: the chains.
        batch_size: examples in the global batch of a step.
        copies: copies of each chain in it.
        seed: seed of the order.
        rank: this process, from 0.
        world: number of processes.
        accumulation: micro-batches for each step and process.

    Raises:
        ConfigError: if the batch cannot be divided into chains, ranks and micro-batches.
    """

    def __init__(
        self, traces: Traces, *, batch_size: int, copies: int, seed: int, rank: int = 0, world: int = 1, accumulation: int = 1
    ) -> None:
        if batch_size % copies or batch_size < world * accumulation:
            raise ConfigError(
                f"train.batch_size: found {batch_size}, expected a multiple of data.copies ({copies}), and at least "
                f"world {world} x accumulation {accumulation}"
            )
        self.traces, self.batch_size, self.copies, self.seed = traces, batch_size, copies, seed
        self.rank, self.world, self.accumulation = rank, world, accumulation
        self._orders: dict[int, Int64[np.ndarray, " _"]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every chain is used once (rounded up)."""
        return -(-len(self.traces) * self.copies // self.batch_size)

    def global_batch(self, step: int) -> Int64[np.ndarray, " b"]:
        """Return the example ids of a step: (epoch x chains + place in the epoch) x copies + copy."""
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)

    def micro_batches(self, step: int) -> list[TraceBatch]:
        """Return this rank's share of the global batch of a step (from 0), as `accumulation` batches."""
        shares = np.array_split(self.global_batch(step), self.world * self.accumulation)
        return [self._collate(shares[m * self.world + self.rank]) for m in range(self.accumulation)]

    def _collate(self, ids: Int64[np.ndarray, " b"]) -> TraceBatch:
        count = len(self.traces)
        epochs, places = np.divmod(ids // self.copies, count)
        self._orders = {int(e): self._order(int(e)) for e in np.unique(epochs)}
        rows = [int(self._orders[int(e)][p]) for e, p in zip(epochs, places, strict=True)]
        read = {row: self.traces.read(row) for row in dict.fromkeys(rows)}
        return pack_traces([read[row] for row in rows], example_ids=ids.tolist(), where=f"chains {rows}: number")

    def _order(self, epoch: int) -> Int64[np.ndarray, " _"]:
        """The order of an epoch; the orders used by the last batch are cached."""
        found = self._orders.get(epoch)
        return keyed_order(self.seed, "epoch", epoch, size=len(self.traces)) if found is None else found

    def prefetch(self, first_step: int, last_step: int) -> Iterator[list[TraceBatch]]:
        """Iterate over the micro-batches of steps first_step .. last_step - 1."""
        return (self.micro_batches(step) for step in range(first_step, last_step))
