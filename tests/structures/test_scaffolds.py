"""Tests of motif scaffolding: parsing, finding residues in odd structures, uniform linkers, and the places of motif residues."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.structures.contigs import IndexedSegment, Linker, NumberedSegment, parse_motif
from protlig_dd.structures.scaffold_problems import PROBLEMS, find_problem
from protlig_dd.structures.scaffolds import Motif, Piece, read_motif, resolve
from protlig_dd.structures.structure_io import ATOMS, Chain, Gap, Structure, read_structure
from tests.support.chains import pdb_text


def chain(name: str, letters: str, numbers: list[str] | None = None, gaps: tuple[Gap, ...] = ()) -> Chain:
    coords = np.arange(len(letters) * 15, dtype=np.float32).reshape(len(letters), len(ATOMS), 3)
    made = Chain.of_coordinates(letters, coords, name=name)
    return Chain(**{**vars(made), "numbers": tuple(numbers or made.numbers), "gaps": gaps})


def piece(letters: str) -> Piece:
    numbers = tuple(str(i) for i in range(len(letters)))
    return Piece(letters=letters, numbers=numbers, coords_angstrom=np.zeros((len(letters), 5, 3), np.float32))


ODD = Structure(
    source="odd.pdb",
    chains=(
        chain("A", "ACDEFGHIKL", ["-2", "-1", "0", "1", "52", "52A", "52B", "53", "60", "61"], (Gap(after=7, num_missing=6),)),
        chain("B", "MNPQXRST"),
        chain("1", "VWYA"),
    ),
)  # fmt: skip


def test_a_motif_is_read_part_by_part() -> None:
    spec = parse_motif("5-20, A15-34,10,B-5--1,1:7,H52A-52C,0", total="60-90")
    assert spec.items == (
        Linker(low=5, high=20),
        NumberedSegment(chain="A", first="15", last="34"),
        Linker(low=10, high=10),
        NumberedSegment(chain="B", first="-5", last="-1"),
        NumberedSegment(chain="1", first="7", last="7"),
        NumberedSegment(chain="H", first="52A", last="52C"),
        Linker(low=0, high=0),
    )
    assert spec.total == Linker(low=60, high=90)
    assert ",".join(map(str, spec.items)) == "5-20,A15-34,10,B-5--1,1:7,H52A-52C,0"


@pytest.mark.parametrize("text", ["12-20/B4-6/1-5/B8-9/1-5", "[12-20/B4-6/1-5/B8-9/1-5]", "12-20,B4-6,1-5,B8-9,1-5"])
def test_rfdiffusions_form_is_read_too(text: str) -> None:
    assert ",".join(map(str, parse_motif(text).items)) == "12-20,B4-6,1-5,B8-9,1-5"


@pytest.mark.parametrize("text", ["2-4,:3-5,2-4", "2-4,blank:3-5,2-4"])
def test_a_chain_without_a_name_can_be_written(text: str) -> None:
    motif = read_motif(text, Structure(source="x.pdb", chains=(chain("", "ACDEFG"), chain("B", "KKKKKK"))))
    assert motif.template(0).text.strip("_") == "DEF"
    assert str(parse_motif(":3-5").items[0]) == ":3-5"


def test_of_two_polymers_of_one_chain_the_one_with_the_number_is_meant() -> None:
    structure = Structure(source="x.cif", chains=(chain("A", "ACDEFG"), chain("A", "KLMN", ["301", "302", "303", "304"])))
    assert read_motif("A2-3,1,A302-303", structure).template(0).text == "CD_LM"
    with pytest.raises(FormatError, match="residue 99 is not in chain A"):
        read_motif("A99", structure)


def test_a_problem_of_the_benchmark_takes_only_its_own_entry() -> None:
    """By what the file says; cleaned files say nothing and have the entry in their name."""
    made = chain("A", "ACDEFGHIKLMNPQRSTVWY" * 5)
    for source, entry in (("1PRW_clean.pdb", ""), ("mine.cif", "1PRW"), ("1prw.pdb", "1prw")):
        assert read_motif("1PRW", Structure(source=source, chains=(made,), entry=entry)).num_residues == 40
    for source, entry, found in (("1prw.pdb", "2ABC", "the entry 2ABC"), ("mine.pdb", "", "no name of a PDB entry")):
        with pytest.raises(FormatError, match=rf"{source}: found {found}.*, expected 1PRW.*give 1prw.pdb, or write the motif"):
            read_motif("1prw", Structure(source=source, chains=(made,), entry=entry))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A15-", "found 'A15-', expected a segment such as A15-34"),
        ("5-20", "found no segment, expected at least one such as A15-34"),
        ("A1-5,20-5", "found '20-5', expected the smaller length first; write 5-20"),
        ("A1-5,", "found '', expected a segment"),
        ("A1-5,-3", "found '-3', expected a segment"),
        ("5,A1-B5", "found 'A1-B5', expected a segment such as A15-34 .*; 1:15-34 for a chain called 1, :15-34 for one without a name"),
        (":", "found ':', expected a segment"),
        ("A1-5/0 20-30", "found the chain break '/0 20-30', expected a motif for one new chain; leave the break out"),
        ("A1-B5", "found 'A1-B5', expected a segment"),
        ("7MRX", "several problems of that name, expected one of 7MRX_60, 7MRX_85, 7MRX_128"),
    ],
)
def test_what_is_no_motif_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_motif(text, ODD)


def test_segments_of_several_chains_with_insertion_codes_land_where_the_template_says() -> None:
    motif = read_motif("2,A1-52B,3,1:2-3,B1-2,1", ODD)
    made = motif.template(0)
    assert made.text == "__EFGH___WYMN_"
    assert made.segments == ((2, 3, 4, 5), (9, 10), (11, 12)), "segments that touch stay two"
    assert made.linkers == (2, 3, 1)
    assert "".join(made.text[i] for i in made.positions) == "EFGHWYMN"
    expected = np.concatenate([ODD.chains[0].ca[3:7], ODD.chains[2].ca[1:3], ODD.chains[1].ca[:2]])
    np.testing.assert_array_equal(motif.coords_angstrom[:, 1], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5,A52B-60", r"odd\.pdb: motif segment A52B-60: 6 residues are missing between 53 and 60 of chain A; end one segment"),
        ("A1-9", r"residue 9 is not in chain A, which has -2-53, 60-61; choose residues that are there"),
        ("A52A-52", "residue 52 stands before 52A; name the first residue first"),
        ("B3-6", r"residue 5 \(UNK\) of chain B is none of the twenty amino acids; leave it out"),
        ("Q1-2", r"odd\.pdb: found no protein chain 'Q', expected one of A \(10 residues\), B"),
    ],
)
def test_a_motif_that_is_not_there_gets_one_line(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_motif(text, ODD)
    assert "\n" not in str(caught.value)


def test_a_residue_without_c_alpha_is_refused() -> None:
    holed = chain("A", "ACD")
    holed.coords_angstrom[1, 1] = np.nan
    with pytest.raises(FormatError, match=r"residue 2 \(CYS\) of chain A has no C-alpha"):
        read_motif("A1-3", Structure(source="x", chains=(holed,)))


@pytest.mark.parametrize("total", ["1-6", "40", "30-99"])
def test_a_total_length_that_no_linkers_give_is_refused(total: str) -> None:
    with pytest.raises(ConfigError, match=f"its 4 residues and linkers give 7-29 residues, never the total length {total}"):
        read_motif("1-5,A-2-1,2-20", ODD, total=total)


linkers = st.tuples(st.integers(0, 3), st.integers(0, 4)).map(lambda t: Linker(low=t[0], high=t[0] + t[1]))


@given(st.lists(linkers, max_size=4), st.one_of(st.none(), linkers), st.integers(0, 9))
def test_every_permitted_combination_of_linkers_has_one_number(chosen: list[Linker], total: Linker | None, shift: int) -> None:
    allowed = None if total is None else Linker(low=total.low + shift, high=total.high + shift)
    motif = Motif(pieces=(piece("AC"), *chosen), total=allowed)
    expected = [
        lengths
        for lengths in itertools.product(*(range(linker.low, linker.high + 1) for linker in chosen))
        if allowed is None or allowed.low <= 2 + sum(lengths) <= allowed.high
    ]
    assert [motif.linker_lengths(i) for i in range(motif.num_combinations)] == expected


def test_linker_lengths_are_drawn_uniformly_over_the_permitted_combinations() -> None:
    """Each of the combinations within 4 standard errors of its share; the right end of the benchmark's own draw is not uniform here."""
    motif = Motif(
        pieces=(Linker(low=0, high=4), piece("AC"), Linker(low=1, high=3), piece("D"), Linker(low=0, high=5)), total=Linker(low=6, high=8)
    )
    num = 2500
    counts = Counter(motif.template(i, seed=3).linkers for i in range(num))
    share = 1 / motif.num_combinations
    assert len(counts) == motif.num_combinations > 20
    error = math.sqrt(num * share * (1 - share))
    assert all(abs(count - num * share) < 4 * error for count in counts.values())


def test_a_template_depends_on_its_seed_and_number_only() -> None:
    motif = read_motif("0-50,A-2-1,0-50,B1-2,0-50", ODD, total="100-110")
    first = [motif.template(i, seed=1) for i in range(20)]
    assert [motif.template(i, seed=1) for i in reversed(range(20))] == first[::-1]
    assert len({made.linkers for made in first}) > 10
    assert first != [motif.template(i, seed=2) for i in range(20)]
    for made in first:
        assert 100 <= len(made.text) <= 110
        assert [made.text[i] for i in made.positions] == list("ACDEMN")
        assert made.text.count("_") == len(made.text) - 6 == sum(made.linkers)


def test_more_combinations_than_a_machine_word_holds_are_drawn_too() -> None:
    motif = Motif(pieces=(piece("A"), *(Linker(low=0, high=1000) for _ in range(12))))
    assert motif.num_combinations == 1001**12 > 2**64
    drawn = np.array([motif.template(i).linkers for i in range(400)])
    assert (np.abs(drawn.mean(0) - 500) < 4 * 289 / 20).all()


def test_the_benchmark_has_its_24_problems() -> None:
    assert len(PROBLEMS) == len({problem.name for problem in PROBLEMS}) == 24
    assert len({problem.pdb_id for problem in PROBLEMS}) == 16
    bcf = find_problem("1bcf")
    assert bcf is not None
    assert [str(i) for i in bcf.spec.items if isinstance(i, Linker)] == ["8-15", "16-30", "16-30", "16-30", "8-15"]
    assert [(i.first, i.last) for i in bcf.spec.items if isinstance(i, IndexedSegment)] == [(90, 98), (122, 129), (46, 53), (17, 24)]  # fmt: skip
    assert find_problem("2abc") is None


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_every_problem_makes_templates_within_its_total_length(problem: object) -> None:
    segments = [i for i in problem.spec.items if isinstance(i, IndexedSegment)]  # type: ignore[attr-defined]
    letters = "ACDEFGHIKLMNPQRSTVWY" * 20
    structure = Structure(source="x", chains=(chain(segments[0].chain, letters[:400]),))
    motif = resolve(problem.spec, structure)  # type: ignore[attr-defined]
    made = motif.template(5)
    kept = "".join(letters[s.first : s.last + 1] for s in segments)
    assert "".join(made.text[i] for i in made.positions) == kept
    allowed = motif.total or motif.lengths
    assert allowed.low <= len(made.text) <= allowed.high
    short = Structure(source="x", chains=(chain(segments[0].chain, letters[: max(s.last for s in segments)]),))
    with pytest.raises(FormatError, match="residues with coordinates, expected at least"):
        resolve(problem.spec, short)  # type: ignore[attr-defined]


def test_a_file_says_its_entry(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    path, text = tmp_path / "x.pdb", pdb_text([("ALA", "1"), ("GLY", "2")])
    for line, entry in (("HEADER    CALCIUM BINDING PROTEIN                 09-JUN-02   1PRW              ", "1PRW"), ("REMARK", "")):
        path.write_text(f"{line}\n{text}")
        assert read_structure(path).entry == entry


def test_a_motif_with_mse_comes_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    path = tmp_path / "mine.pdb"
    numbers = [("ALA", "1"), ("MSE", "2"), ("TRP", "3"), ("GLY", "7"), ("SER", "7A"), ("THR", "8")]
    path.write_text(pdb_text(numbers) + pdb_text([("PRO", "1"), ("VAL", "2")], chain="B"))
    made = read_motif("1-4,A2-3,2,B1,A7A-8,1-4", path, total="9-10").template(7)
    assert made.text.strip("_") == "MW__PST"
    assert 9 <= len(made.text) <= 10
    with pytest.raises(FormatError, match="3 residues are missing between 3 and 7"):
        read_motif("A2-7", path)


@pytest.mark.data
def test_real_chains_with_jumping_numbers_are_read(shared: Path) -> None:
    """d3mkbb_ lacks 45-47; d1x9fc_ and d1cg5b_ are whole within the segment."""
    pytest.importorskip("gemmi")
    folder = shared / "data" / "foldseek_example" / "structures" / "pdb"
    with pytest.raises(FormatError, match="3 residues are missing between 44 and 48 of chain B"):
        read_motif("5-9,B40-50", folder / "d3mkbb_")
    found = read_structure(folder / "d3mkbb_").chain("B")
    start = found.index_of["48"]
    assert read_motif("5,B48-61,5", folder / "d3mkbb_").template(0).text.strip("_") == found.sequence[start : start + 14]
