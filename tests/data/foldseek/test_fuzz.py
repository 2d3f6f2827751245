"""Random damage to index, type and data: FormatError or what the bytes mean, never a crash, never garbage."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.data.foldseek.pairs import PairedFoldseekDB
from protlig_dd.data.foldseek.verify import Verifier
from protlig_dd.errors import FormatError
from tests.support.foldseek_cases import Form, random_entries, write_database
from tests.support.foldseek_oracle import BadError, Oracle

FORMS = [
    Form(), Form(shuffled=True, gaps=True), Form(floats=True), Form(parts=2), Form(padded=True), Form(compressed=True),
    Form(compressed=True, parts=3), Form(dbtype=False),
]  # fmt: skip


def damage(content: bytes, source: random.Random) -> bytes:
    """Return bytes that were changed in one of the ways that files are."""
    kind, size = source.randrange(8), len(content)
    a = source.randrange(size + 1)
    b = min(size, a + source.choice([1, 1, 2, 5, 30]))
    if kind == 0:
        return content[:a] + source.randbytes(b - a) + content[b:]
    if kind == 1:
        return content[:a] + content[b:]
    if kind == 2:
        return content[:a] + source.randbytes(source.randint(1, 6)) + content[a:]
    if kind == 3:
        return content[:a]
    if kind == 4:
        return source.randbytes(source.choice([0, 1, 4, 4, 50]))
    if kind == 5 and size:  # a bit
        place = source.randrange(size)
        return content[:place] + bytes([content[place] ^ 1 << source.randrange(8)]) + content[place + 1 :]
    digits = [place for place, byte in enumerate(content) if 48 <= byte < 58]
    if kind == 6 and digits:  # another number
        place = source.choice(digits)
        return content[:place] + bytes([source.randrange(48, 58)]) + content[place + 1 :]
    return content[:a] + content[a:b] * 2 + content[b:]


def same(expected: object, read: Callable[[], object], equal: Callable[[object, object], bool]) -> None:
    """Assert that a read gives what is expected, or is refused where nothing is."""
    try:
        found = read()
    except FormatError:
        assert expected is None, "refused what can be read"
        return
    assert expected is not None, f"read what means nothing: {found!r}"
    assert equal(found, expected), (found, expected)


def close(found: object, expected: object) -> bool:
    found, expected = np.asarray(found, np.float32), np.asarray(expected, np.float32).reshape(-1, 3)
    return found.shape == expected.shape and np.allclose(found, expected, rtol=3e-7, atol=1e-6)


def compare(path: Path) -> str:
    """Read a database in all ways and compare with the oracle; return what came of it."""
    try:
        expected: Oracle | None = Oracle(path)
    except BadError:
        expected = None
    db = PairedFoldseekDB(path, sidecar_from=0)
    try:
        keys = db.keys.tolist()
    except FormatError:
        assert expected is None, "refused a database that can be read"
        return "refused"
    assert expected is not None and keys == expected.keys
    for row, key in enumerate(keys):
        same(expected.pairs[key], lambda row=row: db.get_pair(row), lambda a, b: a == b)
        same(expected.pairs[key], lambda row=row: db.pairs([row])[0], lambda a, b: a == b)
        same(expected.coords[key], lambda row=row: db.calpha(row), close)
        same(expected.coords[key], lambda row=row: db.calpha_batch([row])[0], close)
    whole = all(value is not None for value in (*expected.pairs.values(), *expected.coords.values()))
    return "read" if whole else "partly read"


def fuzz(folder: Path, seeds: range) -> Counter[str]:
    """Damage one or two files of a database again and again; return how often each came out."""
    results: Counter[str] = Counter()
    for number, form in enumerate(FORMS):
        place = folder / str(number)
        place.mkdir()
        entries = random_entries(number, 5, sparse=number % 2 == 0, longest=30)
        path = write_database(place, entries, form, seed=number)
        originals = {file: file.read_bytes() for file in sorted(place.iterdir()) if not file.name.startswith("db_h")}
        targets = [file for file in originals if file.suffix != ".lookup"]
        assert compare(path) == "read"
        for seed in seeds[number :: len(FORMS)]:
            source = random.Random(seed)
            chosen = source.sample(targets, source.choice([1, 1, 1, 2]))
            for file in chosen:
                file.write_bytes(damage(originals[file], source))
            try:
                results[compare(path)] += 1
                if seed % 5 == 0:
                    list(Verifier(path).faults())  # goes on after every fault, and never raises
            except Exception as error:
                error.add_note(f"seed {seed}, form {form}, damaged {[file.name for file in chosen]}")
                raise
            for file in chosen:
                file.write_bytes(originals[file])
    return results


def test_damaged_databases_are_refused_or_read_right(tmp_path: Path) -> None:
    """240 cases, of all outcomes."""
    pytest.importorskip("zstandard", reason="compressed databases need zstandard")
    results = fuzz(tmp_path, range(10_000, 10_240))
    assert results.total() == 240 and min(results[kind] for kind in ("refused", "partly read", "read")) > 15, results


@pytest.mark.slow
def test_two_thousand_damaged_databases(tmp_path: Path) -> None:
    """2,000 other cases."""
    pytest.importorskip("zstandard", reason="compressed databases need zstandard")
    results = fuzz(tmp_path, range(2000))
    assert results.total() == 2000 and min(results.values()) > 100, results
