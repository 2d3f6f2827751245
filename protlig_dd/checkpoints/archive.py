"""Reading tensors from torch's files without executing anything in them.

A .bin or .ckpt file is a zip archive with a pickle, and a pickle is a program. Here it may only build plain containers and locate its tensors;
every class or function that it names becomes an `Inert` object that ignores all operations. Tensors are created afterwards, and only the
requested ones: the optimizer's state in a training checkpoint is never read.
"""

from __future__ import annotations

import io
import lzma
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from protlig_dd.errors import CheckpointError

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LARGEST_PICKLE = 256 * 2**20
"""Largest size of a pickle in bytes; that of the 15B model with optimizer states has about one."""

_OF_LIBRARIES = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_BUILT_IN = (EOFError, OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RuntimeError)
_DAMAGE = (*_OF_LIBRARIES, *_BUILT_IN)
"""Exceptions that zipfile, pickle and torch raise for invalid bytes."""


class Inert:
    """Placeholder for an object of an unknown class; stores nothing and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Ignore an item."""

    def extend(self, items: Any) -> None:
        """Ignore items."""

    def add(self, item: Any) -> None:
        """Ignore an item."""


class _Container(dict[Any, Any]):
    """A dictionary, ordered or not, that accepts no attributes from a pickle."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Storage(Inert):
    """A storage: its file in the archive, and its dtype."""

    def __init__(self, dtype: torch.dtype, key: str) -> None:
        self.dtype, self.key = dtype, key


class _Placed(Inert):
    """A tensor that has not been created yet. Its description in the pickle is checked when it is created."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _Rebuild(Inert):
    """Torch's functions that rebuild tensors and parameters: both return a `_Placed`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return args[0] if isinstance(args[0], _Placed) else _Placed(*args[:4])


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Container,
    ("builtins", "dict"): _Container,
    ("__builtin__", "dict"): _Container,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter_with_state"): _Rebuild(),
} | {(module, name): dtype for module in ("torch", "torch.storage") for name, dtype in _DTYPES.items()}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a known class; `Inert` for every other."""
        return _KNOWN.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the location of a storage."""
        _, dtype, key, _, _ = pid
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError("a storage of an unknown type")
        return _Storage(dtype, key)


def read_tensors(path: Path, *, inside: str = "") -> dict[str, Tensor]:
    """Return the tensors of a torch file by name.

    Args:
        path: a file written by `torch.save`.
        inside: the entry with the tensors, such as "state_dict"; by default they are the file's whole content.

    Raises:
        CheckpointError: if the file is not a torch archive, is damaged, has no tensors there, or one that exceeds its storage.
    """
    with _opened(path) as archive:
        content, prefix = _content(archive, path)
        if inside:
            content = content.get(inside) if isinstance(content, dict) else None
        placed = {str(k): v for k, v in content.items() if isinstance(v, _Placed)} if isinstance(content, dict) else {}
        if not placed:
            place = f" under '{inside}'" if inside else ""
            raise CheckpointError(f"{path}: found no tensors by name{place}, expected a state dict")
        return _made(placed, archive, prefix)


def read_values(path: Path, *, inside: str) -> dict[str, Any]:
    """Return the plain values of an entry of a torch file by name: numbers, strings, and lists of them.

    Args:
        path: a file written by `torch.save`.
        inside: the entry, such as "config"; without it the result is empty.

    Raises:
        CheckpointError: if the file is not a torch archive, or is damaged.
    """
    with _opened(path) as archive:
        content, _ = _content(archive, path)
        values = content.get(inside) if isinstance(content, dict) else None
        return {str(k): v for k, v in values.items() if _is_plain(v)} if isinstance(values, dict) else {}


def _is_plain(value: Any) -> bool:
    """Whether a value is None, a number, a boolean, a string, or a list of these."""
    if isinstance(value, list | tuple):
        return all(isinstance(one, int | float | str) for one in value)
    return value is None or isinstance(value, int | float | str)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip archive of a file; any error in its bytes becomes a CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint")
    try:
        if not zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{path}: not a whole file of torch 1.6 or later; copy it again, or save it anew with torch.save or safetensors"
            )
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _DAMAGE as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(f"{path}: damaged ({said}); copy or download it again") from error


def _content(archive: zipfile.ZipFile, path: Path) -> tuple[Any, str]:
    """The object built by the pickle, and the folder in the archive of the pickle and its storages."""
    names = archive.namelist()
    found = [name for name in names if name.endswith("/data.pkl")]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(f"{path}: a TorchScript program; expected tensors, save its state dict with torch.save")
    if len(found) != 1:
        raise CheckpointError(f"{path}: found {len(found)} data.pkl inside, expected one; not a torch checkpoint")
    prefix = found[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in names and _member(archive, f"{prefix}byteorder").strip() != b"little":
        raise CheckpointError(f"{path}: has numbers of a big-endian machine; save it again with safetensors")
    program = _member(archive, found[0])
    if len(program) > _LARGEST_PICKLE:
        raise ValueError(f"a pickle of {len(program):,} bytes")
    _check_program(program)
    return _Unpickler(io.BytesIO(program)).load(), prefix


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a file in the archive, verified by its checksum. Torch does not compress, so sizes are known."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"'{name}' is compressed")
    return archive.read(entry)


def _check_program(program: bytes) -> None:
    """Refuse a pickle with a memo index beyond its length: Python would allocate all slots below it."""
    for operation, argument, _ in pickletools.genops(program):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(program):
            raise ValueError(f"memory slot {argument} in a pickle of {len(program)} bytes")


def _made(placed: Mapping[str, _Placed], archive: zipfile.ZipFile, prefix: str) -> dict[str, Tensor]:
    """The tensors; tensors with a common storage share memory."""
    storages: dict[tuple[str, torch.dtype], Tensor] = {}
    tensors = {}
    for name, one in placed.items():
        if not isinstance(one.storage, _Storage):
            raise ValueError(f"'{name}' has no storage")
        key = (one.storage.key, one.storage.dtype)
        if key not in storages:
            raw = bytearray(_member(archive, f"{prefix}data/{key[0]}"))
            storages[key] = torch.frombuffer(raw, dtype=key[1]) if raw else torch.zeros(0, dtype=key[1])
        tensors[name] = _view(storages[key], one.offset, one.size, one.stride)
    return tensors


def _view(storage: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or not _are_counts([offset, *size, *stride]):
        raise ValueError("a tensor whose shape is not made of whole numbers from 0 on")
    number = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if number else 0
    if number > len(storage) or (number and last >= len(storage)):
        raise ValueError(f"a tensor of size {size} lies beyond its storage of {len(storage)}")
    return storage.as_strided(size, stride, offset) if number else storage.new_zeros(size)


def _are_counts(values: Iterable[Any]) -> bool:
    return all(isinstance(v, int) and 0 <= v < 2**62 for v in values)
