"""Nested subsets of a large set of sequences for scaling studies, with a common validation part that is in none of them.

The choice depends on the seed and the sequences alone, not on their order, names or copies: each sequence has a rank, the blake2b key of
(seed, sequence); the lowest ranks are used for validation and the next ones for training. So a sequence is never on both sides, and a
subset of 1,000 is the beginning of that of 10,000. The source is read twice as a stream, with 8 bytes of memory for each chosen sequence.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from protlig_dd.data.readers.complexes import Columns
from protlig_dd.data.readers.sources import find_sources
from protlig_dd.data.settings import SequenceData
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.files import write_json
from protlig_dd.rng import key

METADATA = "metadata.json"

_SLACK = 1 << 20  # keys collected beyond the chosen ones before the largest are dropped
_QUANTILES = {"shortest": 0.0, "median": 0.5, "90 %": 0.9, "longest": 1.0}


@dataclass(frozen=True, kw_only=True)
class SubsetPlan:
    """The subsets to make.

    Args:
        sizes: training sequences of each subset, in any order.
        validation: sequences of the common validation part.
        seed: seed of the choice.
        name: prefix of the folders: "uniref50" gives uniref50_1k for 1,000 and uniref50_500 for 500.
    """

    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 500_000, 1_000_000)
    validation: int = 1000
    seed: int = 42
    name: str = "uniref50"

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or len(set(self.sizes)) < len(self.sizes) or self.validation < 1:
            raise ConfigError(
                f"prepare subsets: found --sizes {' '.join(map(str, self.sizes))} --validation {self.validation}; "
                "expected different whole numbers from 1"
            )
        if Path(self.name).name != self.name:
            raise ConfigError(f"prepare subsets: found --name '{self.name}', expected the beginning of a folder's name")

    @property
    def ordered(self) -> list[int]:
        """The sizes, smallest first."""
        return sorted(self.sizes)

    @property
    def num_chosen(self) -> int:
        """Distinct sequences needed in total."""
        return self.validation + max(self.sizes)

    def folder(self, size: int) -> str:
        """Return the name of a subset's folder, with the suffix k if the size is a multiple of 1,000."""
        return f"{self.name}_{size // 1000}k" if size % 1000 == 0 else f"{self.name}_{size}"


@dataclass(frozen=True, kw_only=True)
class SubsetReport:
    """The metadata of each folder written, smallest first."""

    folders: dict[Path, dict[str, Any]]

    def lines(self) -> list[str]:
        """Return the report in words."""
        first = next(iter(self.folders.values()))
        lines = [
            f"{first['source']}: {first['source_records']} records, {first['source_empty']} of them empty; sha256 of the records "
            f"{first['source_sha256'][:16]}"
        ]
        for folder, about in self.folders.items():
            train, valid = about["train"], about["valid"]
            lines.append(
                f"{folder}: {train['sequences']} train, {train['residues']} residues, median length {train['median']}; "
                f"{valid['sequences']} valid"
            )
        return [*lines, f"use one: data.path={next(iter(self.folders))}"]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A stream of (name, sequence), and the counts of its first reading."""

    open: Callable[[], Iterator[tuple[str, str]]]
    records: int = 0
    empty: int = 0
    sha256: str = ""


def prepare_subsets(file: Path, out: Path, plan: SubsetPlan | None = None, *, columns: Columns | None = None) -> SubsetReport:
    """Write a folder for each size, with train.fasta, valid.fasta and metadata.json; each can be used as `data.path`.

    A repeated sequence is counted and written once. Only names and sequences are kept.

    Args:
        file: a FASTA file, a table with a sequence column, or a folder, of which the training part is used.
        out: the folder to write into.
        plan: sizes, validation, seed and name.
        columns: column names that differ from the usual ones.

    Raises:
        FormatError: for an unreadable source.
        ConfigError: if there are fewer distinct sequences than needed, or a folder exists already.
    """
    plan = plan or SubsetPlan()
    folders = {size: out / plan.folder(size) for size in plan.ordered}
    there = [folder for folder in folders.values() if folder.exists()]
    if there:
        raise ConfigError(f"{there[0]}: exists already; remove it, or choose another --out or --name")
    found = find_sources(SequenceData(path=str(file), columns=columns or Columns()), {}).parts["train"]

    def sequences() -> Iterator[tuple[str, str]]:
        for record in found.open():
            if record.problem is not None:
                raise FormatError(record.problem[1])
            yield record.name, "".join(record.texts.get("protein", "").split()).upper().removesuffix("*")

    ranks, source = _choose(sequences, plan)
    if len(ranks) < plan.num_chosen:
        raise ConfigError(
            f"{found.label}: found {len(ranks)} distinct sequences, {plan.num_chosen} are needed for {max(plan.sizes)} and "
            f"{plan.validation} to validate; leave the largest of --sizes out, or lower --validation"
        )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".subsets-") as place:
        lengths = _deal(source, ranks, plan, Path(place))
        about = {"kind": "protlig subset", "name": plan.name, "seed": plan.seed, "source": found.label}
        about |= {"source_records": source.records, "source_empty": source.empty, "source_sha256": source.sha256}
        made = {f: _assemble(Path(place), f, tier, lengths, about) for tier, f in enumerate(folders.values())}
    return SubsetReport(folders=made)


def _choose(sequences: Callable[[], Iterator[tuple[str, str]]], plan: SubsetPlan) -> tuple[Int64[np.ndarray, " c"], _Source]:
    """Return the lowest ranks, ascending, and the counts of the source."""
    kept, gathered = np.zeros(0, np.int64), array("q")
    limit = np.iinfo(np.int64).max
    digest, records, empty = hashlib.sha256(), 0, 0
    for name, text in _with_progress(sequences(), "choosing"):
        records += 1
        digest.update(f">{name}\n{text}\n".encode())
        if not text:
            empty += 1
            continue
        rank = key(plan.seed, "subsets", text)
        if rank < limit:
            gathered.append(rank)
        if len(gathered) >= _SLACK:
            kept, limit = _lowest(kept, gathered, plan.num_chosen)
            gathered = array("q")
    kept, _ = _lowest(kept, gathered, plan.num_chosen)
    return kept, _Source(open=sequences, records=records, empty=empty, sha256=digest.hexdigest())


def _lowest(kept: Int64[np.ndarray, " c"], gathered: array[int], count: int) -> tuple[Int64[np.ndarray, " d"], int]:
    """Return the lowest distinct ranks, and the rank from which on none is needed."""
    lowest = np.unique(np.concatenate([kept, np.array(gathered, np.int64)]))[:count]
    return lowest, int(lowest[-1]) if len(lowest) == count else int(np.iinfo(np.int64).max)


def _deal(source: _Source, ranks: Int64[np.ndarray, " c"], plan: SubsetPlan, place: Path) -> list[array[int]]:
    """Write validation and the tiers (the sequences that each size adds to the next smaller one) as FASTA files; return the lengths in each."""
    bounds = np.array([plan.validation, *(plan.validation + size for size in plan.ordered)])
    lengths = [array("q") for _ in bounds]
    met, last, digest = np.zeros(len(ranks), bool), int(ranks[-1]), hashlib.sha256()
    with ExitStack() as opened:
        files = [opened.enter_context((place / str(i)).open("w", encoding="utf-8")) for i in range(len(bounds))]
        for number, (name, text) in enumerate(_with_progress(source.open(), "writing", source.records)):
            digest.update(f">{name}\n{text}\n".encode())
            rank = key(plan.seed, "subsets", text) if text else last + 1
            if rank > last:
                continue
            at = int(np.searchsorted(ranks, rank))
            if ranks[at] != rank or met[at]:
                continue
            met[at] = True
            tier = int(np.searchsorted(bounds, at, side="right"))
            files[tier].write(f">{'_'.join(name.split()) or f'{plan.name}_{number}'}\n{text}\n")
            lengths[tier].append(len(text))
    if digest.hexdigest() != source.sha256:
        raise ConfigError("prepare subsets: the source changed while it was being read; run the command again")
    return lengths


def _assemble(place: Path, folder: Path, tier: int, lengths: list[array[int]], about: dict[str, Any]) -> dict[str, Any]:
    """Assemble one folder from the tiers up to its own; it gets its name when it is complete."""
    part = place / folder.name
    part.mkdir()
    shutil.copyfile(place / "0", part / "valid.fasta")
    with (part / "train.fasta").open("wb") as train:
        for i in range(1, tier + 2):
            with (place / str(i)).open("rb") as piece:
                shutil.copyfileobj(piece, train)
    trained = np.concatenate([np.array(lengths[i], np.int64) for i in range(1, tier + 2)])
    metadata = about | {"train": _statistics(trained), "valid": _statistics(np.array(lengths[0], np.int64))}
    write_json(part / METADATA, metadata)
    part.rename(folder)
    return metadata


def _statistics(lengths: Int64[np.ndarray, " n"]) -> dict[str, int | float]:
    found = {"sequences": len(lengths), "residues": int(lengths.sum()), "mean": round(float(lengths.mean()), 2)}
    return found | {word: int(np.quantile(lengths, q, method="lower")) for word, q in _QUANTILES.items()}


def _with_progress(sequences: Iterator[tuple[str, str]], what: str, total: int | None = None) -> Iterator[tuple[str, str]]:
    from tqdm import tqdm

    yield from tqdm(sequences, desc=what, total=total, unit="sequence", unit_scale=True, disable=None)
