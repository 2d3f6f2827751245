"""What logits mean: restriction to letters, weightings, precision, gradients. The identities have a file of their own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from protlig_dd.diffusion.parameterizations import Parameterization, Score, Subs
from protlig_dd.diffusion.processes import Absorbing, Uniform
from protlig_dd.rng import Draws

ROWS, IDS, MASK = 7, (1, 2, 4, 5), 6
ABSORBING, UNIFORM = (cls(num_rows=ROWS, emittable_ids=IDS, mask_id=MASK) for cls in (Absorbing, Uniform))
ALL = [Subs(process=ABSORBING), Score(process=ABSORBING), Score(process=ABSORBING, scale_by_sigma=False), Score(process=UNIFORM)]
EVERY = pytest.mark.parametrize("param", ALL, ids=["subs", "score", "score_unscaled", "uniform"])


def logits_of(num: int, seed: int = 0) -> Tensor:
    return 2 * Draws.root(seed, "logits").fold_in(torch.arange(num)).gumbel_vector(ROWS).double()


def tokens_of(param: Parameterization, num: int) -> tuple[Tensor, Tensor, Tensor]:
    draws = Draws.root(5).fold_in(torch.arange(num))
    x0 = torch.tensor(IDS)[draws.integers(len(IDS))]
    alpha = torch.linspace(0.001, 0.999, num, dtype=torch.float64)
    return x0, param.process.sample_xt(x0, alpha, draws.fold("x")), alpha


@EVERY
def test_logits_of_special_ids_change_nothing(param: Parameterization) -> None:
    x0, xt, alpha = tokens_of(param, 60)
    logits = logits_of(60)
    other = logits.clone()
    other[:, [0, 3, 6]] = 1e4
    slope = torch.full_like(alpha, -1.0)
    for answer in (
        lambda h: param.loss(h, x0, xt, alpha, slope),
        lambda h: param.x0_log_probs(h, xt, alpha),
        lambda h: param.log_score(h, xt, alpha),
        lambda h: param.reverse_probs(h, xt, (1 + alpha) / 2, alpha),
    ):
        assert torch.equal(answer(logits), answer(other))


@EVERY
def test_beliefs_are_normalised_over_letters(param: Parameterization) -> None:
    _, xt, alpha = tokens_of(param, 60)
    probs = param.x0_log_probs(logits_of(60), xt, alpha).exp()
    torch.testing.assert_close(probs.sum(-1), torch.ones(60, dtype=torch.float64), rtol=1e-12, atol=0)
    assert bool((probs[:, [0, 3, 6]] == 0).all())


@EVERY
def test_log_score_is_zero_at_the_token_itself(param: Parameterization) -> None:
    _, xt, alpha = tokens_of(param, 60)
    scores = param.log_score(logits_of(60), xt, alpha)
    assert bool((scores.gather(-1, xt[:, None]) == 0).all())
    assert bool((scores[:, [0, 3]] == -torch.inf).all())


def test_scale_by_sigma_makes_a_zero_output_uniform_over_the_letters() -> None:
    param = ALL[1]
    xt, alpha = torch.tensor([MASK]), torch.tensor([0.3], dtype=torch.float64)
    zero = torch.zeros(1, ROWS, dtype=torch.float64)
    scores = param.log_score(zero, xt, alpha).exp()
    torch.testing.assert_close(scores[0, list(IDS)], torch.full((4,), 0.3 / 0.7 / 4, dtype=torch.float64))
    reverse = param.reverse_probs(zero, xt, torch.tensor([0.65], dtype=torch.float64), alpha)
    torch.testing.assert_close(reverse[0, list(IDS)], torch.full((4,), 0.125, dtype=torch.float64))
    assert float(reverse[0, MASK]) == pytest.approx(0.5)


@pytest.mark.parametrize("cls", [Subs, Score])
def test_weightings_are_the_bound_one_and_alpha(cls: type) -> None:
    x0, _, alpha = tokens_of(ALL[0], 50)
    xt = torch.full_like(x0, MASK)
    slope = -torch.linspace(0.1, 4, 50, dtype=torch.float64)
    logits = logits_of(50)
    bare = cls(process=ABSORBING, weighting="constant").loss(logits, x0, xt, alpha, slope)
    elbo = cls(process=ABSORBING, weighting="elbo").loss(logits, x0, xt, alpha, slope)
    linear = cls(process=ABSORBING, weighting="linear").loss(logits, x0, xt, alpha, slope)
    torch.testing.assert_close(elbo, bare * -slope / (1 - alpha))
    torch.testing.assert_close(linear, bare * alpha)
    if cls is Subs:
        want = torch.nn.functional.cross_entropy(logits[:, list(IDS)], torch.searchsorted(torch.tensor(IDS), x0), reduction="none")
        torch.testing.assert_close(bare, want)


def test_unmasked_tokens_cost_nothing_under_absorbing_noise() -> None:
    xt = torch.tensor(IDS)
    for param in ALL[:3]:
        alpha = torch.full((4,), 0.5, dtype=torch.float64)
        assert param.loss(logits_of(4), xt, xt, alpha, -alpha).tolist() == [0, 0, 0, 0]
        assert param.informative(torch.tensor([1, MASK, 5])).tolist() == [False, True, False]
    assert ALL[3].informative(torch.tensor([1, 2])).tolist() == [True, True]


def test_score_entropy_is_zero_for_the_true_ratios_of_a_known_token_and_never_negative() -> None:
    """Absorbing: the score of a point mass. Uniform: rho_y = q(y | x0) / q(x_t | x0)."""
    for param in ALL[1:]:
        x0, xt, alpha = tokens_of(param, 80)
        slope = -torch.ones_like(alpha)
        assert bool((param.loss(logits_of(80), x0, xt, alpha, slope) >= 0).all())
    q = lambda y, x0, a: a * (y == x0) + (1 - a) / 4  # noqa: E731
    x0, xt, alpha = tokens_of(ALL[3], 80)
    ratio = torch.stack([q(torch.full_like(x0, y), x0, alpha) / q(xt, x0, alpha) for y in range(ROWS)], dim=-1)
    zero = ALL[3].loss(ratio.log(), x0, xt, alpha, -torch.ones_like(alpha))
    torch.testing.assert_close(zero, torch.zeros_like(zero), rtol=0, atol=1e-9)
    sharp = torch.full((80, ROWS), -50.0, dtype=torch.float64).scatter(1, x0[:, None], math.log(4))
    masks = torch.full_like(x0, MASK)
    zero = ALL[1].loss(sharp, x0, masks, alpha, -torch.ones_like(alpha))
    torch.testing.assert_close(zero, torch.zeros_like(zero), rtol=0, atol=1e-12)


def test_uniform_score_entropy_is_the_papers_sum() -> None:
    """Term by term over y != x_t, for any scores."""
    param = ALL[3]
    x0, xt, alpha = tokens_of(param, 80)
    logits = logits_of(80, seed=2)
    ls = param.log_score(logits, xt, alpha)
    want = torch.zeros(80, dtype=torch.float64)
    for i in range(80):
        a, n = float(alpha[i]), len(IDS)
        q = {y: a * (y == int(x0[i])) + (1 - a) / n for y in IDS}
        for y in IDS:
            if y != int(xt[i]):
                rho, s = q[y] / q[int(xt[i])], float(ls[i, y])
                want[i] += (math.exp(s) - rho * s + rho * (math.log(rho) - 1)) / n
    slope = -torch.linspace(0.5, 2, 80, dtype=torch.float64)
    torch.testing.assert_close(param.loss(logits, x0, xt, alpha, slope), -slope / alpha * want, rtol=1e-9, atol=1e-11)


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_losses_are_at_least_float32(param: Parameterization, dtype: torch.dtype) -> None:
    """Half-precision logits are widened first, so a half-precision network is judged by full-precision sums."""
    x0, xt, alpha = tokens_of(param, 40)
    half = logits_of(40).to(dtype)
    loss = param.loss(half, x0, xt, alpha.float(), -torch.ones(40))
    assert loss.dtype == torch.float32
    want = param.loss(half.double(), x0, xt, alpha, -torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(loss.double(), want, rtol=2e-3, atol=2e-3)
    assert param.x0_log_probs(half, xt, alpha.float()).dtype == torch.float32


@EVERY
@pytest.mark.parametrize("level", [2.0**-20, 1e-3, 0.5, 0.999, 1 - 2.0**-24])
def test_losses_and_gradients_are_finite_at_every_level(param: Parameterization, level: float) -> None:
    x0 = torch.tensor(IDS).repeat(5)
    states = IDS if isinstance(param.process, Uniform) else (*IDS, MASK)
    xt = torch.tensor(states).repeat_interleave(20 // len(states) + 1)[:20]
    alpha = torch.full((20,), level)
    logits = logits_of(20).float().requires_grad_()
    loss = param.loss(logits, x0, xt, alpha, torch.full((20,), -1.0))
    loss.sum().backward()
    assert logits.grad is not None
    assert bool(loss.isfinite().all()) and bool(logits.grad.isfinite().all())
    assert bool((logits.grad[:, [0, 3, 6]] == 0).all()), "rows that may not be emitted are not trained"


@EVERY
def test_gradients_are_those_of_the_formula(param: Parameterization) -> None:
    x0, xt, alpha = tokens_of(param, 12)
    logits = logits_of(12).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: param.loss(h, x0, xt, alpha, -torch.ones_like(alpha)), (logits,))


@pytest.mark.parametrize("param", ALL[:2], ids=["subs", "score"])
def test_reverse_steps_are_finite_from_pure_noise(param: Parameterization) -> None:
    """alpha_t = 0 is where a log-linear schedule with eps = 0 starts (an unscaled score is itself infinite there)."""
    xt = torch.tensor([MASK, MASK])
    zero, half = torch.zeros(2), torch.full((2,), 0.25)
    got = param.reverse_probs(logits_of(2).float(), xt, half, zero)
    assert bool(got.isfinite().all())
    assert bool((got[:, MASK] >= 0).all()) and bool((got[:, list(IDS)].sum(-1) > 0.01).all())


def test_uniform_noise_has_one_weighting() -> None:
    with pytest.raises(ValueError, match="weighting: found 'linear' with uniform noise, expected 'elbo'"):
        Score(process=UNIFORM, weighting="linear")
