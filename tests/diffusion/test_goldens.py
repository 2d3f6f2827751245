"""The original SEDD mathematics, value by value; tests/golden/README.md says which values are targets and which only record a quirk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.diffusion.parameterizations import Score
from protlig_dd.diffusion.processes import Absorbing, Uniform
from protlig_dd.diffusion.schedules import Cosine, Geometric, LogLinear, NoiseSchedule, SigmaCurriculum
from protlig_dd.diffusion.times import BiasedTimes, UniformTimes
from protlig_dd.rng import Draws

pytestmark = pytest.mark.data
Golden = Callable[[str], Tensor]
SIZES = pytest.mark.parametrize("n", [4, 20, 36, 2364])
KINDS = pytest.mark.parametrize("kind", ["absorb", "uniform"])


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    """Return a reader of both files by key."""
    files = [np.load(shared / "goldens" / "sedd" / name) for name in ("goldens.npz", "goldens_ext.npz")]
    return lambda key: torch.from_numpy(np.array(next(f[key] for f in files if key in f.files)))


@dataclass(frozen=True)
class Stored(Draws):
    """Draws that give back stored numbers."""

    u: Tensor
    letters: Tensor

    def uniform(self) -> Tensor:
        return self.u

    def fold(self, *names: str | int) -> Stored:
        return self

    def integers(self, high: int) -> Tensor:
        return self.letters

    def gumbel_vector(self, size: int) -> Tensor:
        return -torch.log(-torch.log(self.u))


def process_of(kind: str, n: int) -> Absorbing | Uniform:
    if kind == "absorb":
        return Absorbing(num_rows=n + 1, emittable_ids=range(n), mask_id=n)
    return Uniform(num_rows=n, emittable_ids=range(n), mask_id=n)


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def levels(golden: Golden, root: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, alpha and d sigma, one a token."""
    x = golden(f"{root}/x")
    return x, torch.exp(-golden(f"{root}/sigma")).expand(x.shape), golden(f"{root}/dsigma").expand(x.shape)


@KINDS
@SIZES
def test_score_entropy(golden: Golden, kind: str, n: int) -> None:
    root = f"{kind}/{n}"
    x, alpha, _ = levels(golden, root)
    score = Score(process=process_of(kind, n), scale_by_sigma=False)
    close(score.loss(golden(f"{root}/log_score"), golden(f"{root}/x0"), x, alpha, -alpha), golden(f"{root}/score_entropy"))


@SIZES
def test_transition(golden: Golden, n: int) -> None:
    process = process_of("uniform", n)
    assert isinstance(process, Uniform)
    x, alpha, _ = levels(golden, f"uniform/{n}")
    for key in ("transition", "transp_transition"):
        close(process.transition(x, alpha, alpha), golden(f"uniform/{n}/{key}"))


@KINDS
@SIZES
def test_reverse_rates_and_the_euler_step(golden: Golden, kind: str, n: int) -> None:
    root = f"{kind}/{n}"
    x = golden(f"{root}/x")
    rates = process_of(kind, n).rate_from_score(golden(f"{root}/log_score").exp(), x)
    total = rates.sum(-1, keepdim=True)
    close(rates.scatter_add(-1, x[..., None], -total), golden(f"{root}/reverse_rate"))
    moves = rates * golden(f"{root}/euler_step") * golden(f"{root}/euler_dsigma_dt")
    close(moves.scatter_add(-1, x[..., None], 1 - moves.sum(-1, keepdim=True)), golden(f"{root}/euler_probs"))


@KINDS
@SIZES
def test_the_analytic_step_and_the_denoising_one(golden: Golden, kind: str, n: int) -> None:
    root = f"{kind}/{n}"
    x, alpha, dsigma = levels(golden, root)
    process, score = process_of(kind, n), golden(f"{root}/log_score").exp()
    close(process.reverse_from_score(score, x, alpha * dsigma.exp(), alpha), golden(f"{root}/analytic_probs").clamp(min=0))
    last = process.reverse_from_score(score, x, torch.ones_like(alpha), alpha)
    close(last[..., :n], golden(f"{root}/denoise_probs").clamp(min=0))
    assert kind == "uniform" or bool((last[..., n] == 0).all())


@SIZES
def test_a_parameterization_takes_the_same_analytic_step(golden: Golden, n: int) -> None:
    """Through the form in alpha, which is finite where SEDD's is not."""
    root = f"absorb/{n}"
    x, alpha, dsigma = levels(golden, root)
    score = Score(process=process_of("absorb", n), scale_by_sigma=False)
    got = score.reverse_probs(golden(f"{root}/log_score"), x, alpha * dsigma.exp(), alpha)
    close(got, golden(f"{root}/analytic_probs").clamp(min=0))


@KINDS
@SIZES
def test_noise_replayed_from_stored_uniforms(golden: Golden, kind: str, n: int) -> None:
    root = f"{kind}/{n}"
    x0, alpha = golden(f"{root}/x0"), torch.exp(-golden(f"{root}/sigma"))
    close(1 - alpha, golden(f"{root}/move_chance"))
    u, letters = golden(f"{root}/sample_transition_u"), golden(f"{root}/sample_transition_r")
    draws = Stored(keys=x0, u=u, letters=letters)
    noised = process_of(kind, n).sample_xt(x0, alpha.expand(x0.shape), draws)
    assert torch.equal(noised, golden(f"{root}/sample_transition"))
    if kind == "absorb":
        assert torch.equal(process_of(kind, n).sample_prior(golden(f"{root}/sample_limit") * 0, draws), golden(f"{root}/sample_limit"))


@KINDS
@pytest.mark.parametrize("n", [4, 20, 36])
@pytest.mark.parametrize("step", ["analytic", "euler", "denoise"])
def test_draws_replayed_from_stored_uniforms(golden: Golden, kind: str, n: int, step: str) -> None:
    root = f"{kind}/{n}"
    probs = golden(f"{root}/{step}_probs")
    draws = Stored(keys=golden(f"{root}/x"), u=golden(f"{root}/cat_u")[..., : probs.shape[-1]], letters=torch.zeros(()))
    assert torch.equal(draws.categorical(probs.clamp(min=0).log()), golden(f"{root}/{step}_draw"))


def test_the_race_is_the_same_where_its_epsilon_does_not_bind(golden: Golden) -> None:
    probs = golden("categorical/probs")
    draws = Stored(keys=golden("categorical/draw"), u=golden("categorical/u"), letters=torch.zeros(()))
    assert torch.equal(draws.categorical(probs.log()), golden("categorical/draw"))


LOSSES = {
    "absorb_loglinear": (LogLinear(eps=1e-3), "absorb"),
    "absorb_geometric": (Geometric(sigma_min=1e-4, sigma_max=20.0), "absorb"),
    "uniform_geometric": (Geometric(sigma_min=1e-4, sigma_max=20.0), "uniform"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_an_example(golden: Golden, name: str) -> None:
    schedule, kind = LOSSES[name]
    x, t = golden(f"loss/{name}/x"), golden(f"loss/{name}/t")
    alpha, slope = (f(t)[:, None].expand(x.shape) for f in (schedule.alpha, schedule.alpha_prime))
    score = Score(process=process_of(kind, 20), scale_by_sigma=False)
    loss = score.loss(golden(f"loss/{name}/log_score"), golden(f"loss/{name}/x0"), x, alpha, slope)
    close(loss.sum(-1), golden(f"loss/{name}/loss"))
    u = golden(f"loss/{name}/t_u")
    draws = Stored(keys=torch.arange(len(u)), u=u, letters=u)
    drawn = UniformTimes().draw(draws, draws, torch.arange(len(u)), len(u), 0)
    close(drawn.t, golden(f"loss/{name}/t_drawn"))


SCHEDULES: dict[str, tuple[NoiseSchedule, str]] = {
    **{f"noise/loglinear/{eps}": (LogLinear(eps=eps), "noise/t") for eps in (0.001, 0.02, 0.05, 0.1)},
    **{
        f"noise/geometric/{low}_{high}": (Geometric(sigma_min=low, sigma_max=high), "noise/t")
        for low, high in ((1e-4, 20.0), (1e-3, 1.0), (1e-5, 20.0))
    },
    **{
        f"cosine/{low}_{high}": (Cosine(sigma_min=low, sigma_max=high), "cosine/t")
        for low, high in ((1e-4, 0.5), (1e-4, 0.8), (1e-3, 1.0), (0.01, 0.95))
    },
}


@pytest.mark.parametrize("key", SCHEDULES)
def test_total_noise_and_its_rate(golden: Golden, key: str) -> None:
    schedule, times = SCHEDULES[key]
    t = golden(times)
    close(-torch.log(schedule.alpha(t)), golden(f"{key}/total"))
    close(-schedule.alpha_prime(t) / schedule.alpha(t), golden(f"{key}/rate"))


def test_scale_by_sigma(golden: Golden) -> None:
    x, h = golden("scale_by_sigma/x"), golden("scale_by_sigma/h")
    alpha = torch.exp(-golden("scale_by_sigma/sigma"))[:, None].expand(x.shape)
    score = Score(process=process_of("absorb", 36), scale_by_sigma=True)
    close(score.log_score(h, x, alpha)[..., :36], golden("scale_by_sigma/out")[..., :36])


@pytest.mark.parametrize("ramp", ["exponential", "cosine", "linear"])
@pytest.mark.parametrize("strength", [1.5, 2.0, 3.0])
def test_biased_times(golden: Golden, ramp: str, strength: float) -> None:
    sampler = BiasedTimes(ramp=ramp, strength=strength, steps=int(golden("curriculum/preschool")))  # type: ignore[arg-type]
    want, u = golden(f"curriculum/prob/{ramp}/{strength}/t"), golden("curriculum/u")
    for row, step in enumerate(golden("curriculum/steps").tolist()):
        close(sampler.from_uniform(u, step).t, want[row])


@pytest.mark.parametrize("ramp", ["exponential", "cosine", "linear"])
def test_sigma_scaling(golden: Golden, ramp: str) -> None:
    curriculum = SigmaCurriculum(ramp=ramp, steps=int(golden("curriculum/preschool")), start=0.1)  # type: ignore[arg-type]
    for step, theirs in zip(golden("curriculum/steps").tolist(), golden(f"curriculum/sigma_scale/{ramp}/factor").tolist(), strict=True):
        ours = getattr(curriculum.at(step, LogLinear()), "factor", 1.0)
        if ramp == "exponential":  # theirs never arrives
            theirs = min(1.0, 0.1 + (theirs - 0.1) / (1 - math.exp(-3)))
        assert ours == pytest.approx(theirs, abs=1e-9), step
