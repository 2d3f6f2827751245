"""Forward processes against enumeration: transitions, draws, posteriors, reversals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from protlig_dd.diffusion.processes import Absorbing, Uniform
from protlig_dd.rng import Draws
from protlig_dd.tokens.protein import protein_vocabulary

ROWS, IDS, MASK = 7, (1, 2, 4, 5), 6
PAIRS = [Absorbing(num_rows=ROWS, emittable_ids=IDS, mask_id=MASK), Uniform(num_rows=ROWS, emittable_ids=IDS, mask_id=MASK)]
BOTH = pytest.mark.parametrize("process", PAIRS, ids=lambda p: type(p).__name__)
STEPS = pytest.mark.parametrize(("alpha_s", "alpha_t"), [(1.0, 0.7), (0.9, 0.2), (0.5, 0.4999), (0.01, 0.001), (1.0, 1e-6)])


def forward(process: Absorbing | Uniform, alpha: float) -> Tensor:
    """Return q(x | x0) as a matrix [x0, x] over all rows, written down from the definition."""
    q = torch.zeros(ROWS, ROWS, dtype=torch.float64)
    for x0 in IDS:
        for x in IDS:
            q[x0, x] = alpha * (x == x0) + ((1 - alpha) / len(IDS) if isinstance(process, Uniform) else 0)
        if isinstance(process, Absorbing):
            q[x0, MASK] = 1 - alpha
    if isinstance(process, Absorbing):
        q[MASK, MASK] = 1
    return q


def states(process: Absorbing | Uniform) -> Tensor:
    return torch.tensor([*IDS, MASK] if isinstance(process, Absorbing) else IDS)


def full(value: float, like: Tensor) -> Tensor:
    return torch.full((len(like),), value, dtype=torch.float64)


def prior_over_letters() -> Tensor:
    p = torch.zeros(ROWS, dtype=torch.float64)
    p[list(IDS)] = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    return p


def test_uniform_transition_is_the_definition() -> None:
    process = PAIRS[1]
    assert isinstance(process, Uniform)
    xt = states(process)
    for alpha in (1.0, 0.6, 0.0):
        got = process.transition(xt, full(alpha, xt), torch.zeros((), dtype=torch.float64))
        torch.testing.assert_close(got, forward(process, alpha)[:, xt].T, rtol=1e-14, atol=0)
        torch.testing.assert_close(got.sum(-1), torch.ones_like(got[:, 0]), rtol=1e-14, atol=0)


@BOTH
def test_transitions_compose(process: Absorbing | Uniform) -> None:
    """Noise to alpha_s, then by alpha_t / alpha_s, is noise to alpha_t: drawn in two steps it has the one-step law."""
    torch.testing.assert_close(forward(process, 0.6) @ forward(process, 0.5), forward(process, 0.3), rtol=1e-14, atol=1e-16)
    num = 100_000
    x0 = torch.full((num,), 2)
    draws = Draws.root(0, "compose").fold_in(torch.arange(num))
    half = process.sample_xt(x0, torch.full((num,), 0.6), draws.fold("first"))
    twice = process.sample_xt(half, torch.full((num,), 0.5), draws.fold("second"))
    check_frequencies(twice, forward(process, 0.3)[2])


def check_frequencies(drawn: Tensor, probs: Tensor) -> None:
    counts = torch.bincount(drawn, minlength=ROWS)
    for row, p in enumerate(probs.tolist()):
        n, seen = len(drawn), int(counts[row])
        assert abs(seen - n * p) <= 4 * math.sqrt(n * p * (1 - p)) + 1e-6, f"row {row}: {seen} of {n}, expected {n * p}"


@BOTH
@pytest.mark.parametrize("alpha", [0.999, 0.5, 0.01])
def test_draws_follow_the_law(process: Absorbing | Uniform, alpha: float) -> None:
    num = 100_000
    drawn = process.sample_xt(torch.full((num,), 4), torch.full((num,), alpha), Draws.root(1).fold_in(torch.arange(num)))
    check_frequencies(drawn, forward(process, alpha)[4])


@BOTH
def test_the_prior_is_the_law_at_alpha_zero(process: Absorbing | Uniform) -> None:
    num = 100_000
    like = torch.full((num,), 1)
    check_frequencies(process.sample_prior(like, Draws.root(2).fold_in(torch.arange(num))), forward(process, 0.0)[1])


@BOTH
def test_alpha_one_keeps_everything_and_zero_nothing(process: Absorbing | Uniform) -> None:
    x0 = torch.tensor(IDS).repeat(500)
    draws = Draws.root(3).fold_in(torch.arange(len(x0)))
    assert torch.equal(process.sample_xt(x0, torch.ones(len(x0)), draws), x0)
    gone = process.sample_xt(x0, torch.zeros(len(x0)), draws)
    if isinstance(process, Absorbing):
        assert bool((gone == MASK).all())
    else:
        assert 0.2 < float((gone == x0).float().mean()) < 0.3


def test_which_token_moves_and_where_to_are_independent() -> None:
    """Under uniform noise the new letter must not depend on the uniform that decided to move it."""
    process, num = PAIRS[1], 200_000
    draws = Draws.root(4).fold_in(torch.arange(num))
    barely = draws.uniform() < 0.1
    drawn = process.sample_xt(torch.full((num,), 1), torch.full((num,), 0.9), draws)
    check_frequencies(drawn[barely], forward(process, 0.0)[1])
    assert bool((drawn[~barely] == 1).all())


@BOTH
@STEPS
def test_posterior_is_bayes_by_enumeration(process: Absorbing | Uniform, alpha_s: float, alpha_t: float) -> None:
    """sum over x0 of p(x0) q(x_s | x0) q(x_t | x_s) / q(x_t | x0); p is what is believed of x0 having seen x_t."""
    xt = states(process)
    p = prior_over_letters().expand(len(xt), -1)
    step = forward(process, alpha_t / alpha_s)
    reach_s, reach_t = forward(process, alpha_s), forward(process, alpha_t)
    got = process.posterior(p, xt, full(alpha_s, xt), full(alpha_t, xt))
    for row, x in enumerate(xt.tolist()):
        want = torch.zeros(ROWS, dtype=torch.float64)
        if isinstance(process, Absorbing) and x != MASK:
            want[x] = 1  # x0 is seen, whatever p says
        else:
            for x0 in IDS:
                want += p[row, x0] * reach_s[x0] * step[:, x] / reach_t[x0, x]
        torch.testing.assert_close(got[row], want, rtol=1e-10, atol=1e-14)
        assert float(got[row].sum()) == pytest.approx(1, abs=1e-12)


@BOTH
@STEPS
def test_reverse_from_the_true_score_is_the_true_reversal(process: Absorbing | Uniform, alpha_s: float, alpha_t: float) -> None:
    """p(x_s | x_t) = p_s(x_s) q(x_t | x_s) / p_t(x_t) for one token with a known law."""
    p0 = prior_over_letters()
    p_s, p_t = p0 @ forward(process, alpha_s), p0 @ forward(process, alpha_t)
    xt = states(process)
    score = p_t[None, :] / p_t[xt][:, None]
    got = process.reverse_from_score(score, xt, full(alpha_s, xt), full(alpha_t, xt))
    want = p_s[None, :] * forward(process, alpha_t / alpha_s)[:, xt].T / p_t[xt][:, None]
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(got.sum(-1), torch.ones(len(xt), dtype=torch.float64), rtol=1e-9, atol=0)


@BOTH
def test_rates_are_the_limit_of_small_steps(process: Absorbing | Uniform) -> None:
    p_t = prior_over_letters() @ forward(process, 0.4)
    xt = states(process)
    score = p_t[None, :] / p_t[xt][:, None]
    h = 1e-6
    step = process.reverse_from_score(score, xt, full(0.4 * math.exp(h), xt), full(0.4, xt))
    rates = process.rate_from_score(score, xt)
    assert bool((rates.gather(1, xt[:, None]) == 0).all())
    off = 1 - torch.nn.functional.one_hot(xt, ROWS).double()
    torch.testing.assert_close(step * off / h, rates, rtol=1e-5, atol=1e-6)


@BOTH
def test_nothing_is_put_on_special_ids(process: Absorbing | Uniform) -> None:
    """Not even where scores or beliefs there are large."""
    xt = states(process)
    loud = torch.full((len(xt), ROWS), 5.0, dtype=torch.float64)
    special = [i for i in range(ROWS) if i not in IDS and i != MASK]
    for made in (process.reverse_from_score(loud, xt, full(0.5, xt), full(0.3, xt)), process.rate_from_score(loud, xt)):
        assert bool((made[:, special] == 0).all())
        assert isinstance(process, Absorbing) or bool((made[:, MASK] == 0).all())
    drawn = process.sample_prior(torch.zeros(1000, dtype=torch.int64), Draws.root(0).fold_in(torch.arange(1000)))
    assert not set(drawn.tolist()) & set(special)


def test_scores_that_sum_to_too_much_are_cut_off() -> None:
    """SEDD's negative weight for the mask would never win its race; here it is 0, and the row stays unnormalised."""
    process = PAIRS[0]
    xt = torch.tensor([MASK])
    got = process.reverse_from_score(torch.full((1, ROWS), 3.0, dtype=torch.float64), xt, full(0.9, xt), full(0.5, xt))
    assert float(got[0, MASK]) == 0
    assert float(got.sum()) == pytest.approx(4 * 3 * 0.8)


@pytest.mark.parametrize("total", [0.5, 1.0, 2.0])
def test_a_step_to_clean_data_leaves_no_mask(total: float) -> None:
    """However badly the scores are normalised: SEDD drops the mask's column in its last step."""
    process = PAIRS[0]
    assert isinstance(process, Absorbing)
    xt = torch.tensor([MASK])
    weights = prior_over_letters()[None] * total
    for got in (
        process.reverse_from_x0(weights, xt, full(1.0, xt), full(0.2, xt)),
        process.reverse_from_score(weights * 0.25, xt, full(1.0, xt), full(0.2, xt)),
    ):
        assert float(got[0, MASK]) == 0
        torch.testing.assert_close(got, weights, rtol=1e-12, atol=1e-15)


def test_reverse_from_x0_is_finite_where_nothing_survives() -> None:
    process = PAIRS[0]
    assert isinstance(process, Absorbing)
    xt = torch.tensor([MASK])
    got = process.reverse_from_x0(prior_over_letters()[None], xt, full(0.25, xt), full(0.0, xt))
    want = prior_over_letters() * 0.25
    want[MASK] = 0.75
    torch.testing.assert_close(got[0], want, rtol=1e-12, atol=1e-15)


def test_a_process_is_made_of_a_vocabulary() -> None:
    for name, cls in {"absorbing": Absorbing, "uniform": Uniform}.items():
        process = cls.of(protein_vocabulary(num_rows=37, mask_id=36))
        assert (process.num_rows, process.num_states, process.mask_id) == (37, 20, 36), name
        allowed = process.emittable(torch.zeros(()))
        assert allowed.nonzero().flatten().tolist() == list(range(4, 24))


def test_a_process_needs_letters() -> None:
    with pytest.raises(ValueError, match="emittable_ids: found none, expected at least one"):
        Absorbing(num_rows=3, emittable_ids=(), mask_id=2)
