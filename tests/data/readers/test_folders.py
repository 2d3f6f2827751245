"""Folders as publishers leave them: saved datasets, Parquet, EvoDiff's layout. The tests make them with pyarrow alone."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protlig_dd.data.bundle import load
from protlig_dd.data.inspect import inspect
from protlig_dd.data.prepare import prepare_shards
from protlig_dd.data.readers.folders import open_folder, part_of
from protlig_dd.data.readers.sequences import read_sequences
from protlig_dd.data.settings import MoleculeData, PairData, RandomSplit, SequenceData
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack, StructureTrack

PROTEIN = ProteinTrack(max_length=64).build("protein")
TRACKS = {"protein": PROTEIN}
FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
PARTS = {"train": range(30), "valid": range(30, 36), "test": range(36, 40)}


def text(i: int) -> str:
    return "".join(np.random.default_rng(i).choice(list(LETTERS), 10 + i % 7))


def rows(numbers, column="seq"):
    return [{"name": f"u{i}", column: text(i), "length": len(text(i)), "extra": [i]} for i in numbers]


def save_to_disk(folder: Path, items, *, files=2, **state) -> Path:
    """Write what datasets.Dataset.save_to_disk writes."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    table, names = pa.Table.from_pylist(items), []
    cuts = np.linspace(0, len(items), files + 1).astype(int)
    for i, (a, b) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        names.append(f"data-{i:05d}-of-{files:05d}.arrow")
        with pa.ipc.new_stream(str(folder / names[-1]), table.schema) as out:
            out.write_table(table.slice(a, b - a), max_chunksize=4)
    about = {"_data_files": [{"filename": n} for n in names], "_fingerprint": "0", "_split": None, **state}
    (folder / "state.json").write_text(json.dumps(about))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def dataset_dict(folder: Path, parts=PARTS, column="seq") -> Path:
    for name, numbers in parts.items():
        save_to_disk(folder / name, rows(numbers, column))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    return folder


def parquet_folder(folder: Path, inside="", of="{part}-{i:05d}-of-00002.parquet") -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = folder / inside
    for part, numbers in PARTS.items():
        for i, half in enumerate(np.array_split(np.array(numbers), 2)):
            file = place / of.format(part=part, i=i)
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows(half.tolist(), "sequence")), file)
    (folder / "README.md").write_text("a card")
    return folder


def fasta_folder(folder: Path, of="{part}.fasta") -> Path:
    folder.mkdir()
    for part, numbers in PARTS.items():
        (folder / of.format(part=part)).write_text("".join(f">u{i}\n{text(i)}\n" for i in numbers))
    (folder / "metadata.json").write_text("{}")
    return folder


def evodiff(folder: Path, lists=None) -> Path:
    folder.mkdir()
    (folder / "consensus.fasta").write_text("".join(f">UniRef50_{i} words\n{text(i)}\n" for i in range(40)))
    lists = {name: list(numbers) for name, numbers in PARTS.items()} | {"rtest": [39]} if lists is None else lists
    (folder / "splits.json").write_text(json.dumps(lists))
    np.savez(folder / "lengths_and_offsets.npz", ells=np.zeros(40), seq_offsets=np.zeros(40))
    return folder


LAYOUTS = {
    "saved": dataset_dict,
    "saved apart": lambda f: [save_to_disk(f / part, rows(n)) for part, n in PARTS.items()] and f,
    "parquet": parquet_folder,
    "parquet in data": lambda f: parquet_folder(f, "data"),
    "a folder a part": lambda f: parquet_folder(f, of="{part}/train-{i:05d}-of-00002.parquet"),
    "a cache": lambda f: parquet_folder(f, of="uniref50-{part}-{i:05d}-of-00002.parquet"),
    "fasta": fasta_folder,
    "evodiff": evodiff,
}


def decoded(table) -> list[str]:
    return [PROTEIN.decode(table.example(i)["protein"].tolist()) for i in range(len(table))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folders_own_parts_are_the_split(tmp_path, layout):
    folder = LAYOUTS[layout](tmp_path / "uniref50")
    bundle = load(SequenceData(path=str(folder), leakage=False), TRACKS)
    for part, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        assert decoded(bundle.part(part)) == [text(i) for i in PARTS[name]]
    caught = "\n".join(bundle.report.lines())
    assert "split: the folder's own parts: 30 train, 6 validation, 4 test" in caught
    assert f"sequences from {folder} (" in caught and f"{folder} (validation): 6 records read, 6 kept" in caught


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inspect_and_shards_take_folders(tmp_path, layout):
    folder = LAYOUTS[layout](tmp_path / "uniref50")
    found = inspect(folder, TRACKS)
    assert found.kind == "sequences" and found.splits == {"train": 30, "validation": 6, "test": 4}
    assert prepare_shards(folder, TRACKS, tmp_path / "shards").kept == 40


def test_a_single_dataset_is_divided_as_the_settings_say(tmp_path):
    folder = save_to_disk(tmp_path / "valid", rows(range(40)), files=3)
    how = SequenceData(path=str(folder), leakage=False, split=RandomSplit(validation_fraction=0.25))
    bundle = load(how, TRACKS)
    assert (len(bundle.train), len(bundle.validation)) == (30, 10)
    assert sorted(decoded(bundle.train) + decoded(bundle.validation)) == sorted(text(i) for i in range(40))
    assert "split: random" in "\n".join(bundle.report.lines())


def test_parts_may_be_taken_from_several_folders(tmp_path):
    one, other = dataset_dict(tmp_path / "a"), fasta_folder(tmp_path / "b")
    bundle = load(SequenceData(path=str(one), validation_path=str(other), leakage=False), TRACKS)
    assert [len(bundle.part(p)) for p in ("train", "validation", "test")] == [30, 6, 4]
    assert f"{other} (validation)" in bundle.report.encoded
    small = dataset_dict(tmp_path / "c", {"train": range(9), "test": range(9, 12)})
    bundle = load(SequenceData(path=str(small), leakage=False), TRACKS)
    assert [len(bundle.part(p)) for p in ("train", "validation", "test")] == [8, 1, 3]
    assert bundle.report.split.endswith("; a part of the folder for test")
    with pytest.raises(
        FormatError, match=r"c: found the parts train, test, expected also 'validation'; name another data\.validation_path"
    ):
        load(SequenceData(path=str(one), validation_path=str(small), leakage=False), TRACKS)


def test_a_limit_counts_for_each_part(tmp_path):
    bundle = load(SequenceData(path=str(dataset_dict(tmp_path / "a")), limit=5, leakage=False), TRACKS)
    assert [len(bundle.part(p)) for p in ("train", "validation", "test")] == [5, 5, 4]


def test_pairs_molecules_and_structures_come_from_folders_too(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (extra data)")
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (extra data)")
    folder = tmp_path / "pairs"
    folder.mkdir()
    for part, count in (("train", 6), ("valid", 2)):
        items = [{"smiles": "C" * (i + 1), "sequence": text(i), "label": 1, "di3": text(i)} for i in range(count)]
        pq.write_table(pa.Table.from_pylist(items), folder / f"{part}.parquet")
    tracks = {**TRACKS, "ligand": LigandTrack().build("ligand"), "structure": StructureTrack(alphabet="3di").build("structure")}
    for kind in (PairData, SequenceData, MoleculeData):
        bundle = load(kind(path=str(folder), leakage=False), tracks)
        assert (len(bundle.train), len(bundle.validation)) == (6, 2)
    codes = [{"aa_seq": "MKV", "struct_seq": "0001,0002,8191", "pdb_name": f"x{i}"} for i in range(4)]
    pdb = save_to_disk(tmp_path / "pdb", codes)
    tracks = {**TRACKS, "structure": StructureTrack().build("structure")}
    bundle = load(SequenceData(path=str(pdb), leakage=False, split=RandomSplit(validation_fraction=0.25)), tracks)
    assert tracks["structure"].decode(bundle.train.example(0)["structure"].tolist()) == "0001,0002,8191"
    with pytest.raises(ConfigError, match=r"data\.structure_path: found 's' for a folder of several parts; give files"):
        load(SequenceData(path=str(folder), structure_path="s", leakage=False), tracks)


def test_a_damaged_or_missing_arrow_file_says_so(tmp_path):
    folder = save_to_disk(tmp_path / "a", rows(range(40)), files=2)
    first, second = sorted(folder.glob("*.arrow"))
    content = second.read_bytes()
    second.write_bytes(content[: len(content) - 300])
    with pytest.raises(FormatError, match=r"data-00001-of-00002\.arrow: damaged after row \d+"):
        load(SequenceData(path=str(folder)), TRACKS)
    second.unlink()
    with pytest.raises(FormatError, match=r"data-00001-of-00002\.arrow: not readable as Arrow .*No such file"):
        load(SequenceData(path=str(folder)), TRACKS)
    first.write_bytes(b"no arrow")
    with pytest.raises(FormatError, match=r"data-00000-of-00002\.arrow: not readable as Arrow"):
        load(SequenceData(path=str(folder)), TRACKS)


def broken(name):
    def make(folder: Path) -> Path:
        folder.mkdir()
        changes = {
            "nothing": {},
            "other files": {"notes.docx": "x", "model.bin": "x", ".hidden.fasta": ">x\nM\n"},
            "two formats": {"train.fasta": ">x\nM\n", "valid.csv": "sequence\nM\n"},
            "unnamed": {"train.fasta": ">x\nM\n", "more.fasta": ">x\nM\n"},
            "two words": {"train_valid.fasta": ">x\nM\n"},
            "no train": {"valid.fasta": ">x\nM\n"},
            "shards": {"shards.json": "{}"},
            "state": {"state.json": "[1]"},
            "escape": {"state.json": json.dumps({"_data_files": [{"filename": "../x.arrow"}]})},
            "indices": {"state.json": json.dumps({"_data_files": [], "_indices_files": [{"filename": "i.arrow"}]})},
            "dict": {"dataset_dict.json": json.dumps({"splits": ["../train"]})},
        }
        for file, content in changes[name].items():
            (folder / file).write_text(content)
        return folder

    return make


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (broken("nothing"), r"found nothing, expected a dataset saved by save_to_disk, Parquet or FASTA files"),
        (broken("other files"), r"found '\.hidden\.fasta', 'model\.bin', 'notes\.docx', expected a dataset saved"),
        (broken("two formats"), r"found files of \.csv and \.fasta, expected one format; remove the others"),
        (broken("unnamed"), r"found 'more\.fasta' beside files named after parts, expected all or none so named"),
        (broken("two words"), r"train_valid\.fasta: the name speaks of train and validation, expected one part"),
        (broken("no train"), r"found only the parts 'validation', expected one of the name train"),
        (broken("shards"), r"found the shards of protlig prepare, expected records; set data\.kind=shards"),
        (broken("state"), r"state\.json: found '\[1\]', expected an object; save or download the dataset again"),
        (broken("escape"), r"found .*\.\./x\.arrow.* as the files of state\.json, expected file names"),
        (broken("indices"), r"found a selection of rows kept apart; save it again after flatten_indices"),
        (broken("dict"), r"found .*\.\./train.* in dataset_dict\.json, expected names"),
        (lambda f: evodiff(f, {"valid": [1]}), r"splits\.json: found the lists 'validation', expected one named train"),
        (lambda f: evodiff(f, {"train": [1, 2], "valid": [2]}), r"a row stands twice \(found at 'valid'\)"),
        (lambda f: evodiff(f, {"train": [1, 1]}), r"a row stands twice \(found at 'train'\)"),
        (lambda f: evodiff(f, {"train": [1, 40]}), r"found 40 records, splits\.json speaks of number 40 \(counted from 0\)"),
        (lambda f: evodiff(f, {"train": [10**15]}), r"found 1000000000000000 in 'train', consensus\.fasta is too short"),
    ],
)
def test_what_is_not_understood_is_one_clear_line(tmp_path, layout, message):
    folder = layout(tmp_path / "folder")
    with pytest.raises(FormatError, match=message) as caught:
        load(SequenceData(path=str(folder)), TRACKS)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(folder))


def test_parts_are_recognised_by_whole_words():
    names = ["train-00000-of-00002.parquet", "uniref50-valid-0.arrow", "val.fasta.gz", "constrained.csv", "Test_1.csv", "rtest"]
    assert [part_of(name) for name in names] == ["train", "validation", "validation", "", "test", ""]


def test_unused_parts_are_named(tmp_path):
    assert "its lists 'rtest' are not used" in open_folder(evodiff(tmp_path / "a")).layout
    folder = dataset_dict(tmp_path / "b", {"train": range(3), "odd": range(3)})
    assert "its parts 'odd' are not used" in open_folder(folder).layout


@pytest.mark.parametrize("name", ["x.arrow", "state.json", "dataset_dict.json"])
@given(content=st.binary(max_size=120) | st.text('{}[]":_data_filesplits.arow\n', max_size=60).map(str.encode))
@FUZZ
def test_no_bytes_crash_the_folder_readers(tmp_path, name, content):
    folder = tmp_path / name.replace(".", "_")
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises((FormatError, ConfigError)) as caught:
        load(SequenceData(path=str(folder)), TRACKS)
    assert str(folder) in str(caught.value)


def test_memory_does_not_grow_with_a_folder(tmp_path):
    peaks = []
    for size in (40, 200):
        folder = evodiff(tmp_path / f"evodiff{size}", {"train": []})
        (folder / "consensus.fasta").write_text("".join(f">{i}\n{text(i % 9)}\n" for i in range(size)))
        (folder / "splits.json").write_text(json.dumps({"train": list(range(size))}))
        saved = save_to_disk(tmp_path / f"saved{size}", rows([i % 9 for i in range(size)]))
        tracemalloc.start()
        for path in (folder, saved):
            part = open_folder(path).whole
            assert sum(1 for _ in part.records(read_sequences)) == size
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
