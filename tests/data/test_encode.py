"""Encoding keeps, drops, crops and refuses records by its settings, and accounts for every record."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protlig_dd.data.encode import Encoder, encode_records, encode_text, letter_ids
from protlig_dd.data.readers.records import Record
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack

PROTEIN = ProteinTrack(max_length=8, add_ends=False).build("protein")
TRACKS = {"protein": PROTEIN, "ligand": LigandTrack(max_length=6, add_ends=False).build("ligand")}


def record(protein, ligand="CCO", line=1, **more):
    texts = {k: v for k, v in (("protein", protein), ("ligand", ligand)) if v}
    return Record(where=f"a.csv:{line}", texts=texts, **more)


RECORDS = [
    record("MKV", line=2, label=1, affinity=7.5, split="train", name="x"),
    record("M" * 9, line=3, label=0),
    record("MKV", "CCCCCCCC", line=4),
    record("MKJ", line=5),
    record("MKV", "C[Zz]", line=6, split="odd"),
    record("", line=7),
]


def test_every_record_is_kept_or_counted_with_file_and_line():
    table, report = encode_records(RECORDS, Encoder(TRACKS, unknown="drop"))
    assert len(table) == report.kept == 1 and report.seen == 6 == report.kept + sum(report.dropped.values())
    assert report.dropped == {
        "protein longer than 8 tokens": 1,
        "ligand longer than 6 tokens": 1,
        "protein with unknown symbols": 1,
        "ligand with unknown symbols": 1,
        "no protein": 1,
    }
    assert report.first["protein with unknown symbols"][0].startswith("a.csv:5: 'J' at residue 3 is not an amino acid")
    assert report.first["protein longer than 8 tokens"] == ("a.csv:3: the protein has 9 tokens, the track takes 8",)
    assert table.labels["label"].tolist() == [1] and table.labels["affinity"].tolist() == [7.5] and table.labels["split"].tolist() == [0]
    assert report.lines()[0] == "6 records read, 1 kept, 5 dropped"
    assert PROTEIN.decode(table.example(0)["protein"].tolist()) == "MKV"


def test_refusing_names_the_line_and_the_setting():
    with pytest.raises(
        FormatError, match=r"a\.csv:3: the protein has 9 tokens, the track takes 8; set data\.too_long=drop or crop, or raise"
    ):
        encode_records(RECORDS, Encoder(TRACKS, too_long="refuse"))
    with pytest.raises(FormatError, match=r"a\.csv:5: 'J' at residue 3"):
        encode_records(RECORDS, Encoder(TRACKS))
    with pytest.raises(FormatError, match=r"a\.csv:6: '\[Zz\]' at position 2 is not a symbol of the built-in ligand vocabulary"):
        encode_records(RECORDS[4:], Encoder(TRACKS))


def test_cropping_takes_a_keyed_window_of_proteins_and_drops_long_ligands():
    long = "ACDEFGHIKLMNPQRSTVWY"
    records = [record(long, line=i) for i in range(40)] + [record("MKV", "CCCCCCCC")]
    table, report = encode_records(records, Encoder(TRACKS, too_long="crop", seed=3))
    windows = [PROTEIN.decode(table.example(i)["protein"].tolist()) for i in range(len(table))]
    assert all(w in long and len(w) == 8 for w in windows) and len(set(windows)) > 5
    assert report.cropped == 40 and report.dropped == {"ligand longer than 6 tokens": 1}
    again, _ = encode_records(records, Encoder(TRACKS, too_long="crop", seed=3))
    assert all(np.array_equal(table.example(i)["protein"], again.example(i)["protein"]) for i in range(len(table)))


def test_a_crop_keeps_the_end_tokens():
    track = ProteinTrack(max_length=8, add_ends=True).build("protein")
    table, _ = encode_records([record("ACDEFGHIKL")], Encoder({"protein": track}, too_long="crop"))
    ids = table.example(0)["protein"]
    assert len(ids) == 8 and ids[0] == track.vocabulary.begin_id and ids[-1] == track.vocabulary.end_id


@given(text=st.text(alphabet="ACDEFGHIKLMNPQRSTVWYXBZUOacdxJ*- \n1", max_size=12))
@settings(max_examples=40)
@pytest.mark.parametrize("track", [ProteinTrack(add_ends=False), ProteinTrack(unknown="X", add_ends=True)])
def test_the_fast_path_equals_the_tracks_own_encoding(track, text):
    built = track.build("protein")
    letters = letter_ids(built)
    assert letters is not None

    def outcome(call):
        try:
            return list(call())
        except FormatError as error:
            return str(error)

    assert outcome(lambda: encode_text(built, text, where="a:1", letters=letters)) == outcome(lambda: built.encode(text, where="a:1"))


def test_a_ligand_track_is_not_read_letter_by_letter():
    assert letter_ids(TRACKS["ligand"]) is None


def test_a_limit_stops_the_stream_early():
    def endless():
        while True:
            yield record("MKV")

    table, report = encode_records(endless(), Encoder(TRACKS), limit=7)
    assert len(table) == report.seen == 7


def test_a_table_of_one_track_leaves_the_other_empty():
    table, _ = encode_records([Record(where="a:1", texts={"ligand": "CC"})], Encoder(TRACKS, needed=["ligand"]))
    assert table.tracks["protein"].lengths.tolist() == [0] and table.tracks["ligand"].lengths.tolist() == [2]
