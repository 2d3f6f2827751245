"""A JSON object of lists of whole numbers, parsed into arrays without Python objects: UniRef50's lists have 42 million entries."""

from __future__ import annotations

import mmap
import re
from array import array
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from protlig_dd.errors import FormatError

_OPEN = re.compile(rb"\s*\{")
_LIST = re.compile(rb'\s*"([^"\\]*)"\s*:\s*\[')
_NEXT = re.compile(rb"\s*([,}])")
_END = re.compile(rb"\s*\Z")
_NUMBERS = re.compile(rb"[\s0-9,]*")
_PIECE = 1 << 20


def read_index_lists(path: Path) -> dict[str, Int64[np.ndarray, " _"]]:
    """Return the lists by name, as arrays.

    Raises:
        FormatError: if the file is missing or not of the form `{"name": [0, 1, ...], ...}`, with the offset of the error.
    """
    try:
        if not path.stat().st_size:
            raise FormatError(f"{path}: found an empty file, expected lists of row numbers; check how it was made")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return _parse(path, text)
    except OSError as error:
        raise FormatError(f"{path}: cannot be opened ({error.strerror}); give a readable file") from error


def _parse(path: Path, text: mmap.mmap) -> dict[str, Int64[np.ndarray, " _"]]:
    lists = {}
    place = _expect(path, text, 0, _OPEN).end()
    while True:
        found = _expect(path, text, place, _LIST)
        end = text.find(b"]", found.end())
        if end < 0:
            raise _wrong(path, text, found.end())
        lists[found[1].decode("utf-8", "replace")] = _numbers(path, text, found.end(), end)
        found = _expect(path, text, end + 1, _NEXT)
        place = found.end()
        if found[1] == b"}":
            _expect(path, text, place, _END)
            return lists


def _expect(path: Path, text: mmap.mmap, place: int, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
    found = pattern.match(text, place)
    if found is None:
        raise _wrong(path, text, place)
    return found


def _numbers(path: Path, text: mmap.mmap, start: int, end: int) -> Int64[np.ndarray, " _"]:
    """Return the numbers between two brackets, parsed in pieces that end before a comma or the closing bracket."""
    numbers = array("q")
    if end - start < _PIECE and not text[start:end].strip():
        return np.zeros(0, np.int64)
    while start <= end:
        cut = end if end - start <= _PIECE else text.rfind(b",", start, start + _PIECE)
        piece = text[start : cut if cut > start else end]
        if _NUMBERS.fullmatch(piece) is None:
            raise _wrong(path, text, start)
        try:
            numbers.extend([int(number) for number in piece.split(b",")])
        except (ValueError, OverflowError):
            raise _wrong(path, text, start) from None
        start += len(piece) + 1
    return np.frombuffer(numbers, np.int64)


def _wrong(path: Path, text: mmap.mmap, place: int) -> FormatError:
    shown = text[place : place + 40].decode("utf-8", "replace")
    return FormatError(
        f'{path}: byte {place}: found {shown!r}, expected an object of lists of row numbers such as {{"train": [0, 1]}}; '
        "check how it was made or downloaded"
    )
