"""Confidence unmasking: how many masks open, and which."""

from __future__ import annotations

import pytest
import torch

from protlig_dd.diffusion.schedules import Cosine, LogLinear
from protlig_dd.sampling import ConfidenceUnmasking, sample
from protlig_dd.sampling.loop import State
from tests.support.enumerable import ExactDenoiser, World
from tests.support.laws import SCENES
from tests.support.networks import diffusion_of, odd_batch, small_network


@pytest.mark.parametrize("t_start", [1.0, 0.6, 0.3])
@pytest.mark.parametrize("schedule", [Cosine(), LogLinear()], ids=lambda s: s.kind)
def test_as_many_masks_are_left_as_the_schedule_has(world: World, schedule: Cosine | LogLinear, t_start: float) -> None:
    """From a later start as many as are left of those that it masked: with a log-linear schedule at 0.3, three in ten."""
    num_steps = 6
    batch, mask_id = odd_batch(world, 60, open_share=1.0), world.tracks["b"].vocabulary.mask_id
    network, segment = small_network(world), batch.tracks["b"].layout.segment
    left: list[torch.Tensor] = []

    def look(noisy, sigma, *, at=None):  # type: ignore[no-untyped-def]
        if not left:
            owner = noisy.tracks["b"].layout.segment
            left.append(torch.bincount(owner[noisy.tracks["b"].tokens == mask_id], minlength=60))
        return network(noisy, sigma, at=at)

    def count(step: int, state: State) -> None:
        left.append(torch.bincount(segment[state.batch.tracks["b"].tokens == mask_id], minlength=60))

    sample(
        look,
        diffusion_of(world, "subs", schedule),
        batch,
        generate=("b",),
        sampler=ConfidenceUnmasking(num_steps=num_steps),
        seed=0,
        t_start=t_start,
        trace=count,
    )
    if t_start == 1:
        assert torch.equal(left[0], torch.tensor(batch.tracks["b"].layout.lengths))
    start = 1 - schedule.alpha(torch.tensor(t_start))
    for step, now in enumerate(left[1:], 1):
        share = (1 - schedule.alpha(torch.tensor(t_start * (1 - step / num_steps)))) / start
        expected = torch.round(left[0] * share) if step < num_steps else torch.zeros(60)
        assert float((now - expected).abs().max()) == 0, (step, now, expected)


def test_the_surest_letter_comes_first(world: World) -> None:
    """Greedy: at each step the opened token's probability is at least that of every token left, with letters as drawn."""
    param = world.parameterizations("subs")
    opened_first: list[int] = []

    def look(step: int, state: State) -> None:
        if step == 0:
            codes = torch.cat([world.letters(n, state.batch.tracks[n].tokens) for n in ("a", "b")], dim=1)
            opened_first.extend((codes >= 0).nonzero()[:, 1].tolist())

    num = 2000
    sample(
        ExactDenoiser(world, param),
        diffusion_of(world, "subs"),
        SCENES["joint"].batch(world, num),
        generate=("a", "b"),
        sampler=ConfidenceUnmasking(num_steps=5),
        seed=0,
        trace=look,
    )
    assert len(opened_first) == num
    marginals = [world.joint.sum([i for i in range(5) if i != axis]) for axis in range(5)]
    expected = torch.zeros(5, dtype=torch.float64)
    for letters in torch.cartesian_prod(*(torch.arange(len(m)) for m in marginals)):
        chances = torch.stack([m[letter] for m, letter in zip(marginals, letters, strict=True)])
        expected[int(chances.argmax())] += chances.prod()
    found = torch.bincount(torch.tensor(opened_first), minlength=5).double() / num
    assert float((found - expected).abs().max()) < 4 * (0.25 / num) ** 0.5, (found, expected)


def test_randomness_spreads_the_order(world: World) -> None:
    """Much noise on the confidences opens every place first about equally often."""

    def first(randomness: float) -> torch.Tensor:
        opened: list[int] = []

        def look(step: int, state: State) -> None:
            if step == 0:
                codes = torch.cat([world.letters(n, state.batch.tracks[n].tokens) for n in ("a", "b")], dim=1)
                opened.extend((codes >= 0).nonzero()[:, 1].tolist())

        sample(
            ExactDenoiser(world, world.parameterizations("subs")),
            diffusion_of(world, "subs"),
            SCENES["joint"].batch(world, 2000),
            generate=("a", "b"),
            sampler=ConfidenceUnmasking(num_steps=5, randomness=randomness),
            seed=0,
            trace=look,
        )
        return torch.bincount(torch.tensor(opened), minlength=5).double() / 2000

    assert float((first(500.0) - 0.2).abs().max()) < 4 * (0.16 / 2000) ** 0.5
    assert float((first(0.0) - 0.2).abs().max()) > 0.05


@pytest.mark.parametrize("settings,message", [({"randomness": -1.0}, "randomness: found -1.0"), ({"num_steps": 0}, "num_steps: found 0")])
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfidenceUnmasking(**settings)
