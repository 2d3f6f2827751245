"""Times: their law, their strata, their curriculum; tasks and their mixture."""

from __future__ import annotations

import math
import typing

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.config import build
from protlig_dd.diffusion.times import BiasedTimes, StratifiedTimes, Task, TaskMixture, TimeSampler, UniformTimes, named_tasks
from protlig_dd.errors import ConfigError
from protlig_dd.rng import Draws

SAMPLERS = [cls() for cls in typing.get_args(TimeSampler)]


def draw(sampler: TimeSampler, num: int, step: int = 0, *, ids: Tensor | None = None, slots: Tensor | None = None, size: int = 0):  # type: ignore[no-untyped-def]
    ids = torch.arange(num) if ids is None else ids
    root = Draws.root(3, "times", step)
    return sampler.draw(root.fold_in(ids), root.fold("shared"), ids if slots is None else slots, size or num, step)


def distance_to_uniform(values: Tensor) -> float:
    """Return the Kolmogorov-Smirnov distance to the uniform law on (0, 1), times sqrt(n); above 1.95 at p = 0.001."""
    x = np.sort(values.double().numpy())
    n = len(x)
    above = np.abs(np.arange(1, n + 1) / n - x).max()
    below = np.abs(x - np.arange(n) / n).max()
    return float(max(above, below) * math.sqrt(n))


@pytest.mark.parametrize("sampler", [UniformTimes(), StratifiedTimes()], ids=lambda s: s.kind)
def test_times_are_uniform_on_their_interval(sampler: TimeSampler) -> None:
    """One example of a batch of eight, over 400 steps, and all examples of one large batch."""
    over_steps = torch.cat([draw(sampler, 8, step).t[5:6] for step in range(400)])
    at_once = draw(sampler, 4000).t
    for t in (over_steps, at_once):
        assert float(t.min()) > 1e-3 and float(t.max()) <= 1
        assert distance_to_uniform((t - 1e-3) / (1 - 1e-3)) < 1.95


def test_each_stratum_has_one_time() -> None:
    for step in range(50):
        t = (draw(StratifiedTimes(t_min=0.0), 64, step).t.double() * 64).floor().long()
        assert sorted(t.tolist()) == list(range(64))


def test_strata_do_not_depend_on_the_split() -> None:
    """Ranks and micro-batches get parts of one stratified global batch, whatever their order and size."""
    whole = draw(StratifiedTimes(), 60, 7).t
    order = torch.randperm(60)
    for size in (1, 7, 20, 60):
        for part in order.split(size):
            mine = draw(StratifiedTimes(), 0, 7, ids=part + 1000, slots=part, size=60).t
            torch.testing.assert_close(mine, whole[part], rtol=0, atol=0)


def test_strata_survive_a_large_global_batch() -> None:
    """Places stay apart at 2^20 examples, where float32 has two steps left."""
    slots = torch.tensor([0, 1, 2**20 - 1])
    size = 2**20
    t = draw(StratifiedTimes(t_min=0.0), 3, 0, slots=slots, size=size).t.double()
    u = Draws.root(3, "times", 0).fold("shared").uniform().double()
    want = (u + slots.double() / size) % 1.0
    torch.testing.assert_close(t, want, rtol=0, atol=2.0**-24)


@pytest.mark.parametrize("sampler", [UniformTimes(), BiasedTimes()], ids=lambda s: s.kind)
def test_unstratified_times_depend_on_the_example_only(sampler: TimeSampler) -> None:
    whole = draw(sampler, 40, 3).t
    part = torch.tensor([31, 2, 17])
    mine = draw(sampler, 0, 3, ids=part, slots=torch.arange(3), size=3).t
    torch.testing.assert_close(mine, whole[part], rtol=0, atol=0)


@pytest.mark.parametrize("sampler", [*SAMPLERS, BiasedTimes(corrected=True)], ids=str)
def test_weighted_means_are_integrals(sampler: TimeSampler) -> None:
    """The mean of weight * f(t) is the integral of f, for a corrected curriculum too; an uncorrected one is biased on purpose."""
    drawn = draw(sampler, 200_000, 0)
    top = 1 - 1e-3 if isinstance(sampler, BiasedTimes) else 1.0
    for power in (0, 1, 3):
        values = (drawn.weight * drawn.t**power).double()
        truth = (top ** (power + 1) - 1e-3 ** (power + 1)) / (power + 1)
        error = float(values.std()) / math.sqrt(len(values)) + 1e-6
        z = abs(float(values.mean()) - truth) / error
        biased = isinstance(sampler, BiasedTimes) and not sampler.corrected
        assert (z > 20) if biased and power else z < 4 or biased


@pytest.mark.parametrize("ramp", ["exponential", "cosine", "linear"])
def test_correction_is_one_over_the_density(ramp: str) -> None:
    """Against a finite difference of the distribution function, at several steps."""
    for step in (0, 1000, 4000, 5000):
        sampler = BiasedTimes(ramp=ramp, corrected=True)  # type: ignore[arg-type]
        u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
        h = 1e-6
        density = 2 * h / (sampler.from_uniform(u + h, step).t - sampler.from_uniform(u - h, step).t)
        torch.testing.assert_close(sampler.from_uniform(u, step).weight * density, torch.ones_like(u), rtol=1e-6, atol=0)
        grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
        total = float(sampler.from_uniform(grid, step).weight.mean())
        assert total == pytest.approx(1 - 1e-3 if step == 5000 else 1 - 2e-3, abs=1e-6)


def test_bias_falls_to_none() -> None:
    for ramp, half in (("exponential", math.exp(-1)), ("cosine", 0.5), ("linear", 0.5)):
        sampler = BiasedTimes(ramp=ramp, steps=1000, strength=2.0)  # type: ignore[arg-type]
        assert sampler.power(0) == 3
        assert sampler.power(500) == pytest.approx(1 + 2 * half, abs=1e-12)
        assert sampler.power(1000) == sampler.power(10**9) == 1
    assert draw(BiasedTimes(), 50_000, 0).t.mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("cls", "values", "words"),
    [
        (UniformTimes, {"t_min": 0.5}, "t_min: found 0.5, expected 0 <= t_min < 0.5"),
        (StratifiedTimes, {"t_min": -0.1}, "t_min: found -0.1"),
        (BiasedTimes, {"t_min": float("nan")}, "t_min: found nan"),
        (BiasedTimes, {"steps": 0}, "steps: found 0 with strength 2.0, expected steps >= 1 and strength >= 0"),
        (BiasedTimes, {"strength": -1.0}, "strength -1.0"),
        (BiasedTimes, {"strength": float("nan")}, "strength: found nan, expected a finite number"),
        (BiasedTimes, {"ramp": "liner"}, "ramp: found 'liner', expected 'exponential', 'cosine' or 'linear'"),
    ],
)
def test_impossible_time_settings_are_refused(cls: type, values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(cls, values)
    assert words in str(caught.value)


TRACKS = ("protein", "ligand")


def everyone(num: int) -> dict[str, list[bool]]:
    return {name: [True] * num for name in TRACKS}


def test_named_tasks_are_the_five_modes_independent_and_apart() -> None:
    assert set(named_tasks(TRACKS)) == {
        *("protein_only", "ligand_only", "joint", "independent", "apart", "protein_given_ligand", "ligand_given_protein")
    }
    assert named_tasks(TRACKS)["ligand_given_protein"] == Task(noised=(("ligand",),), clean=("protein",))
    assert named_tasks(TRACKS)["joint"].noised == (TRACKS,)
    assert named_tasks(TRACKS)["independent"].noised == (("protein",), ("ligand",))
    assert set(named_tasks(("protein",))) == {"protein_only"}


def test_three_tracks_have_every_conditional_by_name() -> None:
    tasks = named_tasks(("protein", "structure", "ligand"))
    conditionals = {name: task for name, task in tasks.items() if task.clean}
    assert len(conditionals) == 12, "six of one track given one, three given two, three of two tracks"
    assert conditionals["protein_ligand_given_structure"] == Task(noised=(("protein", "ligand"),), clean=("structure",))
    assert conditionals["structure_given_protein_ligand"] == Task(noised=(("structure",),), clean=("protein", "ligand"))


def test_tasks_are_drawn_at_their_weights() -> None:
    """Each example for itself, whatever the batch: z-tests at 4 standard errors."""
    mixture = TaskMixture({"joint": 1.0, "ligand_given_protein": 2.5, "protein_only": 0.5, "ligand_only": 0.0}, TRACKS)
    num = 6000
    drawn = mixture.draw(Draws.root(0, "task").fold_in(torch.arange(num)), everyone(num))
    for name, p in (("joint", 0.25), ("ligand_given_protein", 0.625), ("protein_only", 0.125)):
        assert abs(drawn.count(name) / num - p) < 4 * math.sqrt(p * (1 - p) / num)
    assert "ligand_only" not in drawn
    part = torch.tensor([7, 5999, 3])
    again = mixture.draw(Draws.root(0, "task").fold_in(part), everyone(3))
    assert again == [drawn[i] for i in part.tolist()]


def test_an_example_without_a_track_gets_a_task_without_it() -> None:
    mixture = TaskMixture({"joint": 1.0, "ligand_given_protein": 1.0, "ligand_only": 0.1}, TRACKS)
    present = {"protein": [True, False] * 50, "ligand": [True] * 100}
    drawn = mixture.draw(Draws.root(0).fold_in(torch.arange(100)), present)
    assert set(drawn[1::2]) == {"ligand_only"}
    assert "joint" in drawn[::2]
    alone = mixture.draw(Draws.root(0).fold_in(torch.arange(3)), {"ligand": [True] * 3})
    assert set(alone) == {"ligand_only"}, "a track that the batch does not have at all is absent everywhere"


def test_an_example_that_fits_no_task_is_named() -> None:
    mixture = TaskMixture({"joint": 1.0}, TRACKS)
    with pytest.raises(ValueError) as caught:
        mixture.draw(Draws.root(0).fold_in(torch.arange(2)), {"protein": [True, True], "ligand": [True, False]})
    message = str(caught.value)
    assert "an example with the tracks ['protein'] fits none of the tasks ['joint']" in message
    assert "add a task for it under diffusion.tasks, such as protein_only" in message


def test_no_examples_draw_no_tasks() -> None:
    assert TaskMixture({"joint": 1.0}, TRACKS).draw(Draws.root(0).fold_in(torch.arange(0)), everyone(0)) == []


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({"jont": 1.0}, "diffusion.tasks.jont: unknown task (did you mean 'joint'?); known ones are: protein_only"),
        ({"x": Task(noised=(("structure",),))}, "diffusion.tasks.x: found track 'structure', expected one of protein, ligand"),
        ({"joint": 0.0}, "diffusion.tasks: found weights {'joint': 0.0}, expected none negative and at least one positive"),
        ({"joint": 1.0, "protein_only": -0.5}, "expected none negative"),
        ({}, "diffusion.tasks: found weights {}"),
    ],
)
def test_impossible_mixtures_are_refused(tasks: dict[str, Task | float], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TaskMixture(tasks, TRACKS)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"noised": []}, {"noised": [[]]}, {"noised": [["protein"], ["protein"]]}, {"noised": [["protein"]], "clean": ["protein"]}]
)
def test_a_task_has_noised_tracks_and_none_twice(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected at least one noised track and none twice"):
        build(Task, values)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_task_has_a_finite_weight(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight: found"):
        build(Task, {"noised": [["protein"]], "weight": weight})
