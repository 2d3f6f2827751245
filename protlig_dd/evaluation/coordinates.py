"""Predicted C-alpha coordinates against the true ones, over all chains: a chain without a prediction of the true length counts as a failure.

RMSD and TM-score are computed after superposition by a proper rotation, for the TM-score the best one found. lDDT is blind to mirror
images, so handedness is reported with it. The null of a chain is the prediction for the other chain nearest in length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from protlig_dd.evaluation.intervals import Estimate, Score, bootstrap_mean, wilson
from protlig_dd.structures.lddt import lddt
from protlig_dd.structures.superpose import rmsd
from protlig_dd.structures.tm_score import tm_score

Coords = Float[np.ndarray, "_ 3"]
Pair = tuple[Coords, Coords]
"""A predicted chain and the true one, of equal length."""

_STEP, _STEP_TOLERANCE = 3.8, 0.2  # Angstrom between consecutive C-alphas
_FLAT = 1.0  # cubic Angstrom: four C-alphas that span less have no handedness
_SHORTEST = 4  # residues of a chain with a TM-score, an lDDT and a handedness
_CLOSE = (2.0, 4.0)
_NULL = "another chain's prediction"


def handedness(predicted: Float[np.ndarray, "l 3"], true: Float[np.ndarray, "l 3"]) -> float:
    """Return the share of turns of four C-alphas with the true handedness: 1 for the structure itself, 0 for its mirror image, NaN without turns."""
    ours, theirs = _turns(predicted), _turns(true)
    clear = np.abs(theirs) > _FLAT
    return float((np.sign(ours[clear]) == np.sign(theirs[clear])).mean()) if clear.any() else float("nan")


def _turns(points: np.ndarray) -> np.ndarray:
    steps = np.diff(np.asarray(points, dtype=np.float64), axis=0)
    return np.asarray(np.einsum("ij,ij->i", np.cross(steps[:-2], steps[1:-1]), steps[2:]))


def good_steps(points: Float[np.ndarray, "l 3"]) -> float:
    """Return the share of C-alpha steps within 0.2 of 3.8 Angstrom; NaN for a single residue. Over several chains, take the mean of theirs."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return float((np.abs(steps - _STEP) <= _STEP_TOLERANCE).mean()) if len(steps) else float("nan")


def tm_scores(pairs: Sequence[Pair]) -> list[float]:
    """Return the TM-score of each pair of at least 4 residues."""
    return [tm_score(p, t).value for p, t in pairs if len(t) >= _SHORTEST]


def null_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Return each true chain with the prediction for the other chain nearest in length, both cut to the shorter; none for a single chain."""
    if len(pairs) < 2:
        return []
    found = []
    for (_, true), nearest in zip(pairs, nearest_in_length([len(t) for _, t in pairs]), strict=True):
        other = pairs[nearest][0]
        length = min(len(other), len(true))
        found.append((other[:length], true[:length]))
    return found


def nearest_in_length(lengths: Sequence[int]) -> list[int]:
    """Return for each of at least two chains the index of the other one whose length is nearest, the first of equals."""
    return [min((abs(n - m), j) for j, m in enumerate(lengths) if j != i)[1] for i, n in enumerate(lengths)]


def coordinate_scores(
    predicted: Sequence[Coords | None], true: Sequence[Coords], *, floor: Sequence[Coords] = (), seed: int = 0
) -> list[Score]:
    """Return the scores of predicted chains, each with its null where there is one.

    Args:
        predicted: C-alphas in Angstrom for each chain; None or another length means no prediction.
        true: the true chains, all coordinates finite.
        floor: the decoded true tokens of each chain, the least error to expect of predicted tokens.
        seed: seed of the bootstrap intervals.

    Raises:
        ValueError: if there is not one prediction (and one floor) for each chain.
    """
    pairs = _answers(predicted, true, floor)
    others = null_pairs(pairs)
    scores = [Score(name="chains with an answer of the true length", value=wilson(len(pairs), len(true)))]
    errors, wrong = ([rmsd(p, t) for p, t in group] for group in (pairs, others))
    scores.append(_mean_score("RMSD (A)", errors, wrong, seed))
    for limit in _CLOSE:
        near, by_chance = (wilson(sum(e < limit for e in group), len(true)) for group in (errors, wrong))
        scores.append(Score(name=f"RMSD below {limit:g} A", value=near, null=by_chance, null_name=_NULL))
    measures: dict[str, Callable[[Sequence[Pair]], list[float]]] = {
        "TM-score": tm_scores,
        "lDDT": lambda group: [float(lddt(p, t).value) for p, t in group if len(t) >= _SHORTEST],
        "right hand": lambda group: [handedness(p, t) for p, t in group if len(t) >= _SHORTEST],
    }
    scores += [_mean_score(name, measure(pairs), measure(others), seed) for name, measure in measures.items()]
    steps, real = [good_steps(p) for p, _ in pairs], [good_steps(t) for t in true]
    scores.append(_mean_score("steps of 3.8 A", steps, real, seed, null_name="true chains"))
    if floor:
        least = [rmsd(p, t) for p, t in zip(floor, true, strict=True)]
        scores.append(Score(name="RMSD of the true tokens, decoded (A)", value=_mean(least, seed)))
    return scores


def coordinate_figures(predicted: Sequence[Coords | None], true: Sequence[Coords], *, floor: Sequence[Coords]) -> dict[str, float]:
    """Return the errors of predicted chains as plain numbers without intervals, for training curves.

    `rmsd_mean`, `rmsd_median`, `rmsd_std` (about the mean, over n) and `tm` are over the predictions of true length and NaN without any;
    `rmsd_below_2` and `rmsd_below_4` are shares of **all** chains. `rmsd_floor` is the mean RMSD of the decoded true tokens.

    Args:
        predicted, true, floor: as in `coordinate_scores`.

    Raises:
        ValueError: if there is not one prediction and one floor for each chain.
    """
    pairs = _answers(predicted, true, floor)
    errors = np.array([rmsd(p, t) for p, t in pairs] or [np.nan])
    similar = tm_scores(pairs)
    return {
        "rmsd_mean": float(errors.mean()),
        "rmsd_median": float(np.median(errors)),
        "rmsd_std": float(errors.std()),
        **{f"rmsd_below_{limit:g}": float((errors < limit).sum() / len(true)) for limit in _CLOSE},
        "tm": float(np.mean(similar)) if similar else float("nan"),
        "rmsd_floor": float(np.mean([rmsd(p, t) for p, t in zip(floor, true, strict=True)])),
    }


def _answers(predicted: Sequence[Coords | None], true: Sequence[Coords], floor: Sequence[Coords]) -> list[Pair]:
    """The predictions of true length, each with its true chain."""
    if len(predicted) != len(true) or len(floor) not in (0, len(true)):
        raise ValueError(f"found {len(predicted)} predictions and {len(floor)} floors for {len(true)} chains")
    return [(p, t) for p, t in zip(predicted, true, strict=True) if p is not None and len(p) == len(t)]


def _mean(values: Sequence[float], seed: int) -> Estimate:
    known = [value for value in values if np.isfinite(value)]
    return bootstrap_mean(known, seed=seed) if known else Estimate.missing()


def _mean_score(name: str, values: Sequence[float], null: Sequence[float], seed: int, *, null_name: str = _NULL) -> Score:
    return Score(name=name, value=_mean(values, seed), null=_mean(null, seed), null_name=null_name)
