"""Text files of any size, line by line: plain, gzip or zstd, with any line ends, and clear errors for anything else."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from protlig_dd.errors import FormatError, require

MAX_LINE = 1 << 26
"""Most characters of a line of a table, whose cells may hold more than sequences, such as alignments."""

MAX_RECORD = 1_000_000
"""Most characters of a record's text unless `data.max_record` says otherwise; the longest known protein has 45,000 residues."""

# A block of one repeated byte takes 4 bytes for 128 KiB: at most 16 MiB are unpacked at once.
_ZSTD_BYTES = 1 << 9
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"PK": "zip", b"BZ": "bzip2", b"\xfd7": "xz"}
_BY_SUFFIX = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


def data_suffix(path: Path) -> str:
    """Return the suffix of the format, in lower case and without compression: ".csv" for "pairs.CSV.gz"."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    while suffixes and suffixes[-1] in _BY_SUFFIX:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_binary(path: Path) -> Iterator[Any]:
    """Open a file for reading its uncompressed bytes; ".gz" and ".zst" are decompressed.

    Raises:
        FormatError: if the file is missing or empty, or its compression differs from its name.
    """
    path = Path(path)
    expected = _BY_SUFFIX.get(path.suffix.lower())
    try:
        with path.open("rb") as probe:
            start = probe.read(4)
    except OSError as error:
        raise FormatError(f"{path}: cannot be opened ({error.strerror}); give the path of a readable file") from error
    if not start:
        raise FormatError(f"{path}: found an empty file, expected records; check how it was made or downloaded")
    found = _MAGIC.get(start[:2])
    if expected != found and (expected or found in ("gzip", "zstd")):
        raise FormatError(
            f"{path}: the name says {expected or 'no compression'}, the content is {found or 'not'} compressed; rename the file"
        )
    with path.open("rb") as raw:
        if expected == "gzip":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked
        elif expected == "zstd":
            yield io.BufferedReader(_ZstdStream(raw), 1 << 18)
        else:
            yield raw


class _ZstdStream(io.RawIOBase):
    """Decompresses zstd frames; unlike zstandard's own reader it detects a truncated file."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._zstandard = require("zstandard", "reading zstd files", extra="data")
        self._raw, self._ready, self._frame = raw, memoryview(b""), self._zstandard.ZstdDecompressor().decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data if self._frame.eof else b""
            packed = packed or self._raw.read(_ZSTD_BYTES)
            if not packed:
                if not self._frame.eof:
                    raise EOFError("the last zstd frame has no end")
                return 0
            if self._frame.eof:
                self._frame = self._zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(packed))
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def _damage() -> tuple[type[Exception], ...]:
    """Return the errors raised by decompressing a damaged or truncated file."""
    try:
        import zstandard
    except ImportError:
        return (EOFError, zlib.error, gzip.BadGzipFile)
    return (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)


def too_long(where: str, most: int) -> FormatError:
    """Return the error for a record that is longer than the reader may hold."""
    advice = "remove it, or raise data.max_record" if most < MAX_LINE else "remove it"
    return FormatError(f"{where}: found a record of more than {most:,} characters, reading stopped there; {advice}")


def read_lines(path: Path, *, longest: int = MAX_LINE) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text file; "\\n", "\\r\\n" and "\\r" all end a line.

    Args:
        path: the file, also .gz or .zst.
        longest: most characters of a line; nothing is read or unpacked beyond them.

    Raises:
        FormatError: for a missing, empty, binary, wrongly encoded or truncated file, or a line that is too long, with its number.
    """
    number = 0
    with open_binary(path) as stream:
        buffered = io.BufferedReader(stream) if isinstance(stream, io.RawIOBase) else stream
        text = io.TextIOWrapper(buffered, encoding="utf-8-sig", newline=None)
        try:
            while line := text.readline(longest + 1):
                number += 1
                if "\0" in line:
                    raise FormatError(f"{path}:{number}: found binary data, expected text; give a text file, or one packed as .gz or .zst")
                if len(line) > longest and not line.endswith("\n"):
                    raise too_long(f"{path}:{number}", longest)
                yield number, line.removesuffix("\n")
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}:{number + 1}: found bytes that are not UTF-8 text ({error.reason}); convert or re-export the file"
            ) from error
        except _damage() as error:
            raise FormatError(
                f"{path}:{number + 1}: the compressed file is truncated or damaged ({error}); download or pack it again"
            ) from error
        finally:
            text.detach()
    if number == 0:
        raise FormatError(f"{path}: found an empty file, expected records; check how it was made or downloaded")
