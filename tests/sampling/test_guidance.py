"""Guidance: which letter comes changes, when it comes does not."""

from __future__ import annotations

import pytest
import torch

from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.errors import ConfigError
from protlig_dd.sampling import Ancestral, ConfidenceUnmasking, FirstHitting, Guidance, sample
from protlig_dd.sampling.loop import State
from tests.support.enumerable import ExactDenoiser, World
from tests.support.laws import SCENES, misfit, total_variation
from tests.support.networks import diffusion_of, odd_batch, small_network

NUM = 3000
GIVEN = SCENES["a given b"]


def guided(world: World, guidance: Guidance, kind: str = "subs"):  # type: ignore[no-untyped-def]
    """Return the exact denoiser of a kind under guidance of track a."""
    exact = Denoising(ExactDenoiser(world, world.parameterizations(kind)), diffusion_of(world, kind), world.tracks)
    return guidance.apply(exact, generate=("a",)).denoiser


def letters_of_a(world: World, denoiser, stepper=None, num: int = NUM):  # type: ignore[no-untyped-def]
    """Return samples of a given b, as letters [b, 3] and the given letters [b, 2]."""
    drawn = sample(
        denoiser, diffusion_of(world, "subs"), GIVEN.batch(world, num), generate=("a",), sampler=stepper or FirstHitting(), seed=0
    ).batch
    return world.letters("a", drawn.tracks["a"].tokens), world.letters("b", drawn.tracks["b"].tokens)


def test_nothing_to_guide_is_the_denoiser_itself(world: World) -> None:
    exact = ExactDenoiser(world, world.parameterizations("uniform"))
    plain = Denoising(exact, diffusion_of(world, "uniform"), world.tracks)
    assert Guidance(weight=1.0).apply(plain, generate=("a",)).denoiser is exact


def test_weight_zero_is_the_model_without_the_condition(world: World) -> None:
    """The law of a is then its marginal, independent of b."""
    a, b = letters_of_a(world, guided(world, Guidance(weight=0.0)))
    index = (((a[:, 0] * 3 + a[:, 1]) * 3 + a[:, 2]) * 4 + b[:, 0]) * 4 + b[:, 1]
    independent = world.joint.sum((3, 4)).flatten()[:, None] * world.joint.sum((0, 1, 2)).flatten()
    assert abs(misfit(torch.bincount(index, minlength=432).double() / NUM, independent.flatten(), NUM)) < 4


def test_weight_zero_gives_the_logits_of_the_unconditional_model(world: World) -> None:
    network, diffusion, batch = small_network(world), diffusion_of(world, "subs"), odd_batch(world, 20)
    free = Guidance(weight=0.0).apply(Denoising(network, diffusion, world.tracks), generate=("a",)).denoiser
    alone = {n: t if n == "a" else t.keep([False] * 20) for n, t in batch.tracks.items()}
    unconditional = type(batch)(tracks=alone, example_ids=batch.example_ids, slots=batch.slots, global_size=20)
    sigma = {"a": torch.full((20,), 0.7), "b": torch.zeros(20)}
    param = diffusion.parameterizations["a"]
    xt, alpha = batch.tracks["a"].tokens, torch.full(batch.tracks["a"].tokens.shape, 0.5)
    found, expected = (param.x0_log_probs(f(b, sigma)["a"], xt, alpha) for f, b in ((free, batch), (network, unconditional)))
    ids = list(param.process.emittable_ids)
    torch.testing.assert_close(found[:, ids], expected[:, ids], rtol=1e-4, atol=1e-5)


def test_a_larger_weight_ties_samples_closer_to_the_condition(world: World) -> None:
    def likelihood(weight: float) -> float:
        """Mean log p(a | b) / p(a) of samples."""
        a, b = letters_of_a(world, guided(world, Guidance(weight=weight)))
        joint = world.joint[a[:, 0], a[:, 1], a[:, 2], b[:, 0], b[:, 1]]
        return float((joint / world.joint.sum((3, 4))[a[:, 0], a[:, 1], a[:, 2]]).log().mean())

    values = [likelihood(weight) for weight in (0.0, 1.0, 2.0, 4.0)]
    assert values == sorted(values)
    assert values[-1] > values[1] + 0.1


@pytest.mark.parametrize("weight", [0.0, 3.0])
@pytest.mark.parametrize("kind", ["score", "score_unscaled"])
def test_guided_scores_keep_their_sum(world: World, kind: str, weight: float) -> None:
    guidance = Guidance(weight=weight, temperature=0.5, top_p=0.8, forbidden={"a": ("q",)})
    exact = ExactDenoiser(world, world.parameterizations(kind))
    sigma = {"a": torch.full((40,), 0.9), "b": torch.zeros(40)}
    batch = GIVEN.batch(world, 40)
    batch = batch.with_tokens(a=torch.full_like(batch.tracks["a"].tokens, world.tracks["a"].vocabulary.mask_id))
    ids = list(world.tracks["a"].vocabulary.emittable_ids)
    sums = [f(batch, sigma)["a"][:, ids].logsumexp(-1) for f in (exact, guided(world, guidance, kind))]
    torch.testing.assert_close(*sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("guidance", [Guidance(temperature=0.2), Guidance(temperature=3.0), Guidance(top_p=0.4)])
def test_temperature_and_top_p_leave_the_rate_of_unmasking_alone(world: World, guidance: Guidance) -> None:
    """Scores divided by a temperature would open masks sooner or later; ours open at the rate of the plain sampler."""

    def masks_left(denoiser) -> list[int]:  # type: ignore[no-untyped-def]
        left: list[int] = []

        def look(step: int, state: State) -> None:
            left.append(int((state.batch.tracks["a"].tokens == world.tracks["a"].vocabulary.mask_id).sum()))

        diffusion, batch = diffusion_of(world, "score_unscaled"), GIVEN.batch(world, NUM)
        sample(denoiser, diffusion, batch, generate=("a",), sampler=Ancestral(num_steps=5), seed=0, trace=look)
        return left

    found = masks_left(guided(world, guidance, "score_unscaled"))
    for step, count in enumerate(found):
        p = 1 - (step + 1) / 5
        assert abs(count - 3 * NUM * p) < 4 * (3 * NUM * p * (1 - p)) ** 0.5 + 0.002 * 3 * NUM, (step, count)


def test_temperature_sharpens_as_the_power_says(world: World) -> None:
    """One open place: its law is the conditional to the power 1 / T, normalised."""
    scene = type(GIVEN)(open={"a": (True, False, False)})
    denoiser = guided(world, Guidance(temperature=0.5))
    drawn = sample(denoiser, diffusion_of(world, "subs"), scene.batch(world, NUM), generate=("a",), sampler=FirstHitting(), seed=0)
    sharp = world.joint**2 / (world.joint**2).sum(0)
    expected = sharp * world.joint.sum(0)
    assert abs(misfit(scene.law(world, drawn.batch), expected.flatten(), NUM)) < 4


def test_top_p_keeps_the_likeliest_letters_that_reach_it(world: World) -> None:
    reshaped = guided(world, Guidance(top_p=0.75))
    probs = torch.tensor([0.5, 0.3, 0.2]).log()
    logits = torch.full((1, 6), 9.0)
    logits[0, [1, 2, 3]] = probs
    kept = reshaped._reshape(logits, "a").softmax(-1)[0]
    torch.testing.assert_close(kept, torch.tensor([0, 0.625, 0.375, 0, 0, 0]))
    assert guided(world, Guidance(top_p=0.01))._reshape(logits, "a").softmax(-1)[0].tolist() == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("stepper", [FirstHitting(), Ancestral(num_steps=4), ConfidenceUnmasking(num_steps=3)])
def test_forbidden_symbols_are_never_drawn(world: World, stepper: FirstHitting | Ancestral | ConfidenceUnmasking) -> None:
    plain, _ = letters_of_a(world, guided(world, Guidance()), stepper, num=500)
    without, _ = letters_of_a(world, guided(world, Guidance(forbidden={"a": ("q",)})), stepper, num=500)
    assert bool((plain == 1).any())
    assert not bool((without == 1).any())


def test_guidance_of_uniform_noise_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="track 'a' has uniform noise; guidance is defined for absorbing noise"):
        guided(world, Guidance(temperature=0.5), "uniform")


@pytest.mark.parametrize(
    "forbidden,message",
    [
        ({"a": ("Q",)}, "sampling.guidance.forbidden.a: found 'Q'.* not a symbol of the track"),
        ({"a": ("p", "q", "r")}, "sampling.guidance.forbidden.a: every symbol is forbidden"),
    ],
)
def test_forbidden_symbols_that_make_no_sense_are_refused(world: World, forbidden: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        guided(world, Guidance(forbidden=forbidden))


@pytest.mark.parametrize("settings,message", [({"temperature": 0.0}, "temperature: found 0.0"), ({"top_p": 0.0}, "top_p: found 0.0")])
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Guidance(**settings)


def test_sharper_samples_are_farther_from_the_joint(world: World) -> None:
    """Temperature trades truth for likelihood: its total variation is not zero, and grows."""
    laws = []
    for temperature in (1.0, 0.5, 0.1):
        a, b = letters_of_a(world, guided(world, Guidance(temperature=temperature)))
        index = (((a[:, 0] * 3 + a[:, 1]) * 3 + a[:, 2]) * 4 + b[:, 0]) * 4 + b[:, 1]
        laws.append(torch.bincount(index, minlength=432).double() / NUM)
    errors = [total_variation(law, world.probs) for law in laws]
    assert errors[0] + 0.02 < errors[1] < errors[2] - 0.02
