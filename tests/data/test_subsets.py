"""Subsets are nested, seeded, disjoint from their validation by text, and load as folders."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.cli import entry as cli
from protlig_dd.data import subsets
from protlig_dd.data.bundle import load
from protlig_dd.data.readers.sequences import read_fasta
from protlig_dd.data.settings import SequenceData
from protlig_dd.data.subsets import SubsetPlan, prepare_subsets
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.settings import ProteinTrack

PLAN = SubsetPlan(sizes=(50, 10, 200), validation=20, name="u")
NUM = 250


def text(i: int) -> str:
    return "".join(np.random.default_rng(i).choice(list("ACDEFGHIKLMNPQRSTVWY"), 8 + i % 30))


ITEMS = [(f"u{i}", text(i)) for i in range(NUM)]


def fasta(path: Path, items=ITEMS) -> Path:
    path.write_text("".join(f">{name} words\n{sequence}\n" for name, sequence in items))
    return path


def sequences(path: Path) -> list[str]:
    return [record.texts["protein"] for record in read_fasta(path)]


def made(out: Path) -> dict[str, list[str]]:
    return {folder.name: sequences(folder / "train.fasta") for folder in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("subsets")
    prepare_subsets(fasta(folder / "all.fasta"), folder / "out", PLAN)
    return folder / "out"


def test_smaller_subsets_begin_the_larger_ones(out):
    found = made(out)
    assert {name: len(set(found[name])) for name in found} == {"u_10": 10, "u_50": 50, "u_200": 200}
    whole = (out / "u_200" / "train.fasta").read_bytes()
    for name in ("u_10", "u_50"):
        assert whole.startswith((out / name / "train.fasta").read_bytes())
    assert set(found["u_200"]) <= {sequence for _, sequence in ITEMS}


def test_folders_are_named_by_thousands():
    plan = SubsetPlan()
    assert [plan.folder(size) for size in (*plan.sizes, 500, 1500)] == [
        *("uniref50_1k", "uniref50_10k", "uniref50_100k", "uniref50_500k", "uniref50_1000k", "uniref50_500", "uniref50_1500")
    ]


def test_validation_is_the_same_everywhere_and_disjoint_by_text(out):
    parts = {(folder / "valid.fasta").read_bytes() for folder in out.iterdir()}
    assert len(parts) == 1
    valid = sequences(out / "u_10" / "valid.fasta")
    assert len(set(valid)) == 20 and not set(valid) & set(made(out)["u_200"])


def test_each_folder_is_a_data_path(out):
    tracks = {"protein": ProteinTrack().build("protein")}
    for name, size in (("u_10", 10), ("u_200", 200)):
        bundle = load(SequenceData(path=str(out / name)), tracks)
        assert (len(bundle.train), len(bundle.validation), len(bundle.test)) == (size, 20, 0)
        assert bundle.report.leakage is not None and bundle.report.leakage.exact_proteins == 0


def test_metadata_says_where_it_comes_from(out):
    about = json.loads((out / "u_50" / "metadata.json").read_text())
    expected = hashlib.sha256("".join(f">{name}\n{sequence}\n" for name, sequence in ITEMS).encode()).hexdigest()
    assert about["source_sha256"] == expected and about["seed"] == 42 and about["source_records"] == NUM
    lengths = [len(sequence) for sequence in made(out)["u_50"]]
    assert about["train"]["sequences"] == 50 and about["train"]["residues"] == sum(lengths)
    assert (about["train"]["shortest"], about["train"]["longest"]) == (min(lengths), max(lengths))


def test_the_choice_depends_on_seed_and_sequences_not_on_order_or_copies(out, tmp_path):
    items = [*ITEMS, *((f"copy{i}", sequence.lower()) for i, (_, sequence) in enumerate(ITEMS[:60])), ("none", "")]
    random.Random(1).shuffle(items)
    report = prepare_subsets(fasta(tmp_path / "b.fasta", items), tmp_path / "out", PLAN)
    one, other = made(out), made(tmp_path / "out")
    assert {n: set(found) for n, found in one.items()} == {n: set(found) for n, found in other.items()}
    assert all(len(found) == len(set(found)) for found in other.values())
    assert "311 records, 1 of them empty" in report.lines()[0]
    assert set(sequences(tmp_path / "out/u_10/valid.fasta")) == set(sequences(out / "u_10/valid.fasta"))
    prepare_subsets(tmp_path / "b.fasta", tmp_path / "seeded", SubsetPlan(sizes=(50,), validation=20, seed=1, name="u"))
    assert len(set(made(tmp_path / "seeded")["u_50"]) & set(one["u_50"])) < 30


def test_a_larger_plan_keeps_the_smaller_subsets(out, tmp_path):
    prepare_subsets(fasta(tmp_path / "a.fasta"), tmp_path / "out", SubsetPlan(sizes=(10, 220), validation=20, name="u"))
    assert made(tmp_path / "out")["u_10"] == made(out)["u_10"]


def test_every_sequence_is_as_likely_as_any_other(tmp_path):
    fasta(tmp_path / "a.fasta", ITEMS[:200])
    taken, place = np.zeros(200), {sequence: i for i, (_, sequence) in enumerate(ITEMS[:200])}
    for seed in range(16):
        plan = SubsetPlan(sizes=(50,), validation=1, seed=seed, name="u")
        prepare_subsets(tmp_path / "a.fasta", tmp_path / str(seed), plan)
        for sequence in made(tmp_path / str(seed))["u_50"]:
            taken[place[sequence]] += 1
    halves = taken[:100].sum(), taken[100:].sum()
    assert abs(halves[0] - halves[1]) / 2 < 4 * np.sqrt(16 * 50 / 4)
    assert abs(taken.var() / (16 * 0.25 * 0.75) - 1) < 4 * np.sqrt(2 / 200)


def test_keys_are_let_go_on_the_way_without_changing_the_choice(out, tmp_path, monkeypatch):
    monkeypatch.setattr(subsets, "_SLACK", 7)
    prepare_subsets(fasta(tmp_path / "a.fasta"), tmp_path / "out", PLAN)
    assert made(tmp_path / "out") == made(out)


def test_memory_is_that_of_the_chosen_not_of_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr(subsets, "_SLACK", 50)
    peaks = []
    for size in (150, 900):
        with (tmp_path / f"{size}.fasta").open("w") as file:
            file.writelines(f">{i}\nMKVLAW{'ACDEFGHIKL'[i % 10]}{'ACDEFGHIKL'[i // 10 % 10] * (i // 100)}\n" for i in range(size))
        tracemalloc.start()
        prepare_subsets(tmp_path / f"{size}.fasta", tmp_path / f"o{size}", SubsetPlan(sizes=(50,), validation=5))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 8 * 50


def test_tables_and_folders_are_sources_too(out, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (extra data)")
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (extra data)")
    for part, items in (("train", ITEMS), ("valid", [("v", "MKV")] * 5)):
        pq.write_table(pa.table({"aa_seq": [s for _, s in items]}), tmp_path / f"{part}.parquet")
    report = prepare_subsets(tmp_path, tmp_path / "out", PLAN)
    assert made(tmp_path / "out") == made(out)
    assert f"{tmp_path} (train): {NUM} records" in report.lines()[0]
    names = [record.name for record in read_fasta(tmp_path / "out/u_10/train.fasta")]
    assert names[0].startswith("u_") and len(set(names)) == 10


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"sizes": (240,)}, r"a\.fasta: found 250 distinct sequences, 260 are needed for 240 and 20 to validate; leave"),
        ({"sizes": (0,)}, r"found --sizes 0 --validation 20; expected different whole numbers from 1"),
        ({"sizes": (5, 5)}, r"found --sizes 5 5 --validation 20; expected different"),
        ({"sizes": (5,), "validation": 0}, r"--validation 0; expected"),
        ({"sizes": (5,), "name": "../x"}, r"found --name '\.\./x', expected the beginning of a folder's name"),
        ({"sizes": (10,)}, r"u_10: exists already; remove it, or choose another --out or --name"),
    ],
)
def test_impossible_plans_are_one_line_and_leave_nothing(tmp_path, plan, message):
    (tmp_path / "out" / "u_10").mkdir(parents=True)
    with pytest.raises(ConfigError, match=message) as caught:
        prepare_subsets(fasta(tmp_path / "a.fasta"), tmp_path / "out", SubsetPlan(**{"validation": 20, "name": "u", **plan}))
    assert "\n" not in str(caught.value) and [p.name for p in (tmp_path / "out").iterdir()] == ["u_10"]


def test_a_source_that_changes_in_between_is_refused(tmp_path, monkeypatch):
    choose = subsets._choose

    def meddle(*arguments):
        found = choose(*arguments)
        fasta(tmp_path / "a.fasta", ITEMS[1:])
        return found

    monkeypatch.setattr(subsets, "_choose", meddle)
    with pytest.raises(ConfigError, match="the source changed while it was being read"):
        prepare_subsets(fasta(tmp_path / "a.fasta"), tmp_path / "out", PLAN)
    assert not list((tmp_path / "out").iterdir())


def test_the_command_makes_them(tmp_path, capsys):
    source, out = str(fasta(tmp_path / "a.fasta")), str(tmp_path / "out")
    given = ["prepare", "subsets", source, "--sizes", "10", "100", "--validation", "5", "--out", out]
    assert cli.main(given) == 0
    output = capsys.readouterr().out
    assert f"{out}/uniref50_100: 100 train" in output and f"use one: data.path={out}/uniref50_10" in output
    assert cli.main(given) == 1
    assert "uniref50_10: exists already" in capsys.readouterr().err
    (tmp_path / "a.smi").write_text("CCO\n")
    with pytest.raises(FormatError, match="expected '>' and a name"):
        prepare_subsets(tmp_path / "a.smi", tmp_path / "other", PLAN)


def test_a_record_that_is_no_protein_is_in_no_subset(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text(">a\nMKT\n>ligand|name=GDP\nNCC\n>b\nGSH\n")
    with pytest.raises(FormatError, match=r"a\.fasta:3: the header '>ligand\|name=GDP' says 'ligand', expected a protein; remove it"):
        prepare_subsets(path, tmp_path / "out", SubsetPlan(sizes=(1,), validation=1))
