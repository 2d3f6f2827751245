"""Structure tokens are joined to their proteins: from columns, from a second file in any order, checked and cropped together."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protlig_dd.cli import entry as cli
from protlig_dd.data.bundle import load
from protlig_dd.data.encode import Encoder, encode_records
from protlig_dd.data.inspect import inspect
from protlig_dd.data.prepare import prepare_shards
from protlig_dd.data.readers import sequences
from protlig_dd.data.readers.complexes import read_pairs
from protlig_dd.data.readers.sequences import join_structures, read_fasta, read_sequences
from protlig_dd.data.settings import MoleculeData, PairData, RandomSplit, SequenceData
from protlig_dd.data.shards import open_shards
from protlig_dd.errors import ConfigError, FormatError, ProtligError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack, StructureTrack

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
NUM = 12
PROTEIN = ProteinTrack(max_length=24).build("protein")
TRACKS = {"protein": PROTEIN, "structure": StructureTrack(alphabet="3di", max_length=20).build("structure")}
CODES = {"protein": PROTEIN, "structure": StructureTrack(max_length=24).build("structure")}
FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def shifted(protein: str) -> str:
    """A structure from which the protein can be derived: each letter's successor."""
    return "".join(LETTERS[(LETTERS.index(letter) + 1) % 20] for letter in protein)


def protein(i: int, length: int = 0) -> str:
    rng = np.random.default_rng(i)
    return "".join(rng.choice(list(LETTERS), length or 5 + i % 10))


PROTEINS = {f"p{i}": protein(i) for i in range(NUM)}
STRUCTURES = {name: shifted(text) for name, text in PROTEINS.items()}


def fasta(path: Path, items) -> Path:
    pairs = items.items() if isinstance(items, dict) else items
    path.write_text("".join(f">{name} words\n{text}\n" for name, text in pairs))
    return path


def joined(tmp_path, proteins=PROTEINS, structures=STRUCTURES):
    one, other = fasta(tmp_path / "a.fasta", proteins), fasta(tmp_path / "s.fasta", structures)
    return list(join_structures(lambda: read_fasta(one), other))


def fitting(records):
    return {r.name: (r.texts["protein"], r.texts["structure"]) for r in records if r.problem is None}


WHOLE = {name: (PROTEINS[name], STRUCTURES[name]) for name in PROTEINS}


@pytest.mark.parametrize("order", ["same", "reversed", "shuffled"])
def test_each_protein_gets_the_structure_of_its_name_in_any_order(tmp_path, order):
    names = list(STRUCTURES)
    if order == "reversed":
        names.reverse()
    if order == "shuffled":
        random.Random(3).shuffle(names)
    records = joined(tmp_path, structures={name: STRUCTURES[name] for name in names})
    assert fitting(records) == WHOLE and len(records) == NUM
    assert [r.name for r in records] == list(PROTEINS)
    line = 2 * names.index("p3") + 1
    assert records[3].where == f"{tmp_path}/a.fasta:7 and {tmp_path}/s.fasta:{line}"


def test_files_of_one_order_are_read_side_by_side_with_nothing_held(tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "_held", None)
    some = {name: text for name, text in STRUCTURES.items() if name not in ("p0", "p7")}
    records = joined(tmp_path, structures={"first": "DD", **some, "last": "DD"})
    assert fitting(records) == {name: WHOLE[name] for name in some} and len(records) == NUM + 2


def test_the_smaller_file_is_the_one_held(tmp_path):
    few = dict(list(PROTEINS.items())[:4])
    names = list(STRUCTURES)[::-1]
    records = joined(tmp_path, few, {name: STRUCTURES[name] for name in names})
    assert [r.name for r in records if r.problem is None] == ["p3", "p2", "p1", "p0"]
    assert fitting(records) == {name: WHOLE[name] for name in few}
    assert len(records) == NUM


@pytest.mark.parametrize("turned", [False, True])
def test_names_twice_or_without_partner_are_refused_or_counted(tmp_path, turned):
    proteins = [*PROTEINS.items(), ("p2", "MKV"), ("alone", "MKVL")]
    structures = [*STRUCTURES.items(), ("p5", "DDD"), ("p5", "DDA"), ("other", "DVDV")]
    if turned:
        structures.reverse()
    records = joined(tmp_path, proteins, structures)
    assert fitting(records) == {name: both for name, both in WHOLE.items() if name not in ("p2", "p5")}
    table, report = encode_records(records, Encoder(TRACKS, unknown="drop"))
    assert len(table) == NUM - 2 and report.seen == len(records) == report.kept + sum(report.dropped.values())
    assert report.dropped == {
        "protein of a repeated name": 2,
        "protein without a structure": 2,
        "structure of a repeated name": 3,
        "structure without a protein": 2,
    }
    first = report.first["protein of a repeated name"][0]
    assert first == f"{tmp_path}/a.fasta:5: the name 'p2' stands more than once; give each protein a name of its own"
    told_here = " ".join(report.first["protein without a structure"])
    assert f"{tmp_path}/a.fasta:11: found several structures named 'p5', expected one" in told_here
    assert "found no structure named 'alone'; add it, or remove the protein" in told_here
    with pytest.raises(FormatError, match=r"fasta:\d+: (the name 'p\d' stands more than once|found (no|several))") as caught:
        encode_records(records, Encoder(TRACKS))
    assert "\n" not in str(caught.value)


def test_files_without_a_common_name_are_an_error_at_once(tmp_path):
    with pytest.raises(
        FormatError, match=r"s\.fasta:1: found no name that both files have once \(the first are 'x' here and 'p0' at .*a\.fasta:1\)"
    ):
        joined(tmp_path, structures={"x": "DDD"})


@given(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9), st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9))
@FUZZ
def test_a_join_of_any_names_loses_and_invents_nothing(tmp_path, left, right):
    proteins = [(name, f"{name}{i}") for i, name in enumerate(left)]
    structures = [(name, f"{name}{i}") for i, name in enumerate(right)]
    expected = {
        name: (dict(proteins)[name], dict(structures)[name])
        for name in set(left) & set(right)
        if left.count(name) == right.count(name) == 1
    }
    try:
        records = joined(tmp_path, proteins, structures)
    except FormatError:
        assert not expected
        return
    assert fitting(records) == expected
    assert len(records) == len(left) + len(right) - len(expected)


@given(content=st.binary(max_size=80) | st.text(alphabet=">p01,D \n", max_size=60).map(str.encode))
@FUZZ
def test_no_bytes_in_the_second_file_crash_the_join(tmp_path, content):
    (tmp_path / "s.fasta").write_bytes(content)
    one = tmp_path / "a.fasta"
    if not one.exists():
        fasta(one, {"p0": "MKV", "p1": "MK"})
    try:
        assert len(list(join_structures(lambda: read_fasta(one), tmp_path / "s.fasta"))) >= 2
    except FormatError as error:
        assert "s.fasta" in str(error)


@pytest.mark.parametrize("column", ["struct_seq", "structure", "di3", "3Di", "foldseek", "struct_tokens"])
def test_a_table_may_have_structures_in_a_column(tmp_path, column):
    path = tmp_path / "a.csv"
    path.write_text(f"pdb_name,aa_seq,{column}\nx,MKV,DVP\ny,MKVL,DVPA\nz,MK,\n")
    assert [(r.name, r.texts) for r in read_sequences(path)][:2] == [
        ("x", {"protein": "MKV", "structure": "DVP"}),
        ("y", {"protein": "MKVL", "structure": "DVPA"}),
    ]
    bundle = load(SequenceData(path=str(path), split=RandomSplit(validation_fraction=0.0)), TRACKS)
    assert len(bundle.train) == 2 and bundle.report.encoded[str(path)].dropped == {"no structure": 1}


def data(tmp_path, **more) -> SequenceData:
    fasta(tmp_path / "a.fasta", PROTEINS)
    fasta(tmp_path / "s.fasta", {name: STRUCTURES[name] for name in reversed(PROTEINS)})
    return SequenceData(path=str(tmp_path / "a.fasta"), leakage=False, **more)


def test_a_paired_fasta_trains_both_tracks(tmp_path):
    fasta(tmp_path / "v.fasta", {"v": "MKV"})
    fasta(tmp_path / "vs.fasta", {"v": "DVP"})
    settings = data(
        tmp_path,
        structure_path=str(tmp_path / "s.fasta"),
        validation_path=str(tmp_path / "v.fasta"),
        validation_structure_path=str(tmp_path / "vs.fasta"),
    )
    bundle = load(settings, TRACKS)
    assert (len(bundle.train), len(bundle.validation)) == (NUM, 1)
    for part in (bundle.train, bundle.validation):
        assert np.array_equal(part.tracks["protein"].lengths, part.tracks["structure"].lengths)
    texts = {tuple(TRACKS[t].decode(ids.tolist()) for t, ids in bundle.train.example(i).items()) for i in range(NUM)}
    assert texts == set(WHOLE.values())


@pytest.mark.parametrize(
    ("more", "tracks", "message"),
    [
        ({}, TRACKS, r"a\.fasta: found no structures, the tracks are \['protein', 'structure'\]; give data\.structure_path"),
        (
            {"structure_path": "s"},
            {"protein": PROTEIN},
            r"data\.structure_path: found 's', the tracks are \['protein'\]; add a track 'structure'",
        ),
        ({"structure_path": "s", "validation_path": "v"}, TRACKS, r"v: found no structures, .*; give data\.validation_structure_path"),
    ],
)
def test_missing_or_idle_structures_are_reported_before_reading(tmp_path, more, tracks, message):
    paths = {
        name: value if name == "structure_path" and value == "s" and tracks is not TRACKS else str(tmp_path / value)
        for name, value in more.items()
    }
    fasta(tmp_path / "v", PROTEINS)
    with pytest.raises(ConfigError, match=message):
        load(data(tmp_path, **paths), tracks)


def test_tables_without_structures_say_how_to_name_them(tmp_path):
    (tmp_path / "a.csv").write_text("smiles,sequence\nCC,MKV\n")
    three = {**TRACKS, "ligand": LigandTrack().build("ligand")}
    with pytest.raises(ConfigError, match=r"a\.csv: found no structures, .*; name its column with data\.columns\.structure"):
        load(PairData(path=str(tmp_path / "a.csv")), three)
    with pytest.raises(ConfigError, match=r"give data\.structure_path, or name its column with data\.columns\.structure"):
        load(SequenceData(path=str(tmp_path / "a.csv")), TRACKS)
    (tmp_path / "a.smi").write_text("CCO\nCC\nCCC\nCCCC\n")
    assert len(load(MoleculeData(path=str(tmp_path / "a.smi")), three).train) == 3
    (tmp_path / "p.csv").write_text("smiles,sequence,3di\n" + "CC,MKV,DDD\n" * 3)
    records = list(read_pairs(tmp_path / "p.csv"))
    assert records[0].texts == {"protein": "MKV", "ligand": "CC", "structure": "DDD"}


def test_inspect_and_shards_take_structures(tmp_path, capsys):
    settings = data(tmp_path)
    one, other = Path(settings.path), tmp_path / "s.fasta"
    found = inspect(one, structures=other)
    assert found.kind == "sequences" and found.lengths["structure"] == found.lengths["protein"]
    assert "structure" not in inspect(one, TRACKS).lengths
    prepare_shards(one, TRACKS, tmp_path / "shards", structures=other)
    table = open_shards(tmp_path / "shards", TRACKS)
    assert np.array_equal(table.tracks["structure"].lengths, table.tracks["protein"].lengths) and len(table) == NUM
    with pytest.raises(ConfigError, match=r"found no structures, .*; give a FASTA file of them with --structures"):
        prepare_shards(one, TRACKS, tmp_path / "again")
    assert cli.main(["inspect", str(one), "--structures", str(other)]) == 0
    assert "structure tokens: shortest 7" in capsys.readouterr().out
    fasta(other, {name: "0001" * len(text) for name, text in PROTEINS.items()})
    assert inspect(one, structures=other).lengths["structure"] == found.lengths["structure"]
    assert issubclass(ConfigError, ProtligError)


@pytest.mark.slow
@pytest.mark.data
def test_real_pairs_of_files_fit(shared: Path):
    folder = shared / "data/flip_proteins"
    tracks = {n: t.build(n) for n, t in (("protein", ProteinTrack()), ("structure", StructureTrack(alphabet="3di")))}
    given = SequenceData(
        path=str(folder / "sequences.fasta.gz"), structure_path=str(folder / "secondary_structure.fasta.gz"), limit=300, leakage=False
    )
    report = load(given, tracks).report
    assert report.tokens["protein"] == report.tokens["structure"] and report.examples["train"] == 285
