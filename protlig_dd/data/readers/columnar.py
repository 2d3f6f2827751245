"""Parquet files, and Arrow files as Hugging Face datasets saves them: a header, and rows of the wanted columns read in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from protlig_dd.data.readers.files import data_suffix
from protlig_dd.errors import FormatError, require, said_by

COLUMNAR_SUFFIXES = (".parquet", ".arrow")

_ROWS = 4096
# Arrow's file format begins with this; its stream format, which Hugging Face datasets writes, has no such mark.
_IPC_FILE = b"ARROW1"


def columnar_header(path: Path) -> tuple[str, ...]:
    """Return the column names.

    Raises:
        FormatError: if the file is missing, empty, or not in the format of its suffix.
    """
    pa = require("pyarrow", _purpose(path), extra="data")
    try:
        return tuple(_opened(path).schema.names if _is_arrow(path) else _opened(path).schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"{path}: not readable as {_format(path)} ({said_by(error)}); check how it was made or downloaded") from error


def columnar_rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield ("file:row n", the cells of the wanted columns); no other column is decoded, and memory holds one batch.

    Raises:
        FormatError: if the file is damaged, with the last row read.
    """
    pa = require("pyarrow", _purpose(path), extra="data")
    count = 0
    try:
        for batch in _batches(path, wanted):
            batch.validate(full=True)  # finds invalid text and offsets before they are used
            for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                count += 1
                yield f"{path}:row {count}", cells
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"{path}: damaged after row {count} ({said_by(error)}); make or download it again") from error


def _batches(path: Path, wanted: Sequence[str]) -> Iterator[Any]:
    file = _opened(path)
    if not _is_arrow(path):
        yield from (b.select(list(wanted)) for b in file.iter_batches(batch_size=_ROWS, columns=list(wanted)))
        return
    batches = file if not hasattr(file, "num_record_batches") else map(file.get_batch, range(file.num_record_batches))
    places = [file.schema.names.index(name) for name in wanted]
    yield from (batch.select(places) for batch in batches)


def _opened(path: Path) -> Any:
    if not _is_arrow(path):
        return require("pyarrow.parquet", _purpose(path), extra="data").ParquetFile(path, memory_map=True)
    ipc = require("pyarrow.ipc", _purpose(path), extra="data")
    with Path(path).open("rb") as probe:
        is_file = probe.read(len(_IPC_FILE)) == _IPC_FILE
    source = require("pyarrow", _purpose(path), extra="data").memory_map(str(path), "r")
    return ipc.open_file(source) if is_file else ipc.open_stream(source)


def _is_arrow(path: Path) -> bool:
    return data_suffix(path) == ".arrow"


def _format(path: Path) -> str:
    return "Arrow" if _is_arrow(path) else "Parquet"


def _purpose(path: Path) -> str:
    return f"reading {_format(path)}"
