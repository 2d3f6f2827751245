"""Foldseek databases written entry by entry: sequences, 3Di letters, C-alpha traces, headers, and the tables of names and files.

The files equal those of Foldseek's createdb (commit d5b1d3d4) byte for byte for the same entries. Entries are made from structure files in
`structure_files.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from jaxtyping import Float

from protlig_dd.errors import ConfigError, FormatError

CoordStore = Literal["differences", "float"]
"""How C-alpha traces are stored: in steps of 0.001 Angstrom as 16-bit differences (6 bytes a residue), or as float32 (12 bytes)."""

_AMINO_ACIDS, _GENERIC, _CA_ALPHA = 0, 12, 101  # the low 16 bits of a .dbtype
_INT16, _INT32 = np.iinfo(np.int16), np.iinfo(np.int32)
_NAMES = "surrogateescape"  # bytes of a file name that are not UTF-8 stay as they are
_MAX_KEY = 2**32 - 1
_SUFFIXES = r"(_ss|_ca|_h)?(\.(index|dbtype|lookup|source|\d+))?"  # of the files of a database, split ones too
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One chain of a database.

    Attributes:
        name: name of the chain without line breaks or tabs; its first word goes into `.lookup`.
        sequence: amino-acid letters; lower case means masked.
        structure: 3Di letters, one for each amino acid.
        ca_angstrom: C-alpha coordinates, without NaN; None for a database without them.
        title: more words for the header.
        source: the file of the chain, as in `.source`; "" lists the entry as a file of its own, under its name.
        model: number of the model in that file, 0 if the file has only one.
        key: its key; None is the previous key plus one, from 0.
    """

    name: str
    sequence: str
    structure: str
    ca_angstrom: Float[np.ndarray, "l 3"] | None = None
    title: str = ""
    source: str = ""
    model: int = 0
    key: int | None = None


def encode_calpha(ca_angstrom: Float[np.ndarray, "l 3"], *, coord_store: CoordStore = "differences") -> bytes:
    """Return the bytes of a C-alpha trace with the terminating zero: x of all residues, then y, then z.

    Differences have an int32 start and int16 steps for each axis, in thousandths of an Angstrom truncated toward zero. A trace with a
    step outside -32.768 to 32.767 Angstrom is stored as float32, and so is a single residue, since readers distinguish the two forms by
    length and would read it as float32.

    Raises:
        ValueError: if a coordinate is not finite, or too large for float32.
    """
    planar = np.ascontiguousarray(np.asarray(ca_angstrom, dtype=np.float64).T)
    with np.errstate(over="ignore"):
        single = planar.astype("<f4")
    if not np.isfinite(single).all():
        row = int(np.flatnonzero(~np.isfinite(single).all(0))[0])
        raise ValueError(f"residue {row + 1} has the C-alpha {np.asarray(ca_angstrom)[row].tolist()}, expected numbers")
    milli = np.trunc(planar * 1000)
    steps = np.diff(milli)
    fits = (steps >= _INT16.min).all() and (steps <= _INT16.max).all() and (np.abs(milli) <= _INT32.max).all()
    if coord_store == "float" or planar.shape[1] == 1 or not fits:
        return single.tobytes() + b"\0"
    axes = (milli[axis, :1].astype("<i4").tobytes() + steps[axis].astype("<i2").tobytes() for axis in range(3))
    return b"".join(axes) + b"\0\0"


class DatabaseWriter:
    """Writes a Foldseek database; a context manager.

    The files are written in a temporary folder next to their place and get their names when the `with` block ends without an error, the
    index last; after an error, or Ctrl-C, nothing is left. Memory does not grow with the number of entries.

    Args:
        path: the database, such as "folder/db"; folders are made. No file of a database of that name may exist.
        coord_store: how C-alpha traces are stored.

    Raises:
        ConfigError: on entering, if files of a database of that name exist.
        FormatError: on leaving, if there was no entry.
    """

    def __init__(self, path: str | Path, *, coord_store: CoordStore = "differences") -> None:
        self.path = Path(path)
        self.num_entries = self.num_residues = 0
        self._coord_store = coord_store
        self._has_ca = self._several_models = False
        self._key = self._file = -1
        self._last_file: tuple[str, int] | None = None

    def __enter__(self) -> DatabaseWriter:
        if not self.path.name:
            raise ConfigError(f"{self.path}: expected the name of a database, such as folder/db")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        own = re.compile(re.escape(self.path.name) + _SUFFIXES)
        there = sorted(p.name for p in self.path.parent.iterdir() if own.fullmatch(p.name))
        if there:
            raise ConfigError(f"{self.path}: found {', '.join(there[:3])} there already; remove the database, or name another one")
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.writing-", dir=self.path.parent))
        self._open = ExitStack()
        self._parts = {suffix: _Part(self._folder, suffix, self._open) for suffix in ("", "_ss", "_h")}
        self._lookup, self._sources = (self._open.enter_context((self._folder / n).open("wb")) for n in (".lookup", ".files"))
        return self

    def add(self, entry: Entry) -> None:
        """Write one entry.

        Raises:
            FormatError: if its parts do not fit together, or cannot be written in the format; the database is unchanged.
        """
        trace = self._check(entry)
        key = self._key + 1 if entry.key is None else entry.key
        if not 0 <= key <= _MAX_KEY:
            raise FormatError(f"{self.path}: entry '{entry.name}' has the key {key}, expected 0 to {_MAX_KEY}")
        if self.num_entries == 0 and trace is not None:
            self._has_ca = True
            self._parts["_ca"] = _Part(self._folder, "_ca", self._open)
        header = f"{entry.name} {entry.title}" if entry.title else entry.name
        self._parts[""].add(key, f"{entry.sequence}\n\0".encode("ascii"))
        self._parts["_ss"].add(key, f"{entry.structure}\n\0".encode("ascii"))
        self._parts["_h"].add(key, f"{header}\n\0".encode(errors=_NAMES))
        if trace is not None:
            self._parts["_ca"].add(key, trace)
        source = (entry.source or entry.name.split()[0], entry.model)
        if source != self._last_file or not entry.source:
            self._file, self._last_file = self._file + 1, source
            self._several_models |= entry.model > 0
            self._sources.write(f"{source[0]}\t{source[1]}\n".encode(errors=_NAMES))
        self._lookup.write(f"{key}\t{entry.name.split()[0]}\t{self._file}\n".encode(errors=_NAMES))
        self._key = key
        self.num_entries += 1
        self.num_residues += len(entry.sequence)

    def _check(self, entry: Entry) -> bytes | None:
        where = f"{self.path}: entry '{entry.name}'"
        length = len(entry.sequence)
        for field in ("name", "title", "source"):
            if any(c in getattr(entry, field) for c in "\n\r\t\0"):
                raise FormatError(f"{where}: its {field} has a line break, a tab or a zero; leave it out")
        if not entry.name.split():
            raise FormatError(f"{where}: found no name, expected a word")
        if not length or len(entry.structure) != length:
            raise FormatError(f"{where}: found {length} amino acids and {len(entry.structure)} 3Di letters, expected as many")
        if not _LETTERS.issuperset(entry.sequence) or not _LETTERS.issuperset(entry.structure):
            raise FormatError(f"{where}: found '{entry.sequence[:20]}' and '{entry.structure[:20]}', expected letters only")
        if self.num_entries and (entry.ca_angstrom is not None) != self._has_ca:
            raise FormatError(f"{where}: entries with and without C-alpha coordinates; give them for all, or for none")
        if entry.ca_angstrom is None:
            return None
        if entry.ca_angstrom.shape != (length, 3):
            raise FormatError(f"{where}: found C-alpha of the shape {entry.ca_angstrom.shape}, expected ({length}, 3)")
        try:
            return encode_calpha(entry.ca_angstrom, coord_store=self._coord_store)
        except ValueError as error:
            raise FormatError(f"{where}: {error}") from error

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._open.close()
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if not self.num_entries:
            raise FormatError(f"{self.path}: found no entry to write; a database has at least one")
        self._write_sources()
        (self._folder / ".files").unlink()
        made = sorted((p.name for p in self._folder.iterdir()), key=lambda name: (name == ".index", name))
        with ExitStack() as undo:
            for name in made:
                place = self.path.with_name(self.path.name + name.removeprefix("data"))
                undo.callback(place.unlink, missing_ok=True)
                os.replace(self._folder / name, place)
            undo.pop_all()

    def _write_sources(self) -> None:
        """Write `.source`; as in createdb, if any file of the database has several models, all names include the model."""
        with (self._folder / ".files").open("rb") as files, (self._folder / ".source").open("wb") as source:
            for number, line in enumerate(files):
                name, model = line.decode(errors=_NAMES).removesuffix("\n").split("\t")
                words = f"_MODEL_{max(int(model), 1)}" if self._several_models else ""
                source.write(f"{number}\t{name}{words}\n".encode(errors=_NAMES))


class _Part:
    """One sub-database: data, index and type; the data file is named "data" plus the suffix until it gets its final name."""

    def __init__(self, folder: Path, suffix: str, stack: ExitStack) -> None:
        kind = {"_ca": _CA_ALPHA, "_h": _GENERIC}.get(suffix, _AMINO_ACIDS)
        (folder / f"{suffix}.dbtype").write_bytes(kind.to_bytes(4, "little"))
        self._data: IO[bytes] = stack.enter_context((folder / f"data{suffix}").open("wb", buffering=1 << 20))
        self._index: IO[bytes] = stack.enter_context((folder / f"{suffix}.index").open("wb"))
        self._offset = 0

    def add(self, key: int, payload: bytes) -> None:
        self._data.write(payload)
        self._index.write(b"%d\t%d\t%d\n" % (key, self._offset, len(payload)))
        self._offset += len(payload)


def write_database(path: str | Path, entries: Iterable[Entry], *, coord_store: CoordStore = "differences") -> int:
    """Write a Foldseek database from entries, in their order, and return their number.

    Args:
        path: the database, such as "folder/db".
        entries: read one by one; all with C-alpha coordinates, or all without.
        coord_store: how C-alpha traces are stored.

    Raises:
        ConfigError: if a database of that name exists.
        FormatError: if there is no entry, or one cannot be written; no file is left then.

    Example:
        write_database("toy/db", [Entry(name="a", sequence="MKV", structure="DVD", ca_angstrom=np.zeros((3, 3)))])
    """
    with DatabaseWriter(path, coord_store=coord_store) as writer:
        for entry in entries:
            writer.add(entry)
    return writer.num_entries
