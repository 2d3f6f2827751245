"""Tests of databases that `mmseqs createdb` makes of UniProt FASTA: names have accessions, and there are no structures."""

from __future__ import annotations

from pathlib import Path

import pytest

from protlig_dd.cli.entry import main
from protlig_dd.data.foldseek.names import identifier_of
from protlig_dd.data.foldseek.pairs import FoldseekDB
from protlig_dd.data.foldseek.table import read_database
from protlig_dd.data.foldseek.verify import Verifier
from protlig_dd.data.foldseek.writer import Entry, write_database
from protlig_dd.errors import FormatError

FASTA = {
    "sp|P0DTC2|SPIKE_SARS2 Spike glycoprotein OS=Severe acute respiratory syndrome coronavirus 2 OX=2697049": "MFVFLVLLPLVSSQ",
    "tr|A7TBS3|A7TBS3_NEMVE Predicted protein (Fragment) OS=Nematostella vectensis OX=45351 GN=v1g9 PE=4 SV=1": "MKUXBZ*KV",
    "UniRef50_Q8WZ42 Titin n=5 Tax=Euteleostomi TaxID=117571 RepID=TITIN_HUMAN": "mtTQAPTFTQ",
    "gi|129295|ref|NP_990592.1| ovalbumin [Gallus gallus]": "MGSIGAASME",
}
ACCESSIONS = ["P0DTC2", "A7TBS3", "UniRef50_Q8WZ42", "NP_990592.1"]


def made_by_mmseqs(folder: Path) -> Path:
    """Write the files of `mmseqs createdb`: one data file for letters and headers each, in the order of the keys."""
    path = folder / "db"
    for ending, texts, kind in (("", FASTA.values(), 0), ("_h", FASTA, 12)):
        data, rows = b"", []
        for key, text in enumerate(texts):
            payload = text.encode() + b"\n\0"
            rows.append(f"{key}\t{len(data)}\t{len(payload)}\n")
            data += payload
        (folder / f"db{ending}").write_bytes(data)
        (folder / f"db{ending}.index").write_text("".join(rows))
        (folder / f"db{ending}.dbtype").write_bytes(kind.to_bytes(4, "little"))
    (folder / "db.lookup").write_text("".join(f"{key}\t{name}\t0\n" for key, name in enumerate(ACCESSIONS)))
    (folder / "db.source").write_text("0\tuniprot.fasta\n")
    return path


def test_it_has_no_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_by_mmseqs(tmp_path)
    assert main(["foldseek", "verify", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: read entries: 4 of db, 4 of db_h\nno faults\n"


@pytest.mark.parametrize("headers", [True, False])
def test_entries_are_found_by_accession_and_by_name(tmp_path: Path, headers: bool) -> None:
    path = made_by_mmseqs(tmp_path)
    names = [header.split()[0] for header in FASTA]
    if not headers:
        for file in tmp_path.glob("db_h*"):
            file.unlink()
    with FoldseekDB(path, keep_case=True) as db:
        assert [db.row_of_name(name) for name in ACCESSIONS] == [db.row_of_name(name) for name in names] == [0, 1, 2, 3]
        assert [db.name(row) for row in range(4)] == (names if headers else ACCESSIONS)
        if headers:
            with pytest.raises(FormatError, match="no entry 'sp|A7TBS3|OTHER'"):
                db.row_of_name("sp|A7TBS3|OTHER")
    assert [record.texts["protein"] for record in read_database(path)] == [text.upper() for text in FASTA.values()]


def test_another_accession_is_still_a_fault(tmp_path: Path) -> None:
    path = made_by_mmseqs(tmp_path)
    lookup = path.with_name("db.lookup")
    lookup.write_text(lookup.read_text().replace("A7TBS3", "A7TBS4"))
    (fault,) = Verifier(path).faults()
    assert fault.startswith(f"{lookup}:2: found the name b'A7TBS4', the header of key 1 says 'tr|A7TBS3|A7TBS3_NEMVE'")


def test_identifiers_are_those_of_mmseqs() -> None:
    names = {
        "tr|A7TBS3|A7TBS3_NEMVE": "A7TBS3", "consensus_sp|P1|X": "P1", "consensus_x": "x", "pdb|1abc|A": "1abc", "pir||A12345": "A12345",
        "gnl|db|x1": "x1", "gi|129295|ref|NP_990592.1|": "NP_990592.1", "gb|AAA1": "AAA1", "uc118-P1|n": "118-P1", "lcl|mine": "mine",
        "1tim_A": "1tim_A", "AF-P12345-F1-model_v4": "AF-P12345-F1-model_v4", "UniRef50_Q8WZ42": "UniRef50_Q8WZ42", "a|b": "a|b",
        "gnl|x": "", "": "",
    }  # fmt: skip
    assert {name: identifier_of(name) for name in names} == names


def test_a_written_lookup_has_the_identifiers_and_no_faults(tmp_path: Path) -> None:
    write_database(tmp_path / "db", [Entry(name=header, sequence="MKV", structure="DVD") for header in FASTA])
    lines = (tmp_path / "db.lookup").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines] == ACCESSIONS and not list(Verifier(tmp_path / "db").faults())


def test_a_database_that_points_into_its_fasta_file_says_so(tmp_path: Path) -> None:
    """As `createdb --createdb-mode 1` makes it: the letters have no terminators of their own."""
    path, fasta = made_by_mmseqs(tmp_path), ""
    rows = []
    for key, (header, text) in enumerate(FASTA.items()):
        fasta += f">{header}\n"
        rows.append(f"{key}\t{len(fasta)}\t{len(text) + 2}\n")
        fasta += f"{text}\n"
    path.write_text(fasta)
    path.with_name("db.index").write_text("".join(rows))
    (fault,) = Verifier(path).faults()
    assert fault.startswith(f"{path}: found a FASTA file, expected entries") and fault.endswith("createdb --createdb-mode 0")
