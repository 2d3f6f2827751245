"""FASTA: comments are no residues, other molecules are no proteins, and no record is longer than the bound."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from pathlib import Path

import pytest

from protlig_dd.data.bundle import load
from protlig_dd.data.inspect import inspect
from protlig_dd.data.readers.sequences import join_structures, read_fasta, read_sequences
from protlig_dd.data.settings import SequenceData
from protlig_dd.errors import FormatError
from protlig_dd.tokens.settings import ProteinTrack

TRACKS = {"protein": ProteinTrack(unknown="X").build("protein")}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_comments_are_skipped_wherever_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fasta", "# made by hand\n;note\n>a\n; made by hand on monday\nMKT\n  # nnnnhhhh\nAYI\n>b\n;two\n;end\nGSH\n")
    assert [(r.name, r.texts["protein"]) for r in read_sequences(path)] == [("a", "MKTAYI"), ("b", "GSH")]
    assert inspect(path).kind == "sequences" and inspect(write(tmp_path / "a.txt", path.read_text())).kind == "sequences"


@pytest.mark.parametrize("name", ["a.fasta", "a.fa", "a.faa.gz"])
def test_a_file_called_fasta_is_never_molecules(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"CCO\n") if name.endswith(".gz") else b"CCO\n")
    with pytest.raises(FormatError, match=r"found 'CCO', expected '>' and a name"):
        inspect(tmp_path / name)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("ligand|name=GDP", "'ligand'"),
        ("B|smiles", "'smiles'"),
        ("C|ccd", "'ccd'"),
        ("rna|r1", "'rna'"),
        ("100d_A mol:na length:10", "'mol:na'"),
    ],
)
def test_a_record_that_says_it_is_no_protein_is_not_read_as_one(tmp_path: Path, header: str, found: str) -> None:
    path = write(tmp_path / "a.fasta", f">protein|name=6OIM\nMKTAYIAK\n>A|protein|empty\nGSHM\n>{header}\nNCC\n")
    assert [record.problem is None for record in read_fasta(path)] == [True, True, False]
    report = inspect(path).encoded
    assert report.dropped == {f"{found} by the header": 1}
    with pytest.raises(FormatError, match=rf"a\.fasta:5: the header '>.*' says {found}, expected a protein; remove it"):
        load(SequenceData(path=str(path)), TRACKS)


@pytest.mark.parametrize("header", ["sp|P12345|NAME_HUMAN", "1abc_A mol:protein length:10", "pdb|1ABC|A", "ligand-binding protein"])
def test_headers_of_databases_are_proteins(tmp_path: Path, header: str) -> None:
    (record,) = read_fasta(write(tmp_path / "a.fasta", f">{header}\nNCC\n"))
    assert record.problem is None


def test_pir_files_are_refused(tmp_path: Path) -> None:
    """The line after their header is a title, whose letters would pass as residues."""
    with pytest.raises(FormatError, match=r"a\.pir:1: found '>P1;CRAB_ANAPL', the header of a PIR file, expected FASTA; convert the file"):
        list(read_fasta(write(tmp_path / "a.pir", ">P1;CRAB_ANAPL\nALPHA CRYSTALLIN\nMDITIHN*\n")))


@pytest.mark.parametrize("lines", [1, 50])
def test_a_record_over_the_bound_is_refused_as_soon_as_it_is(tmp_path: Path, lines: int) -> None:
    path = write(tmp_path / "a.fasta", ">a\nMKT\n>b\n" + ("M" * (1000 // lines) + "\n") * lines)
    assert [len(r.texts["protein"]) for r in read_fasta(path, max_record=1000)] == [3, 1000]
    records = read_fasta(path, max_record=999)
    assert next(records).name == "a"
    with pytest.raises(
        FormatError, match=r"a\.fasta:[34]: found a record of more than 999 characters, reading stopped there; remove it, or raise"
    ):
        next(records)
    with pytest.raises(FormatError, match="more than 999 characters"):
        load(SequenceData(path=str(path), max_record=999), TRACKS)


@pytest.mark.parametrize("pack", ["gz", "zst"])
@pytest.mark.parametrize("name", ["a.fasta", "a.smi"])
def test_a_small_file_that_unpacks_to_one_endless_record_is_not_unpacked(tmp_path: Path, name: str, pack: str) -> None:
    path = tmp_path / f"{name}.{pack}"
    text = (b">a\n" if name == "a.fasta" else b"") + b"C" * 60_000_000
    if pack == "gz":
        path.write_bytes(gzip.compress(text, 1))
    else:
        path.write_bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(text))
    tracemalloc.start()
    with pytest.raises(FormatError, match="found a record of more than 1,000,000 characters, reading stopped there"):
        inspect(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45_000_000


def test_structures_are_joined_past_a_protein_that_is_none(tmp_path: Path) -> None:
    proteins = write(tmp_path / "p.fasta", ">a\nMKT\n>rna|b\nACG\n>c\nGSH\n")
    for order in itertools.permutations([(">a", "DDD"), (">rna|b", "PPP"), (">c", "VVV")]):
        structures = write(tmp_path / "s.fasta", "".join(f"{name}\n{text}\n" for name, text in order))
        joined = {
            r.name: (r.texts.get("protein"), r.texts.get("structure"), r.problem is None)
            for r in join_structures(lambda: read_fasta(proteins), structures)
        }
        assert joined == {"a": ("MKT", "DDD", True), "rna|b": ("ACG", "PPP", False), "c": ("GSH", "VVV", True)}
