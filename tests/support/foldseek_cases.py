"""Foldseek databases for tests, written byte by byte from the format's description, and a reader of them that shares nothing with ours.

Both are slow and plain on purpose. The genuine databases of the shared folder are copied with their links made anew: a copy that knows no
links holds their targets as text.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

AA = "ACDEFGHIKLMNPQRSTVWYX"
THREE_DI = "ACDEFGHIKLMNPQRSTVWY"
CODES = "ACDEFGHIKLMNPQRSTVWYX"


@dataclass
class Entry:
    """What one entry holds; coordinates are whole thousandths of an Angstrom, so that every form holds them exactly."""

    key: int
    name: str
    aa: str
    ss: str
    milli: list[tuple[int, int, int]]

    @property
    def coords(self) -> list[list[float]]:
        return [[value / 1000 for value in place] for place in self.milli]


@dataclass
class Form:
    """How a database is written."""

    compressed: bool = False
    parts: int = 0
    padded: bool = False
    floats: bool = False
    shuffled: bool = False
    gaps: bool = False
    dbtype: bool = True
    names: bool = True
    missing: dict[str, set[int]] = field(default_factory=dict)


def random_entries(seed: int, count: int, *, sparse: bool = True, masked: bool = True, longest: int = 40) -> list[Entry]:
    """Return entries with keys in no order, letters in both cases, and chains whose steps may be too long for 16 bits."""
    source = random.Random(seed)
    keys = source.sample(range(count * 7), count) if sparse else list(range(count))
    if sparse and count > 2:
        keys[1] = 2**32 - 1  # the largest that a key can be
    entries = []
    for key in keys:
        length = source.choice([1, 2, 4, 5, 63, source.randint(6, longest)])
        text = ["".join(source.choice(letters) for _ in range(length)) for letters in (AA, THREE_DI)]
        if masked and source.random() < 0.5:
            text = ["".join(c.lower() if source.random() < 0.3 else c for c in one) for one in text]
        place = [source.randint(-900_000, 900_000) for _ in range(3)]
        milli = [tuple(place)]
        jump = source.choice([0, 0, 0, 32_767, -32_768, 32_768, -32_769, 200_000])
        for i in range(length - 1):
            place = [p + source.randint(-3800, 3800) for p in place]
            if i == length // 2:
                place[source.randrange(3)] = milli[-1][0] if jump == 0 else place[0] + jump
            milli.append(tuple(place))
        entries.append(Entry(key, f"p{key}_A", *text, milli))  # type: ignore[arg-type]
    return entries


def calpha_payload(entry: Entry, *, floats: bool) -> bytes:
    """Return coordinates as Foldseek stores them, without the last NUL: differences, unless one does not fit into 16 bits."""
    axes = list(zip(*entry.milli, strict=True))
    steps = [[b - a for a, b in zip(axis[:-1], axis[1:], strict=True)] for axis in axes]
    if floats or any(not -32768 <= step <= 32767 for axis in steps for step in axis):
        return b"".join(struct.pack("<f", value / 1000) for axis in axes for value in axis)
    blocks = [struct.pack("<i", a[0]) + b"".join(struct.pack("<h", s) for s in d) for a, d in zip(axes, steps, strict=True)]
    return b"".join(blocks) + b"\0"


def padded_payload(letters: str) -> bytes:
    """Return letters as the codes of a padded database, and what fills them up to four bytes."""
    codes = bytes(CODES.index(c.upper()) + (32 if c.islower() else 0) for c in letters)
    return codes + b"\x14" * (-len(codes) % 4)


def compressed_payload(payload: bytes, source: random.Random) -> bytes:
    """Return size, frame and flag of a compressed entry; short ones may be stored as they are."""
    import zstandard

    if len(payload) < 60 and source.random() < 0.5:
        return struct.pack("<I", len(payload)) + payload + b"\xff"
    packer = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    frame = packer.compress(payload) + packer.flush()
    return struct.pack("<I", len(frame)) + frame + b"\0"


def _write_sub(path: Path, rows: list[tuple[int, bytes, int]], kind: int, form: Form, source: random.Random, *, packed: bool) -> None:
    """Write (key, stored bytes, index length) as data and index."""
    order = list(rows)
    if form.shuffled:
        source.shuffle(order)
    data, index, cuts = bytearray(), [], [0]
    for number, (key, stored, size) in enumerate(order):
        if form.gaps and not form.parts:
            data += source.randbytes(4 * source.randint(0, 3))
        index.append((key, len(data), size))
        data += stored
        if form.parts and (number + 1) % -(-len(order) // form.parts) == 0:
            cuts.append(len(data))
    index.sort()
    if form.shuffled:
        source.shuffle(index)
    if form.parts:
        cuts = [*dict.fromkeys([*cuts, len(data)])]
        for number, (a, b) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
            path.with_name(f"{path.name}.{number}").write_bytes(data[a:b])
    else:
        path.write_bytes(data)
    path.with_name(path.name + ".index").write_text("".join(f"{k}\t{o}\t{n}\n" for k, o, n in index))
    if form.dbtype:
        path.with_name(path.name + ".dbtype").write_bytes(struct.pack("<I", kind | (1 << 31 if packed else 0)))


def write_database(folder: Path, entries: list[Entry], form: Form | None = None, *, seed: int = 0) -> Path:
    """Write all sub-databases; return the path of the database."""
    form, source = form or Form(), random.Random(seed)
    path = folder / "db"

    def sub(ending: str, payloads: list[tuple[int, bytes]], kind: int) -> None:
        rows = []
        for key, payload in payloads:
            if key in form.missing.get(ending, ()):
                continue
            stored = compressed_payload(payload, source) if form.compressed else payload + b"\0"
            rows.append((key, stored, len(payload) + 1))
        _write_sub(folder / f"db{ending}", rows, kind, form, source, packed=form.compressed)

    sub("", [(e.key, e.aa.encode() + b"\n") for e in entries], 0)
    if form.padded:
        rows = [(e.key, padded_payload(e.ss), len(e.ss) + 2) for e in entries if e.key not in form.missing.get("_ss", ())]
        _write_sub(folder / "db_ss", rows, 8 << 16, form, source, packed=False)
    else:
        sub("_ss", [(e.key, e.ss.encode() + b"\n") for e in entries], 0)
    sub("_ca", [(e.key, calpha_payload(e, floats=form.floats)) for e in entries], 101)
    if form.names:
        sub("_h", [(e.key, f"{e.name} A TITLE OF {e.key}\n".encode()) for e in entries], 12)
        lines = [f"{e.key}\t{e.name}\t0\n" for e in sorted(entries, key=lambda e: e.key)]
        (folder / "db.lookup").write_text("".join(lines))
    return path


def copy_example(shared: Path, folder: Path) -> Path:
    """Return a copy of the genuine databases, with links where the copy in the shared folder has their targets as text."""
    top = shared / "foldseek_example"
    for source in sorted(top.glob("*/*")):
        if not source.is_file() or source.parent.name in ("structures", "truth"):
            continue
        target = folder / source.relative_to(top)
        target.parent.mkdir(exist_ok=True)
        content = source.read_bytes()
        linked = content.decode("latin-1")
        if linked.startswith("../") and linked.isprintable():
            target.symlink_to(linked)
        else:
            target.write_bytes(content)
    return folder


def read_fasta(path: Path) -> dict[str, str]:
    """Return sequences by the first word of their headers."""
    records: dict[str, str] = {}
    for block in path.read_text().split(">")[1:]:
        header, *lines = block.split("\n")
        records[header.split()[0]] = "".join(lines)
    return records
