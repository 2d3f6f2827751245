"""Files that are complete or absent: written under a temporary name in the same folder, then renamed.

A reader, or a process that starts after a kill, finds the old file or the new one, never a part of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; the file written there replaces `path` if the block ends without an error.

    The temporary file is removed otherwise. Its name is random, so two writers do not share it, also not two threads of one process or
    two hosts with one file system.

    Args:
        path: the file to write. Its folder must exist.
        durable: also force the content onto the disk, so that it survives a power cut.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "scores.csv"
    >>> with written_whole(place) as growing:
    ...     _ = growing.write_text("id,score")
    >>> place.read_text()
    'id,score'
    """
    growing = path.with_name(f".{path.name}.{secrets.token_hex(4)}.writing")
    try:
        yield growing
        if durable:
            flush(growing)
        os.replace(growing, path)
    finally:
        with suppress(FileNotFoundError):  # it was renamed
            growing.unlink()


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with written_whole(path, durable=durable) as growing:
        growing.write_text(text, encoding="utf-8")


def write_json(
    path: Path, value: Mapping[str, Any] | Sequence[Any], *, indent: int | None = 1, sort_keys: bool = False, durable: bool = False
) -> None:
    """Write a JSON file with a final line break, whole or not at all; with `indent` None on one line."""
    write_text(path, json.dumps(value, indent=indent, sort_keys=sort_keys) + "\n", durable=durable)


def flush(path: Path) -> None:
    """Force a file, or a folder's entries, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_PIECE, _PIECES = 2**20, 64


def fingerprint_of(path: Path) -> str:
    """Return 16 hexadecimal digits that differ for files of different content: a hash of the size and the bytes.

    Of a file above 64 MiB the bytes are 64 pieces of 1 MiB, evenly spread from the first to the last, so that a terabyte takes no hour: a
    change that moves what comes after it is seen, a replaced byte between two pieces is not.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} ".encode())
    last = max(size - _PIECE, 0)
    starts = range(0, size, _PIECE) if size <= _PIECE * _PIECES else [i * last // (_PIECES - 1) for i in range(_PIECES)]
    with path.open("rb") as handle:
        for start in starts:
            handle.seek(start)
            digest.update(handle.read(_PIECE))
    return digest.hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
