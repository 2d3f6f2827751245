"""Names of the entries of a Foldseek database: from the headers by key, and back through the lookup file.

A name is the first word of a header. `X.lookup` has a line `key TAB name TAB file number` for each; sub-databases keep the headers and the
lookup of their parent, so both may know keys that the database does not hold.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from protlig_dd.data.foldseek_entries import Entries
from protlig_dd.data.foldseek_files import base_of, find_file, sibling
from protlig_dd.data.foldseek_index import SIDECAR_FROM, UnknownKeyError
from protlig_dd.data.foldseek_name_index import NameIndex, open_name_index
from protlig_dd.errors import FormatError


class Names:
    """Headers and lookup of a database; each may be absent, and is opened when it is first needed.

    Args:
        database: the path of a sub-database of letters; its own headers and lookup go before those of the whole.
        sidecar_from: bytes of text from which on a binary index is kept, of the headers' index and of the lookup.
    """

    def __init__(self, database: Path, *, sidecar_from: int = SIDECAR_FROM) -> None:
        self.database, self._sidecar_from = database, sidecar_from
        self._headers: Entries | None = None
        self._lookup: mmap.mmap | bytes | None = None
        self._index: NameIndex | None = None
        bases = dict.fromkeys((database, base_of(database)))
        self.headers_at = next((p for b in bases if find_file(sibling(p := sibling(b, "_h"), ".index"))), None)
        lookups = [sibling(base, ".lookup") for base in bases]
        self.lookup_at = next((path for path in lookups if find_file(path)), None)

    def header(self, key: int) -> str:
        """Return the header of a key: its name and, often, a title; the name alone where only a lookup is there.

        Raises:
            UnknownKeyError: if neither file knows the key.
            FormatError: if there is neither file, or the entry is damaged.
        """
        if self.headers_at is None:
            return self._name_in_lookup(key)
        if self._headers is None:
            self._headers = Entries(self.headers_at, "headers", sidecar_from=self._sidecar_from)
        headers = self._headers
        row = headers.index.row_of(key)
        raw = headers.raw(row)
        if not raw.endswith(b"\n\0"):
            raise headers.fault(
                row,
                f"found {headers.quote(raw[-8:])} at the end of a header, expected a newline and a NUL; copy the data again",
            )
        try:
            return raw[:-2].decode("utf-8")
        except UnicodeDecodeError as error:
            raise headers.fault(row, f"found a header that is no text ({error}); copy the data again") from error

    def name(self, key: int) -> str:
        """Return the first word of the header of a key; empty where the header is."""
        return next(iter(self.header(key).split(maxsplit=1)), "")

    def keys_of(self, name: str) -> list[int]:
        """Return the keys of a name, increasing: names are file names and chains, and need not be unique.

        Raises:
            FormatError: if there is no lookup file, or its line of that name is damaged.
        """
        text, wanted = self._text(), b"\t" + name.encode() + b"\t"
        keys = []
        for begin in self._lines_with(name.encode(), wanted, text):
            place = text.find(b"\t", begin)
            if text[place : place + len(wanted)] == wanted:
                keys.append(self._number(text[begin:place]))
        return sorted(keys)

    def _lines_with(self, name: bytes, wanted: bytes, text: mmap.mmap | bytes) -> Iterator[int]:
        """Where lines begin that may hold a name; all that do are among them."""
        if len(text) >= self._sidecar_from:
            if self._index is None:
                assert self.lookup_at is not None
                self._index = open_name_index(find_file(self.lookup_at) or self.lookup_at)
            yield from self._index.lines_of(name)
            return
        place = text.find(wanted)
        while place >= 0:
            yield text.rfind(b"\n", 0, place) + 1
            place = text.find(wanted, place + 1)

    def _number(self, field: bytes) -> int:
        if not (field.isdigit() and len(field) < 19):
            raise FormatError(
                f"{self.lookup_at}: found {field[:24]!r} in place of a key, expected 'key TAB name TAB file'; copy the file again"
            )
        return int(field)

    def _text(self) -> mmap.mmap | bytes:
        if self.lookup_at is None:
            raise FormatError(
                f"{sibling(base_of(self.database), '.lookup')}: found no such file, expected the names of the entries; use keys, or copy the whole database"
            )
        if self._lookup is None:
            found = find_file(self.lookup_at)
            assert found is not None
            with found.open("rb") as file:
                self._lookup = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if found.stat().st_size else b""
        return self._lookup

    def _name_in_lookup(self, key: int) -> str:
        """Return the name of a key: lines are in the order of the keys, so halve; go through all where they are not."""
        text = self._text()
        low, high = 0, len(text)
        while low < high:
            begin = text.rfind(b"\n", 0, (low + high) // 2) + 1
            end = text.find(b"\n", begin)
            end = len(text) if end < 0 else end
            fields = text[begin:end].split(b"\t")
            found = self._number(fields[0])
            if found == key and len(fields) > 1:
                return fields[1].decode("utf-8", "replace")
            low, high = (end + 1, high) if found < key else (low, begin)
        line = b"%d\t" % key
        place = 0 if text[: len(line)] == line else text.find(b"\n" + line) + 1
        if place == 0 and text[: len(line)] != line:
            raise UnknownKeyError(
                f"{self.lookup_at}: found no key {key}, expected one for each entry; use keys, or copy the file again"
            )
        fields = text[place : place + 4096].split(b"\n", 1)[0].split(b"\t")
        return fields[1].decode("utf-8", "replace")

    def one_key_of(self, name: str) -> int:
        """Return the key of a name.

        Raises:
            UnknownKeyError: if the lookup does not know it.
            FormatError: if it belongs to several entries.
        """
        keys = self.keys_of(name)
        if not keys:
            raise UnknownKeyError(
                f"{self.lookup_at}: found no entry '{name}'; names are file names and chains, as in 1tim_A: see 'protlig foldseek head'"
            )
        if len(keys) > 1:
            some = ", ".join(map(str, keys[:5])) + (", ..." if len(keys) > 5 else "")
            raise FormatError(
                f"{self.lookup_at}: '{name}' is the name of {len(keys)} entries, of the keys {some}; use the key"
            )
        return keys[0]
