"""Predictor-corrector and remasking: laws that must be kept."""

from __future__ import annotations

import pytest
import torch

from protlig_dd.diffusion.schedules import Cosine, LogLinear
from protlig_dd.sampling import Ancestral, Euler, Remasking
from protlig_dd.sampling.loop import State, grid, sample
from tests.support.enumerable import ExactDenoiser, World
from tests.support.laws import SCENES, Propagation, draw, exact_law, misfit, total_variation
from tests.support.networks import diffusion_of

NUM = 5000


def law_with_correctors(world: World, kind: str, num_steps: int, corrector_steps: int) -> torch.Tensor:
    """Return the law of predictor and corrector steps, from the matrices of noise and of plain reverse steps."""
    run = Propagation(world, kind, SCENES["joint"], schedule=Cosine())
    plain = Ancestral(num_steps=num_steps)
    for index in range(num_steps):
        state = State(batch=run.batch, alpha=run.alpha)
        alpha_t, alpha_s = grid(run.problem, state, index, num_steps)
        run.step(plain, index)
        for _ in range(corrector_steps if index + 1 < num_steps else 0):
            run.noise(float((alpha_t / alpha_s)[0]))
            run.alpha = alpha_t
            run.step(plain, index)
    return run.finished()


@pytest.mark.parametrize("kind", ["subs", "score", "uniform"])
def test_predictor_corrector_follows_its_law(world: World, kind: str) -> None:
    expected = law_with_correctors(world, kind, 3, 2)
    found = draw(world, kind, SCENES["joint"], Ancestral(num_steps=3, corrector_steps=2), NUM, seed=2, schedule=Cosine())
    assert abs(misfit(found, expected, NUM)) < 4


@pytest.mark.parametrize("kind", ["subs", "uniform"])
def test_correctors_bring_the_law_nearer_to_the_joint(world: World, kind: str) -> None:
    errors = [total_variation(law_with_correctors(world, kind, 6, rounds), world.probs) for rounds in (0, 2)]
    assert errors[0] > errors[1], errors


@pytest.mark.parametrize("stepper", [Ancestral(num_steps=6), Euler(num_steps=6)], ids=["ancestral", "euler"])
def test_masks_open_at_the_rate_of_the_schedule(world: World, stepper: Ancestral | Euler) -> None:
    """Steps are independent: random numbers used twice would open masks too early or too late."""
    left: list[int] = []
    mask_id = world.tracks["a"].vocabulary.mask_id
    sample(
        ExactDenoiser(world, world.parameterizations("score")),
        diffusion_of(world, "score"),
        SCENES["a given b"].batch(world, 3000),
        generate=("a",),
        sampler=stepper,
        seed=0,
        trace=lambda _, state: left.append(int((state.batch.tracks["a"].tokens == mask_id).sum())),
    )
    for step, count in enumerate(left):
        p = 1 - (step + 1) / 6
        assert abs(count - 9000 * p) <= 4 * (9000 * p * (1 - p)) ** 0.5 + 20, (step, count, 9000 * p)


@pytest.mark.parametrize("stepper", [Ancestral(num_steps=4), Euler(num_steps=4)], ids=["ancestral", "euler"])
@pytest.mark.parametrize("offset", [-3.0, 3.0])
def test_scores_that_do_not_sum_to_one_leave_no_mask(world: World, stepper: Ancestral | Euler, offset: float) -> None:
    """A trained network's scores never do; what they lack must not stay masked at the end."""
    exact = ExactDenoiser(world, world.parameterizations("score"))

    def off(batch, sigma, *, at=None):  # type: ignore[no-untyped-def]
        return {name: logits + offset for name, logits in exact(batch, sigma, at=at).items()}

    batch = SCENES["joint"].batch(world, 500)
    drawn = sample(off, diffusion_of(world, "score"), batch, generate=("a", "b"), sampler=stepper, seed=0).batch
    for name, track in drawn.tracks.items():
        assert bool(world.tracks[name].emittable[track.tokens].all())


def test_remasking_with_eta_zero_is_ancestral_sampling(world: World) -> None:
    expected = exact_law(world, "subs", SCENES["joint"], Ancestral(num_steps=3))
    found = draw(world, "subs", SCENES["joint"], Remasking(num_steps=3, eta=0.0), NUM, seed=5)
    assert abs(misfit(found, expected, NUM)) < 4


@pytest.mark.parametrize("eta", [0.1, 1.0])
def test_remasking_keeps_the_share_of_masks_of_every_noise_level(world: World, eta: float) -> None:
    """The marginal of each level is that of the process, though letters go and come back."""
    schedule, num_steps, open_then, came_back = LogLinear(), 6, [], 0
    mask_id = world.tracks["a"].vocabulary.mask_id

    def look(step: int, state: State) -> None:
        nonlocal came_back
        masked = state.batch.tracks["a"].tokens == mask_id
        if open_then:
            came_back += int((masked & ~open_then[-1]).sum())
        open_then.append(masked)

    sample(
        ExactDenoiser(world, world.parameterizations("subs")),
        diffusion_of(world, "subs", schedule),
        SCENES["a given b"].batch(world, 3000),
        generate=("a",),
        sampler=Remasking(num_steps=num_steps, eta=eta),
        seed=0,
        trace=look,
    )
    for step, masked in enumerate(open_then):
        n, p = len(masked), 1 - float(schedule.alpha(torch.tensor(1 - (step + 1) / num_steps)))
        assert abs(int(masked.sum()) - n * p) <= 4 * (n * p * (1 - p)) ** 0.5 + 20, (step, int(masked.sum()), n * p)
    assert came_back > 100


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: Ancestral(num_steps=0), "num_steps: found 0, expected 1 or more"),
        (lambda: Remasking(eta=1.5), "eta: found 1.5, expected 0 to 1"),
        (lambda: Ancestral(corrector_steps=-1), "corrector_steps: found -1, expected 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
