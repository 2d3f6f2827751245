"""Lists of row numbers read as JSON reads them, piece by piece, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protlig_dd.data.readers import index_lists
from protlig_dd.data.readers.index_lists import read_index_lists
from protlig_dd.errors import FormatError

FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(st.dictionaries(st.text("abc", max_size=3), st.lists(st.integers(0, 10**12), max_size=12), min_size=1, max_size=4))
@FUZZ
def test_index_lists_read_as_json_does(tmp_path, lists):
    path = tmp_path / "splits.json"
    for style in ({}, {"indent": 1}, {"separators": (",", ":")}):
        path.write_text(json.dumps(lists, **style))
        for piece in (4, 1 << 20):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(index_lists, "_PIECE", max(piece, 16))
                assert {name: found.tolist() for name, found in read_index_lists(path).items()} == lists


@given(st.binary(max_size=60) | st.text('{}[]",:train 01234-\n', max_size=40).map(str.encode))
@FUZZ
def test_no_bytes_crash_the_index_lists(tmp_path, content):
    path = tmp_path / "splits.json"
    path.write_bytes(content)
    try:
        lists = read_index_lists(path)
    except FormatError as error:
        assert str(path) in str(error)
    else:
        assert {name: found.tolist() for name, found in lists.items()} == json.loads(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found an empty file, expected lists of row numbers"),
        ('{"train": [1, -2]}', r"byte 11: found '1, -2\]\}', expected an object of lists of row numbers"),
        ('{"train": [1, 2,]}', "expected an object of lists"),
        ('{"train": [1 2]}', "expected an object of lists"),
        ('{"train": [1, 2', "expected an object of lists"),
        ('{"train": [1]} x', "byte 14: found ' x'"),
        ('{"train": 1}', r"byte 1: found '\"train\": 1\}'"),
        ("{}", "byte 1: found '}'"),
    ],
)
def test_anything_but_lists_of_numbers_is_reported_with_its_place(tmp_path, content, message):
    path = tmp_path / "splits.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=message):
        read_index_lists(path)
    with pytest.raises(FormatError, match=r"no\.json: cannot be opened \(No such file"):
        read_index_lists(tmp_path / "no.json")
