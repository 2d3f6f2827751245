"""Folders as data: datasets saved by Hugging Face, folders of Parquet or FASTA files named after their parts, EvoDiff's UniRef50.

The layout is recognised by the names in the folder; the readers of single files read the files one after the other, and nothing in them
is ever executed. The folder assigns each record to a part, which becomes the split of the run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from protlig_dd.data.readers.complexes import SPLIT_WORDS
from protlig_dd.data.readers.files import data_suffix
from protlig_dd.data.readers.index_lists import read_index_lists
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sequences import FASTA_SUFFIXES
from protlig_dd.documents import read_json
from protlig_dd.errors import FormatError

_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".jsonl", *FASTA_SUFFIXES)
_INSIDE = ("data", "default")  # where the Hub's repositories keep their files
_SHOWN = 8
_LARGEST_RATIO = 1032  # the largest compression ratio of deflate
_EXPECTED = (
    "expected a dataset saved by save_to_disk, Parquet or FASTA files (named train..., valid..., test... if there are several parts), "
    "or consensus.fasta with splits.json"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderPart:
    """One part of a folder.

    Args:
        name: "train", "validation" or "test"; "" if the folder is not divided.
        files: the files in reading order.
        chosen: which records of the files belong to the part, in reading order; None for all.
    """

    name: str
    files: tuple[Path, ...]
    chosen: Bool[np.ndarray, " _"] | None = None

    def records(self, read: Callable[[Path], Iterator[Record]]) -> Iterator[Record]:
        """Yield the part's records, lazily, each with the part's name as its split.

        Args:
            read: reads one file.

        Raises:
            FormatError: for unreadable files, or fewer records than `chosen` refers to.
        """
        count, size = 0, 0 if self.chosen is None else len(self.chosen)
        for file in self.files:
            for record in read(file):
                count += 1
                if self.chosen is None or (count <= size and self.chosen[count - 1]):
                    yield dataclasses.replace(record, split=self.name) if self.name else record
        if count < size:
            raise FormatError(
                f"{self.files[-1]}: found {count} records, splits.json speaks of number {size - 1} (counted from 0) in "
                f"'{self.name}'; the two files do not belong together"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder:
    """A folder whose layout was recognised.

    Args:
        path: the folder.
        layout: the layout in words.
        parts: by name: "train" and perhaps "validation" and "test", or only "" if the folder is not divided.
    """

    path: Path
    layout: str
    parts: Mapping[str, FolderPart]

    @property
    def whole(self) -> FolderPart:
        """The training part, or everything if the folder is not divided."""
        return self.parts.get("train") or self.parts[""]


def open_folder(path: Path) -> Folder:
    """Return the parts of a folder; the data files are not opened yet.

    Raises:
        FormatError: if no layout is recognised, or the parts cannot be distinguished.
    """
    names = {item.name for item in path.iterdir()}
    if "shards.json" in names:
        raise FormatError(f"{path}: found the shards of protlig prepare, expected records; set data.kind=shards")
    if "dataset_dict.json" in names:
        return _dataset_dict(path)
    if "state.json" in names:
        return _folder(path, "a dataset saved by save_to_disk", {"": _dataset_files(path)})
    fasta = sorted(n for n in names if n.startswith("consensus.") and data_suffix(Path(n)) in FASTA_SUFFIXES)
    if "splits.json" in names and fasta:
        return _indexed(path, path / fasta[0])
    return _named_files(path)


def _folder(path: Path, layout: str, files: Mapping[str, Iterable[Path]]) -> Folder:
    parts = {name: FolderPart(name=name, files=tuple(found)) for name, found in files.items()}
    if not {"", "train"} & set(parts):
        raise FormatError(f"{path}: found only the parts {_quoted(parts)}, expected one of the name train; add it")
    return Folder(path=path, layout=layout, parts=parts)


def _quoted(names: Iterable[str]) -> str:
    names = sorted(names)
    shown = ", ".join(f"'{name[:40]}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "") if names else "nothing"


def part_of(name: str | Path) -> str:
    """Return the part in the name of a file or folder ("train" for "train-00000-of-00002.parquet"), or "".

    Raises:
        FormatError: if the name has words of two parts.
    """
    found = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", Path(name).name.lower()) if word in SPLIT_WORDS}
    if len(found) > 1:
        raise FormatError(f"{name}: the name speaks of {' and '.join(sorted(found))}, expected one part; rename it")
    return found.pop() if found else ""


def _object(path: Path) -> dict[str, object]:
    content = read_json(path, "save or download the dataset again")
    if not isinstance(content, dict):
        raise FormatError(f"{path}: found {str(content)[:40]!r}, expected an object; save or download the dataset again")
    return content


def _dataset_dict(path: Path) -> Folder:
    splits = _object(path / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) and Path(name).name == name for name in splits):
        raise FormatError(f"{path}: found {str(splits)[:60]!r} in dataset_dict.json, expected names; save it again")
    parts: dict[str, list[Path]] = {}
    for name in splits:
        part = part_of(name)
        if part in parts:
            raise FormatError(f"{path}: found {_quoted(splits)}, expected one of each part; save the dataset again")
        if part:
            parts[part] = _dataset_files(path / name)
    if not parts and len(splits) == 1:
        parts[""] = _dataset_files(path / splits[0])
    unused = [name for name in splits if not part_of(name)] if "" not in parts else []
    layout = "a dataset saved by save_to_disk" + (f"; its parts {_quoted(unused)} are not used" if unused else "")
    return _folder(path, layout, parts)


def _dataset_files(path: Path) -> list[Path]:
    """Return the Arrow files of one saved dataset, as its state.json lists them."""
    state = _object(path / "state.json")
    if any(state.get(name) for name in ("_indices_files", "_indices_data_files")):
        raise FormatError(f"{path}: found a selection of rows kept apart; save it again after flatten_indices()")
    listed = state.get("_data_files")
    items = listed if isinstance(listed, list) else []
    names = [item.get("filename") if isinstance(item, dict) else None for item in items]
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise FormatError(f"{path}: found {str(listed)[:60]!r} as the files of state.json, expected file names; save or download it again")
    return [path / str(name) for name in names]


def _indexed(path: Path, fasta: Path) -> Folder:
    """EvoDiff's UniRef50: all sequences in one FASTA file, and a list of their numbers for each part.

    Its third file, lengths_and_offsets.npz, is not needed, since the sequences are read as a stream.
    """
    most = fasta.stat().st_size * (1 if data_suffix(fasta) == fasta.suffix.lower() else _LARGEST_RATIO)
    parts, unused, taken = {}, [], np.zeros(0, bool)
    for name, indices in read_index_lists(path / "splits.json").items():
        part = part_of(name)
        if not part or part in parts:
            unused.append(name)
            continue
        last = int(indices.max()) if len(indices) else -1
        if last >= most:
            raise FormatError(f"{path}/splits.json: found {last} in '{name}', {fasta.name} is too short for as many sequences")
        chosen = np.zeros(last + 1, bool)
        chosen[indices] = True
        if int(chosen.sum()) != len(indices) or (chosen[: len(taken)] & taken[: len(chosen)]).any():
            raise FormatError(f"{path}/splits.json: a row stands twice (found at '{name}'), expected each in one list once")
        taken = np.concatenate([taken, np.zeros(max(0, len(chosen) - len(taken)), bool)])
        taken[: len(chosen)] |= chosen
        parts[part] = FolderPart(name=part, files=(fasta,), chosen=chosen)
    if "train" not in parts:
        raise FormatError(f"{path}/splits.json: found the lists {_quoted([*parts, *unused])}, expected one named train")
    layout = "EvoDiff's layout" + (f"; its lists {_quoted(unused)} are not used" if unused else "")
    return Folder(path=path, layout=layout, parts=parts)


def _named_files(path: Path) -> Folder:
    for folder in (path, *(path / name for name in _INSIDE)):
        files: dict[str, list[Path]] = {}
        for item in sorted(folder.iterdir()) if folder.is_dir() else ():
            if item.is_dir() and not item.name.startswith("."):
                part = part_of(item)
                found = _files_of_one_part(item) if part else []
            else:
                found = [item] if _is_data(item) else []
                part = part_of(item) if found else ""
            if found:
                files.setdefault(part, []).extend(found)
        if files:
            return _folder(path, _checked(path, files), files)
    inside = [f"{item.name}/" if item.is_dir() else item.name for item in path.iterdir()]
    raise FormatError(f"{path}: found {_quoted(inside)}, {_EXPECTED}")


def _is_data(path: Path) -> bool:
    return path.is_file() and data_suffix(path) in _SUFFIXES and not path.name.startswith(".")


def _files_of_one_part(folder: Path) -> list[Path]:
    """Return the data files of a folder named after a part; their own names do not matter."""
    if (folder / "state.json").is_file():
        return _dataset_files(folder)
    for place in (folder, *(folder / name for name in _INSIDE)):
        found = sorted(item for item in place.iterdir() if _is_data(item)) if place.is_dir() else []
        if found:
            return found
    return []


def _checked(path: Path, files: Mapping[str, list[Path]]) -> str:
    """Return the layout in words.

    Raises:
        FormatError: if the files cannot be assigned to parts.
    """
    endings = {_ending(file) for found in files.values() for file in found}
    if len(endings) > 1:
        raise FormatError(f"{path}: found files of {' and '.join(sorted(endings))}, expected one format; remove the others")
    if "" in files and len(files) > 1:
        raise FormatError(
            f"{path}: found {_quoted(f.name for f in files[''])} beside files named after parts, expected all or none so named; "
            "rename or remove them"
        )
    count = sum(map(len, files.values()))
    return f"{count} {endings.pop().lstrip('.')} file" + "s" * (count > 1)


def _ending(file: Path) -> str:
    return file.suffix.lower() if data_suffix(file) == file.suffix.lower() else "".join(file.suffixes[-2:]).lower()
