"""A lazy table over a database equals the table of its records for every form of database; only lengths are read before a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.data.bundle import load
from protlig_dd.data.encode import Encoder, encode_records
from protlig_dd.data.foldseek import table as foldseek_table
from protlig_dd.data.foldseek.table import fits, lay_over, read_database
from protlig_dd.data.loader import Loader
from protlig_dd.data.settings import RandomSplit, SequenceData, ShardData
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import TrackSet
from tests.support.foldseek_cases import Entry, Form, random_entries, write_database
from tests.support.tables import write_shards

FORMS = {
    "plain": Form(),
    "unsorted with gaps": Form(shuffled=True, gaps=True),
    "compressed": Form(compressed=True),
    "split": Form(parts=3),
    "padded": Form(padded=True),
    "some without 3Di": Form(missing={"_ss": {e.key for e in random_entries(3, 40)[::3]}}),
}


def tracks_of(*, ends: bool = True, max_length: int = 30, unknown: str = "X") -> TrackSet:
    return {
        "protein": ProteinTrack(max_length=max_length, unknown=unknown, beside="3di", add_ends=ends).build("protein"),
        "structure": StructureTrack(alphabet="3di", max_length=max_length, add_ends=ends).build("structure"),
    }


def of_records(path: Path, tracks: TrackSet) -> tuple:
    return encode_records(read_database(path), Encoder(tracks, too_long="drop"))


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_the_table_is_that_of_the_records(tmp_path: Path, form: Form, ends: bool) -> None:
    path, tracks = write_database(tmp_path, random_entries(3, 40), form), tracks_of(ends=ends)
    assert fits(path, tracks)
    (table, report), (whole, expected) = lay_over(path, tracks, too_long="drop"), of_records(path, tracks)
    assert report == expected and 0 < len(table) < report.seen and list(table.names) == list(whole.names)
    rows = np.random.default_rng(0).permutation(len(table))[:9]
    for name in tracks:
        ours, theirs = table.tracks[name], whole.tracks[name]
        assert np.array_equal(ours.lengths, theirs.lengths) and ours.num_tokens == theirs.num_tokens
        assert np.array_equal(ours.gather(rows), theirs.gather(rows))
        assert np.array_equal(ours.select(rows).gather(np.array([8, 0, 0])), theirs.gather(rows[[8, 0, 0]]))
        assert np.array_equal(ours.select(rows).lengths, theirs.lengths[rows])
    assert list(table.select(rows).names) == [whole.names[i] for i in rows] and table.names[4] == whole.names[4]


def test_batches_are_the_same_as_from_memory(tmp_path: Path) -> None:
    path, tracks = write_database(tmp_path, random_entries(5, 50)), tracks_of()
    batches = [
        Loader(table, tracks, batch_size=8, seed=2).micro_batches(3)[0]
        for table in (lay_over(path, tracks, too_long="drop")[0], of_records(path, tracks)[0])
    ]
    for name in tracks:
        assert batches[0].tracks[name].tokens.equal(batches[1].tracks[name].tokens)
        assert batches[0].tracks[name].layout.lengths == batches[1].tracks[name].layout.lengths


def test_proteins_alone_and_tracks_that_the_database_lacks(tmp_path: Path) -> None:
    path = write_database(tmp_path, random_entries(1, 12))
    tracks = {"protein": tracks_of()["protein"], "ligand": LigandTrack().build("ligand")}
    table, _ = lay_over(path, tracks, too_long="drop", limit=4)
    whole, _ = encode_records(read_database(path), Encoder(tracks, needed=["protein"]), limit=4)
    assert len(table) == 4 and not table.tracks["ligand"].num_tokens
    assert np.array_equal(table.tracks["protein"].gather(np.arange(4)), whole.tracks["protein"].gather(np.arange(4)))


def test_training_data_are_laid_over_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tracks = write_database(tmp_path, random_entries(2, 40)), tracks_of()
    monkeypatch.setattr("protlig_dd.data.bundle.encode_records", lambda *_, **__: pytest.fail("records are read"))
    data = SequenceData(path=str(path), split=RandomSplit(validation_fraction=0.2), leakage=True)
    bundle = load(data, tracks)
    assert len(bundle.validation) == round(0.2 * (len(bundle.train) + len(bundle.validation)))
    assert any("protein longer than 30 tokens" in line for line in bundle.report.lines())


def test_what_depends_on_every_letter_reads_the_records(tmp_path: Path, monkeypatch) -> None:
    path, tracks = write_database(tmp_path, random_entries(2, 40)), tracks_of()
    monkeypatch.setattr(foldseek_table, "lay_over", lambda *_, **__: pytest.fail("the lazy table is used"))
    data = SequenceData(path=str(path), split=RandomSplit(validation_fraction=0.2), leakage=False, unknown="drop")
    assert len(load(data, tracks).train) > 10


def test_tracks_whose_tokens_are_no_letters_do_not_fit(tmp_path: Path) -> None:
    path = write_database(tmp_path, random_entries(2, 4))
    kanzi = {**tracks_of(), "structure": StructureTrack(alphabet="kanzi").build("structure")}
    states = {**tracks_of(), "structure": StructureTrack(alphabet="ss3").build("structure")}
    assert not fits(path, kanzi) and not fits(path, states) and not fits(path, {"ligand": LigandTrack().build("x")})
    path.with_name("db_ss.index").unlink()
    assert not fits(path, tracks_of()) and fits(path, {"protein": tracks_of()["protein"]})


def entry(key: int, aa: str, ss: str) -> Entry:
    return Entry(key=key, name=f"e{key}", aa=aa, ss=ss, milli=[(i * 3800, 0, 0) for i in range(len(aa))])


def test_a_letter_outside_the_vocabulary_is_reported_with_its_entry(tmp_path: Path) -> None:
    path = write_database(tmp_path, [entry(2, "MKVL", "DDVD"), entry(7, "MKJ*", "DDVD")])
    table, _ = lay_over(path, tracks_of(unknown="refuse"), too_long="drop")
    assert len(table.tracks["protein"].gather(np.array([0]))) == 6
    with pytest.raises(
        FormatError,
        match=r"db: entry 7 \(line 2 of the index\): found 'J' at residue 3, which is not in the vocabulary of the track 'protein'; "
        r"set data.unknown=drop",
    ):
        table.tracks["protein"].gather(np.array([0, 1]))


def test_long_proteins_that_may_not_be_left_out_are_an_error(tmp_path: Path) -> None:
    path = write_database(tmp_path, [entry(0, "MKVL", "DDVD"), entry(1, "M" * 40, "D" * 40)])
    with pytest.raises(FormatError, match=r"db: entry 2: the protein has 42 tokens, the track takes 30; set data.too_long=drop, or raise"):
        load(SequenceData(path=str(path), too_long="refuse"), tracks_of())


def test_structures_from_another_file_are_joined_to_the_records(tmp_path: Path) -> None:
    path = write_database(tmp_path, [entry(i, "MKVL", "DDVD") for i in range(6)])
    other = tmp_path / "other.fasta"
    other.write_text("".join(f">e{i}\nVVVV\n" for i in range(6)))
    data = SequenceData(path=str(path), structure_path=str(other), leakage=False, split=RandomSplit(validation_fraction=0.2))
    bundle, tracks = load(data, tracks_of()), tracks_of()
    assert tracks["structure"].decode(bundle.train.example(0)["structure"].tolist()) == "VVVV"


def test_entries_of_different_lengths_are_an_error_at_once(tmp_path: Path) -> None:
    path = write_database(tmp_path, [entry(0, "MKVL", "DDVD"), entry(1, "MKV", "DDVD")])
    with pytest.raises(FormatError, match="found 4 letters of 3Di for 3 amino acids, expected as many"):
        lay_over(path, tracks_of(), too_long="drop")


def test_shards_of_longer_proteins_than_the_tracks_take_are_counted_or_refused(tmp_path: Path) -> None:
    path = write_database(tmp_path, [entry(0, "MKVL", "DDVD"), entry(1, "M" * 40, "D" * 40), entry(2, "MKV", "DDV")])
    write_shards(lay_over(path, tracks_of(max_length=50), too_long="drop")[0], tmp_path / "cache", tracks_of())
    data = ShardData(path=str(tmp_path / "cache"), split=RandomSplit(validation_fraction=0.0))
    bundle = load(data, tracks_of())
    assert len(bundle.train) == 2 and "  1 dropped: protein longer than 30 tokens" in bundle.report.lines()
    with pytest.raises(FormatError, match=r"cache: example 2: the protein has 42 tokens, the track takes 30; set data"):
        load(replace(data, too_long="refuse"), tracks_of())


def test_a_missing_path_is_reported_first(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"data.path: found nothing at '.*nodb', expected a file, a folder or a Foldseek"):
        load(SequenceData(path=str(tmp_path / "nodb")), tracks_of())


def test_a_database_without_names_gives_a_table_without(tmp_path: Path) -> None:
    path = write_database(tmp_path, random_entries(2, 9), Form(names=False))
    assert lay_over(path, tracks_of(), too_long="drop")[0].names is None
