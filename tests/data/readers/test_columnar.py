"""Arrow files, in both of Arrow's formats, read like Parquet; damaged ones are read or refused, never trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protlig_dd.data.readers.complexes import read_pairs
from protlig_dd.data.readers.tables import open_table
from protlig_dd.errors import FormatError

pa = pytest.importorskip("pyarrow", reason="Arrow and Parquet need pyarrow (extra data)")
pq = pytest.importorskip("pyarrow.parquet", reason="Arrow and Parquet need pyarrow (extra data)")

FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ROWS = [{"extra": [i], "seq": "MKV" + "A" * i, "name": f"u{i}", "other": {"a": i}} for i in range(9)]


def write(path: Path, kind: str) -> Path:
    table = pa.Table.from_pylist(ROWS)
    if kind == "parquet":
        pq.write_table(table, path)
        return path
    make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with make(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=4)
    return path


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_files_read_like_parquet(tmp_path, kind):
    one, other = write(tmp_path / "a.arrow", kind), write(tmp_path / "a.parquet", "parquet")
    read = [list(read_pairs(path, needed=("protein",))) for path in (one, other)]
    assert [(r.name, r.texts["protein"]) for r in read[0]] == [(row["name"], row["seq"]) for row in ROWS]
    assert [(r.name, r.texts) for r in read[0]] == [(r.name, r.texts) for r in read[1]]
    assert read[0][4].where == f"{one}:row 5"
    assert [cells for _, cells in open_table(one).rows] == [cells for _, cells in open_table(other).rows]


@pytest.mark.parametrize("kind", ["stream", "file", "parquet"])
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
@FUZZ
def test_a_flipped_byte_is_read_or_refused(tmp_path, kind, place, byte):
    path = tmp_path / ("flip.parquet" if kind == "parquet" else "flip.arrow")
    good = tmp_path / "good"
    if not good.exists():
        good.write_bytes(write(path, kind).read_bytes())
    content = bytearray(good.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(bytes(content))
    try:
        assert len(list(read_pairs(path, needed=()))) <= len(ROWS)
    except FormatError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_text_that_is_no_text_is_refused(tmp_path):
    path = write(tmp_path / "a.arrow", "stream")
    path.write_bytes(path.read_bytes().replace(b"MKVAAMKVAAA", b"MKV\xff\xfeMKVAAA"))
    with pytest.raises(FormatError, match=r"a\.arrow: damaged after row \d+ \(.*make or download it again"):
        list(read_pairs(path, needed=("protein",)))
