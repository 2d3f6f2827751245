"""The files of a Foldseek database: their places, their types, and their bytes, memory-mapped.

A database `X` has several sub-databases: `X` (amino acids), `X_ss` (3Di), `X_ca` (C-alpha), `X_h` (headers). Each has a data file, or parts
`X.0`, `X.1`, ... that are read as one, with an `.index` and a `.dbtype`. Entries are decoded in `letters.py` and `calpha.py`.
Source: the format of MMseqs2 and Foldseek (commit d5b1d3d4), checked on databases that it wrote.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from protlig_dd.errors import FormatError
from protlig_dd.files import fingerprint_of

Role = Literal["letters", "calpha", "headers"]

_BASE_TYPES = {
    0: "amino acids", 1: "nucleotides", 2: "a profile", 3: "a generated profile state", 4: "a second profile state", 5: "alignments",
    6: "clusters", 7: "prefilter results", 8: "taxonomy results", 9: "a precomputed index", 10: "C-alpha of another kind",
    11: "six-frame translations", 12: "generic text", 101: "C-alpha coordinates", 102: "TM-scores",
}  # fmt: skip
_EXPECTED: dict[Role, int] = {"letters": 0, "calpha": 101, "headers": 12}
_COMPRESSED, _PADDED = 1 << 31, 8
# Flags that leave the layout of an entry alone: reserved, needs-source, padded, set, LoL-align, interface.
_KNOWN_FLAGS = 1 | 2 | _PADDED | 16 | 1 << 13 | 1 << 14
_LONGEST_LINK = 4096

_logger = logging.getLogger(__name__)


def sibling(path: Path, ending: str) -> Path:
    """Return the path with a suffix added to its whole name: "db" and "_ss.index" give "db_ss.index"."""
    return path.with_name(path.name + ending)


def base_of(path: Path) -> Path:
    """Return the path of the whole database: "db" for "db_ss"."""
    return path.with_name(path.name.removesuffix("_ss"))


def find_file(path: Path) -> Path | None:
    """Return the path of the file with the bytes, or None if there is no such file.

    Tools that do not copy symbolic links write the link's target as the text of a small file. No file of a database can look like that
    (each has a newline or a NUL), so such a file is followed as a link.
    """
    for _ in range(8):
        if not path.is_file():
            return None
        target = _copied_link(path)
        if target is None:
            return path
        _logger.debug("%s: a symbolic link that was copied as text; reading %s", path, target)
        path = target
    return path


def _copied_link(path: Path) -> Path | None:
    if not 5 <= path.stat().st_size <= _LONGEST_LINK:
        return None
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not text.isprintable() or text != text.strip():
        return None
    target = path.parent / text
    return target if os.path.isfile(target) else None  # Path.is_file raises where the letters are not a valid path


@dataclass(frozen=True, kw_only=True)
class DbType:
    """The type in a `.dbtype` file.

    Attributes:
        base: the kind of the entries, such as 0 for amino acids and 101 for C-alpha.
        compressed: whether each entry is a zstd frame.
        padded: whether letters are codes, aligned to four bytes (a database for GPUs).
        given: False if there is no such file and the type is assumed from the name of the database.
    """

    base: int
    compressed: bool
    padded: bool
    given: bool = True


def read_dbtype(database: Path, role: Role) -> DbType:
    """Return the type of a sub-database.

    Raises:
        FormatError: if the file is not one 32-bit word, or the type is not the expected one or is not supported.
    """
    path = sibling(database, ".dbtype")
    found = find_file(path)
    expected = _EXPECTED[role]
    if found is None:
        if path.is_symlink():
            raise FormatError(f"{path}: found a link to {os.readlink(path)}, which is not there; copy the whole database")
        return DbType(base=expected, compressed=False, padded=False, given=False)
    content = found.read_bytes()
    if len(content) != 4:
        raise FormatError(f"{path}: found {len(content)} bytes ({content[:24]!r}), expected 4; copy the file again")
    word = int.from_bytes(content, "little")
    base, flags = word & 0xFFFF, (word >> 16) & 0x7FFF
    if base != expected:
        kind = _BASE_TYPES.get(base, "an unknown type")
        raise FormatError(
            f"{path}: found {kind} (type {base}), expected {_BASE_TYPES[expected]} (type {expected}); "
            "name a structure database as 'foldseek createdb' writes it"
        )
    if flags & ~_KNOWN_FLAGS or (flags & _PADDED and (word & _COMPRESSED or role != "letters")):
        raise FormatError(
            f"{path}: found the word 0x{word:08x}, whose flags change the entries in a way that is not known here; "
            "expected a plain, compressed or padded database; write it anew with Foldseek"
        )
    return DbType(base=base, compressed=bool(word & _COMPRESSED), padded=bool(flags & _PADDED))


def data_parts(database: Path) -> list[Path]:
    """Return the data files in their order: X.0, X.1, ... if X.0 exists, else X.

    Raises:
        FormatError: if there are none; the message says what was found instead.
    """
    parts: list[Path] = []
    while (part := find_file(sibling(database, f".{len(parts)}"))) is not None:
        parts.append(part)
    if parts:
        return parts
    whole = find_file(database)
    if whole is not None:
        return [whole]
    if database.is_symlink():
        raise FormatError(f"{database}: found a link to {os.readlink(database)}, which is not there; copy the data too")
    raise FormatError(f"{database}: {_what_is_there(database)}")


def _what_is_there(database: Path) -> str:
    if find_file(sibling(database, ".index")) is not None:
        return f"found {database.name}.index and no data, neither {database.name} nor {database.name}.0; copy the whole database"
    folder = database if database.is_dir() else database.parent
    if not folder.is_dir():
        return f"found no folder {folder}; check the path"
    names = sorted(p.name.removesuffix(".index") for p in folder.glob("*.index"))
    bases = [name for name in names if f"{name}_ss" in names] or names
    kind = "found a folder" if database.is_dir() else "found no such database"
    if not bases:
        return f"{kind} and no .index in {folder}; expected the path of a database, as in folder/db"
    return f"{kind}; {folder} has {', '.join(bases[:5])}: name one, as in {folder / bases[0]}"


def database_fingerprint(database: Path) -> str:
    """Return 16 hexadecimal digits of a database's letters, 3Di letters and C-alphas with their indices, as in `files.fingerprint_of`."""
    digest = hashlib.sha256()
    for name in ("", "_ss", "_ca"):
        part, index = sibling(database, name), find_file(sibling(database, f"{name}.index"))
        if index is not None:
            digest.update(" ".join([name, *map(fingerprint_of, (index, *data_parts(part)))]).encode())
    return digest.hexdigest()[:16]


class DataFiles:
    """The concatenated parts of a sub-database, mapped read-only and shared by all processes.

    Attributes:
        parts: the files.
        size: total bytes.
        whole: the map if there is a single part, else None; empty bytes for an empty file.
    """

    def __init__(self, database: Path) -> None:
        self.parts = data_parts(database)
        self._maps = [mapped(part) for part in self.parts]
        self._bases = [0, *accumulate(map(len, self._maps))]
        self.size = self._bases[-1]
        self.whole = self._maps[0] if len(self._maps) == 1 else None

    def read(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from `start`; fewer if the part that contains `start` ends before."""
        if self.whole is not None:
            return self.whole[start : start + size]
        if start >= self.size:
            return b""
        part = bisect_right(self._bases, start) - 1
        begin = start - self._bases[part]
        return self._maps[part][begin : begin + size]


def mapped(path: Path) -> mmap.mmap | bytes:
    """Return a file mapped read-only; empty bytes for an empty file."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
