"""Tests of 3Di letters: equal to Foldseek's own on every residue of real chains, and what holds for any chain."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.data.foldseek.letters import THREE_DI
from protlig_dd.structures.foldseek_chains import read_foldseek_chains, threedi_of
from protlig_dd.structures.threedi import encode_3di, partners_in_blocks
from tests.support.backbones import backbone, entries_of
from tests.support.chains import rotation, walk

mini3di = pytest.importorskip("mini3di")


def letters(coords: np.ndarray) -> str:
    n, ca, c, cb = np.moveaxis(coords, 1, 0)
    return encode_3di(n, ca, c, cb)


def folded(length: int, seed: int) -> np.ndarray:
    """A blob of a chain: random places for N, C and C-beta about a compact random trace."""
    draws = np.random.default_rng(seed)
    ca = walk(length, seed)
    shifts = draws.normal(size=(length, 4, 3))
    shifts *= 1.5 / np.linalg.norm(shifts, axis=-1, keepdims=True)
    shifts[:, 1] = 0
    return ca[:, None] + shifts


@pytest.mark.data
@pytest.mark.parametrize("folder", ["plain", "edge"])
def test_letters_and_residues_are_foldseeks_on_every_real_chain(shared: Path, folder: str) -> None:
    """All chains of the example set: 41 of domains and whole entries, and 16 of 17 odd ones (one has C-alpha atoms only)."""
    pytest.importorskip("gemmi")
    example = shared / "data" / "foldseek_example"
    expected_aa, expected_ss = (entries_of(example / folder / "db", suffix) for suffix in ("", "_ss"))
    places = ["pdb", "cif"] if folder == "plain" else ["edge"]
    compared = 0
    for path in sorted(p for place in places for p in (example / "structures" / place).iterdir()):
        for chain in read_foldseek_chains(path).chains:
            if chain.problem is not None:
                assert chain.entry_name not in expected_aa, f"Foldseek has {chain.entry_name}: {chain.problem}"
                continue
            assert chain.sequence.encode() + b"\n" == expected_aa.pop(chain.entry_name)
            theirs = expected_ss.pop(chain.entry_name)
            if chain.has_backbone:
                assert threedi_of(chain).encode() + b"\n" == theirs, chain.entry_name
                compared += len(chain.sequence)
            else:
                assert path.name == "e07_caonly.pdb"
    assert not expected_aa and not expected_ss
    assert compared == {"plain": 6324, "edge": 1475}[folder]


def test_letters_depend_on_the_shape_alone_and_not_even_on_its_hand() -> None:
    """3Di is made of distances and cosines, so a mirror image has the same letters: no check of chirality can rest on them."""
    chain = folded(80, seed=3)
    moved = chain @ rotation(5).T + np.array([30.0, -80.0, 11.0])
    assert letters(moved) == letters(chain)
    assert letters(chain * [1, 1, -1]) == letters(chain)
    assert letters(chain[::-1]) != letters(chain)
    assert letters(chain.astype(np.float32)) == letters(chain)


def test_ends_and_neighbours_of_missing_atoms_get_d() -> None:
    """A residue's letter takes three residues of backbone: one missing atom empties three letters, and those of its partners."""
    chain = folded(60, seed=1)
    whole = letters(chain)
    assert len(whole) == 60 and set(whole) <= set(THREE_DI[:-1])
    assert whole[0] == whole[-1] == "D" and set(whole) != {"D"}
    for atom in (0, 1, 2):
        holed = chain.copy()
        holed[30, atom, 1] = np.nan  # one coordinate is enough
        assert letters(holed)[29:32] == "DDD"
        assert sum(a == b for a, b in zip(letters(holed), whole, strict=True)) > 30
    assert letters(np.where(np.arange(4)[:, None] == 1, chain, np.nan)) == "D" * 60, "C-alpha atoms only"


def test_a_missing_c_beta_is_put_where_it_belongs() -> None:
    """Glycine has none: the ideal place gives the letters of a chain whose C-beta atoms are ideal."""
    coords = backbone(40, noise=0.05)
    n, ca, c, cb = np.moveaxis(coords, 1, 0)
    assert encode_3di(n, ca, c) == encode_3di(n, ca, c, np.full_like(cb, np.nan))
    glycine = cb.copy()
    glycine[[7, 20]] = np.nan
    same = [a == b for a, b in zip(encode_3di(n, ca, c, glycine), encode_3di(n, ca, c, cb), strict=True)]
    assert sum(same) >= 34


def test_an_atom_with_one_coordinate_that_is_no_number_is_missing_as_a_whole() -> None:
    """Never a C-beta put together of one given coordinate and two ideal ones; and infinity is no number either."""
    chain = folded(60, seed=4)
    whole, part, infinite = chain.copy(), chain.copy(), chain.copy()
    whole[10:50, 3] = np.nan
    part[10:50, 3, 1] = np.nan
    infinite[10:50, 3, 2] = np.inf
    assert letters(part) == letters(whole) == letters(infinite) != letters(chain)
    infinite[20, 0, 0] = -np.inf
    assert letters(infinite)[19:22] == "DDD"


@pytest.mark.parametrize("length", range(6))
def test_short_chains_have_as_many_letters_as_residues(length: int) -> None:
    """Below four residues none has a partner; mini3di itself would give the middle one of three a letter."""
    found = letters(backbone(length))
    assert len(found) == length
    if length < 4:
        assert found == "D" * length
    else:
        assert found[0] == found[-1] == "D"


def test_atoms_on_one_spot_and_numbers_that_are_none_raise_no_warning() -> None:
    chain = backbone(20)
    chain[5] = chain[5, 1]
    chain[9, 0] = np.inf
    chain[12] = np.nan
    before = chain.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = letters(chain)
    assert len(found) == 20 and set(found) <= set(THREE_DI[:-1])
    np.testing.assert_array_equal(chain, before)


@pytest.mark.parametrize("block", [7, 64, 512])
def test_partners_found_in_blocks_are_those_found_at_once(block: int) -> None:
    """Long chains are searched block by block, since l x l distances of 30,000 residues take 7 GB."""
    encoder = mini3di.Encoder().feature_encoder
    for seed in range(3):
        chain = folded(150, seed)
        chain[[4, 77, 78], 0] = np.nan
        n, ca, c, cb = np.moveaxis(chain, 1, 0)
        centres = encoder.vc_encoder.encode_atoms(ca, cb, n, c)
        expected = encoder.partner_index_encoder._find_residue_partners(centres.copy())
        there = ~centres.mask[:, 0] & (np.abs(np.arange(150) - 74.5) < 74)  # the ends have no use for a partner
        found = partners_in_blocks(centres, block)
        np.testing.assert_array_equal(found[there], expected[there])
        assert not np.isin(found[there], [0, 4, 77, 78, 149]).any() and (found != np.arange(150))[there].all()


def test_long_chains_take_the_search_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from protlig_dd.structures import threedi

    chain = folded(60, seed=2)
    expected = letters(chain)
    called = []
    monkeypatch.setattr(threedi, "_LONG", 50)
    monkeypatch.setattr(threedi, "partners_in_blocks", lambda x: called.append(len(x)) or partners_in_blocks(x, 16))
    assert letters(chain) == expected and called == [60]
