"""Three tracks on a world whose law is known: trained through the command line, each conditional and the joint are that law's."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations, product

import numpy as np
import pytest

from protlig_dd.runs.open import open_run
from protlig_dd.runs.run import Run
from protlig_dd.sampling import FirstHitting, sample
from protlig_dd.tokens.tracks import TrackBatch, pack

pytestmark = pytest.mark.xdist_group("tri_track")
NAMES = ("protein", "structure", "ligand")
STATES = [(f"{a}{b}", f"{c}{d}", ligand) for a, b in product("AW", repeat=2) for c, d in product("DV", repeat=2) for ligand in ("CO", "CN")]
NUM = 12_000
QUICK = ["--device", "cpu", "train.tracking.tensorboard=false", "train.tracking.wandb=off", "data.leakage=false"]


def law() -> np.ndarray:
    """Return the probability of each state: pairs of letters that prefer each other across all tracks."""
    signs = np.array([[1 if x in "AD" else -1 for x in a + b] + [1 if c == "CO" else -1] for a, b, c in STATES])
    energy = sum(w * signs[:, i] * signs[:, j] for i, j, w in ((0, 2, 0.9), (1, 3, -0.8), (0, 4, 0.7), (3, 4, 0.6)))
    probs = np.exp(energy + 0.3 * signs[:, 1])
    return np.asarray(probs / probs.sum())


def drawn(num: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).choice(len(STATES), size=num, p=law()).tolist()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("triples")
    table = folder / "triples.csv"
    rows = [",".join(STATES[i]) for i in drawn(8000, 1)]
    table.write_text("\n".join(["protein,structure,smiles", *rows]) + "\n")
    command = ["train", "tri_track/tiny", f"data.path={table}", "--out", str(folder / "run"), "data.split={kind: random}"]
    sizes = ["train.batch_size=192", "train.steps=1400", "train.validate_every=1400", "train.checkpoint_every=1400"]
    # a process of its own: checking the shapes of each call would take most of the time
    done = subprocess.run([sys.executable, "-m", "protlig_dd", *command, *QUICK, *sizes], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return open_run(folder / "run", device="cpu")


def conditioned(run: Run, states: list[int], generated: tuple[str, ...]) -> TrackBatch:
    """Return the states as a batch in which some tracks are to be generated anew."""
    tracks = run.parts.tracks
    rows = [{n: tracks[n].encode(STATES[i][k]) for k, n in enumerate(NAMES)} for i in states]
    return pack(rows, {n: tracks[n] for n in NAMES}, example_ids=list(range(len(states))))


SUBSETS = [part for size in (1, 2, 3) for part in combinations(NAMES, size)]


@pytest.mark.slow
@pytest.mark.parametrize("generated", SUBSETS, ids="_".join)
def test_every_conditional_and_the_joint_are_the_laws(run: Run, generated: tuple[str, ...]) -> None:
    states = drawn(NUM, 2)
    batch = conditioned(run, states, generated)
    done = sample(run.model, run.parts.diffusion, batch, generate=generated, sampler=FirstHitting(), seed=3).batch
    texts = {n: [run.parts.tracks[n].decode(ids) for ids in done.tracks[n].split()] for n in NAMES}
    found = [tuple(texts[n][i] for n in NAMES) for i in range(NUM)]
    for k, name in enumerate(NAMES):
        if name not in generated:
            assert all(state[k] == STATES[i][k] for state, i in zip(found, states, strict=True)), f"{name} was given"
    counts = np.array([found.count(state) for state in STATES]) / NUM
    distance = 0.5 * (np.abs(counts - law()).sum() + 1 - counts.sum())
    assert distance < 0.05, f"total variation {distance:.3f}"


def test_the_law_is_far_from_independent_tracks() -> None:
    """What a model that ignores the other tracks would reach, so that 0.05 means something."""
    probs = law()
    alone = [{s: sum(p for p, state in zip(probs, STATES, strict=True) if state[k] == s) for s in {x[k] for x in STATES}} for k in range(3)]
    product_law = np.array([np.prod([alone[k][state[k]] for k in range(3)]) for state in STATES])
    assert 0.5 * np.abs(product_law - probs).sum() > 0.3
