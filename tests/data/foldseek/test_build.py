"""Tests of making Foldseek databases of structure files: byte for byte Foldseek's own, and everything left out is reported."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.data.foldseek import build as foldseek_build
from protlig_dd.data.foldseek import structure_files
from protlig_dd.data.foldseek.build import build_database
from protlig_dd.data.foldseek.structure_files import Reading, choose_workers, read_all, read_entries
from protlig_dd.errors import ConfigError, FormatError
from tests.support.backbones import chain_lines, entries_of, write_lines
from tests.support.structure_folders import helix_file, odd_folder

pytest.importorskip("gemmi")
pytest.importorskip("mini3di")

PARTS = [f"{part}{end}" for part in ("", "_ss", "_ca", "_h") for end in ("", ".index", ".dbtype")]
FILES = [*PARTS, ".lookup", ".source"]


def gathered(shared: Path, folder: Path) -> Path:
    """Put the structures of the example set into one folder, as Foldseek was given them."""
    folder.mkdir()
    for place in ("pdb", "cif"):
        for path in (shared / "data" / "foldseek_example" / "structures" / place).iterdir():
            (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.data
@pytest.mark.parametrize(("kind", "workers"), [("plain", 1), ("plain", 2), ("float", 1)])
def test_every_file_is_byte_for_byte_foldseeks(shared: Path, tmp_path: Path, kind: str, workers: int) -> None:
    """41 chains of 37 files, in 14 files: letters, 3Di, C-alpha, headers, indices, types, names and sources."""
    made = tmp_path / "made" / "db"
    structures = gathered(shared, tmp_path / "all")
    store = "float" if kind == "float" else "differences"
    report = build_database(structures, made, workers=workers, coord_store=store)  # type: ignore[arg-type]
    theirs = shared / "data" / "foldseek_example" / kind / "db"
    for suffix in FILES:
        ours = made.with_name(f"db{suffix}").read_bytes()
        assert ours == theirs.with_name(f"db{suffix}").read_bytes(), f"db{suffix}"
    assert (report.num_chains, report.num_residues, report.num_files, report.skipped) == (41, 6324, 37, {})
    assert sorted(p.name for p in made.parent.iterdir()) == sorted(f"db{suffix}" for suffix in FILES)


@pytest.mark.data
@pytest.mark.parametrize(("name", "threshold"), [("db", 0.0), ("dbmask", 50.0)])
def test_odd_chains_are_foldseeks_but_for_two_stated_exceptions(shared: Path, tmp_path: Path, name: str, threshold: float) -> None:
    """e07 has C-alpha atoms only, and e15 is where Foldseek masks the second chain with the B-factors of the first."""
    example = shared / "data" / "foldseek_example"
    made, theirs = tmp_path / name, example / "edge" / name
    report = build_database(example / "structures" / "edge", made, mask_bfactor_threshold=threshold)
    for suffix in ("", "_ss", "_ca", "_h"):
        ours, expected = entries_of(made, suffix), entries_of(theirs, suffix)
        assert [n for n in expected if n != "e07_caonly"] == list(ours)
        different = [n for n in ours if ours[n] != expected[n]]
        masked = name == "dbmask" and suffix in ("", "_ss")
        assert different == (["e15_bfac_B"] if masked else []), suffix
        if masked:
            assert ours["e15_bfac_B"].lower() == expected["e15_bfac_B"].lower()
        types = (path.with_name(f"{path.name}{suffix}.dbtype").read_bytes() for path in (made, theirs))
        assert next(types) == next(types)
    sources = [[line.split("\t")[1] for line in path.with_name(f"{name}.source").read_text().splitlines()] for path in (made, theirs)]
    assert sources[0] == [source for source in sources[1] if source != "e07_caonly_MODEL_1"]
    assert report.skipped == {"C-alpha only": 1, "too short": 1, "all residues unknown": 1, "residues without C-alpha": 1}


@pytest.mark.data
def test_coordinates_are_those_of_the_files_within_a_thousandth(shared: Path, tmp_path: Path) -> None:
    example = shared / "data" / "foldseek_example"
    reading = read_entries(example / "structures" / "pdb" / "d1asha_", Reading())
    (one,) = reading.entries
    assert one.ca_angstrom is not None and one.name == "d1asha_" and one.source == "d1asha_"
    np.testing.assert_allclose(one.ca_angstrom[0], [10.369, 0.997, 10.519], atol=1e-9)


def test_what_is_left_out_is_counted_and_listed_with_its_reason(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "in")
    report = build_database(folder, tmp_path / "db")
    assert list(entries_of(tmp_path / "db")) == ["good", "noext", "packed", "also_good"]
    assert report.skipped == {"unreadable files": 4, "C-alpha only": 1, "too short": 1, "all residues unknown": 1}
    assert report.num_files == 11 and report.skipped_path == tmp_path / "db.skipped.tsv"
    rows = [line.split("\t") for line in (tmp_path / "db.skipped.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == [
        *(str(folder / "broken.cif.gz"), f"{folder / 'caonly.pdb'} chain A", str(folder / "empty.cif")),
        *(str(folder / "notes.txt"), f"{folder / 'short.pdb'} chain A", f"{folder / 'unknown.pdb'} chain A"),
        str(folder / "zero.pdb"),
    ]
    assert {row[0].split("/")[-1]: row[2] for row in rows}["caonly.pdb chain A"].startswith("found C-alpha atoms only")
    text = "\n".join(report.lines())
    assert f"{tmp_path / 'db'}: 4 chains, 48 residues, of 11 files" in text
    assert "4 unreadable files, such as" in text and "db.skipped.tsv lists all" in text


def test_names_of_several_chains_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """createdb writes them all; entries of one name are found by their keys."""
    for name in ("a/m.pdb", "b/m.pdb", "my model.pdb", "my other.pdb"):
        helix_file(tmp_path / "in" / name)
    with caplog.at_level(logging.WARNING):
        report = build_database(tmp_path / "in", tmp_path / "db")
    assert report.num_chains == 4 and not report.skipped
    words = (
        f"{tmp_path / 'db'}: 2 chains have the name of another one, such as 'm'; all are written, as by createdb, and are found by key only"
    )
    assert [record.getMessage() for record in caplog.records] == [words]


def test_models_have_the_files_numbers_in_all_names(tmp_path: Path) -> None:
    """Also a file of one model, where another one has several: `.source` says the number."""
    lines = chain_lines("AKGSL")
    write_lines(tmp_path / "in" / "a.1.pdb", ["MODEL        3"], lines, ["ENDMDL"])
    write_lines(tmp_path / "in" / "b.pdb", ["MODEL        0"], lines, ["ENDMDL", "MODEL       21"], lines, ["ENDMDL"])
    build_database(tmp_path / "in", tmp_path / "db")
    assert list(entries_of(tmp_path / "db")) == ["a.1", "b_MODEL_0_A", "b_MODEL_21_A"]
    assert (tmp_path / "db.source").read_text() == "0\ta_MODEL_3\n1\tb_MODEL_0\n2\tb_MODEL_21\n"


def test_residues_left_out_of_a_chain_that_is_there_are_counted(tmp_path: Path) -> None:
    lines = chain_lines("AKGSLAKG")
    kept = [line for line in lines if not (line[12:16].strip() == "CA" and line[22:26].strip() in ("3", "5"))]
    write_lines(tmp_path / "in" / "x.pdb", kept)
    report = build_database(tmp_path / "in", tmp_path / "db")
    assert (report.num_chains, report.num_residues) == (1, 6) and entries_of(tmp_path / "db")["x"] == b"AKSAKG\n"
    assert report.skipped == {"residues without C-alpha": 2}
    assert "the chain is there without 2 residues" in (tmp_path / "db.skipped.tsv").read_text()


def test_the_order_is_by_the_bytes_of_the_paths(tmp_path: Path) -> None:
    """A subfolder stands where its name and a slash stand: behind a dot, before digits and letters."""
    names = ["b.pdb", "a/z.pdb", "a.pdb", "a0.pdb", "a/y/x.pdb", "B.pdb", "a-b.pdb"]
    for name in names:
        helix_file(tmp_path / "in" / name)
    found = [str(p.relative_to(tmp_path / "in")) for p in structure_files.structure_files(tmp_path / "in")]
    assert found == sorted(names, key=os.fsencode) == [
        *("B.pdb", "a-b.pdb", "a.pdb", "a/y/x.pdb", "a/z.pdb", "a0.pdb", "b.pdb"),
    ]  # fmt: skip


def test_several_processes_give_the_files_of_one(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "in")
    for i in range(12):
        helix_file(folder / f"more_{i:02}.pdb", "AKGSL" * (i + 1))
    build_database(folder, tmp_path / "one" / "db", workers=1)
    build_database(folder, tmp_path / "two" / "db", workers=2)
    for suffix in (*FILES, ".skipped.tsv"):
        one, two = ((tmp_path / place / f"db{suffix}").read_bytes() for place in ("one", "two"))
        assert one == two, suffix


def test_few_files_are_read_without_other_processes() -> None:
    assert choose_workers(0, 10) == 0 and choose_workers(3, 10) == 3
    assert choose_workers(0, 10**6) == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


def test_reading_is_never_far_ahead_of_writing(tmp_path: Path) -> None:
    """Paths are taken as results are: a slow disk does not fill the memory with chains."""
    taken = []

    def paths():  # type: ignore[no-untyped-def]
        for _ in range(1000):
            taken.append(1)
            yield tmp_path / "absent.pdb"

    reading = read_all(paths(), Reading(), workers=1)
    next(reading)
    assert len(taken) == 1
    reading = read_all(paths(), Reading(), workers=2)
    next(reading)
    assert len(taken) <= 1 + 4 * 2 * 8
    reading.close()


def test_masked_letters_are_those_below_the_threshold(tmp_path: Path) -> None:
    lines = chain_lines("AKGSLA")
    low = [line[:60] + f"{10.0 if line[22:26].strip() in ('1', '4') else 50.0:6.2f}" + line[66:] for line in lines]
    write_lines(tmp_path / "in" / "x.pdb", low)
    for threshold, expected in ((0.0, "AKGSLA"), (50.0, "aKGsLA"), (50.1, "akgsla")):
        place = tmp_path / f"db{threshold}"
        build_database(tmp_path / "in", place, mask_bfactor_threshold=threshold)
        assert entries_of(place)["x"] == f"{expected}\n".encode()
        structure = entries_of(place, "_ss")["x"].decode()
        assert [c.islower() for c in structure[:-1]] == [c.islower() for c in expected]


def test_a_folder_without_chains_makes_no_database(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "notes.txt", ["nothing"])
    with pytest.raises(FormatError, match=r"no chain for a database among 1 files \(1 unreadable files, such as .*notes.txt"):
        build_database(tmp_path / "in", tmp_path / "db")
    (tmp_path / "void").mkdir()
    with pytest.raises(FormatError, match="among 0 files .the folder is empty"):
        build_database(tmp_path / "void", tmp_path / "db")
    with pytest.raises(ConfigError, match="nowhere: found no such file or folder"):
        build_database(tmp_path / "nowhere", tmp_path / "db")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "void"]


def test_nothing_is_left_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        helix_file(tmp_path / "in" / f"{i}.pdb")
    done = []

    def interrupted(path: Path, reading: Reading) -> structure_files.FileEntries:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        return read_entries(path, reading)

    monkeypatch.setattr(structure_files, "read_entries", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_database(tmp_path / "in", tmp_path / "db", workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["in"] and len(done) == 2


def test_an_entry_that_cannot_be_written_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    helix_file(tmp_path / "in" / "a.pdb")
    helix_file(tmp_path / "in" / "b\x07\x00.pdb".replace("\x00", ""))
    far = (tmp_path / "in" / "a.pdb").read_text()
    (tmp_path / "in" / "c.pdb").write_text(far)
    shutil.copy(tmp_path / "in" / "a.pdb", tmp_path / "in" / "two  words.pdb")
    report = build_database(tmp_path / "in", tmp_path / "db")
    assert report.num_chains == 4
    lookup = (tmp_path / "db.lookup").read_text().splitlines()
    assert lookup[-1] == "3\ttwo\t3" and entries_of(tmp_path / "db", "_h")["two"] == b"two words\n"
    assert foldseek_build.SKIPPED_SUFFIX == ".skipped.tsv" and report.skipped_path is None
