"""A Foldseek database wherever sequences are read: inspect, training data, shards; and one without 3Di."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protlig_dd.data.bundle import load
from protlig_dd.data.foldseek.table import is_database, read_database
from protlig_dd.data.foldseek.writer import Entry, write_database
from protlig_dd.data.inspect import inspect
from protlig_dd.data.prepare import prepare_shards
from protlig_dd.data.settings import RandomSplit, SequenceData
from protlig_dd.data.shards import open_shards
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TRACKS = {
    "protein": ProteinTrack(max_length=64, beside="3di").build("protein"),
    "structure": StructureTrack(alphabet="3di", max_length=64).build("structure"),
}


@pytest.fixture
def entries() -> list[Entry]:
    draws = np.random.default_rng(0)
    texts = ["".join(draws.choice(list(LETTERS), n)) for n in (5, 30, 12, 8, 20, 9)]
    return [
        Entry(name=f"c{i}", title="some protein", sequence=t, structure=t[::-1], ca_angstrom=draws.normal(size=(len(t), 3)), key=3 * i)
        for i, t in enumerate(texts)
    ]


@pytest.fixture
def database(tmp_path: Path, entries: list[Entry]) -> Path:
    write_database(tmp_path / "db", entries)
    return tmp_path / "db"


def test_records_are_the_entries(database: Path, entries: list[Entry]) -> None:
    assert is_database(database) and not is_database(database.with_name("nothing"))
    found = [(r.name, r.texts["protein"], r.texts["structure"]) for r in read_database(database)]
    assert found == [(e.name, e.sequence, e.structure) for e in entries]


def test_training_data_shards_and_inspection_take_a_database(database: Path, entries: list[Entry], tmp_path: Path) -> None:
    data = SequenceData(path=str(database), split=RandomSplit(validation_fraction=0.3), leakage=False)
    bundle = load(data, TRACKS)
    assert len(bundle.train) + len(bundle.validation) == len(entries)
    prepare_shards(database, TRACKS, tmp_path / "shards")
    table = open_shards(tmp_path / "shards", TRACKS)
    for i, entry in enumerate(entries):
        example = table.example(i)
        assert TRACKS["protein"].decode(example["protein"].tolist()) == entry.sequence
        assert TRACKS["structure"].decode(example["structure"].tolist()) == entry.structure
    assert any("6 records read" in line for line in inspect(database).lines())


@pytest.mark.parametrize(
    ("alphabet", "structures", "message"),
    [
        ("kanzi", "", "found a database with 3Di letters, expected kanzi tokens; tokenize it first: protlig tokenize .*db --track kanzi"),
        ("kanzi", "x.fasta", "data.structure_path: found nothing at 'x.fasta', .*; tokenize it first: .* data.kind=shards data.path=cache"),
        ("dplm2", "", "expected dplm2 tokens; give data.structure_path, a FASTA file of dplm2 tokens with the names of the proteins"),
        ("3di", "x.fasta", "data.structure_path: found nothing at 'x.fasta', .*; leave the setting empty, since the database has its own"),
    ],
)
def test_structure_tokens_that_the_database_does_not_have_are_to_be_made_first(
    database: Path, alphabet: str, structures: str, message: str
) -> None:
    tracks = {
        "protein": ProteinTrack(max_length=64, beside=alphabet).build("protein"),  # type: ignore[arg-type]
        "structure": StructureTrack(alphabet=alphabet, max_length=64).build("structure"),  # type: ignore[arg-type]
    }
    with pytest.raises((ConfigError, FormatError), match=message):
        load(SequenceData(path=str(database), structure_path=structures), tracks)


def test_a_database_without_3di_is_said_so(database: Path) -> None:
    for ending in ("_ss", "_ss.index", "_ss.dbtype"):
        database.with_name(database.name + ending).unlink()
    assert [set(r.texts) for r in read_database(database)][0] == {"protein"}
    with pytest.raises(ConfigError, match="without 3Di letters"):
        load(SequenceData(path=str(database)), TRACKS)
