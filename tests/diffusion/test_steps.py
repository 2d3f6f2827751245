"""Identities token by token: SEDD's loss is MDLM's, SEDD's analytic step is the ancestral one, and steps back lose no law."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from protlig_dd.diffusion.parameterizations import Parameterization, Score, Subs
from protlig_dd.rng import Draws
from tests.support.enumerable import AXES, LENGTHS, NAMES, ExactDenoiser, World

WORLD = World.load()
MASKED = ["subs", "score", "score_unscaled"]
Levels = Mapping[str, float]


def random_rows(num: int, size: int, seed: int) -> Tensor:
    return 2 * Draws.root(seed, "rows").fold_in(torch.arange(num)).gumbel_vector(size).double()


def noisy_tokens(param: Parameterization, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return clean tokens, noisy ones and alphas from 1e-4 to 0.9999."""
    draws = Draws.root(1, "tokens").fold_in(torch.arange(num))
    x0 = torch.tensor(param.process.emittable_ids)[draws.integers(param.process.num_states)]
    alpha = torch.linspace(1e-4, 1 - 1e-4, num, dtype=torch.float64)
    return x0, param.process.sample_xt(x0, alpha, draws.fold("noise")), alpha


@pytest.mark.parametrize("scaled", [True, False])
def test_sedd_score_entropy_is_mdlm_weighted_nll_pointwise(scaled: bool) -> None:
    """log_score = log p(x0 | x_t) + log(alpha / (1 - alpha)) for any normalised p, at every level."""
    process = WORLD.parameterizations("subs")["b"].process
    subs, score = Subs(process=process), Score(process=process, scale_by_sigma=scaled)
    x0, xt, alpha = noisy_tokens(subs, 500)
    slope = -torch.linspace(0.1, 3, 500, dtype=torch.float64)
    logits = random_rows(500, process.num_rows, 3)
    log_p = subs.x0_log_probs(logits, xt, alpha)
    shift = math.log(process.num_states) if scaled else torch.log(alpha / (1 - alpha))[:, None]
    torch.testing.assert_close(
        score.loss(log_p + shift, x0, xt, alpha, slope), subs.loss(logits, x0, xt, alpha, slope), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(score.log_score(log_p + shift, xt, alpha), subs.log_score(logits, xt, alpha), rtol=1e-10, atol=1e-10)


def sedd_absorbing(log_score: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """SEDD's score entropy at a mask as the paper writes it; log_score over letters only."""
    r = 1 / torch.expm1(sigma)
    picked = log_score.gather(-1, x0[:, None])[:, 0]
    return log_score.exp().sum(-1) - r * picked + r * (torch.log(r) - 1)


@pytest.mark.parametrize("scaled", [True, False])
def test_score_loss_is_dsigma_times_the_papers_score_entropy_for_any_logits(scaled: bool) -> None:
    """Scores that do not sum to one are punished exactly as in the paper."""
    process = WORLD.parameterizations("subs")["a"].process
    score = Score(process=process, scale_by_sigma=scaled)
    x0, _, alpha = noisy_tokens(score, 300)
    xt = torch.full_like(x0, process.mask_id)
    slope = -torch.linspace(0.1, 3, 300, dtype=torch.float64)
    logits = random_rows(300, process.num_rows, 4)
    letters = score.log_score(logits, xt, alpha)[:, list(process.emittable_ids)]
    want = -slope / alpha * sedd_absorbing(letters, x0 - 1, -torch.log(alpha))  # track a's letters are ids 1, 2, 3
    torch.testing.assert_close(score.loss(logits, x0, xt, alpha, slope), want, rtol=1e-8, atol=1e-10)


STEPS: list[tuple[float, float]] = [(1.0, 0.999), (0.9, 0.5), (0.5, 0.4999), (0.3, 0.001), (1.0, 1e-6)]


@pytest.mark.parametrize(("alpha_s", "alpha_t"), STEPS)
@pytest.mark.parametrize("name", NAMES)
def test_sedds_analytic_step_is_the_ancestral_posterior(name: str, alpha_s: float, alpha_t: float) -> None:
    process = WORLD.parameterizations("subs")[name].process
    subs, score = Subs(process=process), Score(process=process, scale_by_sigma=False)
    xt = torch.tensor([process.mask_id, *process.emittable_ids] * 5)
    s, t = (torch.full((len(xt),), a, dtype=torch.float64) for a in (alpha_s, alpha_t))
    logits = random_rows(len(xt), process.num_rows, 5)
    log_p = subs.x0_log_probs(logits, xt, t)
    mine = subs.reverse_probs(logits, xt, s, t)
    torch.testing.assert_close(score.reverse_probs(log_p + torch.log(t / (1 - t))[:, None], xt, s, t), mine, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mine.sum(-1), torch.ones(len(xt), dtype=torch.float64), rtol=1e-12, atol=0)
    euler = process.rate_from_score(subs.log_score(logits, xt, t).exp(), xt)
    small = process.reverse_from_score(subs.log_score(logits, xt, t).exp(), xt, t * (1 + 1e-7), t)
    one_hot = torch.nn.functional.one_hot(xt, process.num_rows).double()
    moves = (small / 1e-7) * (1 - one_hot)
    torch.testing.assert_close(moves, euler, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [*MASKED, "uniform", "mixed"])
@pytest.mark.parametrize("levels", [({"a": 0.9, "b": 0.7}, {"a": 0.5, "b": 0.2}), ({"a": 1.0, "b": 1.0}, {"a": 0.97, "b": 0.97})])
def test_reverse_step_is_exact_for_one_place(kind: str, levels: tuple[Levels, Levels]) -> None:
    """Mean over x_t of p(x_s at one place | x_t) is the marginal of x_s there: no law is lost by stepping back one place."""
    params = WORLD.parameterizations(kind)
    later, earlier = levels[1], levels[0]
    law = WORLD.noised_law(params, later)
    num = len(law.probs)
    sigma = {n: torch.full((num,), -math.log(later[n]), dtype=torch.float64) for n in NAMES}
    logits = ExactDenoiser(WORLD, params)(law.batch, sigma)
    for axis, (name, place) in enumerate(AXES):
        param = params[name]
        rows = logits[name].reshape(num, LENGTHS[name], -1)[:, place]
        xt = law.batch.tracks[name].tokens.reshape(num, -1)[:, place]
        s, t = (torch.full((num,), level[name], dtype=torch.float64) for level in (earlier, later))
        back = param.reverse_probs(rows, xt, s, t)
        torch.testing.assert_close(back.sum(-1), torch.ones(num, dtype=torch.float64), rtol=1e-9, atol=0)
        clean = WORLD.joint.sum([d for d in range(5) if d != axis])
        n, ids = param.process.num_states, list(param.process.emittable_ids)
        want = torch.zeros(param.process.num_rows, dtype=torch.float64)
        if kind == "uniform" or (kind == "mixed" and name == "b"):
            want[ids] = earlier[name] * clean + (1 - earlier[name]) / n
        else:
            want[ids] = earlier[name] * clean
            want[param.process.mask_id] = 1 - earlier[name]
        torch.testing.assert_close((law.probs[:, None] * back).sum(0), want, rtol=1e-9, atol=1e-12)
        # From x0_log_probs by Bayes the same step follows: the two ways of holding an exact answer agree.
        x0 = param.x0_log_probs(rows, xt, t).exp()
        torch.testing.assert_close(param.process.posterior(x0, xt, s, t), back, rtol=1e-6, atol=1e-9)
        given = law.with_letter[name, place] / law.probs[:, None].clamp(min=1e-300)
        likely = (law.probs > 0)[:, None]
        torch.testing.assert_close(torch.where(likely, x0[:, ids], 0), torch.where(likely, given, 0), rtol=1e-6, atol=1e-9)
