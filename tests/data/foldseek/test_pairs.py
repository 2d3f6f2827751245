"""The reader against databases written by the tests' own generator: every form, joins by key, processes, what is refused."""

from __future__ import annotations

import logging
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protlig_dd.data.foldseek import index as foldseek_index
from protlig_dd.data.foldseek.calpha import decode_differences
from protlig_dd.data.foldseek.index import UnknownKeyError, open_index
from protlig_dd.data.foldseek.pairs import FoldseekDB, PairedFoldseekDB
from protlig_dd.errors import FormatError, MissingDependencyError
from tests.support.foldseek_cases import Entry, Form, random_entries, write_database

FORMS = {
    "plain": Form(),
    "unsorted with gaps": Form(shuffled=True, gaps=True),
    "floats": Form(floats=True),
    "compressed": Form(compressed=True, gaps=True),
    "split": Form(parts=3),
    "split, compressed, unsorted": Form(parts=4, compressed=True, shuffled=True),
    "padded": Form(padded=True),
    "padded, unsorted, no types": Form(padded=True, shuffled=True, floats=True),
    "without types": Form(dbtype=False),
    "without names": Form(names=False),
}


def check_equal(path: Path, entries: list[Entry], **options: object) -> None:
    """Compare everything a database gives with what was written."""
    entries = sorted(entries, key=lambda entry: entry.key)
    rows = np.arange(len(entries))
    with PairedFoldseekDB(path, keep_case=True, **options) as db:  # type: ignore[arg-type]
        assert db.keys.tolist() == [e.key for e in entries]
        assert list(db) == [(e.aa, e.ss) for e in entries] == db.pairs(rows)
        assert [db.get_by_key(e.key) for e in entries] == [(e.aa, e.ss) for e in entries]
        coords, offsets = db.calpha_batch(rows[::-1])
        assert offsets.tolist() == np.cumsum([0, *(len(e.aa) for e in entries[::-1])]).tolist()
        for row, entry in enumerate(entries):
            expected = np.array(entry.coords, np.float32)
            place = len(entries) - 1 - row
            assert np.array_equal(db.calpha(row), expected)
            assert np.array_equal(coords[offsets[place] : offsets[place + 1]], expected)
        assert PairedFoldseekDB(path)[0] == (entries[0].aa.upper(), entries[0].ss.upper())


@pytest.mark.parametrize("name", FORMS)
def test_every_form_reads_what_was_written(name: str, tmp_path: Path) -> None:
    """Letters, coordinates and keys of a random database in each form."""
    form, entries = FORMS[name], random_entries(3, 37)
    if form.compressed:
        pytest.importorskip("zstandard", reason="writing compressed databases needs zstandard")
    path = write_database(tmp_path, entries, form)
    if "no types" in name:
        (tmp_path / "db_ca.dbtype").unlink()
    check_equal(path, entries)
    check_equal(path, entries, sidecar_from=0)  # through binary indices
    check_equal(path, entries, sidecar_from=0)  # that are there already


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 12), sparse=st.booleans(), shuffled=st.booleans(), gaps=st.booleans(),
    floats=st.booleans(), padded=st.booleans(), parts=st.sampled_from([0, 0, 2, 5]),
)  # fmt: skip
def test_any_mixture_of_forms_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, sparse: bool, **form: bool
) -> None:
    """Random databases in random mixtures of forms."""
    entries = random_entries(seed, count, sparse=sparse)
    check_equal(write_database(tmp_path_factory.mktemp("mix"), entries, Form(**form), seed=seed), entries)  # type: ignore[arg-type]


def test_letters_have_no_newline_and_lengths_count_residues(tmp_path: Path) -> None:
    """Readers that cut at the NUL only leave a newline in every sequence, and count a residue too many."""
    entries = random_entries(4, 20)
    with FoldseekDB(write_database(tmp_path, entries)) as db:
        by_key = {e.key: e for e in entries}
        for row, text in enumerate(db):
            assert text.isalpha() and len(text) == db.lengths[row] == len(by_key[int(db.keys[row])].aa)
        batch = db.batch(range(len(db)))
        assert 10 not in batch.letters and 0 not in batch.letters and batch.offsets[-1] == db.lengths.sum()


def test_coordinates_follow_the_published_entry() -> None:
    """The bytes of one entry of Foldseek's, with the coordinates of its structure; planar, 32-bit starts, no row too many."""
    raw = bytes.fromhex("81280000a2f1f2ffc80b" + "e50300000afdd00685f7" + "172900004ffd8ff207fc" + "0000")
    coords = decode_differences(raw, 4)
    assert coords.shape == (4, 3) and coords.dtype == np.float32
    assert coords[0].tolist() == pytest.approx([10.369, 0.997, 10.519])
    steps = np.linalg.norm(np.diff(coords, axis=0), axis=1)
    assert np.all(np.abs(steps - 3.8) < 0.1)
    interleaved = np.frombuffer(raw, "<i2", 12, 2).reshape(4, 3) / 1000  # what gave 17.6 Angstrom of error
    assert not np.allclose(interleaved, coords, atol=1)


def test_sub_databases_are_joined_by_key_and_never_by_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each sub-database lacks other keys: pairs and coordinates still belong together, and entries without a partner are reported."""
    entries = sorted(random_entries(5, 30), key=lambda e: e.key)
    missing = {"": {entries[2].key, entries[3].key}, "_ss": {entries[0].key}, "_ca": {entries[7].key}}
    path = write_database(tmp_path, entries, Form(missing=missing))
    both = [e for e in entries if e.key not in missing[""] | missing["_ss"]]
    with caplog.at_level(logging.WARNING), PairedFoldseekDB(path, keep_case=True) as db:
        assert list(db) == [(e.aa, e.ss) for e in both] and (len(db.aa) - len(db), len(db.ss) - len(db)) == (1, 2)
        assert "1 of 28 keys are not in" in caplog.text
        for row, entry in enumerate(both):
            assert db.row_of_key(entry.key) == row == db.row_of_name(entry.name) and db.name(row) == entry.name
            if entry.key in missing["_ca"]:
                for read in (lambda row=row: db.calpha(row), lambda row=row: db.calpha_batch([row - 1, row])):
                    with pytest.raises(UnknownKeyError, match=rf"db_ca.index: found no key {entry.key}, the index has 29 keys"):
                        read()
            else:
                assert np.array_equal(db.calpha(row), np.array(entry.coords, np.float32))
        with pytest.raises(KeyError, match="found no key"):
            db.get_by_key(entries[0].key)
        with pytest.raises(IndexError):
            db.get_pair(len(both))


def test_names_are_found_and_ambiguous_ones_refused(tmp_path: Path) -> None:
    """Names through the lookup and the headers; without headers from the lookup; twice the same name is an error."""
    entries = random_entries(6, 25)
    path = write_database(tmp_path, entries)
    with FoldseekDB(path, keep_case=True) as db:
        assert all(db.get_by_name(e.name) == e.aa for e in entries)
        with pytest.raises(UnknownKeyError, match="found no entry 'p'"):
            db.get_by_name("p")
    for file in tmp_path.glob("db_h*"):
        file.unlink()
    with FoldseekDB(path) as db:
        assert all(db.name(db.row_of_key(e.key)) == e.name for e in entries)
        lookup = path.with_name("db.lookup")
        lookup.write_text(lookup.read_text().replace(entries[3].name, entries[4].name))
    with FoldseekDB(path) as db, pytest.raises(FormatError, match="is the name of 2 entries"):
        db.get_by_name(entries[4].name)


def test_the_mapped_letters_are_the_entries(tmp_path: Path) -> None:
    """`letters`, `starts` and `lengths` are enough to read a plain database; other forms have no such letters."""
    entries = random_entries(7, 9, masked=False)
    with FoldseekDB(write_database(tmp_path, entries)) as db:
        assert db.letters is not None
        for row in range(len(db)):
            start = int(db.starts[row])
            assert db.letters[start : start + int(db.lengths[row])].tobytes().decode() == db[row]
    for number, form in enumerate((Form(parts=2), Form(padded=True))):
        (tmp_path / str(number)).mkdir()
        with FoldseekDB(write_database(tmp_path / str(number), entries, form).with_name("db_ss")) as db:
            assert db.letters is None


def test_an_open_database_works_in_other_processes(tmp_path: Path, root: Path) -> None:
    """Pickled it carries its path, not its files; forked it goes on reading."""
    db = PairedFoldseekDB(write_database(tmp_path, random_entries(8, 9)))
    expected = f"{db.get_pair(3)} {db.calpha(3).sum():.2f}"
    pickled = pickle.dumps(db)
    assert len(pickled) < 1000
    code = "import sys, pickle; db = pickle.loads(sys.stdin.buffer.read()); print(db.get_pair(3), f'{db.calpha(3).sum():.2f}')"
    done = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, cwd=root, check=True)
    assert done.stdout.decode().strip() == expected
    if hasattr(os, "fork"):
        source, sink = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(sink, f"{db.get_pair(3)} {db.calpha(3).sum():.2f}".encode())
            os._exit(0)
        os.close(sink)
        with os.fdopen(source) as found:
            assert found.read() == expected
        assert os.waitpid(child, 0)[1] == 0
    db.close()
    assert f"{db.get_pair(3)} {db.calpha(3).sum():.2f}" == expected


def test_an_empty_database_is_empty(tmp_path: Path) -> None:
    """No entry, and a data file of no bytes."""
    for ending, kind in (("", 0), ("_ss", 0)):
        (tmp_path / f"db{ending}").touch()
        (tmp_path / f"db{ending}.index").touch()
        (tmp_path / f"db{ending}.dbtype").write_bytes(struct.pack("<I", kind))
    with PairedFoldseekDB(tmp_path / "db") as db:
        assert len(db) == 0 and list(db) == [] and db.pairs([]) == [] and not db.has_calpha


REFUSED = {
    "profile": (".dbtype", struct.pack("<I", 2), r"db.dbtype: found a profile \(type 2\), expected amino acids"),
    "short type": (".dbtype", b"\0\0\0", r"db.dbtype: found 3 bytes .* expected 4"),
    "unknown flag": (".dbtype", struct.pack("<I", 4 << 16), "db.dbtype: found the word 0x00040000"),
    "C-alpha as letters": (".dbtype", struct.pack("<I", 101), "expected amino acids"),
    "words": (".index", b"0\t0\t3\n1\tx\t3\n", r"db.index:2: found b'1\\tx\\t3', expected 'key TAB offset TAB length'"),
    "two columns": (".index", b"0\t0\n", "db.index:1: found"),
    "empty field": (".index", b"0\t0\t3\n1\t\t3\n", "db.index:2: found"),
    "negative": (".index", b"0\t-1\t3\n", "db.index:1: found"),
    "long number": (".index", b"0\t99999999999999999999999\t3\n", "db.index:1: found"),
    "no last newline": (".index", b"0\t0\t3\n1\t3\t3", "db.index:2: .* without a newline .* truncated"),
    "key twice": (".index", b"0\t0\t3\n0\t3\t3\n", "db.index:2: found the key 0 a second time"),
    "key twice, unsorted": (".index", b"5\t0\t3\n1\t3\t3\n5\t3\t3\n", "db.index:3: found the key 5 a second time"),
    "beyond the data": (".index", b"0\t0\t3\n1\t9999999\t300\n", r"db: entry 1 \(line 2 of the index\): offset 9999999 and length 300 end at"),
    "no room": (".index", b"0\t0\t3\n1\t3\t1\n", r"entry 1 \(line 2 of the index\): found the length 1, which has no room"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_files_are_refused_with_file_and_line(name: str, tmp_path: Path) -> None:
    """Types and indices that cannot be right, when the database is opened; through the binary index too."""
    ending, content, message = REFUSED[name]
    path = write_database(tmp_path, random_entries(9, 5, sparse=False))
    path.with_name(f"db{ending}").write_bytes(content)
    for sidecar_from in (0, 1 << 30):
        with pytest.raises(FormatError, match=message):
            len(FoldseekDB(path, sidecar_from=sidecar_from))
    assert not list(tmp_path.glob("*.part"))


def test_truncated_data_is_refused_when_opened(tmp_path: Path) -> None:
    """The last bytes are missing: an error names the first entry that lacks some, and nothing is truncated."""
    path = write_database(tmp_path, random_entries(10, 12, sparse=False))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(FormatError, match=rf"db: entry 11 \(line 12 .* end at {len(data)}, the data has {len(data) - 1} bytes"):
        len(FoldseekDB(path))
    with pytest.raises(FormatError, match="db_ss.index: found no such file"):
        path.with_name("db_ss.index").unlink()
        FoldseekDB(path.with_name("db_ss")).get_sequence(0)
    path.write_bytes(b"A" * 300)  # neither entries nor the path of a link
    with pytest.raises(FormatError, match="letters, a newline and a NUL"):
        list(FoldseekDB(path))
    path.unlink()
    with pytest.raises(FormatError, match=r"db: found db.index and no data, neither db nor db.0"):
        len(FoldseekDB(path))


def damaged(path: Path, row: int, place: int, byte: bytes) -> None:
    """Change a byte of the entry of a row; negative places count from the end of its letters."""
    with FoldseekDB(path) as db:
        start, length = int(db.starts[row]), int(db.lengths[row])
    data = bytearray(path.read_bytes())
    data[start + (place if place >= 0 else length - 1 - place)] = byte[0]
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("sub", "place", "byte", "message"),
    [
        ("db", 1, b"\n", r"db: entry 2 \(line 3 of the index\): found b'\\n' at residue 2, expected one of ABC"),
        ("db", 0, b"\x07", r"found b'\\x07' at residue 1"),
        ("db_ss", 2, b"B", r"db_ss: entry 2 .* found b'B' at residue 3, expected one of ACDEF"),
        ("db", -1, b"A", r"after 12 letters, expected 12 letters, a newline and a NUL"),
        ("db", -2, b"A", r"after 12 letters, expected 12 letters, a newline and a NUL"),
    ],
)
def test_damaged_entries_are_refused_with_the_residue(sub: str, place: int, byte: bytes, message: str, tmp_path: Path) -> None:
    """An invalid byte is reported with entry, line and residue, one by one and in a batch; the other entries are read."""
    entries = random_entries(11, 5, sparse=False)
    entries[2] = Entry(2, "p", "ACDEFGHIKLMN", "ACDEFGHIKLMN", [(0, 0, 0)] * 12)
    path = write_database(tmp_path, entries)
    damaged(tmp_path / sub, 2, place, byte)
    with PairedFoldseekDB(path) as db:
        for read in (lambda: db.get_pair(2), lambda: db.pairs([0, 2, 1])):
            with pytest.raises(FormatError, match=message):
                read()
        assert len(db.pairs([0, 1, 3, 4])) == 4


def test_coordinates_of_a_wrong_size_or_no_number_are_refused(tmp_path: Path) -> None:
    """Entry 1 has the coordinates of another length, entry 3 (floats) a NaN, entry 2 no NUL at its end."""
    entries = random_entries(12, 6, sparse=False)
    entries[3] = Entry(3, "q", "ACD", "ACD", [(0, 0, 0), (900_000, 0, 0), (0, 0, 0)])
    path = write_database(tmp_path, entries)
    ca = FoldseekDB(path).calphas.entries
    start = {row: int(ca.index.starts[row]) for row in range(6)}
    data = bytearray((tmp_path / "db_ca").read_bytes())
    data[start[3] + 4 : start[3] + 8] = struct.pack("<f", float("nan"))
    data[start[3] - 1] = 7
    (tmp_path / "db_ca").write_bytes(data)
    lines = (tmp_path / "db_ca.index").read_text().splitlines()
    key, offset, size = lines[1].split("\t")
    lines[1] = f"{key}\t{offset}\t{int(size) - 6}"
    (tmp_path / "db_ca.index").write_text("\n".join(lines) + "\n")
    with FoldseekDB(path) as db:
        for row, message in (
            (1, rf"db_ca: entry 1 .* found {int(size) - 6} bytes for the {len(entries[1].aa)} residues"),
            (2, r"db_ca: entry 2 \(line 3 of the index\): found .* after the coordinates, expected NULs"),
            (3, r"db_ca: entry 3 .* found the coordinates \[nan, 0.0, 0.0\] at residue 2"),
        ):
            for read in (lambda row=row: db.calpha(row), lambda row=row: db.calpha_batch([0, row, 5])):
                with pytest.raises(FormatError, match=message):
                    read()
        assert db.calpha_batch([0, 4, 5])[1][-1] == sum(len(entries[i].aa) for i in (0, 4, 5))


def test_unequal_lengths_of_a_pair_are_refused(tmp_path: Path) -> None:
    """3Di of another version: one letter less."""
    entries = random_entries(13, 4, sparse=False)
    entries[1].aa, entries[1].milli = entries[1].aa + "A", [*entries[1].milli, (0, 0, 0)]
    with PairedFoldseekDB(write_database(tmp_path, entries)) as db:
        expected = rf"db_ss: entry 1 .* found {len(entries[1].ss)} letters of 3Di for {len(entries[1].aa)} amino acids"
        for read in (lambda: db.get_pair(1), lambda: db.pairs([2, 1])):
            with pytest.raises(FormatError, match=expected):
                read()


def test_compressed_data_without_its_type_or_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never frames as letters: without the type the message says what is missing, without zstandard how to get it."""
    pytest.importorskip("zstandard", reason="writing compressed databases needs zstandard")
    path = write_database(tmp_path, random_entries(14, 9, sparse=False), Form(compressed=True))
    with monkeypatch.context() as context, pytest.raises(MissingDependencyError, match="compressed database .*db needs"):
        context.setitem(sys.modules, "zstandard", None)
        len(FoldseekDB(path))
    path.with_name("db.dbtype").unlink()
    with pytest.raises(FormatError, match="there is no .dbtype that would say"):
        list(FoldseekDB(path))


def test_a_sidecar_is_made_once_and_anew_for_another_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid by size and time of the text; a damaged one is made anew; nothing else is left in the folder."""
    path = write_database(tmp_path, random_entries(15, 30), Form(shuffled=True)).with_name("db.index")
    text = open_index(path)
    assert not list(tmp_path.glob("*.protlig"))
    first = open_index(path, sidecar_from=0)
    place = tmp_path / "db.index.protlig"
    stamp = place.stat().st_mtime_ns
    for index in (first, open_index(path, sidecar_from=0)):
        for name in ("starts", "lengths", "keys"):
            assert np.array_equal(getattr(index, name), getattr(text, name))
        assert (index.keys_digest, index.lengths_digest, index.line_of(4)) == (text.keys_digest, text.lengths_digest, text.line_of(4))
    assert place.stat().st_mtime_ns == stamp
    with monkeypatch.context() as context:
        context.setattr(foldseek_index, "read_rows", None)  # the text is not read again
        open_index(path, sidecar_from=0)
    for content in (place.read_bytes()[:-1], b"", b"x" * 500, place.read_bytes().replace(b"PLFSIDX1", b"PLFSIDX0")):
        place.write_bytes(content)
        assert np.array_equal(open_index(path, sidecar_from=0).starts, text.starts)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], lines[5].replace("\t", "7\t", 1), *lines[6:]]) + "\n")
    assert not np.array_equal(open_index(path, sidecar_from=0).keys, text.keys)
    assert {p.name for p in tmp_path.glob("*index*")} == {*(f"db{e}.index" for e in ("", "_ss", "_ca", "_h")), place.name}


def test_without_a_writable_folder_the_index_is_cached_or_held_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """First the cache folder, then memory: one line of the log each, and the same rows."""
    path = write_database(tmp_path, random_entries(16, 8)).with_name("db.index")
    expected, cache, write = open_index(path).starts, tmp_path / "cache", foldseek_index._write
    refused = {tmp_path}

    def writable(source: Path, stamp: bytes, place: Path) -> None:
        if place.parent in refused:
            raise PermissionError(13, "Permission denied")
        write(source, stamp, place)

    monkeypatch.setattr(foldseek_index, "_write", writable)
    monkeypatch.setenv("PROTLIG_CACHE", str(cache))
    for message in (f"kept in {cache}", "", "parsed anew by each process"):
        if "parsed" in message:
            refused.add(cache)
            next(cache.iterdir()).unlink()
        caplog.clear()
        assert np.array_equal(open_index(path, sidecar_from=0).starts, expected)
        assert len(caplog.records) == bool(message) and message in caplog.text


def test_links_are_followed_and_a_dangling_one_is_reported(tmp_path: Path) -> None:
    """Data behind links, with an index of its own, as sub-databases have; and a link whose target was left behind."""
    entries = random_entries(17, 6, sparse=False)
    (tmp_path / "parent").mkdir()
    (tmp_path / "sub").mkdir()
    parent = write_database(tmp_path / "parent", entries)
    for file in parent.parent.iterdir():
        target = tmp_path / "sub" / file.name
        if file.suffix == ".index" and file.stem != "db_h":
            target.write_text("".join(f"{line}\n" for line in file.read_text().splitlines() if line[0] in "135"))
        else:
            target.symlink_to(f"../parent/{file.name}")
    with PairedFoldseekDB(tmp_path / "sub" / "db", keep_case=True) as db:
        assert list(db) == [(e.aa, e.ss) for e in entries if e.key in (1, 3, 5)]
        assert db.get_by_name(entries[5].name)[0] == entries[5].aa
        with pytest.raises(UnknownKeyError, match="found no key 2"):
            db.get_by_name(entries[2].name)
    parent.unlink()
    with pytest.raises(FormatError, match=r"sub/db: found a link to ../parent/db, which is not there"):
        len(FoldseekDB(tmp_path / "sub" / "db"))


def test_a_wrong_path_says_what_is_there(tmp_path: Path) -> None:
    """A folder instead of a database, or a misspelt one."""
    write_database(tmp_path, random_entries(18, 3))
    with pytest.raises(FormatError, match=r"db2: found no such database; .* has db: name one"):
        len(FoldseekDB(tmp_path / "db2"))
    with pytest.raises(FormatError, match=r"found a folder; .* has db: name one, as in .*db"):
        len(FoldseekDB(tmp_path))
