"""The records at the paths of the `data:` settings: files, folders divided into parts, structures from a second file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from protlig_dd.data.foldseek.table import has_structures, is_database
from protlig_dd.data.readers.complexes import check_same_columns, find_columns, read_pairs, texts_only
from protlig_dd.data.readers.files import data_suffix
from protlig_dd.data.readers.folders import Folder, FolderPart, open_folder
from protlig_dd.data.readers.molecules import read_molecules
from protlig_dd.data.readers.records import Record
from protlig_dd.data.readers.sequences import join_structures, read_sequences
from protlig_dd.data.readers.tables import TABLE_SUFFIXES, open_table
from protlig_dd.data.settings import TRACKS_OF, FileSettings, MoleculeData, PairData, SequenceData
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.structure import alphabet_of
from protlig_dd.tokens.tracks import TrackSet


@dataclass(frozen=True, kw_only=True)
class Source:
    """The records of one part of a run.

    Args:
        label: where they come from.
        open: yields them from the beginning.
        database: the Foldseek database, if its entries are used unchanged; None for anything else.
    """

    label: str
    open: Callable[[], Iterator[Record]]
    database: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources of a run.

    Args:
        parts: "train", and "validation" and "test" if they have their own file or part of a folder.
        about: description of the folder; "" for a file.
    """

    parts: dict[str, Source]
    about: str = ""


def find_sources(data: FileSettings, tracks: TrackSet) -> Sources:
    """Return the sources that the settings name; the parts of a folder are used unless the settings give them another path.

    Raises:
        FormatError: for a folder whose layout is not recognised.
        ConfigError: if there is a structure track but no structure tokens, or the other way round.
    """
    named = {"train": data.path, "validation": data.validation_path, "test": data.test_path}
    found, about = {}, ""
    for part, name in named.items():
        if Path(name).is_dir() and name:
            folder = open_folder(Path(name))
            about = folder.layout if part == "train" else about
            taken = [p for p in folder.parts if p == "train" or (p and not named[p])] if part == "train" else [part]
            for own, one in _taken(folder, taken, part).items():
                check_same_columns(
                    one.files, data.columns if isinstance(data, PairData) else texts_only(data.columns, *TRACKS_OF[data.kind])
                )
                _check_structures(data, one, own, tracks, divided=len(folder.parts) > 1)
                label = f"{name} ({one.name})" if one.name else name
                found[own] = Source(label=label, open=_opener(data, one, own))
        elif name:
            _require(data, part, Path(name))
            one = FolderPart(name="", files=(Path(name),))
            _check_structures(data, one, part, tracks)
            as_it_is = is_database(Path(name)) and not structures_of(data, part)[1]
            found[part] = Source(label=name, open=_opener(data, one, part), database=Path(name) if as_it_is else None)
    return Sources(parts=found, about=about)


def _require(data: FileSettings, part: str, path: Path) -> None:
    """Raise an error for a path that does not exist, before its content is read."""
    if not path.exists() and not is_database(path):
        setting = "path" if part == "train" else f"{part}_path"
        expected = "a file, a folder or a Foldseek database" if isinstance(data, SequenceData) else "a file or a folder"
        raise FormatError(f"data.{setting}: found nothing at '{path}', expected {expected}; correct the path")


def _taken(folder: Folder, wanted: list[str], part: str) -> dict[str, FolderPart]:
    """Return the wanted parts of a folder; a folder that is not divided is used whole."""
    if len(folder.parts) == 1:
        return {part: folder.whole}
    absent = [name for name in wanted if name not in folder.parts]
    if absent:
        raise FormatError(
            f"{folder.path}: found the parts {', '.join(folder.parts)}, expected also '{absent[0]}'; name another data.{part}_path"
        )
    return {name: folder.parts[name] for name in wanted}


def read_records(data: FileSettings, path: Path) -> Iterator[Record]:
    """Return the records of a file, read according to the settings' kind."""
    if isinstance(data, PairData):
        needed = ("protein", "ligand", "affinity") if data.affinity_bins else ("protein", "ligand")
        return read_pairs(path, data.columns, needed=needed, affinity=data.affinity, max_record=data.max_record)
    read = read_molecules if isinstance(data, MoleculeData) else read_sequences
    return read(path, data.columns, max_record=data.max_record)


def structures_of(data: FileSettings, part: str) -> tuple[str, str]:
    """Return the name of the setting for the structures of a part, and its value ("" if unset)."""
    setting = "structure_path" if part == "train" else f"{part}_structure_path"
    return setting, getattr(data, setting, "")


def _opener(data: FileSettings, one: FolderPart, part: str) -> Callable[[], Iterator[Record]]:
    proteins = partial(one.records, partial(read_records, data))
    structures = structures_of(data, part)[1]
    return partial(join_structures, proteins, Path(structures), max_record=data.max_record) if structures else proteins


def _check_structures(data: FileSettings, one: FolderPart, part: str, tracks: TrackSet, *, divided: bool = False) -> None:
    setting, path = structures_of(data, part)
    if path and "structure" not in tracks:
        raise ConfigError(
            f"data.{setting}: found '{path}', the tracks are {sorted(tracks)}; add a track 'structure', or remove the setting"
        )
    if path and divided:
        raise ConfigError(
            f"data.{setting}: found '{path}' for a folder of several parts; give files for data.path and data.validation_path, "
            "each with its structures"
        )
    file = one.files[0]
    if path and not Path(path).exists() and not is_database(Path(path)):
        advice = _how_to_tokenize(alphabet_of(tracks["structure"]), file, setting)
        raise FormatError(f"data.{setting}: found nothing at '{path}', expected structure tokens; {advice}")
    if path or "structure" not in tracks or isinstance(data, MoleculeData):
        return
    if is_database(file):
        alphabet = alphabet_of(tracks["structure"])
        if not has_structures(file):
            raise ConfigError(
                f"{file}: is a database without 3Di letters ({file.name}_ss), the tracks are {sorted(tracks)}; give data.{setting}"
            )
        if alphabet != "3di":
            advice = _how_to_tokenize(alphabet, file, setting)
            raise ConfigError(f"{file}: found a database with 3Di letters, expected {alphabet} tokens; {advice}")
        return
    column = "name its column with data.columns.structure"
    if data_suffix(file) in TABLE_SUFFIXES:
        if "structure" in find_columns(file, open_table(file).header, data.columns, needed=()).roles:
            return
        advice = f"give data.{setting}, or {column}" if isinstance(data, SequenceData) else column
    else:
        advice = f"give data.{setting}, a FASTA file of structure tokens with the same names"
    raise ConfigError(f"{file}: found no structures, the tracks are {sorted(tracks)}; {advice}")


def _how_to_tokenize(alphabet: str, file: Path, setting: str) -> str:
    """What to do where the structure tokens of a file of proteins are missing."""
    if is_database(file) and alphabet == "3di":
        return "leave the setting empty, since the database has its own"
    if is_database(file) and alphabet == "kanzi":
        return f"tokenize it first: protlig tokenize {file} --track kanzi --tokenizer RUN --out cache, and set data.kind=shards data.path=cache"
    if alphabet in ("3di", "kanzi"):
        return f"make them with: protlig tokenize STRUCTURES --track {alphabet} --out X.fasta"
    return f"give data.{setting}, a FASTA file of {alphabet} tokens with the names of the proteins"
