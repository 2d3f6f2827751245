"""What the bytes of a Foldseek database mean, read one by one by the description of the format: the judge of the fuzz tests."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

AMINO_ACIDS = {*b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz*"}
THREE_DI = {*b"ACDEFGHIKLMNPQRSTVWYXacdefghiklmnpqrstvwyx"}
CODES = "ACDEFGHIKLMNPQRSTVWYX"
ROW = re.compile(rb"([0-9]{1,18})\t([0-9]{1,18})\t([0-9]{1,10})")


class BadError(Exception):
    """The bytes mean nothing."""


def check(condition: bool) -> None:
    if not condition:
        raise BadError


class SubDatabase:
    """One sub-database; raises BadError if its type or its index cannot be right."""

    def __init__(self, path: Path, base: int) -> None:
        kind = path.with_name(path.name + ".dbtype")
        self.compressed = self.padded = False
        if kind.exists():
            content = kind.read_bytes()
            check(len(content) == 4)
            (word,) = struct.unpack("<I", content)
            flags = word >> 16 & 0x7FFF
            self.compressed, self.padded = bool(word >> 31), bool(flags & 8)
            check(word & 0xFFFF == base and not flags & ~(1 | 2 | 8 | 16 | 8192 | 16384))
            check(not (self.padded and (self.compressed or base != 0)))
        parts = sorted(path.parent.glob(f"{path.name}.[0-9]"))
        self.parts = [part.read_bytes() for part in parts] or [path.read_bytes()]
        self.size = sum(map(len, self.parts))
        text = path.with_name(path.name + ".index").read_bytes()
        lines = text.split(b"\n")
        check(lines.pop() == b"")
        self.rows: dict[int, tuple[int, int]] = {}
        for line in lines:
            match = ROW.fullmatch(line)
            if match is None:
                raise BadError
            key, start, size = map(int, match.groups())
            check(key not in self.rows and size < 2**31)
            self.rows[key] = (start, size)
            check(size >= (2 if base == 0 else 1))
            end = start + 5 if self.compressed else start + size - 2 if self.padded else start + size
            check(end <= self.size)

    def cut(self, start: int, size: int) -> bytes:
        for part in self.parts:
            if start < len(part):
                check(start + size <= len(part))
                return part[start : start + size]
            start -= len(part)
        raise BadError

    def payload(self, key: int) -> bytes:
        """Return an entry with its NUL; of a padded one the codes."""
        check(key in self.rows)
        start, size = self.rows[key]
        if self.padded:
            whole = self.cut(start, -(-(size - 2) // 4) * 4) if size > 2 else b""
            check(set(whole[size - 2 :]) <= {20})
            return whole[: size - 2]
        if not self.compressed:
            return self.cut(start, size)
        (packed,) = struct.unpack("<I", self.cut(start, 4))
        frame, flag = self.cut(start + 4, packed), self.cut(start + 4 + packed, 1)
        if flag == b"\0":
            frame = self.unpacked(frame)
        else:
            check(flag == b"\xff")
        check(len(frame) == size - 1)
        return frame + b"\0"

    @staticmethod
    def unpacked(frame: bytes) -> bytes:
        import zstandard

        stream = zstandard.ZstdDecompressor().decompressobj()
        try:
            found = stream.decompress(frame)
        except zstandard.ZstdError as error:
            raise BadError from error
        check(stream.eof and not stream.unused_data)
        return found

    def letters(self, key: int, allowed: set[int]) -> str:
        raw = self.payload(key)
        if self.padded:
            check(all(code % 32 < 21 and code < 64 for code in raw))
            return "".join(CODES[code % 32] for code in raw)
        check(raw[-2:] == b"\n\0" and set(raw[:-2]) <= allowed)
        return raw[:-2].decode().upper()

    def coords(self, key: int, length: int) -> list[list[float]]:
        raw = self.payload(key)
        check(len(raw) in (6 * length + 8, 12 * length + 1))
        if len(raw) == 12 * length + 1 and len(raw) != 6 * length + 8:
            check(raw[-1] == 0)
            axes = [list(struct.unpack_from(f"<{length}f", raw, 4 * length * axis)) for axis in range(3)]
            check(all(math.isfinite(value) for axis in axes for value in axis))
        else:
            check(raw[-2:] == b"\0\0")
            axes = []
            for axis in range(3) if length else ():
                place = 2 * (length + 1) * axis
                values = [struct.unpack_from("<i", raw, place)[0]]
                for step in struct.unpack_from(f"<{length - 1}h", raw, place + 4):
                    values.append((values[-1] + step + 2**31) % 2**32 - 2**31)
                axes.append([value / 1000 for value in values])
        return [list(place) for place in zip(*axes, strict=True)]


class Oracle:
    """A whole database: `pairs` and `coords` by key, BadError kept as None."""

    def __init__(self, path: Path) -> None:
        aa, ss = SubDatabase(path, 0), SubDatabase(path.with_name(f"{path.name}_ss"), 0)
        self.keys = sorted(set(aa.rows) & set(ss.rows))
        self.pairs = {key: self._kept(lambda key=key: self._pair(aa, ss, key)) for key in self.keys}
        ca = self._kept(lambda: SubDatabase(path.with_name(f"{path.name}_ca"), 101))
        self.coords = {key: None if ca is None else self._kept(lambda key=key: ca.coords(key, aa.rows[key][1] - 2)) for key in self.keys}

    @staticmethod
    def _pair(aa: SubDatabase, ss: SubDatabase, key: int) -> tuple[str, str]:
        pair = aa.letters(key, AMINO_ACIDS), ss.letters(key, THREE_DI)
        check(len(pair[0]) == len(pair[1]))
        return pair

    @staticmethod
    def _kept(read):  # type: ignore[no-untyped-def]
        try:
            return read()
        except BadError:
            return None
