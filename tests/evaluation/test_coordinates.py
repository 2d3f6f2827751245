"""Coordinates against truth: exact cases, mirror images, missing answers, and the null."""

from __future__ import annotations

import numpy as np
import pytest

from protlig_dd.evaluation.coordinates import coordinate_figures, coordinate_scores, good_steps, handedness
from protlig_dd.structures.tm_score import tm_score


def walk(length: int, seed: int) -> np.ndarray:
    """A chain with steps of 3.8 Angstrom that turns to the right."""
    draws = np.random.default_rng(seed)
    t = np.arange(length) * (1.7 + 0.1 * draws.random())
    points = np.stack([2.3 * np.cos(t), 2.3 * np.sin(t), 1.5 * np.arange(length)], axis=1) + draws.normal(size=(length, 3)) * 0.3
    steps = np.diff(points, axis=0)
    return np.concatenate([points[:1], points[:1] + np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1)[:, None], axis=0)])


TRUE = [walk(length, seed) for seed, length in enumerate((30, 31, 40))]
TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


def values(predicted, **more):
    return {score.name: score for score in coordinate_scores(predicted, TRUE, **more)}


def test_moved_and_turned_chains_are_perfect() -> None:
    found = values([chain @ TURN.T + 7 for chain in TRUE])
    assert found["RMSD (A)"].value.value == pytest.approx(0, abs=1e-6)
    for name in ("RMSD below 2 A", "TM-score", "lDDT", "right hand", "steps of 3.8 A", "chains with an answer of the true length"):
        assert found[name].value.value == pytest.approx(1, abs=1e-6), name
    null = found["RMSD (A)"].null
    assert null is not None and null.value > 1, "the neighbours' predictions are other chains"


def test_a_mirror_image_is_seen() -> None:
    mirrored = TRUE[0] * [1, 1, -1]
    assert handedness(TRUE[0], TRUE[0]) == 1 and handedness(mirrored, TRUE[0]) == 0
    found = values([chain * [1, 1, -1] for chain in TRUE])
    assert found["lDDT"].value.value == pytest.approx(1), "blind to it"
    assert found["right hand"].value.value == 0 and found["RMSD (A)"].value.value > 1


def test_chains_without_an_answer_fail_and_do_not_vanish() -> None:
    found = values([TRUE[0], None, TRUE[2][:10]])
    assert found["chains with an answer of the true length"].value.value == pytest.approx(1 / 3)
    assert found["RMSD below 2 A"].value.value == pytest.approx(1 / 3)
    assert found["RMSD (A)"].value.num == 1
    nothing = values([None, None, None])
    assert nothing["RMSD below 4 A"].value.value == 0 and nothing["RMSD (A)"].value.num == 0


def test_steps_and_the_floor() -> None:
    assert good_steps(TRUE[0]) == 1 and good_steps(2 * TRUE[0]) == 0
    found = values(TRUE, floor=[chain + 0.0 for chain in TRUE])
    assert found["RMSD of the true tokens, decoded (A)"].value.value == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="1 predictions"):
        coordinate_scores([None], TRUE)


def stretched(chain: np.ndarray, error: float) -> np.ndarray:
    """A chain whose RMSD to itself is this: grown about its centre, which no superposition undoes."""
    away = chain - chain.mean(0)
    return chain + away * error / np.sqrt((away**2).sum(1).mean())


def test_figures_for_curves_are_over_answers_and_shares_over_all_chains() -> None:
    true = [*TRUE, TRUE[0]]
    predicted = [stretched(TRUE[0], 1.0), stretched(TRUE[1], 3.0), None, stretched(TRUE[0], 8.0)]
    found = coordinate_figures(predicted, true, floor=[stretched(chain, 0.5) for chain in true])
    assert found["rmsd_mean"] == pytest.approx(4) and found["rmsd_median"] == pytest.approx(3)
    assert found["rmsd_std"] == pytest.approx(np.std([1, 3, 8])) and found["rmsd_floor"] == pytest.approx(0.5)
    assert found["rmsd_below_2"] == 0.25 and found["rmsd_below_4"] == 0.5, "of four chains, not of three answers"
    alone = [tm_score(predicted[i], true[i]).value for i in (0, 1, 3)]
    assert found["tm"] == pytest.approx(np.mean(alone)) and 0 < found["tm"] < 1


def test_figures_without_any_answer_are_nan_and_no_success() -> None:
    found = coordinate_figures([None, TRUE[1][:3], None], TRUE, floor=TRUE)
    assert np.isnan([found[name] for name in ("rmsd_mean", "rmsd_median", "rmsd_std", "tm")]).all()
    assert found["rmsd_below_2"] == found["rmsd_below_4"] == 0 and found["rmsd_floor"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="found 3 predictions and 2 floors for 3 chains"):
        coordinate_figures([None] * 3, TRUE, floor=TRUE[:2])
