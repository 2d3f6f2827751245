"""C-alpha traces from folders and databases, and their batches: which chains, in which order, for which process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protlig_dd.data.foldseek.structure_files import Reading, Tokenizer, read_entries, structure_files
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.kanzi.batches import centred_nm
from protlig_dd.kanzi.data import TraceData, TraceLoader, Traces, load_traces
from protlig_dd.structures.structure_io import Chain, Structure, write_pdb
from tests.support.backbones import backbone, chain_lines, write_lines
from tests.support.chains import atom_line
from tests.support.foldseek_cases import Entry, write_database

pytest.importorskip("gemmi")


def coords(length: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(length, 3)) * 10).astype(np.float32).round(3)


def folder_of(path: Path, chains: dict[str, str]) -> Path:
    """A folder of PDB files, one a sequence."""
    path.mkdir()
    for name, sequence in chains.items():
        backbone = np.repeat(coords(len(sequence), seed=len(sequence))[:, None], 3, axis=1) + [[-1.4, 0, 0], [0, 0, 0], [0, 1.5, 0]]
        chain = Chain.of_coordinates(sequence, backbone.astype(np.float32))
        write_pdb(Structure(source=name, chains=(chain,)), path / name)
    return path


def test_chains_are_chosen_by_length_number_and_sequence_and_the_rest_is_counted(tmp_path: Path) -> None:
    files = {"a.pdb": "ACDEFGHIKL", "b.pdb": "ACDEFGHIKL", "c.pdb": "ACD", "d.pdb": "M" * 40, "e.pdb": "GG" * 8, "f.pdb": "PL" * 6}
    path = folder_of(tmp_path / "pdb", files)
    (path / "notes.txt").write_text("nothing")
    found = load_traces(TraceData(path=str(path), max_length=30, num_chains=2))
    assert found.names == ("a.pdb:A", "e.pdb:A")
    assert np.allclose(found.read(0), coords(10, seed=10), atol=1e-3) and found.read(1).shape == (16, 3)
    assert list(found.lines()) == [
        "chains: 2",
        "left out: 1 chains whose sequence was met before",
        "left out: 1 chains below 4 residues",
        "left out: 1 chains above 30 residues",
        "left out: 1 chains beyond the first 2",
        "left out: 1 files that are no PDB or mmCIF",
    ]


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="found neither a folder of structures nor a Foldseek database; set data.path"):
        load_traces(TraceData(path=str(tmp_path / "absent")))
    with pytest.raises(FormatError, match=r"found no chain to train on \(1 chains below 50 residues\)"):
        load_traces(TraceData(path=str(folder_of(tmp_path / "pdb", {"a.pdb": "ACDEFGHI"})), min_length=50))
    with pytest.raises(ValueError, match="copies: found 0, expected 1 or more"):
        TraceData(path="x", copies=0)


def database_of(folder: Path, lengths: list[int]) -> Path:
    """A database of chains of these lengths."""
    entries = [
        Entry(
            key=row,
            name=f"protein{row}",
            aa="M" * length,
            ss="D" * length,
            milli=[(round(1000 * x), round(1000 * y), round(1000 * z)) for x, y, z in coords(length, seed=row).tolist()],
        )
        for row, length in enumerate(lengths)
    ]
    return write_database(folder, entries)


def test_a_database_is_read_chain_by_chain(tmp_path: Path) -> None:
    database_of(tmp_path, list(range(5, 35, 5)))
    found = load_traces(TraceData(path=str(tmp_path / "db"), min_length=10, max_length=25))
    assert found.names == ("protein1", "protein2", "protein3", "protein4")
    assert np.allclose(found.read(3), coords(25, seed=4), atol=1e-4)
    assert found.dropped == {"chains below 10 residues": 1, "chains above 25 residues": 1}
    unlimited = load_traces(TraceData(path=str(tmp_path / "db"), min_length=10))
    assert len(unlimited) == 5 and unlimited.dropped == {"chains below 10 residues": 1}
    few = load_traces(TraceData(path=str(tmp_path / "db"), min_length=1, num_chains=4))
    assert few.names == ("protein0", "protein1", "protein2", "protein3") and few.dropped == {"chains beyond the first 4": 2}


def seven() -> Traces:
    return Traces(number=7, name="abcdefg".__getitem__, read=lambda i: coords(10 + i, seed=i))


def test_an_epoch_has_every_chain_once_for_each_copy() -> None:
    loader = TraceLoader(seven(), batch_size=6, copies=3, seed=0)
    lengths = [n for step in range(7) for n in loader.micro_batches(step)[0].layout.lengths]
    assert sorted(lengths) == sorted([10 + i for i in range(7)] * 6)
    assert lengths[:21] != lengths[21:], "each epoch has its own order"
    assert all(len(set(lengths[i : i + 3])) == 1 for i in range(0, 42, 3)), "copies follow one another"
    assert loader.steps_per_epoch == 4


def test_processes_and_micro_batches_share_one_global_batch() -> None:
    alone = TraceLoader(seven(), batch_size=12, copies=2, seed=0).micro_batches(5)[0]
    ids, lengths, points = [], [], []
    for m in range(3):
        for rank in range(2):
            loader = TraceLoader(seven(), batch_size=12, copies=2, seed=0, rank=rank, world=2, accumulation=3)
            batch = loader.micro_batches(5)[m]
            ids += batch.example_ids.tolist()
            lengths += batch.layout.lengths
            points.append(batch.points.numpy())
    assert ids == alone.example_ids.tolist() == list(range(60, 72))
    assert tuple(lengths) == alone.layout.lengths
    assert np.array_equal(np.concatenate(points), alone.points.numpy())
    assert np.array_equal(alone.points[: lengths[0]].numpy(), centred_nm(coords(lengths[0], seed=lengths[0] - 10)))


def test_batches_are_a_pure_function_of_the_step() -> None:
    loader = TraceLoader(seven(), batch_size=4, copies=2, seed=0)
    ahead = [batches[0].layout.lengths for batches in loader.prefetch(3, 9)]
    assert ahead == [TraceLoader(seven(), batch_size=4, copies=2, seed=0).micro_batches(s)[0].layout.lengths for s in range(3, 9)]


def test_a_batch_that_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train.batch_size: found 7, expected a multiple of data.copies \(2\)"):
        TraceLoader(seven(), batch_size=7, copies=2, seed=0)


def test_chains_held_out_are_not_trained_on() -> None:
    training, held_out = seven().split(0.3, seed=0)
    assert sorted(training.names + held_out.names) == list("abcdefg") and len(held_out) == 2
    assert seven().split(0.3, seed=0)[1].names == held_out.names
    both = seven().split(0.0, seed=0)
    assert both[0].names == both[1].names == tuple("abcdefg")
    with pytest.raises(ConfigError, match="leaves none to train on"):
        seven().split(0.99, seed=0)


def test_a_file_that_cannot_be_read_is_logged_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder_of(tmp_path / "pdb", {"a.pdb": "ACDEFGHIKL"})
    (path / "broken.pdb.gz").write_bytes(b"no gzip")
    found = load_traces(TraceData(path=str(path)))
    assert found.names == ("a.pdb:A",) and found.dropped == {"files that cannot be read": 1}
    assert "left out: " in caplog.text and "broken.pdb.gz" in caplog.text


def trained_and_tokenized(path: Path) -> tuple[list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]]]:
    """The chains of a folder, by name, as training and as tokenizing read them."""
    traces = load_traces(TraceData(path=str(path), distinct=False))
    trained = [(name, np.asarray(traces.read(i))) for i, name in enumerate(traces.names)]
    reading = Reading(tokenizer=Tokenizer(tokens=lambda chain: chain.sequence, needs_backbone=False))
    tokenized = [(e.name, e.ca_angstrom) for file in structure_files(path) for e in read_entries(file, reading).entries]
    assert all(ca is not None for _, ca in tokenized)
    return trained, tokenized  # type: ignore[return-value]


def assert_same_chains(path: Path, trained_names: list[str], tokenized_names: list[str]) -> None:
    trained, tokenized = trained_and_tokenized(path)
    assert [name for name, _ in trained] == trained_names and [name for name, _ in tokenized] == tokenized_names
    for (_, ours), (_, theirs) in zip(trained, tokenized, strict=True):
        assert ours.dtype == np.float32 and np.array_equal(ours, theirs.astype(np.float32))


def test_training_and_tokenizing_find_the_same_files_in_subfolders(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.pdb", chain_lines("AAAAAK"))
    write_lines(tmp_path / "sub" / "deep" / "a.pdb", chain_lines("AAAAAG"), ["TER"], chain_lines("KKKKK", chain="B"))
    write_lines(tmp_path / "sub" / "d1asha_", chain_lines("AAAAAS"))
    write_lines(tmp_path / ".hidden.pdb", chain_lines("AAAAAL"))
    trained = ["b.pdb:A", "sub/d1asha_:A", "sub/deep/a.pdb:A", "sub/deep/a.pdb:B"]
    assert_same_chains(tmp_path, trained, ["b", "d1asha_", "a_A", "a_B"])


def test_training_and_tokenizing_take_the_same_alternative_atom(tmp_path: Path) -> None:
    """Foldseek's choice: the last one listed, at any occupancy; and of two residues with one number the first."""
    places = backbone(6)
    lines = [
        atom_line(name, "ALA", i + 1, place + shift, altloc=altloc, occupancy=occupancy)
        for i in range(6)
        for name, place in zip(("N", "CA", "C", "CB"), places[i], strict=True)
        for shift, altloc, occupancy in (((0, "A", 0.9), (1, "B", 0.1)) if i == 2 else ((0, " ", 1.0),))
    ]
    lines.insert(8, atom_line("CA", "SER", 2, (9, 9, 9), altloc="B"))
    write_lines(tmp_path / "x.pdb", lines)
    assert_same_chains(tmp_path, ["x.pdb:A"], ["x"])
    ((_, ca),) = trained_and_tokenized(tmp_path)[0]
    np.testing.assert_allclose(ca, places[:, 1] + (np.arange(6) == 2)[:, None], atol=5.1e-4)


def test_training_and_tokenizing_read_all_models(tmp_path: Path) -> None:
    model = chain_lines("AAAAAK")
    write_lines(tmp_path / "m.pdb", ["MODEL        1"], model, ["ENDMDL", "MODEL        2"], model, ["ENDMDL"])
    assert_same_chains(tmp_path, ["m.pdb:A model 1", "m.pdb:A model 2"], ["m_MODEL_1_A", "m_MODEL_2_A"])
    assert load_traces(TraceData(path=str(tmp_path))).names == ("m.pdb:A model 1",), "equal sequences count once"


def test_every_chain_left_out_of_training_is_counted(tmp_path: Path) -> None:
    dna = [atom_line("P", " DA", i, (i, 0, 0), chain="D") for i in range(1, 7)]
    write_lines(tmp_path / "a.pdb", chain_lines("AAAAAK"), ["TER"], dna, ["TER"], chain_lines("XXXXX", chain="X"))
    write_lines(tmp_path / "b.pdb", chain_lines("AKG"))
    assert load_traces(TraceData(path=str(tmp_path), min_length=1)).dropped == {
        "chains without protein": 1,
        "chains of unknown residues only": 1,
        "chains below 4 residues": 1,
    }


def test_no_path_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "a.pdb", chain_lines("AAAAAK"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match="set data.path"):
        load_traces(TraceData(path=""))
    assert load_traces(TraceData(path=".")).names == ("a.pdb:A",)
