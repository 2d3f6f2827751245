"""Tables of any format as a header and a stream of rows: CSV, TSV, JSON lines, Parquet, Arrow, and lists saved by torch.

`complexes.py` interprets the columns. Rows are read lazily; Parquet and Arrow in batches, in `columnar.py`.
"""

from __future__ import annotations

import csv
import itertools
import json
import pickle
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from protlig_dd.data.readers.columnar import COLUMNAR_SUFFIXES, columnar_header, columnar_rows
from protlig_dd.data.readers.files import MAX_LINE, data_suffix, read_lines
from protlig_dd.errors import FormatError, said_by

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", *COLUMNAR_SUFFIXES, ".pt")

_TORCH_ERRORS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, IndexError, TypeError, AttributeError),
    *(struct.error, OSError, OverflowError, AssertionError, ImportError),
)

Row = tuple[str, Sequence[Any]]
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\s*', re.IGNORECASE)
_END = "\0 the end of the file"  # no line has it: read_lines refuses the character
_MOST_KEYS = 10_000


@dataclass(frozen=True, kw_only=True)
class Table:
    """A header, and rows as ("file:line", cells in the order of the header).

    A cell that a row lacks is None; an empty cell of a text table is "".

    Attributes:
        read: yields the rows, from the beginning at each call.
        ragged: whether a row that lacks a cell is a fault, as in CSV; a JSON object may leave out keys.
    """

    path: Path
    header: tuple[str, ...]
    read: Callable[[], Iterator[Row]]
    ragged: bool = False

    @property
    def rows(self) -> Iterator[Row]:
        """The rows, from the beginning."""
        return self.read()

    def place(self, column: str) -> int:
        """Return the place of a column.

        Raises:
            FormatError: if the header has the name more than once.
        """
        if (count := self.header.count(column)) > 1:
            raise FormatError(f"{self.path}: found {count} columns called '{column}', expected one; rename the others")
        return self.header.index(column)


def open_table(path: Path) -> Table:
    """Open a table by the suffix of its name.

    Raises:
        FormatError: if the suffix is unknown, or the content does not match it (partly raised only while reading rows).
    """
    path = Path(path)
    suffix = data_suffix(path)
    if suffix in (".csv", ".tsv", ".tab"):
        return _open_csv(path, tabs=suffix != ".csv")
    if suffix in (".jsonl", ".ndjson"):
        return _open_json_lines(path)
    if suffix in COLUMNAR_SUFFIXES:
        header = columnar_header(path)
        return Table(path=path, header=header, read=partial(columnar_rows, path, header))
    if suffix == ".pt":
        return _open_torch(path)
    raise FormatError(
        f"{path}: found the suffix '{suffix}', expected one of {', '.join(TABLE_SUFFIXES)} (or with .gz, .zst); rename the file"
    )


def _open_csv(path: Path, *, tabs: bool) -> Table:
    csv.field_size_limit(MAX_LINE)  # a process-wide limit, of 131,072 characters by default
    header = tuple(next(_csv_rows(path, tabs=tabs))[1])

    def rows() -> Iterator[tuple[str, Sequence[str | None]]]:
        for where, cells in itertools.islice(_csv_rows(path, tabs=tabs), 1, None):
            if not any(cells):
                continue
            if any(cells[len(header) :]):
                delimiter = "tab" if tabs else "comma or semicolon"
                raise FormatError(f"{where}: found {len(cells)} cells, the header has {len(header)}; quote cells that hold a {delimiter}")
            yield where, [*cells[: len(header)], *[None] * (len(header) - len(cells))]

    return Table(path=path, header=header, read=rows, ragged=True)


def _csv_rows(path: Path, *, tabs: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield ("file:line", cells) of the header and of each row after it."""
    lines = read_lines(path)
    filled = (item for item in lines if item[1].strip())
    number, line = next(filled, (0, ""))
    named = _SEPARATOR.fullmatch(line)  # Excel's own line: sep=;
    if named:
        number, line = next(filled, (0, ""))
    if not line:
        raise FormatError(f"{path}: found blank lines only, expected a header line; check how the file was made")
    delimiter = named[1] if named else "\t" if tabs else max(",;\t", key=line.count)
    offset = number - 1
    # Tab tables of public databases have single quotes inside fields, so a quote has no meaning there.
    quotes: Mapping[str, Any] = {"quoting": csv.QUOTE_NONE} if delimiter == "\t" else {}
    text = itertools.chain([line + "\n"], (line + "\n" for _, line in lines), [_END])
    reader = csv.reader(text, delimiter=delimiter, **quotes)
    while True:
        where = f"{path}:{reader.line_num + 1 + offset}"
        try:
            cells = next(reader)
        except csv.Error as error:
            raise FormatError(
                f"{path}:{reader.line_num + offset}: not readable as a table ({error}); check quotes and separators"
            ) from error
        if cells == [_END]:
            return
        if cells and cells[-1].endswith(_END):  # it stands inside quotes, so all lines up to it do
            raise FormatError(f"{where}: found a quoted cell that never ends, expected a closing quote; correct the row")
        yield where, [_unquoted(cell, delimiter) for cell in cells]


def _unquoted(cell: str, delimiter: str) -> str:
    cell = cell.strip()
    if delimiter == "\t" and len(cell) >= 2 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"').strip()
    return cell


def _open_json_lines(path: Path) -> Table:
    """The header is the union of all objects' keys, for which the file is read once before."""
    keys: dict[str, None] = {}
    for where, item in _json_objects(path, checked=True):
        keys |= dict.fromkeys(item)
        if len(keys) > _MOST_KEYS:
            raise FormatError(f"{where}: found more than {_MOST_KEYS:,} different keys, expected the same few in all objects")
    if not keys:
        raise FormatError(f"{path}: found no keys, expected one JSON object a line; check how the file was made")
    header = tuple(keys)

    def rows() -> Iterator[Row]:
        return ((where, [item.get(key) for key in header]) for where, item in _json_objects(path))

    return Table(path=path, header=header, read=rows)


def _json_objects(path: Path, *, checked: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file:line", object); `checked` refuses objects that have a key twice."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            item = json.loads(line, object_pairs_hook=_object if checked else None)
        except (ValueError, RecursionError) as error:  # a ValueError of its own for a number of thousands of digits
            raise FormatError(
                f"{path}:{number}: found '{line[:40]}', expected a JSON object on one line ({said_by(error)}); correct the line"
            ) from error
        if not isinstance(item, dict):
            raise FormatError(f"{path}:{number}: found '{line[:40]}', expected a JSON object such as {{\"smiles\": ...}}; correct the line")
        yield f"{path}:{number}", item


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    item = dict(pairs)
    if len(item) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key '{next(key for key in keys if keys.count(key) > 1)}' stands twice")
    return item


def narrowed(table: Table, wanted: Sequence[str]) -> Table:
    """Return the table with only the wanted columns; a Parquet or Arrow file reads no others."""
    places = [table.place(name) for name in wanted]
    if data_suffix(table.path) in COLUMNAR_SUFFIXES:
        return Table(path=table.path, header=tuple(wanted), read=partial(columnar_rows, table.path, wanted))

    def picked() -> Iterator[Row]:
        return ((where, [cells[place] for place in places]) for where, cells in table.read())

    return Table(path=table.path, header=tuple(wanted), read=picked, ragged=table.ragged)


def _open_torch(path: Path) -> Table:
    """Read a list of dicts, or a dict of lists, of plain values; a file that would run code is an error."""
    import torch

    advice = "expected a list of records with plain values; re-export it as CSV or JSON lines"
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's remarks on unusual pickles
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _TORCH_ERRORS as error:
        raise FormatError(f"{path}: not readable as a torch file ({said_by(error)}); {advice}") from error
    if isinstance(content, Mapping) and content and all(isinstance(v, list | tuple) for v in content.values()):
        lengths = {str(k): len(v) for k, v in content.items()}
        if len(set(lengths.values())) > 1:
            raise FormatError(f"{path}: found columns of unequal length {lengths}; {advice}")
        content = [dict(zip(content, cells, strict=True)) for cells in zip(*content.values(), strict=True)]
    if not isinstance(content, list | tuple) or not content or not all(isinstance(item, Mapping) for item in content):
        raise FormatError(f"{path}: found {type(content).__name__}, {advice}")
    keys = tuple(dict.fromkeys(key for item in content for key in item))

    def rows() -> Iterator[Row]:
        return ((f"{path}:item {i + 1}", [item.get(key) for key in keys]) for i, item in enumerate(content))

    return Table(path=path, header=tuple(map(str, keys)), read=rows)
