"""Tests of TM-scores: identities, invariances, a moved domain, the dynamic programme against brute force, and recorded values."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from protlig_dd.structures.structure_io import read_structure
from protlig_dd.structures.superpose import rmsd, superpose
from protlig_dd.structures.tm_align import align_chains, dynamic_alignment, secondary_structure
from protlig_dd.structures.tm_score import tm_d0, tm_score
from tests.support.chains import helix, moved, rotation, strand, walk

RECORDED = (
    ("d1or4a_", "d1h97a_", 0.6235, 0.7009),
    ("d1tu9a_", "d1asha_", 0.7789, 0.7061),
    ("d2gdma_", "d1asha_", 0.7143, 0.7375),
    ("d2nrla_", "d1cg5a_", 0.8310, 0.8522),
    ("d3lb2a_", "d1naza_", 0.8419, 0.7592),
    ("1tim.pdb.gz", "8tim_cif.cif", 0.9775, 0.9775),
)
"""Real chains with the TM-scores of TM-align (its code as packed in tmtools 0.3.0), normalised by the first and the second."""


def swung(chain: np.ndarray, seed: int) -> np.ndarray:
    """Return a chain whose second half has turned about the joint."""
    half = len(chain) // 2
    turned = chain.copy()
    turned[half:] = (turned[half:] - turned[half]) @ rotation(seed).T + turned[half]
    return turned


def test_d0_is_the_formula() -> None:
    assert tm_d0(150) == pytest.approx(1.24 * 135 ** (1 / 3) - 1.8)
    assert tm_d0(150) == pytest.approx(4.56111, abs=1e-5)
    assert tm_d0(10) == tm_d0(16) == 0.5


@given(st.integers(0, 40), st.integers(5, 80))
@hypothesis_settings(max_examples=25)
def test_a_moved_copy_has_1_and_the_score_ignores_rigid_motion(seed: int, length: int) -> None:
    chain, other = walk(length, seed), walk(length, seed + 1)
    assert tm_score(moved(chain, seed), chain).value == pytest.approx(1, abs=1e-6)
    value = tm_score(chain, other).value
    assert tm_score(moved(chain, seed), moved(other, seed + 9)).value == pytest.approx(value, abs=2e-3)
    assert tm_score(other, chain).value == pytest.approx(value, abs=2e-2), "symmetric up to the search"
    fixed = superpose(chain, other)
    squared = ((fixed.apply(chain) - other) ** 2).sum(-1)
    assert value >= (1 / (1 + squared / tm_d0(length) ** 2)).mean() - 1e-9, "never below Kabsch's superposition"


def test_the_score_is_what_its_superposition_gives() -> None:
    chain, other = walk(60, 1), swung(walk(60, 1), 4)
    found = tm_score(chain, other)
    squared = ((found.superposition.apply(chain) - other) ** 2).sum(-1)
    assert found.value == pytest.approx((1 / (1 + squared / tm_d0(60) ** 2)).mean(), abs=1e-9)


def test_swung_and_shaken_domains_score_as_the_program_scores_them() -> None:
    """Recorded with tmtools 0.3.0 at a given alignment; superposing all pairs alone gives up to 0.2 less."""
    recorded = [0.43208, 0.49154, 0.407, 0.41301, 0.41458, 0.46927]
    for seed, expected in enumerate(recorded):
        chain = walk(140, 20 + seed)
        shaken = swung(chain, seed) + np.random.default_rng(seed).normal(size=chain.shape) * 1.5
        assert tm_score(moved(shaken), chain).value == pytest.approx(expected, abs=5e-4)


def test_a_domain_that_has_swung_still_scores_a_half() -> None:
    """Kabsch's superposition splits the difference and scores far less."""
    chain = walk(120, 5)
    other = swung(chain, 3)
    squared = ((superpose(other, chain).apply(other) - chain) ** 2).sum(-1)
    at_kabsch = (1 / (1 + squared / tm_d0(120) ** 2)).mean()
    found = tm_score(other, chain).value
    assert found > 0.5
    assert found > at_kabsch + 0.1


def test_a_mirror_image_is_not_the_same_fold() -> None:
    chain = walk(100, 2)
    assert tm_score(chain * [1, 1, -1], chain).value < 0.4


def test_missing_residues_lower_the_score_by_their_share() -> None:
    chain, copy = walk(50, 0), moved(walk(50, 0))
    copy[:10] = np.nan
    assert tm_score(copy, chain).value == pytest.approx(40 / 50, abs=1e-6)
    assert tm_score(copy, chain, norm_length=40).value == pytest.approx(1, abs=1e-6)
    assert tm_score(chain, copy).value == pytest.approx(1, abs=1e-6), "normalised by the target"
    with pytest.raises(ValueError, match="found no residue with coordinates in both"):
        tm_score(np.full((5, 3), np.nan), chain[:5])
    with pytest.raises(ValueError, match="expected equal ones"):
        tm_score(chain[:5], chain)


def all_alignments(num: int, width: int) -> list[list[tuple[int, int]]]:
    found = []
    for size in range(1, min(num, width) + 1):
        for rows in itertools.combinations(range(num), size):
            found += [list(zip(rows, columns, strict=True)) for columns in itertools.combinations(range(width), size)]
    return found


def priced(pairs: list[tuple[int, int]], scores: np.ndarray, opening: float) -> float:
    total = sum(scores[i, j] for i, j in pairs)
    for (a, b), (c, d) in itertools.pairwise(pairs):
        total += opening * ((c - a > 1) + (d - b > 1))
    return float(total)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5), st.sampled_from([-1.0, -0.6, 0.0]))
def test_the_dynamic_programme_is_the_best_of_all_alignments(seed: int, num: int, width: int, opening: float) -> None:
    scores = 3 * np.random.default_rng(seed).uniform(size=(num, width)) ** 6  # few high ones, worth a gap or two
    found = [(int(i), int(j)) for i, j in dynamic_alignment(scores, opening)]
    best = max(priced(pairs, scores, opening) for pairs in all_alignments(num, width))
    assert priced(found, scores, opening) == pytest.approx(best)


def test_secondary_structure_is_seen_in_ideal_pieces() -> None:
    assert secondary_structure(helix(12)).tolist() == [0, 0, *[1] * 8, 0, 0]
    assert secondary_structure(strand(12)).tolist() == [0, 0, *[2] * 8, 0, 0]


def test_a_chain_aligns_with_itself_and_with_a_piece_of_itself() -> None:
    chain = walk(90, 7)
    same = align_chains(moved(chain), chain)
    assert (same.tm_first, same.tm_second) == pytest.approx((1, 1), abs=1e-6)
    assert same.pairs.tolist() == [[i, i] for i in range(90)]
    assert same.rmsd < 1e-6
    piece = align_chains(moved(chain[20:70]), chain)
    assert piece.tm_first == pytest.approx(1, abs=1e-6)
    assert piece.tm_second == pytest.approx(50 / 90, abs=0.02)
    assert piece.pairs.tolist() == [[i, i + 20] for i in range(50)]


def test_a_loop_that_one_chain_lacks_becomes_a_gap() -> None:
    chain = walk(100, 8)
    cut = np.concatenate([chain[:45], chain[60:]])
    found = align_chains(moved(cut), chain)
    assert found.tm_first > 0.97
    expected = {(i, i if i < 45 else i + 15) for i in range(85)}
    assert len(expected & {(int(i), int(j)) for i, j in found.pairs}) >= 80


def test_residues_without_coordinates_keep_their_numbers() -> None:
    chain = walk(60, 9)
    holed = moved(chain)
    holed[10:13] = np.nan
    found = align_chains(holed, chain)
    assert all(i == j for i, j in found.pairs)
    assert not {10, 11, 12} & set(found.pairs[:, 0].tolist())
    with pytest.raises(ValueError, match="found chains of 4 and 60 residues with coordinates, expected at least 5"):
        align_chains(chain[:4], chain)


def ca_of(folder: Path, name: str, chain: int = 0) -> np.ndarray:
    pytest.importorskip("gemmi")
    found = read_structure(folder / ("cif" if name.endswith(".cif") else "pdb") / name).chains[chain]
    return found.ca[found.has_ca].astype(np.float64)


@pytest.mark.data
def test_real_chains_score_as_tm_align_scores_them(shared: Path) -> None:
    """Ours may find a better alignment, but none that is worse by more than 0.02."""
    folder = shared / "data" / "foldseek_example" / "structures"
    for first, second, by_first, by_second in RECORDED:
        found = align_chains(ca_of(folder, first), ca_of(folder, second, 1 if second.endswith(".cif") else 0))
        assert -0.02 < found.tm_first - by_first < 0.04, (first, second, found.tm_first)
        assert -0.02 < found.tm_second - by_second < 0.04, (first, second, found.tm_second)


@pytest.mark.data
def test_unlike_chains_are_aligned_about_as_well_as_by_tm_align(shared: Path) -> None:
    """Pairs of another fold, for which the starts matter: the scores of TM-align (tmtools 0.3.0), of which few are reached without fragments."""
    folder = shared / "data" / "foldseek_example" / "structures"
    recorded = (
        ("d1cqxa1", 0, "1tim.pdb.gz", 1, 0.3797, 0.2590),
        ("d3lb2a_", 0, "1tim.pdb.gz", 0, 0.3777, 0.2490),
        ("8tim.pdb.gz", 1, "d2nrla_", 0, 0.2757, 0.4045),
        ("6nrzA01.pdb", 0, "d2nrla_", 0, 0.2826, 0.2946),
        ("d3g46a_", 0, "2hoxA01.pdb", 0, 0.2322, 0.3018),
    )
    for thorough, lowest in ((True, -0.02), (False, -0.03)):
        above = []
        for first, i, second, j, *scores in recorded:
            found = align_chains(ca_of(folder, first, i), ca_of(folder, second, j), thorough=thorough)
            above += [found.tm_first - scores[0], found.tm_second - scores[1]]
        assert min(above) > lowest and np.mean(above) > 0, (thorough, above)


@pytest.mark.data
def test_real_chains_cut_and_permuted_behave_as_they_should(shared: Path) -> None:
    """A cut chain is found whole in its source; a circular permutation, in which order is kept by parts only, scores its longer part."""
    folder = shared / "data" / "foldseek_example" / "structures"
    globin = ca_of(folder, "d1asha_")
    cut = align_chains(moved(globin[30:120]), globin)
    assert cut.tm_first == pytest.approx(1, abs=1e-3)
    permuted = align_chains(moved(np.concatenate([globin[50:], globin[:50]])), globin)
    assert 0.6 < permuted.tm_first < 0.8
    mirror = align_chains(globin * [1, 1, -1], globin)
    assert mirror.tm < 0.45
    unrelated = align_chains(ca_of(folder, "2hoxA01.pdb"), globin)
    assert unrelated.tm < 0.5 < align_chains(ca_of(folder, "d1ecaa_"), globin, thorough=False).tm
    assert rmsd(globin, moved(globin)) < 1e-5
