"""Reconstruction figures against tokenizers whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from protlig_dd.evaluation.coordinates import coordinate_scores, nearest_in_length
from protlig_dd.kanzi.reconstruction import assess_reconstruction, turned_chains
from protlig_dd.structures.superpose import rmsd


def helix(length: int, rise: float = 1.5) -> np.ndarray:
    """C-alphas of an ideal helix: steps of 3.8 Angstrom."""
    angle = np.arange(length) * math.radians(100)
    return np.stack([2.3 * np.cos(angle), 2.3 * np.sin(angle), rise * np.arange(length)], axis=1).astype(np.float32)


class Memory:
    """Remembers chains by their length; its tokens are residue numbers, or with `turning` depend on the frame."""

    def __init__(self, chains: Sequence[np.ndarray], *, mirrored: bool = False, turning: bool = False) -> None:
        self.chains = {len(chain): chain for chain in chains}
        self.mirrored, self.turning = mirrored, turning

    def encode(self, chains: Sequence[np.ndarray]) -> list[list[int]]:
        shifts = [int(abs(chain[0, 0]) * 997) if self.turning else 0 for chain in chains]
        return [[(i + shift) % 50 for i in range(len(chain))] for chain, shift in zip(chains, shifts, strict=True)]

    def decode(self, tokens: Sequence[Sequence[int]], *, seed: int = 0) -> list[np.ndarray]:
        found = [self.chains[len(row)] for row in tokens]
        return [chain * np.float32([1, 1, -1]) for chain in found] if self.mirrored else found


CHAINS = [helix(30), helix(33, rise=3.2), helix(50)]


def test_a_perfect_tokenizer_has_no_error_and_the_null_is_that_of_the_nearest_other_chain() -> None:
    found = assess_reconstruction(Memory(CHAINS), CHAINS)
    assert found["rmsd"] < 1e-5 and found["rmsd_worst"] < 1e-5
    assert found["tm"] == pytest.approx(1, abs=1e-6) and found["tokens_kept"] == 1
    assert nearest_in_length([30, 33, 50]) == [1, 0, 1]
    expected = [rmsd(CHAINS[1][:30], CHAINS[0]), rmsd(CHAINS[0], CHAINS[1][:30]), rmsd(CHAINS[1], CHAINS[2][:33])]
    assert found["null_rmsd"] == pytest.approx(np.mean(expected)) and found["null_rmsd"] > 3
    # 113 residues: numbers 0..29 three times, 30..32 twice, 33..49 once
    shares = np.array([3] * 30 + [2] * 3 + [1] * 17) / 113
    assert found["codes_used"] == 50
    assert found["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert found["steps_3.8"] == pytest.approx((1 + 0 + 1) / 3)


def test_training_and_evaluation_report_the_same_figures_for_the_same_chains() -> None:
    """Chains of unequal length: a pooled share of steps would differ from the mean over chains."""
    chains = [helix(4), helix(41, rise=3.2)]
    decoded = [chain + np.float32(0.01) * np.arange(len(chain), dtype=np.float32)[:, None] for chain in chains]
    training = assess_reconstruction(Memory(decoded), chains)
    scores = {score.name: score for score in coordinate_scores(decoded, chains)}
    assert training["steps_3.8"] == scores["steps of 3.8 A"].value.value == 0.5
    assert training["tm"] == scores["TM-score"].value.value
    assert training["rmsd"] == scores["RMSD (A)"].value.value
    null = scores["RMSD (A)"].null
    assert null is not None and training["null_rmsd"] == null.value


def test_a_chain_of_one_residue_has_no_steps() -> None:
    assert assess_reconstruction(Memory([CHAINS[0], CHAINS[1][:1]]), [CHAINS[0], CHAINS[1][:1]])["steps_3.8"] == 1


def test_a_mirror_image_is_an_error() -> None:
    assert assess_reconstruction(Memory(CHAINS, mirrored=True), CHAINS)["rmsd"] > 1


def test_tokens_that_change_under_rotation_are_counted() -> None:
    assert assess_reconstruction(Memory(CHAINS, turning=True), CHAINS)["tokens_kept"] == 0


def test_chains_are_turned_otherwise_each_time_and_keep_their_shape() -> None:
    first, again, other = (turned_chains(CHAINS, 0, number) for number in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.allclose(first[0], other[0], atol=1) and not np.allclose(first[0], CHAINS[0], atol=1)
    assert all(rmsd(a, b) < 1e-4 for a, b in zip(first, CHAINS, strict=True))


def test_one_chain_has_no_null() -> None:
    assert "null_rmsd" not in assess_reconstruction(Memory(CHAINS[:1]), CHAINS[:1])
