"""Loading, inspecting and preparing: from files on disk to tables, with every count reported."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.config import build, to_mapping
from protlig_dd.data.bundle import load
from protlig_dd.data.inspect import inspect
from protlig_dd.data.prepare import prepare_shards, prepare_vocab
from protlig_dd.data.settings import DataSettings, DemoWorld, MoleculeData, PairData, SequenceData, ShardData
from protlig_dd.data.shards import open_shards, read_manifest
from protlig_dd.data.splits import GivenSplit, RandomSplit
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack

TRACKS = {"protein": ProteinTrack(max_length=40).build("protein"), "ligand": LigandTrack(max_length=20).build("ligand")}
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def protein(i, length=30):
    rng = np.random.default_rng(i)
    return "".join(rng.choice(list(LETTERS), length))


@pytest.fixture
def pairs(tmp_path):
    rows = [f"{'C' * (1 + i % 9)}O,{protein(i // 3)},{int(i % 3 > 0)},{4 + i % 5}" for i in range(60)]
    rows.append(f"CCO,{protein(99, 50)},1,7")
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["smiles,protein,label,pKd", *rows]) + "\n")
    return path


def test_positives_train_and_negatives_stand_apart(pairs):
    bundle = load(PairData(path=str(pairs), affinity_bins=(5.0, 7.0)), TRACKS, seed=1)
    sizes = {part: len(bundle.part(part)) + len(bundle.negatives[part]) for part in ("train", "validation", "test")}
    assert sum(sizes.values()) == 60 and sizes["validation"] == 3 and sizes["test"] == 0
    assert set(bundle.train.labels["label"].tolist()) == {1} and set(bundle.negatives["train"].labels["label"].tolist()) == {0}
    affinity = bundle.train.labels["affinity"]
    assert bundle.train.labels["affinity_bin"].tolist() == [0 if a < 5 else 1 if a < 7 else 2 for a in affinity]
    output = "\n".join(bundle.report.lines())
    assert "61 records read, 60 kept, 1 dropped" in output and "1 dropped: protein longer than 40 tokens" in output
    assert "negatives, kept for evaluation: 19 train, 1 validation, 0 test" in output
    assert "0.0% of validation proteins stand in training" in output
    json.dumps(to_mapping(bundle.report))


def test_files_of_their_own_make_the_parts(pairs, tmp_path):
    other = tmp_path / "val.csv"
    other.write_text("smiles,protein\nCC,MKV\n")
    bundle = load(PairData(path=str(pairs), validation_path=str(other)), TRACKS)
    assert (len(bundle.train), len(bundle.validation), len(bundle.test)) == (40, 1, 0)
    tested = load(PairData(path=str(pairs), test_path=str(other), split=RandomSplit(validation_fraction=0.1, test_fraction=0.5)), TRACKS)
    assert len(tested.test) == 1 and len(tested.validation) + len(tested.negatives["validation"]) == 6


def test_sequences_and_molecules_fill_one_track(tmp_path):
    (tmp_path / "a.fasta").write_text("".join(f">p{i}\n{protein(i)}\n" for i in range(20)))
    (tmp_path / "a.smi").write_text("".join(f"{'C' * (i + 1)}\n" for i in range(30)))
    sequences = load(SequenceData(path=str(tmp_path / "a.fasta")), TRACKS)
    assert sequences.train.tracks["protein"].num_tokens == 19 * 32 and sequences.train.tracks["ligand"].num_tokens == 0
    molecules = load(MoleculeData(path=str(tmp_path / "a.smi"), split=RandomSplit(validation_fraction=0.0)), TRACKS)
    assert len(molecules.train) == 18 and molecules.report.encoded[str(tmp_path / "a.smi")].dropped == {"ligand longer than 20 tokens": 12}
    with pytest.raises(ConfigError, match=r"found 'molecules', the tracks are \['protein'\]; add a track 'ligand'"):
        load(MoleculeData(path=str(tmp_path / "a.smi")), {"protein": TRACKS["protein"]})


def test_the_demo_is_encoded_with_its_own_parts():
    tracks = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
    world = DemoWorld(num_train=30, num_validation=6, num_test=6, families_per_rule=2, heldout_families_per_rule=1, ligands_per_rule=60)
    bundle = load(world, tracks)
    assert (len(bundle.train), len(bundle.validation), len(bundle.test)) == (30, 6, 6)
    assert "SYNTHETIC" in bundle.report.lines()[0]


def test_settings_come_from_plain_mappings_and_name_their_mistakes():
    data = build(DataSettings, {"kind": "pairs", "path": "a.csv", "split": {"kind": "cluster", "identity": 0.4}}, "data")
    assert isinstance(data, PairData) and data.split.identity == 0.4
    with pytest.raises(ConfigError, match=r"data\.kind: found 'pair', expected one of demo, pairs, .*did you mean 'pairs'"):
        build(DataSettings, {"kind": "pair"}, "data")
    with pytest.raises(ConfigError, match=r"data\.too_long: found 'cut', expected 'refuse', 'drop' or 'crop'"):
        build(DataSettings, {"kind": "pairs", "path": "a.csv", "too_long": "cut"}, "data")
    with pytest.raises(ConfigError, match="expected ascending edges"):
        build(DataSettings, {"kind": "pairs", "path": "a.csv", "affinity_bins": [7, 5]}, "data")


def test_nothing_to_train_on_is_an_error_with_advice(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"smiles,protein,label\nCC,{protein(1, 60)},1\n")
    with pytest.raises(ConfigError, match=r"found no usable record in .*a\.csv; see what was dropped with: protlig inspect"):
        load(PairData(path=str(path)), TRACKS)
    path.write_text("smiles,protein,label\nCC,MKV,0\nCCC,MKVL,0\nCCC,MKVLA,0\n")
    with pytest.raises(ConfigError, match="all 2 training rows are labelled as not binding"):
        load(PairData(path=str(path)), TRACKS)


def test_inspect_says_what_was_understood(pairs):
    with pairs.open("a") as out:
        out.write(f"C[Zz]C,{protein(5)},1,5\nCC,MKJJ,0,6\n")
    found = inspect(pairs, TRACKS)
    assert found.kind == "pairs" and found.roles == {"protein": "protein", "ligand": "smiles", "label": "label", "affinity": "pKd"}
    assert found.labels == {"1": 42, "0": 21, "none": 0}
    assert found.misses == {"ligand": {"[Zz]": 1}, "protein": {"J": 2}}
    assert found.encoded.seen == 63 and found.encoded.kept == 60
    assert found.lengths["protein"] == (32, 32, 32, 32, 32, 52)
    text = "\n".join(found.lines())
    for expected in (
        "columns: protein = 'protein', ligand = 'smiles'",
        "pairs.csv:63: '[Zz]' at position 2",
        "'J' x 2",
        "affinity: 4 to 8, median 6",
    ):
        assert expected in text
    with pytest.raises(FormatError, match=r"found the columns 'a', 'b', none of them a protein or a ligand"):
        path = pairs.with_name("b.csv")
        path.write_text("a,b\n1,2\n")
        inspect(path)


def test_inspect_stops_at_its_limit(pairs):
    assert not inspect(pairs, TRACKS, limit=10).complete and "(the file goes on)" in "\n".join(inspect(pairs, TRACKS, limit=10).lines())


def test_a_prepared_vocabulary_covers_the_file(tmp_path):
    (tmp_path / "a.smi").write_text("CCO\nC[Zz]\nC[Zz]C\n[Qq]\nC?\n")
    report = prepare_vocab([tmp_path / "a.smi"], tmp_path / "v" / "vocab.json", min_count=2)
    assert report.kept == ("C", "[Zz]") and dict(report.rare) == {"O": 1, "[Qq]": 1}
    assert report.refused == 1 and "a.smi:5: '?' at character 2" in report.first[0]
    track = LigandTrack(vocabulary=str(tmp_path / "v" / "vocab.json")).build("ligand")
    assert track.vocabulary.fingerprint == report.fingerprint and track.decode(track.encode("C[Zz]C")) == "C[Zz]C"
    with pytest.raises(ConfigError, match="no token is seen 9 times"):
        prepare_vocab([tmp_path / "a.smi"], tmp_path / "w.json", min_count=9)


def test_shards_load_like_the_file_they_were_made_of(pairs, tmp_path):
    report = prepare_shards(pairs, TRACKS, tmp_path / "shards", tokens_per_shard=400)
    assert report.kept == 60 and read_manifest(tmp_path / "shards")["about"]["report"]["dropped"] == {"protein longer than 40 tokens": 1}
    how = RandomSplit(validation_fraction=0.2)
    direct = load(PairData(path=str(pairs), split=how), TRACKS, seed=3)
    mapped = load(ShardData(path=str(tmp_path / "shards"), split=how), TRACKS, seed=3)
    for part in ("train", "validation"):
        a, b = direct.part(part), mapped.part(part)
        assert len(a) == len(b)
        assert all(np.array_equal(a.example(i)[n], b.example(i)[n]) for n in TRACKS for i in range(len(a)))
    assert len(mapped.negatives["train"]) == len(direct.negatives["train"])


def test_preparing_takes_no_more_memory_for_a_longer_file(tmp_path):
    peaks = []
    for size in (200, 1200):
        path = tmp_path / f"{size}.fasta"
        path.write_text("".join(f">p{i}\n{protein(i % 7)}\n" for i in range(size)))
        tracemalloc.start()
        prepare_shards(path, TRACKS, tmp_path / f"shards{size}", tokens_per_shard=1500)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len(open_shards(tmp_path / "shards1200")) == 1200
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.slow
@pytest.mark.data
def test_the_real_pair_table_is_counted_right(shared: Path):
    found = inspect(shared / "data/human_pairs/cold_train.csv")
    assert found.encoded.seen == 3453 and found.labels == {"1": 1815, "0": 1638, "none": 0}
    assert found.lengths["protein"][5] in (4655, 4657)
    train, val = (str(shared / f"data/human_pairs/cold_{part}.csv") for part in ("train", "val"))
    tracks = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
    bundle = load(PairData(path=train, validation_path=val, unknown="drop"), tracks)
    assert bundle.report.leakage is not None and bundle.report.leakage.exact_proteins == 0


@pytest.mark.data
def test_real_sequences_and_molecules_load(shared: Path):
    tracks = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}
    fasta = SequenceData(path=str(shared / "data/flip_proteins/sequences.fasta.gz"), limit=500, leakage=False)
    assert load(fasta, tracks).report.examples["train"] == 475
    smiles = MoleculeData(path=str(shared / "data/zinc250k/train.txt"), limit=500, split=RandomSplit(), leakage=False)
    assert load(smiles, tracks).report.examples["validation"] == 25


def test_a_given_split_of_a_file_without_one_says_what_to_do(pairs):
    with pytest.raises(ConfigError, match="the file assigns no row to 'train'"):
        load(PairData(path=str(pairs), split=GivenSplit()), TRACKS)
