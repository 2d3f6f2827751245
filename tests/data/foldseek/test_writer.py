"""Tests of writing Foldseek databases from entries: the bytes of the format, and what is left when something goes wrong."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.data.foldseek.writer import DatabaseWriter, Entry, encode_calpha, write_database
from protlig_dd.errors import ConfigError, FormatError
from tests.support.backbones import entries_of


def decoded(payload: bytes, length: int) -> np.ndarray:
    """Return coordinates [l, 3] as the format says: float32 if long enough, else a start and differences for each axis."""
    if len(payload) >= 12 * length:
        assert len(payload) == 12 * length + 1
        return np.frombuffer(payload[:-1], "<f4").reshape(3, length).T.astype(np.float64)
    assert len(payload) == 6 * length + 8 and payload[-2:] == b"\0\0"
    axes = []
    for axis in range(3):
        block = payload[2 * axis * (length + 1) : 2 * (axis + 1) * (length + 1)]
        start, *steps = struct.unpack(f"<i{length - 1}h", block)
        axes.append(np.cumsum([start, *steps]) / 1000)
    return np.stack(axes, axis=1)


def entry(name: str, sequence: str = "MKVA", **more: object) -> Entry:
    values: dict[str, object] = {"structure": "D" * len(sequence), "ca_angstrom": np.arange(3.0 * len(sequence)).reshape(-1, 3)}
    return Entry(name=name, sequence=sequence, **(values | more))  # type: ignore[arg-type]


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_bytes_of_a_real_entry() -> None:
    """Entry e10 of Foldseek's own database of odd cases, four residues."""
    ca = [[10.369, 0.997, 10.519], [6.691, 0.239, 9.83], [6.677, 1.983, 6.389], [9.693, -0.188, 5.372]]
    expected = "81280000a2f1f2ffc80b e50300000afdd00685f7 172900004ffd8ff207fc 0000"
    assert encode_calpha(np.array(ca)).hex() == expected.replace(" ", "")


@pytest.mark.parametrize(
    ("step", "is_float"), [(32.767, False), (32.768, True), (-32.768, False), (-32.769, True), (40.0, True), (0.0, False)]
)
@pytest.mark.parametrize("axis", range(3))
def test_a_step_that_16_bits_cannot_hold_makes_the_whole_entry_float(step: float, is_float: bool, axis: int) -> None:
    ca = np.zeros((6, 3))
    ca[3:, axis] = step
    payload = encode_calpha(ca)
    assert len(payload) == (12 * 6 + 1 if is_float else 6 * 6 + 8)
    np.testing.assert_allclose(decoded(payload, 6), ca, atol=1e-5)


@given(st.lists(st.tuples(*[st.integers(-40_000, 40_000)] * 3), min_size=1, max_size=6), st.tuples(*[st.integers(-900_000, 900_000)] * 3))
def test_coordinates_come_back_within_a_thousandth_toward_zero(steps: list[tuple[int, int, int]], start: tuple[int, int, int]) -> None:
    milli = np.cumsum([start, *steps], axis=0)
    ca = milli / 1000
    fits = all(-32768 <= value <= 32767 for step in np.diff(np.trunc(ca * 1000), axis=0).tolist() for value in step)
    payload = encode_calpha(ca)
    assert (len(payload) < 12 * len(ca)) == fits
    back = decoded(payload, len(ca))
    np.testing.assert_allclose(back, ca, atol=1.1e-3 if fits else 1e-4)
    if fits:
        assert (np.abs(back) <= np.abs(ca) + 1e-9).all(), "truncated toward zero"


def test_truncation_is_of_the_product_in_double() -> None:
    """1.001 * 1000 is 1000.9999... in double, and Foldseek stores 1000; rounding would store 1001."""
    assert 1.001 * 1000 < 1001
    found = decoded(encode_calpha(np.array([[1.001, -1.001, 0.0], [0.0, 0.0, 0.0]])), 2)
    np.testing.assert_array_equal(found[0], [1.0, -1.0, 0.0])


def test_one_residue_is_float_because_a_reader_tells_by_the_length() -> None:
    assert encode_calpha(np.array([[1.5, 2.5, 3.5]])) == struct.pack("<3f", 1.5, 2.5, 3.5) + b"\0"


def test_places_beyond_an_int32_of_thousandths_are_float() -> None:
    ca = np.array([[3e6, 0.0, 0.0], [3e6 + 1, 0.0, 0.0], [3e6, 0.0, 0.0]])
    np.testing.assert_allclose(decoded(encode_calpha(ca), 3), ca)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_coordinates_that_are_no_numbers_are_refused_with_their_residue(tmp_path: Path, value: float) -> None:
    ca = np.zeros((4, 3))
    ca[2, 1] = value
    with pytest.raises(ValueError, match="residue 3 has the C-alpha"):
        encode_calpha(ca)
    with pytest.raises(FormatError, match="entry 'x': residue 3"):
        write_database(tmp_path / "db", [entry("x", ca_angstrom=ca)])
    assert names_in(tmp_path) == []


def test_the_files_of_a_database(tmp_path: Path) -> None:
    entries = [
        entry("1abc_A", "MKVA", structure="DVVD", title="A PROTEIN", source="1abc"),
        entry("1abc_B", "mkVAG", structure="dvVVD", source="1abc"),
        entry("two words", "AAAA"),
    ]
    assert write_database(tmp_path / "new" / "db", entries) == 3
    folder = tmp_path / "new"
    read = {name: (folder / name).read_bytes() for name in names_in(folder)}
    suffixes = [f"db{part}{end}" for part in ("", "_ca", "_h", "_ss") for end in ("", ".dbtype", ".index")]
    assert sorted(read) == sorted([*suffixes, "db.lookup", "db.source"])
    assert read["db"] == b"MKVA\n\0mkVAG\n\0AAAA\n\0" and read["db_ss"] == b"DVVD\n\0dvVVD\n\0DDDD\n\0"
    assert read["db.index"] == read["db_ss.index"] == b"0\t0\t6\n1\t6\t7\n2\t13\t6\n"
    assert read["db_h"] == b"1abc_A A PROTEIN\n\0" + b"1abc_B\n\0" + b"two words\n\0"
    assert read["db_h.index"] == b"0\t0\t18\n1\t18\t8\n2\t26\t11\n"
    assert read["db_ca.index"] == b"0\t0\t32\n1\t32\t38\n2\t70\t32\n"
    assert read["db.lookup"] == b"0\t1abc_A\t0\n1\t1abc_B\t0\n2\ttwo\t1\n"
    assert read["db.source"] == b"0\t1abc\n1\ttwo\n"
    types = {name: read[name].hex() for name in read if name.endswith(".dbtype")}
    assert types == {"db.dbtype": "00000000", "db_ss.dbtype": "00000000", "db_ca.dbtype": "65000000", "db_h.dbtype": "0c000000"}
    np.testing.assert_array_equal(decoded(entries_of(folder / "db", "_ca")["1abc_B"] + b"\0", 5), np.arange(15.0).reshape(5, 3))


def test_sources_say_the_model_as_soon_as_one_file_has_several(tmp_path: Path) -> None:
    entries = [
        entry("a", source="a"),
        entry("n_MODEL_1_A", source="n", several_models=True),
        entry("n_MODEL_2_A", source="n", model=2, several_models=True),
    ]
    write_database(tmp_path / "db", entries)
    assert (tmp_path / "db.source").read_text() == "0\ta_MODEL_1\n1\tn_MODEL_1\n2\tn_MODEL_2\n"
    assert (tmp_path / "db.lookup").read_text() == "0\ta\t0\n1\tn_MODEL_1_A\t1\n2\tn_MODEL_2_A\t2\n"


def test_keys_may_be_given_and_coordinates_left_out(tmp_path: Path) -> None:
    keys = [3, 7, 4_294_967_295, 5]
    write_database(tmp_path / "db", [entry(f"e{key}", key=key, ca_angstrom=None) for key in keys])
    assert [int(line.split("\t")[0]) for line in (tmp_path / "db.index").read_text().splitlines()] == keys
    assert not list(tmp_path.glob("db_ca*"))
    write_database(tmp_path / "float", [entry("x")], coord_store="float")
    assert len(entries_of(tmp_path / "float", "_ca")["x"]) == 12 * 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (entry("x", structure="DDD"), "4 amino acids and 3 3Di letters"),
        (entry("x", "", ca_angstrom=None), "0 amino acids"),
        (entry("x", "MK A"), "expected letters only"),
        (entry("x", "MK\nA"), "expected letters only"),
        (entry("x\ny"), "name has a line break"),
        (entry("x", title="a\tb"), "title has a line break, a tab"),
        (entry(" "), "found no name"),
        (entry("x", ca_angstrom=np.zeros((3, 3))), r"C-alpha of the shape \(3, 3\), expected \(4, 3\)"),
        (entry("x", ca_angstrom=None), "with and without C-alpha"),
        (entry("x", key=2**32), "the key 4294967296"),
        (entry("x", key=-1), "the key -1"),
    ],
)
def test_an_entry_that_cannot_be_written_is_refused_and_leaves_the_rest_whole(tmp_path: Path, wrong: Entry, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        write_database(tmp_path / "db", [entry("first"), wrong])
    assert names_in(tmp_path) == []
    with DatabaseWriter(tmp_path / "db") as writer:
        writer.add(entry("first"))
        with pytest.raises(FormatError):
            writer.add(wrong)
        writer.add(entry("last"))
    for suffix in ("", "_ss", "_ca", "_h"):
        assert list(entries_of(tmp_path / "db", suffix)) == ["first", "last"]


class Stop(BaseException):
    """Stands for what ends a program from outside."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop, RuntimeError])
def test_nothing_is_left_when_the_entries_stop_half_way(tmp_path: Path, error: type[BaseException]) -> None:
    def entries():  # type: ignore[no-untyped-def]
        yield entry("first")
        assert [name for name in names_in(tmp_path) if not name.startswith(".")] == [], "written next to its place"
        raise error

    with pytest.raises(error):
        write_database(tmp_path / "db", entries())
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("after", [0, 1, 7, 13])
def test_nothing_is_left_when_the_files_cannot_all_get_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    replaced = []
    replace = os.replace

    def failing(source: Path, place: Path) -> None:
        if len(replaced) == after:
            raise OSError("no space")
        replaced.append(Path(place).name)
        replace(source, place)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no space"):
        write_database(tmp_path / "db", [entry("first")])
    assert names_in(tmp_path) == [] and "db.index" not in replaced, "the index comes last"


def test_an_empty_database_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="found no entry"):
        write_database(tmp_path / "db", [])
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("there", ["db", "db.index", "db.0", "db_ss.12", "db_ca.dbtype", "db.lookup", "db_h"])
def test_a_database_is_not_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(ConfigError, match=f"found {there} there already"):
        write_database(tmp_path / "db", [entry("x")])
    assert names_in(tmp_path) == [there] and (tmp_path / there).read_text() == "precious"


def test_neighbours_with_longer_names_are_no_hindrance(tmp_path: Path) -> None:
    for name in ("db2", "db.fasta", "db_other.index", "db.skipped.tsv"):
        (tmp_path / name).write_text("other")
    write_database(tmp_path / "db", [entry("x")])
    assert (tmp_path / "db2").read_text() == "other" and (tmp_path / "db.index").is_file()


def test_memory_does_not_grow_with_the_entries(tmp_path: Path) -> None:
    letters = "A" * 2000

    def peak(count: int) -> int:
        tracemalloc.start()
        write_database(tmp_path / str(count), (entry(f"e{i}", letters, ca_angstrom=None) for i in range(count)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(400) < peak(50) + 200_000, "350 entries of 4 kB are 1.4 MB"
