"""The reader against databases that Foldseek wrote, in every form, and Foldseek's own dumps of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protlig_dd.cli.entry import main
from protlig_dd.data.foldseek.pairs import FoldseekDB, PairedFoldseekDB
from tests.support.foldseek_cases import copy_example, read_fasta

pytestmark = pytest.mark.data

FORMS = {
    "plain": ("plain", 41), "float": ("float", 41), "compressed": ("plain", 41), "split": ("plain", 41), "padded": ("plain", 41),
    "sub0": ("plain", 5), "sub1": ("plain", 5), "edge": ("edge", 17),
}  # fmt: skip
NUM_CALPHA_CUT = 0.00101  # differences are cut to thousandths: up to one off the floats, which round in the last digit themselves


@pytest.fixture(scope="module")
def example(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_example(shared / "data", tmp_path_factory.mktemp("foldseek"))


@pytest.fixture(scope="module")
def truth(shared: Path) -> Path:
    return shared / "data" / "foldseek_example" / "truth"


def text_coords(folder: Path) -> dict[int, np.ndarray]:
    """Return Foldseek's text dump of the coordinates by key: x,x,...,y,...,z,... of each entry."""
    data, found = (folder / "ca_text").read_bytes(), {}
    for line in (folder / "ca_text.index").read_text().splitlines():
        key, start, size = map(int, line.split())
        numbers = [float(n) for n in data[start : start + size - 1].decode().strip("\n\0,").split(",")]
        found[key] = np.array(numbers).reshape(3, -1).T
    return found


@pytest.mark.parametrize("form", FORMS)
def test_letters_equal_the_dumps(form: str, example: Path, truth: Path) -> None:
    """Amino acids and 3Di of every entry, by row, by key and by name, one by one and batched."""
    dump, count = FORMS[form]
    aa, ss = read_fasta(truth / dump / "aa.fasta"), read_fasta(truth / dump / "3di.fasta")
    with PairedFoldseekDB(example / form / "db") as db:
        names = [db.name(row) for row in range(len(db))]
        assert len(db) == count and len(set(names)) == count and (count == 5 or set(names) == set(aa))
        expected = [(aa[name], ss[name]) for name in names]
        assert list(db) == [(row, *pair) for row, pair in enumerate(expected)] and db.pairs(range(count)) == expected
        assert [db.get_by_name(name) for name in names] == expected
        assert [db.get_by_key(key) for key in db.keys.tolist()] == expected
        assert db.lengths.tolist() == [len(a) for a, _ in expected]


@pytest.mark.parametrize("form", FORMS)
def test_coordinates_equal_the_dumps(form: str, example: Path, truth: Path) -> None:
    """C-alpha within 3e-5 Angstrom of Foldseek's text dump, for each form; batched the very same numbers."""
    dump = FORMS[form][0]
    by_key, names = text_coords(truth / dump), list(read_fasta(truth / dump / "aa.fasta"))
    with PairedFoldseekDB(example / form / "db") as db:
        coords, offsets = db.calpha_batch(range(len(db)))
        for row in range(len(db)):
            expected = by_key[names.index(db.name(row))]
            found = db.calpha(row)
            assert found.shape == expected.shape and found.dtype == np.float32
            assert np.abs(found - expected.astype(np.float32)).max() < 3e-5  # the text has three decimals
            assert np.array_equal(coords[offsets[row] : offsets[row + 1]], found)


def test_coordinates_equal_the_trace_files(example: Path, truth: Path) -> None:
    """A dump of another kind: the PDB file of each chain."""
    with FoldseekDB(example / "edge" / "db") as db:
        for path in sorted((truth / "edge" / "ca_per_chain").glob("*.pdb")):
            lines = [line for line in path.read_text().splitlines() if line.startswith("ATOM")]
            found = db.calpha(db.row_of_name(path.stem))  # the file goes on with the other chains of its structure
            expected = np.array([[float(line[a : a + 8]) for a in (30, 38, 46)] for line in lines[: len(found)]])
            assert np.abs(found - expected).max() < 6e-4  # three decimals


def test_differences_and_floats_hold_the_same_chains(example: Path) -> None:
    """Differences are cut towards zero by less than a thousandth; chains with a long jump are stored as floats among them."""
    with FoldseekDB(example / "plain" / "db") as a, FoldseekDB(example / "float" / "db") as b:
        assert max(np.abs(a.calpha(row) - b.calpha(row)).max() for row in range(len(a))) < NUM_CALPHA_CUT
    with FoldseekDB(example / "edge" / "db") as db:
        sizes = db.calphas.entries.index.lengths + 2
        floats = [db.name(row) for row in range(len(db)) if sizes[row] == 12 * db.lengths[row] + 1]
        assert floats == ["e01_jump40", "e03_jump32.768", "e05_jump-32.769", "e12_het"]


def test_masked_letters_are_upper_case_unless_asked(example: Path, truth: Path) -> None:
    """The masked database: upper case and a mask, or the letters as they are."""
    for ending, dump in (("", "aa.fasta"), ("_ss", "3di.fasta")):
        expected = read_fasta(truth / "edge_mask" / dump)
        upper, kept = (FoldseekDB(example / "edge" / f"dbmask{ending}", keep_case=keep) for keep in (False, True))
        for row in range(len(kept)):
            text = expected[kept.name(row)]
            assert kept.get_sequence(row) == text and upper.get_sequence(row) == text.upper()
            assert upper.mask(row).tolist() == [c.islower() for c in text] == kept.mask(row).tolist()
        assert upper.batch(range(len(upper))).masked.tolist() == [c.islower() for _, text in kept for c in text]


@pytest.mark.parametrize("form", FORMS)
def test_verify_finds_no_fault(form: str, example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if form in ("compressed", "split"):
        pytest.importorskip("zstandard", reason="compressed databases need zstandard (extra data)")
    assert main(["foldseek", "verify", str(example / form / "db")]) == 0
    assert "no faults" in capsys.readouterr().out


def test_export_writes_the_bytes_of_foldseek(example: Path, truth: Path, tmp_path: Path) -> None:
    """`export` gives the FASTA files that Foldseek's own converter gave."""
    pytest.importorskip("zstandard", reason="compressed databases need zstandard (extra data)")
    out = [str(tmp_path / name) for name in ("aa.fasta", "3di.fasta", "traces")]
    for form in ("plain", "split"):
        assert main(["foldseek", "export", str(example / form / "db"), "--aa", out[0], "--ss", out[1]]) == 0
        for path in out[:2]:
            assert Path(path).read_bytes() == (truth / "plain" / Path(path).name).read_bytes()
    pytest.importorskip("gemmi", reason="writing PDB files needs gemmi")
    assert main(["foldseek", "export", str(example / "plain" / "db"), "--pdb", out[2], "--name", "1tim_A"]) == 0
    ours = [line[30:54] for line in (Path(out[2]) / "1tim_A.pdb").read_text().splitlines() if line.startswith("ATOM")]
    theirs = (truth / "plain" / "ca_per_chain" / "1tim_A.pdb").read_text().splitlines()
    assert ours == [line[30:54] for line in theirs if line.startswith("ATOM")][:247]  # then chain B follows


def test_links_that_were_copied_as_text_are_followed(shared: Path, truth: Path) -> None:
    """The shared folder itself may hold links as text; its linked databases read all the same."""
    aa = read_fasta(truth / "plain" / "aa.fasta")
    for form in ("sub0", "sub1", "padded"):
        with PairedFoldseekDB(shared / "data" / "foldseek_example" / form / "db") as db:
            assert all(db.get_pair(row)[0] == aa[db.name(row)] for row in range(len(db)))
