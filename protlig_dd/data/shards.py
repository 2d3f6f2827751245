"""Token tables on disk: a folder of Arrow files that are memory-mapped, with a manifest `shards.json`.

Each shard is one Arrow IPC file of one record batch: a list of int32 for each track, a number column for each label, and `name`. The
writer keeps one shard in memory, so memory does not grow with the data; opening reads offsets and labels and maps the tokens.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from protlig_dd.data.table import TokenColumn, TokenTable
from protlig_dd.documents import read_json_object
from protlig_dd.errors import FormatError, ProtligError, require
from protlig_dd.files import write_json, written_whole
from protlig_dd.tokens.tracks import TrackSet

MANIFEST = "shards.json"
_KIND = "protlig token shards"
_PURPOSE = "Arrow shards"


class _Tokens:
    """The tokens of one track in a shard, in a buffer that is reused for the next shard.

    Buffers of this size that are freed and grown again for each shard fragment the heap, and memory then grows with the number of shards.
    """

    def __init__(self) -> None:
        self._pool, self._offsets = np.empty(1 << 16, np.int32), array("q", [0])

    def __len__(self) -> int:
        return self._offsets[-1]

    def add(self, tokens: Sequence[int] | np.ndarray) -> None:
        start, end = len(self), len(self) + len(tokens)
        if end > len(self._pool):
            grown = np.empty(max(end, 2 * len(self._pool)), np.int32)
            grown[:start] = self._pool[:start]
            self._pool = grown
        self._pool[start:end] = tokens
        self._offsets.append(end)

    def clear(self) -> None:
        del self._offsets[1:]

    def column(self) -> Any:
        """Return the lists as an Arrow column that shares the memory; it must be written and released before `clear`."""
        pa = require("pyarrow", _PURPOSE, extra="data")
        offsets = np.array(self._offsets, np.int64)
        return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(self._pool[: len(self)]))


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardNames:
    """The names of N examples of shards, read from the files on access.

    Args:
        columns: the names in each shard.
        rows: the row of each example in the concatenated shards.
    """

    columns: tuple[Any, ...]
    rows: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, rows: Any) -> Any:
        found = self.rows[rows]
        if found.ndim:
            return ShardNames(columns=self.columns, rows=found)
        shard = int(np.searchsorted(self._bases, found, side="right")) - 1
        return self.columns[shard][int(found - self._bases[shard])].as_py()

    @cached_property
    def _bases(self) -> Int64[np.ndarray, " s1"]:
        return np.cumsum([0, *map(len, self.columns)], dtype=np.int64)


class ShardWriter:
    """Writes examples one by one into a folder of shards; the manifest is written when the `with` block ends without an error.

    Args:
        folder: created if it does not exist; must not have shards already.
        tracks: the tracks of the examples; the fingerprints of their vocabularies go into the manifest.
        tokens_per_shard: tokens after which a shard is closed; this bounds the memory.
        about: information to keep with the data (source file, counts of dropped records).
    """

    def __init__(self, folder: Path, tracks: TrackSet, *, tokens_per_shard: int = 8_000_000) -> None:
        self.folder, self.tracks, self.tokens_per_shard = Path(folder), tracks, tokens_per_shard
        if (self.folder / MANIFEST).exists():
            raise FormatError(f"{self.folder}: found shards there already; name an empty folder, or remove that one")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.about: dict[str, Any] = {}
        self._shards: list[dict[str, Any]] = []
        self._labels: dict[str, str] = {}
        self._tokens = {name: _Tokens() for name in tracks}
        self._clear()

    def _clear(self) -> None:
        for tokens in self._tokens.values():
            tokens.clear()
        self._label_rows: list[Mapping[str, float | int]] = []
        self._names: list[str] = []

    def add(
        self, example: Mapping[str, Sequence[int] | np.ndarray], *, labels: Mapping[str, float | int] | None = None, name: str = ""
    ) -> None:
        """Add one example; all examples must have the same label names.

        Raises:
            ProtligError: if a shard cannot be written (a full disk).
        """
        for track, tokens in self._tokens.items():
            tokens.add(example.get(track, ()))
        self._label_rows.append(dict(labels or {}))
        self._names.append(name)
        if sum(map(len, self._tokens.values())) >= self.tokens_per_shard:
            self._flush()

    def _flush(self) -> None:
        if not self._names:
            return
        pa = require("pyarrow", _PURPOSE, extra="data")
        columns: dict[str, Any] = {f"track:{track}": tokens.column() for track, tokens in self._tokens.items()}
        for label in self._label_rows[0]:
            numbers = np.array([row[label] for row in self._label_rows])
            columns[f"label:{label}"] = pa.array(numbers)
            self._labels[label] = str(numbers.dtype)
        columns["name"] = pa.array(self._names, pa.large_string())
        batch = pa.record_batch(columns)
        file = f"shard-{len(self._shards):05d}.arrow"
        try:
            with (
                written_whole(self.folder / file) as growing,
                pa.OSFile(str(growing), "wb") as sink,
                pa.ipc.new_file(sink, batch.schema) as writer,
            ):
                writer.write_batch(batch)
        except OSError as error:
            raise ProtligError(
                f"{self.folder / file}: cannot be written ({error}); free space or choose another folder, and prepare again"
            ) from error
        count = sum(map(len, self._tokens.values()))
        self._shards.append({"file": file, "examples": len(self._names), "tokens": count})
        self._clear()

    def close(self) -> None:
        """Write the last shard and the manifest."""
        self._flush()
        manifest = {
            "kind": _KIND,
            "tracks": {n: {"vocabulary": t.vocabulary.name, "fingerprint": t.vocabulary.fingerprint} for n, t in self.tracks.items()},
            "labels": self._labels,
            "examples": sum(shard["examples"] for shard in self._shards),
            "tokens": sum(shard["tokens"] for shard in self._shards),
            "shards": self._shards,
            "about": self.about,
        }
        write_json(self.folder / MANIFEST, manifest)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder of shards.

    Raises:
        FormatError: if it is missing or damaged.
    """
    path, advice = Path(folder) / MANIFEST, "make shards with: protlig prepare shards FILE --out FOLDER"
    manifest = read_json_object(path, advice)
    if manifest.get("kind") != _KIND:
        raise FormatError(f"{path}: found no '{_KIND}'; {advice}")
    forms = {"tracks": dict, "labels": dict, "shards": list, "about": dict}
    is_whole = all(isinstance(manifest.get(name), form) for name, form in forms.items()) and all(map(_is_shard, manifest["shards"]))
    if not is_whole or not all(isinstance(track, dict) and "fingerprint" in track for track in manifest["tracks"].values()):
        raise FormatError(f"{path}: damaged: expected tracks, labels, and the files of this folder with their examples; {advice}")
    return manifest


def _is_shard(entry: Any) -> bool:
    """Whether an entry of a manifest names a file beside it, and no other."""
    name = entry.get("file") if isinstance(entry, dict) else None
    return isinstance(name, str) and Path(name).name == name and type(entry.get("examples")) is int


def open_shards(folder: Path, tracks: TrackSet | None = None) -> TokenTable:
    """Return the table of a folder of shards; tokens and names stay on disk, memory-mapped.

    Args:
        folder: written by `ShardWriter`, or with the folders `part_name` of parallel jobs.
        tracks: the tracks to read, all of them if None; their vocabularies must be those of the shards.

    Raises:
        FormatError: for a missing or damaged shard, a missing track, or another vocabulary.
    """
    manifests = {part: read_manifest(part) for part in _parts(Path(folder))}
    _require_one_source(manifests)
    manifest = next(iter(manifests.values()))
    wanted = list(manifest["tracks"]) if tracks is None else list(tracks)
    for part, own in manifests.items():
        for name in wanted:
            _check_track(part, own, name, tracks)
    batches = [_map_batch(part / s["file"], s["examples"]) for part, own in manifests.items() for s in own["shards"]]
    if not batches:
        raise FormatError(f"{folder}: found shards without a single example; prepare them again from a file that has some")
    return TokenTable(
        tracks={name: _column([batch.column(f"track:{name}") for batch in batches]) for name in wanted},
        labels={
            label: np.concatenate([b.column(f"label:{label}").to_numpy(zero_copy_only=False) for b in batches])
            for label in manifest["labels"]
        },
        names=ShardNames(
            columns=tuple(batch.column("name") for batch in batches),
            rows=np.arange(sum(batch.num_rows for batch in batches), dtype=np.int64),
        ),
    )


def part_name(index: int, count: int) -> str:
    """Return the name of the folder of one of several parallel jobs that write shards, such as "part_2_of_8"."""
    return f"part_{index}_of_{count}"


def _parts(folder: Path) -> list[Path]:
    """The folder itself if it has shards, else the folders of the jobs that wrote them, which must be complete."""
    found = sorted(folder.glob("part_*_of_*")) if not (folder / MANIFEST).exists() else []
    if not found:
        return [folder]
    counts = sorted({one.name.rpartition("_")[2] for one in found})
    if len(counts) > 1 or not counts[0].isdecimal():
        raise FormatError(f"{folder}: found parts of {' and of '.join(counts)}, expected those of one job; remove the others")
    parts = [folder / part_name(i, int(counts[0])) for i in range(int(counts[0]))]
    missing = [part.name for part in parts if not (part / MANIFEST).exists()]
    if missing:
        raise FormatError(
            f"{folder}: {len(missing)} of {len(parts)} parts are missing or unfinished, such as {missing[0]}; run their jobs first"
        )
    return parts


def _require_one_source(manifests: Mapping[Path, dict[str, Any]]) -> None:
    """Refuse parts of jobs that did not do the same work, such as before and after their database was replaced."""
    (first, own), *others = manifests.items()
    for part, manifest in others:
        for name, value in manifest["about"].items():
            expected = own["about"].get(name, value)
            if value != expected and name not in ("source", "shard"):
                raise FormatError(
                    f"{part}: was made with {name} '{value}', {first.name} with '{expected}': the parts do not belong together; remove them "
                    "and run all jobs again"
                )


def _check_track(folder: Path, manifest: dict[str, Any], name: str, tracks: TrackSet | None) -> None:
    if name not in manifest["tracks"]:
        raise FormatError(f"{folder}: found tracks {sorted(manifest['tracks'])}, expected '{name}'; prepare the shards with that track")
    if tracks is None:
        return
    found, expected = manifest["tracks"][name]["fingerprint"], tracks[name].vocabulary.fingerprint
    if found != expected:
        raise FormatError(
            f"{folder}: track '{name}' was written with vocabulary {found}, the config's is {expected} "
            f"('{tracks[name].vocabulary.name}'); use the same vocabulary, or prepare the shards again"
        )


def _map_batch(path: Path, examples: int) -> Any:
    pa = require("pyarrow", _PURPOSE, extra="data")
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path), "r")).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"{path}: damaged or missing shard ({error}); prepare the shards again") from error
    if batch.num_rows != examples:
        raise FormatError(f"{path}: found {batch.num_rows} examples, the manifest says {examples}; prepare the shards again")
    return batch


def _column(lists: Sequence[Any]) -> TokenColumn:
    pools, offsets = tuple(one.values.to_numpy() for one in lists), [one.offsets.to_numpy() for one in lists]
    starts = [own[:-1] + base for own, base in zip(offsets, itertools.accumulate(map(len, pools[:-1]), initial=0), strict=True)]
    return TokenColumn(pools=pools, starts=np.concatenate(starts), lengths=np.concatenate([np.diff(own) for own in offsets]))
