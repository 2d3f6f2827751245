"""The text index of a Foldseek database as numbers: `key TAB offset TAB length` rows, read in chunks and checked strictly.

Each chunk is parsed by numpy as a whole; a chunk that is not exactly rows of three numbers is searched line by line for the error message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from protlig_dd.errors import FormatError

LARGEST_SIZE = 2**31 - 1
"""The longest entry that can be read, in bytes."""

_CHUNK = 1 << 20  # bytes; a chunk and its numbers fit into the processor's cache, and memory stays constant
_LONGEST_ROW = 64
_ROW = re.compile(rb"(\d{1,18})\t(\d{1,18})\t(\d{1,10})")
_LARGEST = 10**18  # of keys and offsets; a sum of two stays within 63 bits

Numbers = Int64[np.ndarray, "r 3"]


def count_rows(path: Path) -> int:
    """Return the number of lines of a file."""
    count, buffer = 0, np.empty(_CHUNK, np.uint8)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer.data):
            count += int(np.count_nonzero(buffer[:size] == ord("\n")))
    return count


def text_chunks(path: Path) -> Iterator[bytes]:
    """Yield whole lines, many at a time; only the last chunk may lack its newline."""
    rest = b""
    with path.open("rb", buffering=0) as file:
        while block := file.read(_CHUNK):
            cut = block.rfind(b"\n") + 1
            if cut:
                yield rest + block[:cut]
                rest = block[cut:]
            else:
                rest += block
            if len(rest) > _CHUNK:
                yield rest  # no row is this long: the file is not an index
                rest = b""
    if rest:
        yield rest


def read_rows(path: Path) -> Iterator[Numbers]:
    """Yield the rows of an index, many at a time, as (key, offset, length) in the order of the file.

    Raises:
        FormatError: at the first line that is not three numbers, with its place and content.
    """
    line = 1
    for chunk in text_chunks(path):
        numbers = _parse(chunk)
        if numbers is None:
            raise FormatError(next(_faults(path, chunk, line)))
        yield numbers
        line += len(numbers)


def row_faults(path: Path) -> Iterator[str]:
    """Yield an error message for each malformed line of an index."""
    line = 1
    for chunk in text_chunks(path):
        if _parse(chunk) is None:
            yield from _faults(path, chunk, line)
        line += chunk.count(b"\n")


def _parse(chunk: bytes) -> Numbers | None:
    # Without its digits, a chunk of rows is a repetition of tab, tab, newline.
    frame = chunk.translate(None, b"0123456789")
    count = len(frame) // 3
    if frame != b"\t\t\n" * count:
        return None
    numbers = np.fromstring(chunk, dtype=np.int64, sep="\t")
    if len(numbers) != 3 * count:  # a field is empty
        return None
    numbers = numbers.reshape(count, 3)
    # Numbers of twenty digits are parsed as the largest 64-bit integer.
    if numbers[:, :2].max(initial=0) >= _LARGEST or numbers[:, 2].max(initial=0) > LARGEST_SIZE:
        return None
    return numbers if numbers.min(initial=0) >= 0 else None


def _faults(path: Path, chunk: bytes, first_line: int) -> Iterator[str]:
    for number, line in enumerate(chunk.split(b"\n")[: chunk.count(b"\n") + 1], first_line):
        last = number - first_line == chunk.count(b"\n")
        if last and not line:
            return
        where = f"{path}:{number}: found {line[:_LONGEST_ROW]!r}"
        match = _ROW.fullmatch(line)
        if match is None:
            yield f"{where}, expected 'key TAB offset TAB length'; the index is damaged, copy it again"
        elif int(match[3]) > LARGEST_SIZE:
            yield f"{where}, expected a length of at most {LARGEST_SIZE}; the index is damaged, copy it again"
        elif last:
            yield f"{where} without a newline at its end; the index is truncated, copy it again"
