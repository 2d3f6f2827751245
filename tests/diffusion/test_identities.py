"""The identities of masked and uniform diffusion, to machine precision, on the enumerable world.

Integrals over t run over the schedule's own t in (0, 1); what a schedule leaves out at its ends, alpha above alpha(0) and below alpha(1),
is integrated over alpha itself, so that every identity is one equation without a tolerance for truncation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.diffusion.denoiser import Diffusion
from protlig_dd.diffusion.objective import DiffusionObjective
from protlig_dd.diffusion.parameterizations import Parameterization
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import Cosine, Geometric, Linear, LogLinear, NoiseSchedule, Scaled
from protlig_dd.diffusion.times import TaskMixture, UniformTimes
from tests.support.enumerable import AXES, LENGTHS, NAMES, ExactDenoiser, World, draw_weights

WORLD = World.load()
SCHEDULES = [LogLinear(), Linear(), Geometric(), Cosine(), Scaled(base=Geometric(), factor=0.7)]
MASKED = ["subs", "score", "score_unscaled"]
Levels = Mapping[str, float]


def gauss_legendre(num: int, low: float, high: float) -> tuple[list[float], list[float]]:
    x, w = np.polynomial.legendre.leggauss(num)
    return list(low + (high - low) * (x + 1) / 2), list(w * (high - low) / 2)


def expected_loss(denoiser: ExactDenoiser, alphas: Levels, slopes: Levels) -> dict[str, float]:
    """Return for each noised track the exact mean of its summed loss at fixed noise levels; slopes are d alpha / dt."""
    params = denoiser.parameterizations
    law = WORLD.noised_law(params, alphas)
    num = len(law.probs)
    level = {name: torch.full((num,), alphas.get(name, 1.0), dtype=torch.float64) for name in NAMES}
    logits = denoiser(law.batch, {name: -torch.log(level[name]) for name in NAMES})
    sums = dict.fromkeys(slopes, 0.0)
    for name, place in AXES:
        if name not in slopes:
            continue
        rows = logits[name].reshape(num, LENGTHS[name], -1)[:, place]
        xt = law.batch.tracks[name].tokens.reshape(num, -1)[:, place]
        slope = torch.full_like(level[name], slopes[name])
        for letter, x0 in enumerate(params[name].process.emittable_ids):
            loss = params[name].loss(rows, torch.full_like(xt, x0), xt, level[name], slope)
            sums[name] += float((law.with_letter[name, place][:, letter] * loss).sum())
    return sums


def integrate(denoiser: ExactDenoiser, schedule: NoiseSchedule, noised: tuple[str, ...], given: Levels, num: int) -> float:
    """Return the integral over t in (0, 1) of the expected loss of tracks that share t; other tracks stay at given levels."""
    total = 0.0
    for t, weight in zip(*gauss_legendre(num, 0.0, 1.0), strict=True):
        at = torch.tensor(t, dtype=torch.float64)
        alpha, slope = float(schedule.alpha(at)), float(schedule.alpha_prime(at))
        losses = expected_loss(denoiser, {**given, **dict.fromkeys(noised, alpha)}, dict.fromkeys(noised, slope))
        total += weight * sum(losses.values())
    return total


def left_out(denoiser: ExactDenoiser, schedule: NoiseSchedule, noised: tuple[str, ...], given: Levels) -> float:
    """Return the part of the masked bound beyond the ends of a schedule, as an integral over alpha (a polynomial: exact)."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    first, last = schedule.alpha(ends).tolist()
    total = 0.0
    for low, high in ((0.0, last), (first, 1.0)):
        for alpha, weight in zip(*gauss_legendre(5, low, high), strict=True):
            if high > low:
                losses = expected_loss(denoiser, {**given, **dict.fromkeys(noised, alpha)}, dict.fromkeys(noised, -1.0))
                total += weight * sum(losses.values())
    return total


def exact_denoiser(kind: str) -> ExactDenoiser:
    return ExactDenoiser(WORLD, WORLD.parameterizations(kind))


def entropy_of(probs: Tensor) -> float:
    return -float(torch.xlogy(probs, probs).sum())


def information(params: Mapping[str, Parameterization], tracks: tuple[str, ...], alpha: float, given: Levels) -> float:
    """Return I(x0; x_t) of tracks at one level, in nats, conditional on other tracks seen at given levels; by counting."""
    law = WORLD.noised_law(params, {**given, **dict.fromkeys(tracks, alpha)})
    alone = entropy_of(WORLD.noised_law(params, given).probs) if given else 0.0
    noise = 0.0  # H(x_t | x0), a sum over places
    for name in tracks:
        n = params[name].process.num_states
        masked = isinstance(params[name].process, Absorbing)
        outcomes = [alpha, 1 - alpha] if masked else [alpha + (1 - alpha) / n] + [(1 - alpha) / n] * (n - 1)
        noise += LENGTHS[name] * entropy_of(torch.tensor(outcomes, dtype=torch.float64))
    return entropy_of(law.probs) - alone - noise


def test_the_joint_is_the_one_that_was_drawn_and_strongly_dependent() -> None:
    weights = (WORLD.probs * float(draw_weights().sum())).round()
    assert (weights - draw_weights()).abs().max() <= 1, "tests/golden/joint.json is not what draw_weights makes"
    shared = WORLD.entropy("a") + WORLD.entropy("b") - WORLD.entropy("a", "b")
    assert shared > 0.5, f"the tracks share {shared} nats only"
    places = [entropy_of(WORLD.joint.sum([d for d in range(5) if d != axis])) for axis in range(5)]
    assert sum(places) - WORLD.entropy("a", "b") > 1.0
    assert WORLD.probs.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("kind", [*MASKED, "uniform", "mixed"])
def test_the_exact_denoiser_agrees_with_bayes_by_hand(kind: str) -> None:
    """Every probability is summed by a plain loop over the 432 states, for a few noised states."""
    params = WORLD.parameterizations(kind)
    alpha = {"a": 0.3, "b": 0.8}
    clean = WORLD.states[[5, 77, 300]]
    noisy = clean.clone()
    for name, column in (("a", 1), ("a", 2), ("b", 4)):
        masked = isinstance(params[name].process, Absorbing)
        noisy[:, column] = -1 if masked else (noisy[:, column] + 1) % 3
    batch = WORLD.batch(noisy)
    sigma = {n: torch.full((3,), -math.log(alpha[n]), dtype=torch.float64) for n in NAMES}
    logits = ExactDenoiser(WORLD, params)(batch, sigma)
    for row in range(3):
        for axis, (name, place) in enumerate(AXES):
            ids = params[name].process.emittable_ids
            masked = isinstance(params[name].process, Absorbing)
            laws = [0.0] * len(ids)  # p(x0 here = v, x_t elsewhere), and for masked tracks x_t here too
            for state, p in zip(WORLD.states.tolist(), WORLD.probs.tolist(), strict=True):
                for other, (where, _) in enumerate(AXES):
                    seen, n = int(noisy[row, other]), len(params[where].process.emittable_ids)
                    if isinstance(params[where].process, Absorbing):
                        p *= 1.0 if seen == -1 else float(seen == state[other])
                    elif other != axis:
                        p *= alpha[where] * (seen == state[other]) + (1 - alpha[where]) / n
                laws[state[axis]] += p
            got = logits[name][row * LENGTHS[name] + place]
            xt = batch.tracks[name].tokens[row * LENGTHS[name] + place]
            at = torch.tensor(alpha[name], dtype=torch.float64)
            scores = params[name].log_score(got, xt, at).exp()[list(ids)]
            if masked and int(noisy[row, axis]) == -1:
                want = torch.tensor(laws) / sum(laws) * alpha[name] / (1 - alpha[name])
            elif masked:
                continue
            else:
                pt = [alpha[name] * law + (1 - alpha[name]) / len(ids) * sum(laws) for law in laws]
                want = torch.tensor(pt) / pt[int(noisy[row, axis])]
            torch.testing.assert_close(scores, want.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("kind", "schedule"),
    [
        *(("subs", s) for s in SCHEDULES),
        *(("score", s) for s in SCHEDULES[1:3]),
        ("score_unscaled", SCHEDULES[0]),
        ("score_unscaled", Cosine()),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_masked_bound_equals_the_entropy_of_the_data(kind: str, schedule: NoiseSchedule) -> None:
    exact = exact_denoiser(kind)
    num = 4 if isinstance(schedule, LogLinear) else 24  # in alpha the integrand is a polynomial of degree 4
    bound = integrate(exact, schedule, NAMES, {}, num) + left_out(exact, schedule, NAMES, {})
    assert bound == pytest.approx(WORLD.entropy("a", "b"), abs=1e-7 if num == 24 else 1e-11)


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("noised", NAMES)
def test_conditional_bound_equals_the_conditional_entropy(kind: str, noised: str) -> None:
    """The clean track is given at alpha = 1."""
    other = "b" if noised == "a" else "a"
    exact = exact_denoiser(kind)
    bound = integrate(exact, LogLinear(), (noised,), {other: 1.0}, 4)
    bound += left_out(exact, LogLinear(), (noised,), {other: 1.0})
    assert bound == pytest.approx(WORLD.entropy("a", "b") - WORLD.entropy(other), abs=1e-11)


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("noised", NAMES)
def test_single_track_bound_equals_the_marginal_entropy(kind: str, noised: str) -> None:
    exact = exact_denoiser(kind)
    bound = integrate(exact, LogLinear(), (noised,), {}, 4) + left_out(exact, LogLinear(), (noised,), {})
    assert bound == pytest.approx(WORLD.entropy(noised), abs=1e-11)


@pytest.mark.parametrize("kind", [*MASKED, "mixed"])
@pytest.mark.parametrize("level", [0.05, 0.6])
def test_bound_beside_a_noisy_track_equals_the_entropy_given_what_is_seen_of_it(kind: str, level: float) -> None:
    """The independent task: at every level of b, the integral over a's own time is H(a | b at that level)."""
    exact = exact_denoiser(kind)
    bound = integrate(exact, LogLinear(), ("a",), {"b": level}, 4) + left_out(exact, LogLinear(), ("a",), {"b": level})
    together = WORLD.noised_law(exact.parameterizations, {"a": 1.0, "b": level}).probs
    alone = WORLD.noised_law(exact.parameterizations, {"b": level}).probs
    assert bound == pytest.approx(entropy_of(together) - entropy_of(alone), abs=1e-11)


def between(num: int, high: float, low: float) -> list[tuple[float, float]]:
    """Return (alpha, weight) pairs of an integral over alpha; the nodes are laid in log(alpha / (1 - alpha)), where all is smooth."""
    x, w = gauss_legendre(num, math.log(low / (1 - low)), math.log(high / (1 - high)))
    alphas = [1 / (1 + math.exp(-one)) for one in x]
    return [(alpha, weight * alpha * (1 - alpha)) for alpha, weight in zip(alphas, w, strict=True)]


@pytest.mark.parametrize(
    ("kind", "schedule"),
    [("uniform", LogLinear()), ("uniform", Geometric()), ("uniform", Cosine()), ("mixed", LogLinear())],
    ids=lambda value: getattr(value, "kind", value),
)
def test_bound_equals_the_information_lost(kind: str, schedule: NoiseSchedule) -> None:
    """With the exact score the integral over t is I(x0; x_t) at its start less that at its end, and I at alpha = 1 is the entropy.

    So the bound is the entropy less the prior term; t starts where alpha = 1 - 1e-4, since the loss is singular at alpha = 1.
    """
    exact = exact_denoiser(kind)
    params = exact.parameterizations
    first, last = 1 - 1e-4, float(schedule.alpha(torch.ones((), dtype=torch.float64)))
    total = 0.0
    num = round(2.2 * (math.log(first / (1 - first)) - math.log(last / (1 - last))))
    for alpha, weight in between(num, first, last):
        t = schedule.time_of(torch.tensor(alpha, dtype=torch.float64))
        slope = float(schedule.alpha_prime(t))
        losses = expected_loss(exact, dict.fromkeys(NAMES, float(schedule.alpha(t))), dict.fromkeys(NAMES, slope))
        total += weight / -slope * sum(losses.values())
    want = information(params, NAMES, first, {}) - information(params, NAMES, last, {})
    assert total == pytest.approx(want, abs=1e-6)
    assert information(params, NAMES, 1.0, {}) == pytest.approx(WORLD.entropy("a", "b"), abs=1e-12)


@pytest.mark.parametrize("kind", ["uniform", "mixed"])
@pytest.mark.parametrize(("noised", "given"), [("a", {"b": 1.0}), ("b", {"a": 0.4}), ("b", {})])
def test_bound_between_two_levels_holds_for_every_task(kind: str, noised: str, given: Levels) -> None:
    """Between alpha 0.99 and 0.02, beside a clean, a noisy and an absent track."""
    exact = exact_denoiser(kind)
    total = 0.0
    for alpha, weight in between(16, 0.99, 0.02):
        total += weight * expected_loss(exact, {**given, noised: alpha}, {noised: -1.0})[noised]
    params = exact.parameterizations
    lost = information(params, (noised,), 0.99, given) - information(params, (noised,), 0.02, given)
    assert total == pytest.approx(lost, abs=1e-7)


TASKS = {
    "joint": (NAMES, {}),
    "a_given_b": (("a",), {"b": 1.0}),
    "b_given_a": (("b",), {"a": 1.0}),
    "a_only": (("a",), {}),
    "b_only": (("b",), {}),
}


@pytest.mark.parametrize("kind", ["subs", "uniform", "mixed"])
def test_objective_measures_the_entropy(kind: str) -> None:
    """From data to the loss through the public door: tasks, times, noise, denoiser, weights; z-tests at 4 standard errors."""
    params = WORLD.parameterizations(kind)
    diffusion = Diffusion(parameterizations=params, schedule=LogLinear())
    t_min, num, rounds = 0.03, 800, 12
    objective = DiffusionObjective(
        diffusion=diffusion, tasks=TaskMixture(dict.fromkeys(TASKS, 1.0), NAMES), times=UniformTimes(t_min=t_min)
    )
    denoiser = ExactDenoiser(WORLD, params)
    seen: dict[str, list[float]] = {name: [] for name in TASKS}
    for step in range(rounds):
        prepared = objective.prepare(WORLD.sample(num, seed=step), step)
        terms = objective.loss(denoiser, prepared)
        for name in TASKS:
            sums = [float(terms.sums[key]) for key in terms.sums if key.split("/")[1] == name]
            seen[name].append(sum(sums) / prepared.tasks.count(name))
        assert float(terms.total) == pytest.approx(sum(float(v) for v in terms.sums.values()), rel=1e-5)
    first, last = diffusion.schedule.alpha(torch.tensor([t_min, 1.0], dtype=torch.float64)).tolist()
    for name, (noised, given) in TASKS.items():
        truth = information(params, noised, first, given) - information(params, noised, last, given)
        error = float(np.std(seen[name], ddof=1)) / math.sqrt(rounds)
        mean = float(np.mean(seen[name]))
        assert abs(mean - truth) < 4 * error, f"{name}: {mean:.4f} +- {error:.4f} against {truth:.4f}"
        assert error < 0.08 * truth, f"{name}: the test has lost its power: {mean:.4f} +- {error:.4f}"


def test_independent_task_measures_what_is_left_of_each_track() -> None:
    """Each track has its own time: the mean is the average of H(a | b at level) over levels, plus the same with a and b exchanged."""
    params = WORLD.parameterizations("subs")
    want = 0.0
    for alpha, weight in zip(*gauss_legendre(4, 0.0, 1.0), strict=True):
        for other, name in (("a", "b"), ("b", "a")):
            together = WORLD.noised_law(params, {name: 1.0, other: alpha}).probs
            want += weight * (entropy_of(together) - entropy_of(WORLD.noised_law(params, {other: alpha}).probs))
    objective = DiffusionObjective(
        diffusion=Diffusion(parameterizations=params, schedule=LogLinear(eps=1e-5)),
        tasks=TaskMixture({"independent": 1.0}, NAMES),
        times=UniformTimes(t_min=1e-5),
    )
    denoiser, means = ExactDenoiser(WORLD, params), []
    for step in range(16):
        prepared = objective.prepare(WORLD.sample(600, seed=step), step)
        assert not torch.equal(prepared.sigma["a"], prepared.sigma["b"])
        means.append(float(objective.loss(denoiser, prepared).total) / 600)
    error = np.std(means, ddof=1) / math.sqrt(16)
    assert abs(np.mean(means) - want) < 4 * error
    assert error < 0.05 * want
