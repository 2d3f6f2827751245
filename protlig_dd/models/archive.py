"""Reading tensors out of torch's files without running anything that stands in them.

A .bin or .ckpt file is a zip archive with a pickle. Only what rebuilds tensors and plain containers is understood; every other class or
function that the pickle names becomes an inert object that swallows whatever is done to it, so no code of the file is ever called.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
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


class Inert:
    """Stands for an object that is not understood; keeps nothing and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Swallow an item."""

    def extend(self, items: Any) -> None:
        """Swallow items."""


def read_archive(path: Path) -> Any:
    """Return what a torch file holds: containers, numbers, text and tensors; everything else as `Inert`.

    Raises:
        CheckpointError: if the file is no zip archive of torch, is damaged, or has a tensor beyond its storage.
    """
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: not a file of torch 1.6 or later; load it where it was made and save it again with torch.save or safetensors"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(inside) != 1:
                raise CheckpointError(
                    f"{path}: found {len(inside)} data.pkl inside, expected one; not a torch checkpoint"
                )
            with archive.open(inside[0]) as stream:
                return _Unpickler(stream, archive, inside[0].removesuffix("data.pkl")).load()
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged ({' '.join(str(error).split())[:120]}); copy or download it again"
        ) from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(stream)
        self.archive, self.prefix = archive, prefix
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what is understood; an inert class for everything else."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module in ("__builtin__", "builtins") and name in (
            "dict",
            "list",
            "set",
            "int",
            "float",
            "str",
            "bool",
            "tuple",
        ):
            return {
                "dict": dict,
                "list": list,
                "set": set,
                "int": int,
                "float": float,
                "str": str,
                "bool": bool,
                "tuple": tuple,
            }[name]
        return type(name, (Inert,), {})

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage as a flat tensor."""
        _, dtype, key, _, _ = pid
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"storage {key} has an unknown type")
        if key not in self.storages:
            raw = bytearray(self.archive.read(f"{self.prefix}data/{key}"))
            self.storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
        return self.storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if 0 not in size else offset - 1
    if offset < 0 or min(stride, default=0) < 0 or last >= len(storage):
        raise ValueError(f"a tensor of size {size} lies beyond its storage of {len(storage)}")
    return storage.as_strided(size, stride, offset)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data
