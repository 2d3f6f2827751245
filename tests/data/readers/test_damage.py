"""Files that are damaged in any place are read, or refused in one line; nothing else comes out of a reader."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from protlig_dd.data.bundle import load
from protlig_dd.data.inspect import inspect
from protlig_dd.data.readers.conditions import read_ligands, read_proteins
from protlig_dd.data.settings import PairData
from protlig_dd.data.splits import RandomSplit
from protlig_dd.errors import ProtligError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack

ROWS = [
    {"protein": "MKTAYIAKQR", "smiles": "CCO", "Kd (nM)": "10", "label": "1", "split": "train", "name": "a"},
    {"protein": "GSHMLEDPVD", "smiles": "C[C@H](O)CC |&1:1|", "Kd (nM)": ">1,000", "label": "0", "split": "test", "name": "b"},
    {"protein": "MSTJ-PKPQR", "smiles": "N->[Pt](<-N)Cl", "Kd (nM)": "7,5", "label": "", "split": "", "name": "c\u00e9"},
]
TRACKS = {"protein": ProteinTrack(unknown="X").build("protein"), "ligand": LigandTrack().build("ligand")}
FASTA = "# note\n" + "".join(f">{row['name']} SET=train\n; made by hand\n{row['protein']}\n" for row in ROWS) + ">ligand|x\nNCC\n"
SMILES = "smiles name\n" + "".join(f"{row['smiles']} {row['name']}\n" for row in ROWS)
PIECES = [
    b"\n",
    b"\r",
    b'"',
    b",",
    b";",
    b"\t",
    b"\0",
    b">",
    b"#",
    b"sep=;\n",
    b"null",
    b"[[",
    b"{",
    b"1" * 5000,
    b"\xff",
    b"\xe2\x80",
    b"|",
    b"-1e999",
]


def _table(sep: str) -> bytes:
    return "\n".join(
        [sep.join(ROWS[0]), *(sep.join(f'"{cell}"' if "," in cell else cell for cell in row.values()) for row in ROWS), ""]
    ).encode()


def _written(suffix: str, write: Callable[[Path], object], folder: Path) -> bytes:
    write(folder / f"good.{suffix}")
    return (folder / f"good.{suffix}").read_bytes()


def _arrow(path: Path) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)


def good(suffix: str, folder: Path) -> bytes:
    """Return the bytes of a good file of a kind."""
    plain = {"fasta": FASTA.encode(), "smi": SMILES.encode(), "txt": SMILES.encode(), "csv": _table(","), "tsv": _table("\t")}
    lines = "".join(json.dumps({key: cell for key, cell in row.items() if cell}) + "\n" for row in ROWS).encode()
    plain |= {"ndjson": lines, "jsonl": lines, "tab": _table("\t")}
    kind, _, pack = suffix.partition(".")
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        return _written(suffix, lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path), folder)
    if kind == "arrow":
        return _written(suffix, _arrow, folder)
    if kind == "pt":
        import torch

        return _written(suffix, lambda path: torch.save(ROWS, path), folder)
    if pack == "zst":
        return bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(plain[kind]))
    return gzip.compress(plain[kind]) if pack else plain[kind]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one to three faults: a changed byte, a piece put in, taken out or repeated, or an end cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([1, 1, 4, 30]))
        fault = rng.randrange(5)
        if fault == 0 and start < len(data):
            data[start] ^= 1 << rng.randrange(8)
        elif fault == 1:
            data[start:start] = rng.choice(PIECES)
        elif fault == 2:
            del data[start:end]
        elif fault == 3:
            data[start:start] = data[start:end] * rng.choice([1, 50])
        elif rng.random() < 0.3:
            del data[start:]
    return bytes(data)


def outcomes(path: Path) -> int:
    """Read a file in all ways, and return how many were refused, each in one line."""
    refused = 0
    settings = PairData(path=str(path), unknown="drop", split=RandomSplit(), leakage=False)
    for use in (
        lambda: inspect(path).lines(),
        lambda: read_proteins(str(path)),
        lambda: read_ligands(str(path)),
        lambda: load(settings, TRACKS),
    ):
        try:
            use()
        except ProtligError as error:
            refused += 1
            assert "\n" not in str(error), str(error)
    return refused


KINDS = ["fasta", "fasta.gz", "fasta.zst", "smi", "txt", "csv", "csv.gz", "tsv", "jsonl", "ndjson", "parquet", "arrow", "pt"]


def _many(kind: str, number: int, folder: Path) -> None:
    content, rng, refused = good(kind, folder), random.Random(f"{kind} 1"), 0
    for i in range(number):
        path = folder / f"bad.{kind}"
        path.write_bytes(damaged(content, rng))
        try:
            refused += outcomes(path)
        except Exception:
            (folder / f"kept_{i}.{kind}").write_bytes(path.read_bytes())
            raise
    assert refused or number < 1000, "no fault was noticed at all"


@pytest.mark.parametrize("kind", KINDS)
def test_some_damage_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    _many(kind, 8, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_damaged_files_are_read_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    _many(kind, 1000, tmp_path)
