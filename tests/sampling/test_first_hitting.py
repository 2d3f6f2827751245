"""First-hitting sampling: when tokens open, in what order, and what it costs."""

from __future__ import annotations

import torch

from protlig_dd.diffusion.schedules import Cosine, Geometric
from protlig_dd.sampling import FirstHitting, sample
from protlig_dd.sampling.loop import State
from tests.support.enumerable import ExactDenoiser, World
from tests.support.laws import SCENES
from tests.support.networks import Counting, diffusion_of

NUM = 8000


def traced(world: World, schedule: Cosine | Geometric, *, t_start: float = 1.0) -> tuple[list[State], int]:
    """Return the states after each step of 8,000 joint samples, and the calls."""
    states: list[State] = []
    denoiser = Counting(ExactDenoiser(world, world.parameterizations("subs")))
    sample(
        denoiser,
        diffusion_of(world, "subs", schedule),
        SCENES["joint"].batch(world, NUM),
        generate=("a", "b"),
        sampler=FirstHitting(),
        seed=0,
        t_start=t_start,
        trace=lambda _, state: states.append(state),
    )
    return states, denoiser.calls


def masked(world: World, state: State) -> torch.Tensor:
    """Return which of the five places are masks [b, 5]."""
    return torch.cat([world.letters(n, state.batch.tracks[n].tokens) < 0 for n in ("a", "b")], dim=1)


def test_one_token_of_each_example_opens_a_step_and_no_call_is_spent_beyond(world: World) -> None:
    states, calls = traced(world, Cosine())
    assert calls == 5
    for step, state in enumerate(states):
        assert bool((masked(world, state).sum(1) == 4 - step).all())


def test_the_order_is_uniform_over_all_places_of_both_tracks(world: World) -> None:
    states, _ = traced(world, Cosine())
    before = torch.ones(NUM, 5, dtype=torch.bool)
    for state in states:
        now = masked(world, state)
        opened = (before & ~now).sum(0).double()
        spread = (NUM * 0.2 * 0.8) ** 0.5
        assert float((opened - NUM / 5).abs().max()) < 4 * spread, opened
        before = now


def test_tokens_open_at_the_times_of_the_process(world: World) -> None:
    """Each of five masks opens at a uniform 1 - alpha: the times are order statistics, of mean k / 6 and known variance."""
    states, _ = traced(world, Cosine())
    for step, state in enumerate(states):
        k = 5 - step
        shut, variance = (1 - state.alpha).double(), k * (6 - k) / (6 * 6 * 7)
        assert abs(float(shut.mean()) - k / 6) < 4 * (variance / NUM) ** 0.5 + 1e-3
        assert abs(float(shut.var()) - variance) < 0.08 * variance
    alphas = torch.stack([state.alpha for state in states])
    assert bool((alphas.diff(dim=0) >= 0).all())


def test_no_time_lies_beyond_the_clean_end_of_the_schedule(world: World) -> None:
    schedule = Geometric(sigma_min=0.05, sigma_max=20.0)
    states, _ = traced(world, schedule)
    end = schedule.alpha(torch.zeros(()))
    assert max(float(state.alpha.max()) for state in states) <= float(end) + 1e-7


def test_finished_examples_wait(world: World) -> None:
    """From a partial noise examples have unlike numbers of masks; a finished one changes no more."""
    states, calls = traced(world, Cosine(), t_start=0.5)
    assert calls == len(states) <= 5
    left = torch.stack([masked(world, state).sum(1) for state in states])
    assert bool((left[1:] == (left[:-1] - 1).clamp(min=0)).all())
    for earlier, later, count in zip(states, states[1:], left, strict=False):
        done = count == 0
        assert torch.equal(earlier.alpha[done], later.alpha[done])
