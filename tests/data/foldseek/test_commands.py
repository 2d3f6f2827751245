"""`protlig foldseek`: what its actions print, and that `verify` reports every fault, not only the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from protlig_dd.cli.entry import main
from tests.support.foldseek_cases import Entry, Form, random_entries, read_fasta, write_database


@pytest.fixture
def entries() -> list[Entry]:
    return sorted(random_entries(31, 12, sparse=True, masked=True), key=lambda e: e.key)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["foldseek", *arguments])
    output = capsys.readouterr()
    return code, output.out + output.err


def test_info_says_what_is_there(entries: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = {"_ss": {entries[0].key}, "_ca": {entries[1].key, entries[2].key}}
    path = write_database(tmp_path, entries, Form(missing=missing, parts=2, shuffled=True))
    code, text = run(capsys, "info", str(path))
    assert code == 0
    floats = sum(any(abs(b[a] - c[a] + 0.5) > 32768 for a in range(3) for c, b in zip(e.milli, e.milli[1:], strict=False)) for e in entries[3:] + entries[:1])  # fmt: skip
    for words in (
        "12 entries", f"keys {entries[0].key} to {entries[-1].key}, index unsorted", "in 2 files",
        f"residues: {sum(len(e.aa) for e in entries)} in all", "pairs of amino acids and 3Di: 11; without 3Di 1",
        f"{10 - floats} as 16-bit differences, {floats} as floats; missing for 2", "names: db_h, db.lookup", f"first: {entries[0].name}",
    ):  # fmt: skip
        assert words in text, (words, text)


def test_head_shows_entries_as_they_are(entries: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_database(tmp_path, entries)
    code, text = run(capsys, "head", str(path), "--num", "2", "--width", "0")
    assert code == 0 and text.count("residues)") == 2
    assert f"aa   {entries[0].aa}\n" in text and f"3Di  {entries[1].ss}\n" in text
    x, y, z = entries[0].coords[0]
    assert f"CA   ({x:.3f} {y:.3f} {z:.3f})" in text
    code, text = run(capsys, "head", str(path), "--name", entries[7].name, "--key", str(entries[9].key))
    assert code == 0 and entries[7].name in text and f"key {entries[9].key}," in text and text.count("residues)") == 2
    code, text = run(capsys, "head", str(path), "--name", "nobody")
    assert code == 1 and "found no entry 'nobody'" in text


def test_export_writes_what_was_chosen(entries: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_database(tmp_path, entries)
    aa, ss = tmp_path / "aa.fasta", tmp_path / "ss.fasta"
    assert run(capsys, "export", str(path), "--aa", str(aa), "--ss", str(ss), "--keep-case")[0] == 0
    assert read_fasta(aa) == {e.name: e.aa for e in entries} and read_fasta(ss) == {e.name: e.ss for e in entries}
    assert aa.read_text().startswith(f">{entries[0].name} A TITLE OF {entries[0].key}\n")
    assert run(capsys, "export", str(path), "--aa", str(aa), "--key", str(entries[4].key))[0] == 0
    assert read_fasta(aa) == {entries[4].name: entries[4].aa.upper()}
    code, text = run(capsys, "export", str(path))
    assert code == 1 and "found nothing to write" in text
    (tmp_path / "db_h.index").write_text((tmp_path / "db_h.index").read_text().replace(f"{entries[3].key}\t", "77777777\t"))
    before = aa.read_bytes()
    code, text = run(capsys, "export", str(path), "--aa", str(aa))
    assert code == 1 and f"found no key {entries[3].key}" in text and aa.read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["head", "db", "--num", "0"], "--num 0: expected 1 or more"),
        (["head", "db", "--num", "-1"], "--num -1: expected 1 or more"),
        (["export", "db", "--aa", "a.fasta", "--limit", "-1"], "--limit -1: expected 0 (all) or more"),
        (["export", "db", "--aa", "none/a.fasta"], "--aa none/a.fasta: the folder none does not exist; make it first"),
        (["export", "db", "--ss", "."], "--ss .: is a folder, expected the name of a FASTA file"),
        (["export", "db", "--aa", "a.fasta", "--ss", "./a.fasta"], "found the one file a.fasta for both"),
        (["export", "db", "--pdb", "db"], "--pdb db: is a file, expected a folder"),
        (["export", "db_ss", "--aa", "a.fasta"], "db_ss: holds 3Di letters, expected the amino acids"),
        (["export", "db_ss", "--pdb", "traces"], "name the whole database, db, and give --ss"),
    ],
)
def test_what_cannot_be_shown_or_written_is_refused_before_anything_is(
    entries: list[Entry],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    message: str,
) -> None:
    write_database(tmp_path, entries)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, text = run(capsys, *command)
    assert code == 1 and message in text and text.count("\n") == 1, text
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("ending", "option"), [("_ss", "--ss"), ("_ca", "--pdb")])
def test_what_a_database_lacks_is_said_before_anything_is_written(
    entries: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, option: str
) -> None:
    path = write_database(tmp_path, entries)
    for file in tmp_path.glob(f"db{ending}*"):
        file.unlink()
    code, text = run(capsys, "export", str(path), "--aa", str(tmp_path / "a.fasta"), option, str(tmp_path / "out"))
    assert code == 1 and f"{option}: {path} has no" in text and f"(db{ending})" in text
    assert not (tmp_path / "a.fasta").exists() and not (tmp_path / "out").exists()


def test_export_writes_traces(entries: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gemmi = pytest.importorskip("gemmi", reason="writing PDB files needs gemmi")
    path = write_database(tmp_path, entries)
    code, text = run(capsys, "export", str(path), "--pdb", str(tmp_path / "traces"), "--limit", "3")
    assert code == 0 and "3 C-alpha traces" in text
    for entry in entries[:3]:
        residues = gemmi.read_structure(str(tmp_path / "traces" / f"{entry.name}.pdb"))[0][0]
        assert [a.pos.tolist() for r in residues for a in r] == [pytest.approx(place, abs=6e-4) for place in entry.coords]


def test_verify_tells_every_fault(entries: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six faults of six kinds in one database: six lines, and exit code 1; without them none."""
    long = [row for row, entry in enumerate(entries) if len(entry.aa) > 3]
    missing = {"_ca": {entries[long[0]].key}}
    path = write_database(tmp_path, entries, Form(missing=missing))
    code, text = run(capsys, "verify", str(path))
    assert code == 1 and text.count("\n") == 4 and f"found no key {entries[long[0]].key}" in text and "1 fault" in text
    for sub, row, byte in (("db", long[1], b"\x01"), ("db_ss", long[2], b"B"), ("db_h", long[3], b"\xff")):
        with (tmp_path / f"{sub}.index").open() as lines:
            start = next(int(line.split("\t")[1]) for line in lines if int(line.split("\t")[0]) == entries[row].key)
        data = bytearray((tmp_path / sub).read_bytes())
        data[start + 1] = byte[0]
        (tmp_path / sub).write_bytes(data)
    lookup = (tmp_path / "db.lookup").read_text()
    (tmp_path / "db.lookup").write_text(lookup.replace(entries[long[0]].name, "other") + "no line\n")
    code, text = run(capsys, "verify", str(path))
    assert code == 1 and "6 faults" in text and text.count("\n") == 9, text
    for words in (
        "found b'\\x01' at residue 2",
        "found b'B' at residue 2",
        "a header that is no text",
        "found the name b'other'",
        "found b'no line",
    ):
        assert words in text, words


def test_verify_goes_on_after_an_index_that_is_damaged(entries: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each bad line of the index is reported, and the other sub-databases are read."""
    path = write_database(tmp_path, entries)
    lines = (tmp_path / "db_ss.index").read_text().splitlines()
    lines[2], lines[5] = "x", lines[5] + "\t9"
    (tmp_path / "db_ss.index").write_text("\n".join(lines) + "\n")
    code, text = run(capsys, "verify", str(path))
    assert code == 1 and "db_ss.index:3: found b'x'" in text and "db_ss.index:6: found" in text and "2 faults" in text
    assert "12 of db, 12 of db_ca, 12 of db_h" in text


def test_verify_finds_a_binary_index_that_is_not_the_text(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damage inside a sidecar, which opening does not look for."""
    from protlig_dd.data.foldseek import entries as foldseek_entries
    from protlig_dd.data.foldseek.index import open_index

    path = write_database(tmp_path, entries)
    open_index(path.with_name("db.index"), sidecar_from=0)
    place = tmp_path / "db.index.protlig"
    content = bytearray(place.read_bytes())
    content[192] ^= 1
    place.write_bytes(content)
    monkeypatch.setattr(foldseek_entries, "open_index", lambda index, sidecar_from: open_index(index, sidecar_from=0))
    code, text = run(capsys, "verify", str(path))
    assert code == 1 and "the binary index beside it has other starts than the text" in text


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """The group and each action."""
    for arguments, words in (
        ([], "joined by key"),
        (["verify"], "3.8 Angstrom"),
        (["export"], "convert2fasta"),
        (["head"], "masked residues"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["foldseek", *arguments, "--help"])
        assert stop.value.code == 0 and words in capsys.readouterr().out


def test_a_header_with_a_line_break_writes_no_record_of_its_own(
    entries: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, headers, aa = tmp_path / "db", tmp_path / "db_h", tmp_path / "aa.fasta"
    write_database(tmp_path, entries)
    whole = headers.read_bytes()
    headers.write_bytes(b"\n>" + whole[2:])
    code, _ = run(capsys, "export", str(path), "--aa", str(aa))
    lines = aa.read_text().splitlines()
    assert code == 0 and len(lines) == 2 * len(entries) and lines[0].startswith(">_>")
