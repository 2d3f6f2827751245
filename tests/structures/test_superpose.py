"""Tests of superposition, RMSD and lDDT: identities, invariances, mirror images, hand-made values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.structures.lddt import lddt
from protlig_dd.structures.superpose import kabsch_batch, rmsd, superpose
from tests.support.chains import helix, moved, rotation, walk

seeds = st.integers(0, 10_000)


@given(seeds, st.integers(1, 40))
def test_a_moved_copy_has_rmsd_0_and_lddt_1_and_the_motion_is_found(seed: int, length: int) -> None:
    chain = np.random.default_rng(seed).normal(size=(length, 3)) * 8
    copy = moved(chain, seed)
    assert rmsd(copy, chain) < 1e-9
    assert rmsd(copy, chain, superposed=True) > 1
    np.testing.assert_allclose(superpose(copy, chain).apply(copy), chain, atol=1e-9)
    if length > 1:
        assert lddt(copy, chain).value == 1 or math.isnan(lddt(copy, chain).value)


@given(seeds)
def test_rmsd_is_symmetric_and_ignores_rigid_motion(seed: int) -> None:
    a, b = walk(30, seed % 50), walk(30, seed % 50 + 1)
    value = rmsd(a, b)
    assert rmsd(b, a) == pytest.approx(value, rel=1e-9)
    assert rmsd(moved(a, seed), moved(b, seed + 1)) == pytest.approx(value, rel=1e-9)
    assert value <= rmsd(a - a.mean(0), b - b.mean(0), superposed=True) + 1e-9


@given(seeds)
def test_no_rotation_near_the_found_one_is_better(seed: int) -> None:
    draws = np.random.default_rng(seed)
    a, b = draws.normal(size=(12, 3)), draws.normal(size=(12, 3))
    weights = draws.uniform(0.1, 2, size=12)
    best = superpose(a, b, weights)
    assert np.linalg.det(best.rotation) == pytest.approx(1)

    def cost(turn: np.ndarray) -> float:
        x = a @ turn.T
        gap = (x - b) - np.average(x - b, axis=0, weights=weights)
        return float((weights[:, None] * gap**2).sum())

    axis = draws.normal(size=3) * 1e-3
    small = np.array([[1, -axis[2], axis[1]], [axis[2], 1, -axis[0]], [-axis[1], axis[0], 1]])
    u, _, vt = np.linalg.svd(small)
    assert cost(best.rotation) <= cost(u @ vt @ best.rotation) + 1e-12
    assert cost(best.rotation) <= cost(rotation(seed)) + 1e-12


def test_a_mirror_image_is_another_structure_except_to_lddt() -> None:
    chain = helix(30)
    mirror = chain * np.array([1, 1, -1])
    assert rmsd(mirror, chain) > 2
    assert lddt(mirror, chain).value == 1


def test_hand_made_values() -> None:
    """A square against one whose corner is lifted: after superposition each corner is off by a quarter of the lift."""
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    saddle = square + np.array([[0, 0, 0.1], [0, 0, -0.1], [0, 0, 0.1], [0, 0, -0.1]])
    assert rmsd(saddle, square) == pytest.approx(0.1, abs=1e-9)
    assert rmsd(square + [3, 0, 0], square, superposed=True) == pytest.approx(3)
    line = np.array([[0.0, 0, 0], [4, 0, 0], [8, 0, 0], [30, 0, 0]])
    stretched = line + np.array([[0, 0, 0], [0, 0, 0], [1.5, 0, 0], [0, 0, 0]])
    # distances below 15: 4 (kept), 8 -> 9.5 and 4 -> 5.5 (kept at 2 and 4 only); the fourth residue has none
    found = lddt(stretched, line)
    assert found.value == pytest.approx((1 + 0.5 + 0.5) / 3)
    np.testing.assert_allclose(found.per_residue, [0.75, 0.75, 0.5, np.nan])


def test_distances_below_15_angstrom_count_and_no_others() -> None:
    """The inclusion radius of the paper, of the reference's distances."""
    for distance, value in ((13.9, 0.0), (14.1, 0.0), (14.9, 0.0), (15.0, math.nan), (15.1, math.nan)):
        pair = np.array([[0.0, 0, 0], [distance, 0, 0]])
        found = lddt(pair * 2, pair)
        np.testing.assert_equal(found.value, value)
        np.testing.assert_equal(lddt(pair, pair).value, 1.0 if value == 0 else math.nan)


def test_all_atoms_count_but_not_within_a_residue() -> None:
    atoms = np.stack([helix(12), helix(12) + [0, 0, 1.2]], axis=1)
    model = atoms.copy()
    model[:, 1] += [0, 0, 8.0]  # within a residue nothing counts; the second atoms keep their distances to each other only
    found = lddt(model, atoms)
    assert 0.3 < found.value < 0.7
    assert lddt(model[:, 0], atoms[:, 0]).value == 1
    model[3, 1] = np.nan
    assert lddt(model, atoms).value < found.value, "an atom that the model lacks is not kept"
    reference = atoms.copy()
    reference[3, 1] = np.nan
    assert lddt(atoms, reference).value == 1, "an atom that the reference lacks does not count"


def test_missing_residues_take_no_part() -> None:
    chain, copy = walk(20, 3), moved(walk(20, 3))
    copy[4], chain[9] = np.nan, np.nan
    assert rmsd(copy, chain) < 1e-9
    with pytest.raises(ValueError, match="found no point with coordinates in both"):
        rmsd(np.full((3, 3), np.nan), np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"found the shapes \(3, 3\) and \(4, 3\)"):
        rmsd(np.zeros((3, 3)), np.zeros((4, 3)))


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    draws = np.random.default_rng(2)
    a, b, weights = draws.normal(size=(5, 9, 3)), draws.normal(size=(5, 9, 3)), draws.uniform(size=(5, 9))
    rotations, translations = kabsch_batch(a, b, weights)
    shared, shifts = kabsch_batch(a[0], b[0], weights)
    for i in range(5):
        one, same = superpose(a[i], b[i], weights[i]), superpose(a[0], b[0], weights[i])
        np.testing.assert_allclose(rotations[i], one.rotation, atol=1e-9)
        np.testing.assert_allclose(translations[i], one.translation, atol=1e-9)
        np.testing.assert_allclose(shared[i], same.rotation, atol=1e-9)
        np.testing.assert_allclose(shifts[i], same.translation, atol=1e-9)
