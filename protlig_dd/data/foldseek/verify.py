"""Checks a whole Foldseek database and reports every fault, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Integer

from protlig_dd.data.foldseek.calpha import Calphas
from protlig_dd.data.foldseek.entries import Entries
from protlig_dd.data.foldseek.files import Role, find_file, sibling
from protlig_dd.data.foldseek.index import Index, open_index
from protlig_dd.data.foldseek.letters import AMINO_ACIDS, THREE_DI, Letters
from protlig_dd.data.foldseek.names import Names, identifier_of
from protlig_dd.data.foldseek.rows import row_faults
from protlig_dd.errors import FormatError

_AT_ONCE, _ROWS_AT_ONCE = 256, 1 << 16
_STEP, _SPREAD = 3.8, 0.2  # Angstrom from one C-alpha to the next


class Verifier:
    """Reads a whole database; `faults` yields a line for each fault, `summary` returns afterwards what was read.

    Args:
        database: its path without a suffix, as for `PairedFoldseekDB`.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        self.num_faults = 0
        self._read: dict[str, int] = {}
        self._steps = self._usual_steps = 0

    def faults(self) -> Iterator[str]:
        """Yield one line for each fault."""
        for line in self._all():
            self.num_faults += 1
            yield line

    def summary(self) -> list[str]:
        """Return what was read, and the number of faults."""
        counts = ", ".join(f"{count} of {name}" for name, count in self._read.items()) or "nothing"
        lines = [f"{self.database}: read entries: {counts}"]
        if self._steps:
            share = self._usual_steps / self._steps
            lines.append(f"{share:.1%} of {self._steps} steps from C-alpha to C-alpha are {_STEP} +- {_SPREAD} Angstrom")
        return [*lines, f"{self.num_faults or 'no'} fault{'s' * (self.num_faults != 1)}"]

    def _all(self) -> Iterator[str]:
        opened: dict[str, Entries] = {}
        for ending, role in (("", "letters"), ("_ss", "letters"), ("_ca", "calpha"), ("_h", "headers")):
            yield from self._open(ending, role, opened)  # type: ignore[arg-type]
        sound = {ending: ~_marked(entries) for ending, entries in opened.items()}
        aa, ss = opened.get(""), opened.get("_ss")
        for ending, alphabet in (("", AMINO_ACIDS), ("_ss", THREE_DI)):
            if ending in opened:
                letters = Letters(opened[ending], alphabet=alphabet, keep_case=True)
                yield from self._each(f"{self.database.name}{ending}", np.flatnonzero(sound[ending]), letters.text)
        if aa is not None and ss is not None:
            yield from _partners(aa, ss)
        if aa is not None and "_ca" in opened:
            yield from self._coordinates(aa.index, opened["_ca"], sound[""], sound["_ca"])
        if aa is not None:
            yield from self._names(aa.index)

    def _open(self, ending: str, role: Role, opened: dict[str, Entries]) -> Iterator[str]:
        database = sibling(self.database, ending)
        files = [sibling(database, end) for end in ("", ".0", ".index")]
        if ending and not any(find_file(path) or path.is_symlink() for path in files):
            return
        bad_lines = False
        index = find_file(sibling(database, ".index"))
        for line in row_faults(index) if index is not None else ():
            bad_lines = True
            yield line
        try:
            entries = Entries(database, role, check=False)
        except FormatError as error:
            if not bad_lines:
                yield str(error)
            return
        for row, reason in entries.bad_rows():
            yield str(entries.fault(row, reason))
        if index is not None:
            yield from _old_sidecar(entries.index, index)
        opened[ending] = entries

    def _each(self, name: str, rows: Integer[np.ndarray, " r"], read: Callable[[int], object]) -> Iterator[str]:
        self._read[name] = len(rows)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            for row in rows[first : first + _ROWS_AT_ONCE].tolist():
                try:
                    read(row)
                except FormatError as error:
                    yield str(error)

    def _coordinates(
        self, letters: Index, entries: Entries, sound: Bool[np.ndarray, " n"], sound_ca: Bool[np.ndarray, " c"]
    ) -> Iterator[str]:
        calphas = Calphas(entries.database, letters, check=False)
        rows = entries.index.find_all(letters.keys)
        for row in np.flatnonzero(rows < 0).tolist():
            yield f"{entries.index.path}: found no key {letters.keys[row]}, which {letters.path} has; its coordinates are missing"
        lonely = np.flatnonzero(letters.find_all(entries.index.keys) < 0)
        for row in lonely.tolist():
            yield str(entries.fault(row, f"found no such key in {letters.path}; the coordinates belong to no sequence"))
        readable = np.flatnonzero((rows >= 0) & sound)
        readable = readable[sound_ca[rows[readable]]]
        self._read[entries.database.name] = len(readable)
        for first in range(0, len(readable), _AT_ONCE):
            some = readable[first : first + _AT_ONCE]
            try:
                self._count_steps(*calphas.batch(some))
            except FormatError:
                for row in some.tolist():
                    try:
                        self._count_steps(calphas.read(row), np.array([0]))
                    except FormatError as error:
                        yield str(error)

    def _count_steps(self, coords: np.ndarray, offsets: Int[np.ndarray, " _"]) -> None:
        steps = np.linalg.norm(np.diff(coords.astype(np.float64), axis=0), axis=1)  # floats of damaged data may be very large
        inside = np.ones(len(steps), bool)
        cuts = offsets[1:-1] - 1  # not a step: from the last residue of an entry to the first of the next
        inside[cuts[(cuts >= 0) & (cuts < len(steps))]] = False
        self._steps += int(inside.sum())
        self._usual_steps += int((inside & (np.abs(steps - _STEP) < _SPREAD)).sum())

    def _names(self, index: Index) -> Iterator[str]:
        names = Names(self.database)
        if names.headers_at is not None:
            yield from self._each(names.headers_at.name, index.keys, names.header)
        if names.lookup_at is None or names.headers_at is None:
            return
        found = find_file(names.lookup_at)
        assert found is not None
        with found.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield from _lookup_fault(line, f"{names.lookup_at}:{number}", index, names)


def _lookup_fault(line: bytes, where: str, index: Index, names: Names) -> Iterator[str]:
    fields = line.rstrip(b"\n").split(b"\t")
    if len(fields) != 3 or not (fields[0].isdigit() and len(fields[0]) < 19):
        yield f"{where}: found {line[:48]!r}, expected 'key TAB name TAB file'; copy the file again"
        return
    key = int(fields[0])
    if index.find(key) < 0:
        return
    try:
        name = names.name(key)
    except FormatError:
        return  # reported with the header
    if fields[1] not in (name.encode(), identifier_of(name).encode()):
        yield f"{where}: found the name {fields[1][:48]!r}, the header of key {key} says '{name}'; write the database anew"


def _marked(entries: Entries) -> Bool[np.ndarray, " N"]:
    marked = np.zeros(len(entries), bool)
    marked[[row for row, _ in entries.bad_rows()]] = True
    return marked


def _old_sidecar(index: Index, source: Path) -> Iterator[str]:
    """Compare the sidecar, if one was used, with the text."""
    text = open_index(source, sidecar_from=1 << 62)
    for name in ("starts", "lengths", "keys"):
        if not np.array_equal(getattr(index, name), getattr(text, name)):
            yield f"{index.path}: the binary index beside it has other {name} than the text; remove {source.name}.protlig"


def _partners(aa: Entries, ss: Entries) -> Iterator[str]:
    rows = ss.index.find_all(aa.index.keys)
    for row in np.flatnonzero(rows < 0).tolist():
        yield str(aa.fault(row, f"found no such key in {ss.index.path}; it has no 3Di letters"))
    for row in np.flatnonzero(aa.index.find_all(ss.index.keys) < 0).tolist():
        yield str(ss.fault(row, f"found no such key in {aa.index.path}; it has no amino acids"))
    both = np.flatnonzero(rows >= 0)
    for row in both[aa.index.lengths[both] != ss.index.lengths[rows[both]]].tolist():
        own = int(rows[row])
        counts = f"{ss.index.lengths[own]} letters of 3Di for {aa.index.lengths[row]} amino acids"
        yield str(ss.fault(own, f"found {counts}, expected as many"))
