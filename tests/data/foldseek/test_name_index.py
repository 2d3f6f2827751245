"""Names are found by halving where going through the lookup finds them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protlig_dd.data.foldseek import names as foldseek_name_index
from protlig_dd.data.foldseek import rows as foldseek_rows
from protlig_dd.data.foldseek.names import NameIndex, Names, hash_of, open_name_index
from protlig_dd.data.foldseek.pairs import FoldseekDB
from protlig_dd.errors import FormatError
from tests.support.foldseek_cases import random_entries, write_database

FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=["Cs"]), max_size=12)


def write_lookup(path: Path, rows: list[tuple[int, str]], *, end: str = "\n") -> Path:
    path.write_bytes(("\n".join(f"{key}\t{name}\t{key % 3}" for key, name in rows) + end).encode())
    return path


@given(st.lists(st.tuples(st.integers(0, 10**12), NAMES), min_size=1, max_size=30), st.sampled_from(["\n", ""]))
@FUZZ
def test_any_lookup_gives_the_keys_that_going_through_it_gives(tmp_path, rows, end):
    write_lookup(tmp_path / "db.lookup", rows, end=end)
    halving, through = Names(tmp_path / "db", sidecar_from=0), Names(tmp_path / "db", sidecar_from=1 << 30)
    for name in {name for _, name in rows} | {"absent", rows[0][1] + "x", rows[0][1][1:], "1"}:
        expected = sorted(key for key, own in rows if own == name)
        assert halving.keys_of(name) == through.keys_of(name) == expected


def test_names_over_the_ends_of_chunks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(i, f"AF-P{i:05d}-F1-model_v4") for i in range(300)]
    lookup = write_lookup(tmp_path / "db.lookup", rows)
    whole = foldseek_name_index._parse(lookup)
    monkeypatch.setattr(foldseek_rows, "_CHUNK", 101)
    pieces = foldseek_name_index._parse(lookup)
    assert np.array_equal(whole.hashes, pieces.hashes) and np.array_equal(whole.places, pieces.places)
    assert sorted(whole.hashes.tolist()) == sorted(hash_of(name.encode()) for _, name in rows)


def test_names_with_one_hash_are_distinguished_by_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lookup(tmp_path / "db.lookup", [(4, "first"), (9, "other"), (2, "first")])
    index = open_name_index(tmp_path / "db.lookup")
    everywhere = NameIndex(hashes=np.full(3, hash_of(b"first"), np.uint64), places=index.places)
    monkeypatch.setattr("protlig_dd.data.foldseek.names.open_name_index", lambda _: everywhere)
    assert Names(tmp_path / "db", sidecar_from=0).keys_of("first") == [2, 4]


def test_the_binary_form_is_made_once_and_anew_for_another_text(tmp_path: Path, monkeypatch) -> None:
    lookup, place = write_lookup(tmp_path / "db.lookup", [(1, "a"), (2, "b")]), tmp_path / "db.lookup.protlig"
    first = open_name_index(lookup)
    with monkeypatch.context() as context:
        context.setattr(foldseek_name_index, "_parse", None)  # the text is not read again
        assert np.array_equal(open_name_index(lookup).hashes, first.hashes)
    for content in (place.read_bytes()[:-1], b"", b"x" * 96, place.read_bytes().replace(b"PLFSNAM1", b"PLFSNAM0")):
        place.write_bytes(content)
        assert np.array_equal(open_name_index(lookup).places, first.places)
    write_lookup(lookup, [(1, "a"), (2, "b"), (3, "c")])
    assert len(open_name_index(lookup).hashes) == 3
    assert {p.name for p in tmp_path.iterdir()} == {"db.lookup", "db.lookup.protlig"}


@pytest.mark.parametrize("bad", ["3\tc", "3", "", "no tabs at all"])
def test_a_malformed_line_is_reported(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "db.lookup"
    path.write_text(f"1\ta\t0\n2\tb\t0\n{bad}\n4\td\t0\n")
    with pytest.raises(FormatError, match=r"db.lookup:3: found b'.*', expected 'key TAB name TAB file'; copy the file"):
        open_name_index(path)
    assert not list(tmp_path.glob("*protlig*"))


def test_a_database_is_asked_by_name(tmp_path: Path) -> None:
    entries = random_entries(4, 25)
    path = write_database(tmp_path, entries)
    with FoldseekDB(path, keep_case=True, sidecar_from=0) as db:
        for entry in entries:
            assert db.get_by_name(entry.name) == entry.aa
        with pytest.raises(FormatError, match="found no entry 'nobody'"):
            db.get_by_name("nobody")
    assert (tmp_path / "db.lookup.protlig").is_file()
