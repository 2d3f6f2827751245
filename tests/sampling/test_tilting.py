"""Property guidance on the enumerable world: the tilted law, by counting."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.sampling import Ancestral, ConfidenceUnmasking, DPLMUnmasking, Euler, FirstHitting, Remasking
from protlig_dd.sampling.loop import Stepper
from protlig_dd.sampling.tilting import Property, Tilting
from protlig_dd.sampling.towards import TiltedSamples, sample_tilted
from tests.enumerable import AXES, ExactDenoiser, World
from tests.sampling.laws import SCENES, Scene
from tests.sampling.networks import diffusion_of

JOINT = SCENES["joint"]
VALUES = {"p": -0.5, "q": 1.0, "r": 0.0}


def additive(texts: list[str]) -> np.ndarray:
    return np.array([sum(VALUES[letter] for letter in text) for text in texts])


def pattern(texts: list[str]) -> np.ndarray:
    """Score what no sum over letters can: equal neighbours, and ends that differ."""
    assert not any("_" in text for text in texts), "a property is asked about finished texts only"
    return np.array([sum(x == y for x, y in zip(t, t[1:], strict=False)) - 1.5 * (t[0] == t[-1]) for t in texts], float)


SUM = Property(name="sum", track="a", function=additive, letters=VALUES)
BLACK_BOX = replace(SUM, letters=None)
PATTERN = Property(name="pattern", track="a", function=pattern)


@pytest.fixture(scope="module")
def product(world: World) -> World:
    """Return a world with the same letters at each place, all independent."""
    joint = torch.ones((), dtype=torch.float64)
    for axis in range(len(AXES)):
        joint = joint[..., None] * world.joint.sum([i for i in range(len(AXES)) if i != axis])
    return World(joint)


def values_of(world: World, prop: Property, scene: Scene = JOINT) -> Tensor:
    """Return the property of each state over the axes of a scene."""
    states = torch.cartesian_prod(*(torch.arange(world.joint.shape[axis]) for axis in scene.axes))
    texts = ["".join("pqr"[i] for i in row[:3]) for row in states.tolist()]
    return torch.from_numpy(prop.function(texts))


def tilted_law(world: World, prop: Property, weight: float, law: Tensor | None = None) -> tuple[Tensor, float]:
    """Return p(x) exp(weight * property(x)) / Z and log Z, by enumeration."""
    mass = (world.probs if law is None else law) * (weight * values_of(world, prop)).exp()
    return mass / mass.sum(), math.log(float(mass.sum()))


def draw(
    world: World,
    prop: Property,
    tilting: Tilting,
    num: int,
    *,
    sampler: Stepper | None = None,
    kind: str = "subs",
    scene: Scene = JOINT,
) -> TiltedSamples:
    return sample_tilted(
        ExactDenoiser(world, world.parameterizations(kind)),
        diffusion_of(world, kind),
        scene.batch(world, num),
        world.tracks,
        prop=prop,
        tilting=tilting,
        generate=tuple(scene.open),
        sampler=sampler or FirstHitting(),
        seed=2,
    )


def floor(law: Tensor, num: int) -> float:
    """Return the mean total variation of as many exact draws, to first order."""
    return float((law * (1 - law) / num).sqrt().sum() * 0.3989)


def smc(weight: float = 1.0, **changes) -> Tilting:  # type: ignore[no-untyped-def]
    return Tilting(name="x", weight=weight, **{"particles": 32, **changes})


def classifier(weight: float = 1.0, **changes) -> Tilting:  # type: ignore[no-untyped-def]
    return Tilting(name="x", weight=weight, method="classifier", **changes)


METHODS = [smc(1.5, particles=4), classifier(1.5), Tilting(name="x", weight=1.5, method="best_of", particles=4)]
SAMPLERS = [
    FirstHitting(),
    Ancestral(num_steps=4),
    Ancestral(num_steps=3, corrector_steps=1),
    Euler(num_steps=4),
    ConfidenceUnmasking(num_steps=3, randomness=1.0),
    Remasking(num_steps=4, eta=0.5),
    DPLMUnmasking(num_steps=4),
]


def ids_of(batch) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]
    return {name: track.tokens.tolist() for name, track in batch.tracks.items()}
