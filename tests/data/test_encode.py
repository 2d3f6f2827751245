"""Encoding keeps, drops, crops and refuses records by its settings, and accounts for every record."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protlig_dd.data.encode import Encoder, encode_records
from protlig_dd.data.letter_codes import encode_text, letter_ids
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


def test_proteins_that_will_be_cropped_are_kept_whole_and_long_ligands_are_dropped():
    long = "ACDEFGHIKLMNPQRSTVWY"
    table, report = encode_records(
        [record(long), record("MKV", "CCCCCCCC"), record("MK")], Encoder(TRACKS, too_long="crop", last_residue=3)
    )
    assert [PROTEIN.decode(table.example(i)["protein"].tolist()) for i in range(len(table))] == [long]
    assert report.dropped["ligand longer than 6 tokens"] == 1
    assert sum(report.dropped.values()) == 2


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


def test_replaced_letters_and_remarks_of_kept_records_are_counted_with_their_places():
    track = {"protein": ProteinTrack(unknown="X", max_length=40).build("protein")}
    texts = ["MKTAYIAKQR", "MKTAYIAKJR", "MK-AYIAKQJR", "MKTAYIAKQR-AYIAKQR", "MKTJ--AY", "MKTAY<mask>", "ACGTTGCAAACG"]
    records = [record(text, line=line, remarks=("row shorter than the header",)[: line == 1]) for line, text in enumerate(texts)]
    _, report = encode_records(records, Encoder(track, unknown="drop"))
    assert report.replaced == {"- as X": 2, "J as X": 2} and report.dropped == {"protein with unknown symbols": 2}
    assert report.lines() == [
        "7 records read, 5 kept, 2 dropped",
        "  2 dropped: protein with unknown symbols",
        *(f"    {message}" for message in report.first["protein with unknown symbols"]),
        "  1 kept with row shorter than the header; in a.csv:1",
        "  3 kept with letters that are no amino acid, read as another one, as tracks.protein.unknown says: J as X (2), - as X (2); in "
        "a.csv:1, a.csv:2, a.csv:3",
        "  1 kept with only letters of nucleotides in the protein; in a.csv:6",
    ]
    assert "3 of 8 residues ('-' x 2, 'J' x 1) would be read as 'X'" in report.first["protein with unknown symbols"][0]
    with pytest.raises(FormatError, match="a.csv:4: 3 of 8 residues"):
        encode_records(records, Encoder(track))
