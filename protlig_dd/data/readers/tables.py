"""Tables of any format as a header and a stream of rows: CSV, TSV, JSON lines, Parquet, Arrow, and lists saved by torch.

`complexes.py` interprets the columns. Rows are read lazily; Parquet and Arrow in batches, in `columnar.py`.
"""

from __future__ import annotations

import csv
import itertools
import json
import pickle
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protlig_dd.data.readers.columnar import COLUMNAR_SUFFIXES, columnar_header, columnar_rows
from protlig_dd.data.readers.files import data_suffix, read_lines
from protlig_dd.errors import FormatError, said_by

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", *COLUMNAR_SUFFIXES, ".pt")

_TORCH_ERRORS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, IndexError, TypeError, AttributeError),
    *(struct.error, OSError, OverflowError, AssertionError, ImportError),
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A header, and rows as ("file:line", cells in the order of the header); a missing cell is None."""

    path: Path
    header: tuple[str, ...]
    rows: Iterator[tuple[str, Sequence[Any]]]


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
        return Table(path=path, header=header, rows=columnar_rows(path, header))
    if suffix == ".pt":
        return _open_torch(path)
    raise FormatError(
        f"{path}: found the suffix '{suffix}', expected one of {', '.join(TABLE_SUFFIXES)} (or with .gz, .zst); rename the file"
    )


def _open_csv(path: Path, *, tabs: bool) -> Table:
    lines = read_lines(path)
    first = next((item for item in lines if item[1].strip()), None)
    if first is None:
        raise FormatError(f"{path}: found blank lines only, expected a header line; check how the file was made")
    delimiter = "\t" if tabs else max(",;\t", key=first[1].count)
    offset = first[0] - 1
    plain = (line + "\n" for _, line in itertools.chain([first], lines))
    # Tab tables of public databases have single quotes inside fields, so a quote has no meaning there.
    quotes: Mapping[str, Any] = {"quoting": csv.QUOTE_NONE} if delimiter == "\t" else {}
    reader = csv.reader(plain, delimiter=delimiter, **quotes)
    header = tuple(_unquoted(cell, delimiter) for cell in _next_row(reader, path, offset) or ())

    def rows() -> Iterator[tuple[str, Sequence[str | None]]]:
        while True:
            where = f"{path}:{reader.line_num + 1 + offset}"
            cells = _next_row(reader, path, offset)
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
                raise FormatError(f"{where}: found {len(cells)} cells, the header has {len(header)}; quote cells that hold a '{delimiter}'")
            padded = [*cells[: len(header)], *[""] * (len(header) - len(cells))]
            yield where, [_unquoted(cell, delimiter) or None for cell in padded]

    return Table(path=path, header=header, rows=rows())


def _unquoted(cell: str, delimiter: str) -> str:
    cell = cell.strip()
    if delimiter == "\t" and len(cell) >= 2 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"').strip()
    return cell


def _next_row(reader: Any, path: Path, offset: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise FormatError(f"{path}:{reader.line_num + offset}: not readable as a table ({error}); check quotes and separators") from error


def _open_json_lines(path: Path) -> Table:
    objects = _json_objects(path)
    first = next(objects, None)
    if first is None:
        raise FormatError(f"{path}: found blank lines only, expected one JSON object a line; check how the file was made")
    header = tuple(first[1])
    rows = ((where, [item.get(key) for key in header]) for where, item in itertools.chain([first], objects))
    return Table(path=path, header=header, rows=rows)


def _json_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FormatError(
                f"{path}:{number}: found '{line[:40]}', expected a JSON object on one line ({error}); correct the line"
            ) from error
        if not isinstance(item, dict):
            raise FormatError(f"{path}:{number}: found '{line[:40]}', expected a JSON object such as {{\"smiles\": ...}}; correct the line")
        yield f"{path}:{number}", item


def narrowed(table: Table, wanted: Sequence[str]) -> Table:
    """Return the table with only the wanted columns; a Parquet or Arrow file reads no others."""
    if data_suffix(table.path) in COLUMNAR_SUFFIXES:
        return Table(path=table.path, header=tuple(wanted), rows=columnar_rows(table.path, wanted))
    places = [table.header.index(name) for name in wanted]
    picked = ((where, [cells[place] for place in places]) for where, cells in table.rows)
    return Table(path=table.path, header=tuple(wanted), rows=picked)


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
    header = tuple(str(key) for key in content[0])
    rows = ((f"{path}:item {i + 1}", [item.get(key) for key in header]) for i, item in enumerate(content))
    return Table(path=path, header=header, rows=rows)
