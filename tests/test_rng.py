"""Keyed random numbers: known answers, laws against exact ones, invariance, and the draw that half precision gets wrong."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from protlig_dd import rng
from protlig_dd.rng import Draws

ROOT = Path(__file__).resolve().parent.parent
WORD = 2**64
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
FIRST_OUTPUTS_OF_SEED_0 = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B]


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * MIX_1 % WORD
    z = (z ^ (z >> 27)) * MIX_2 % WORD
    return z ^ (z >> 31)


def signed(x: int) -> int:
    return x - WORD if x >= WORD // 2 else x


def streams(num: int, name: str = "test") -> Draws:
    return Draws.root(0, name).fold_in(torch.arange(num))


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """Return Pearson's statistic as a z score (its mean is the degrees of freedom, its variance twice that)."""
    freedom = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


def test_bits_are_splitmix64() -> None:
    """The published first outputs of seed 0, without their lowest bit, and a plain-integer implementation on odd states."""
    state, outputs = 0, []
    for _ in FIRST_OUTPUTS_OF_SEED_0:
        state = (state + GOLDEN) % WORD
        outputs.append(mix(state))
    assert outputs == FIRST_OUTPUTS_OF_SEED_0
    keys = torch.tensor([signed(i * GOLDEN % WORD) for i in range(5)])
    assert Draws(keys).bits().tolist() == [x >> 1 for x in FIRST_OUTPUTS_OF_SEED_0]
    for state in (1, 2**63 - 1, 2**63, WORD - 1, 0xDEADBEEFCAFEF00D):
        assert Draws(torch.tensor(signed(state))).bits().item() == mix((state + GOLDEN) % WORD) >> 1


def test_folding_is_a_fixed_function() -> None:
    """Numbers that were drawn once must be drawn for ever: runs are resumed and reproduced by them."""
    assert rng.key(0, "train", 7) == int.from_bytes(hashlib.blake2b(b"0/train/7", digest_size=8).digest(), "big") >> 1
    root = Draws.root(7, "train", 3)
    state = rng.key(7, "train", 3)
    assert int(root.keys) == state
    assert int(root.fold("noise").keys) == signed(mix(state ^ rng.key(0, "noise")))
    inner = mix((state + GOLDEN) % WORD)
    assert root.fold_in(torch.tensor([0, 5])).keys.tolist() == [signed(mix((inner + (i + 1) * GOLDEN) % WORD)) for i in (0, 5)]


def test_keys_do_not_depend_on_the_process() -> None:
    """Python's hash is salted anew in each process; blake2b is not."""
    code = "from protlig_dd.rng import key; import sys; sys.stdout.write(str(key(3, 'a', 1)))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    assert int(ran.stdout) == rng.key(3, "a", 1)


def test_names_seeds_and_orders_give_different_streams() -> None:
    roots = [Draws.root(0), Draws.root(1), Draws.root(0, "a"), Draws.root(0, "a", "b"), Draws.root(0, "b", "a"), Draws.root(0).fold("a")]
    roots += [Draws.root(0).fold("a").fold("b"), Draws.root(0).fold("b").fold("a"), Draws.root(0).fold("a", "b")]
    roots += [Draws.root(0, "a", 1), Draws.root(0, "a", 2), Draws.root(-1), Draws.root(0).fold_in(torch.tensor(0))]
    assert len({int(r.keys) for r in roots}) == len(roots)
    many = streams(300_000).keys
    assert len(many.unique()) == 300_000


def test_generators_are_keyed() -> None:
    one, same, other = (torch.rand(3, generator=rng.generator(5, *names)) for names in (("a",), ("a",), ("b",)))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("of", ["keys by index", "keys by name", "positions under one key"])
def test_uniforms_are_uniform(of: str) -> None:
    """Chi-square over 1,000 bins, and the lowest bits too."""
    num = 200_000
    if of == "keys by name":
        draws = Draws(torch.stack([Draws.root(0, i).keys for i in range(10_000)]))
        num = 10_000
    else:
        draws = streams(num) if of == "keys by index" else Draws.root(1).fold_in(torch.arange(400)[:, None]).fold_in(torch.arange(500))
    u = draws.uniform().double().flatten()
    assert float(u.min()) > 0 and float(u.max()) < 1
    assert abs(chi_square(torch.histc(u, 1000, 0, 1), torch.full((1000,), num / 1000))) < 4
    low = torch.bincount(draws.bits().flatten() % 1000, minlength=1000).double()
    assert abs(chi_square(low, torch.full((1000,), num / 1000))) < 4


@pytest.mark.parametrize("pair", ["neighbouring examples", "neighbouring positions", "two names", "key and its fold", "steps"])
def test_adjacent_streams_are_independent(pair: str) -> None:
    """Chi-square over a 20 x 20 table of two uniforms."""
    num = 100_000
    base = streams(num + 1)
    first, second = {
        "neighbouring examples": lambda: (base[torch.arange(num)], base[torch.arange(1, num + 1)]),
        "neighbouring positions": lambda: (base.fold_in(torch.tensor(3)), base.fold_in(torch.tensor(4))),
        "two names": lambda: (base.fold("a"), base.fold("b")),
        "key and its fold": lambda: (base, base.fold("letter")),
        "steps": lambda: tuple(Draws.root(0, "train", s).fold("example").fold_in(torch.arange(num)) for s in (8, 9)),
    }[pair]()
    a, b = first.uniform()[:num], second.uniform()[:num]
    cell = (a * 20).long().clamp(max=19) * 20 + (b * 20).long().clamp(max=19)
    counts = torch.bincount(cell, minlength=400).double()
    assert abs(chi_square(counts, torch.full((400,), num / 400))) < 4


def test_uniforms_are_dense_towards_zero_and_never_zero_or_one() -> None:
    """The smallest and the largest bits that can occur."""

    class Fixed(Draws):
        def bits(self) -> Tensor:
            return self.keys

    u = Fixed(torch.tensor([0, 1, 2**63 - 1, 2**62])).uniform()
    assert u.tolist() == [2.0**-64, 2.0**-63 + 2.0**-64, 1 - 2.0**-24, 0.5]
    g = Fixed(torch.tensor([0, 2**63 - 1])).gumbel()
    assert float(g[0]) == pytest.approx(64 * math.log(2), rel=1e-6)
    assert math.isfinite(float(g[1]))


def test_gumbel_noise_has_its_law() -> None:
    g = streams(200_000).gumbel().double()
    u = torch.exp(-torch.exp(-g))
    assert abs(chi_square(torch.histc(u, 500, 0, 1), torch.full((500,), 400.0))) < 4
    assert float(g.mean()) == pytest.approx(0.5772, abs=0.012)


@pytest.mark.parametrize("shape", ["peaked", "flat", "spread over ten decades"])
def test_categorical_draws_follow_their_probabilities(shape: str) -> None:
    logits = {
        "peaked": torch.tensor([3.0, 0.0, -1.0, 0.5, -2.0]),
        "flat": torch.zeros(50),
        "spread over ten decades": torch.linspace(0, -23, 11),
    }[shape]
    num = 60_000
    drawn = torch.bincount(streams(num).categorical(logits.expand(num, -1)), minlength=len(logits)).double()
    for seen, p in zip(drawn.tolist(), logits.double().softmax(0).tolist(), strict=True):
        assert abs(seen - num * p) <= 4 * math.sqrt(num * p * (1 - p)) + 1


def test_a_letter_of_one_in_a_million_is_drawn_at_its_rate() -> None:
    """Chi-square over common and rare letters in 2 million draws: about 2 + 2 of p = 1e-6, and 200 of p = 1e-4."""
    probs = torch.tensor([0.4999, 0.499998, 1e-4, 1e-6, 1e-6], dtype=torch.float64)
    probs[0] = 1 - probs[1:].sum()
    counts = torch.zeros(5, dtype=torch.float64)
    num, rounds = 500_000, 4
    for part in range(rounds):
        draws = Draws.root(part, "rare").fold_in(torch.arange(num))
        counts += torch.bincount(draws.categorical(probs.log().expand(num, -1)), minlength=5)
    for seen, p in zip(counts.tolist(), probs.tolist(), strict=True):
        want = num * rounds * p
        assert abs(seen - want) < 4 * math.sqrt(want) and (p > 1e-5 or seen > 0)


@pytest.mark.parametrize("p", [1e-3, 1e-6, 1e-9, 1e-12])
def test_the_race_keeps_the_rate_of_letters_no_simulation_would_see(p: float) -> None:
    """A letter of probability p beats one of 1 - p where its uniform u_1 < 1 - (1 - u_0)^(p / (1 - p)).

    Integrated over u_0 with the noise that the draw computes in float32, its chance is p: no cut at 2^-24 = 6e-8.
    """
    u0 = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    other = math.log1p(-p) - torch.log(-torch.log1p(-u0))

    class Given(Draws):
        def uniform(self) -> Tensor:
            return self.keys.to(torch.float32) * 2.0**-63 + 2.0**-64

    low, high = torch.zeros(20_000, dtype=torch.int64), torch.full((20_000,), 2**62)
    for _ in range(63):  # the largest 63-bit word whose noise wins
        middle = low + (high - low) // 2
        wins = math.log(p) + Given(middle).gumbel().double() > other
        low, high = torch.where(wins, middle, low), torch.where(wins, high, middle)
    chance = ((low.double() + 1) * 2.0**-63).mean()
    assert float(chance) == pytest.approx(p, rel=1e-4 if p > 1e-11 else 1e-3)


def naive_race(probs: Tensor) -> Tensor:
    """The draw of a port that forgets to widen: rand_like inherits the half precision of the probabilities."""
    return (probs / (1e-10 - (torch.rand_like(probs) + 1e-10).log())).argmax(-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_probabilities_are_drawn_right_by_us_and_wrong_by_the_naive_race(dtype: torch.dtype) -> None:
    """One step of 1,000 from a peaked residue: the mask opens with probability 1e-3, into rarer letters with 1e-4 in all.

    Ours passes z-tests at 4 standard errors where the naive race misses most or all of the rarer letters, by the version of torch.
    """
    letters = torch.tensor([0.90, 0.05, 0.03, 0.018, 0.002], dtype=torch.float64)
    probs = torch.cat([letters * 1e-3, torch.tensor([0.999], dtype=torch.float64)])
    num = 400_000
    half = probs.to(dtype)
    truth = half.double() / half.double().sum()  # what the half-precision input really says
    ours = streams(num, "half").categorical(half.float().log().expand(num, -1).to(torch.float32))
    theirs = naive_race(half.expand(num, -1))
    for rows in ([0], [1], [2], [3], [4], [1, 2, 3, 4], [0, 1, 2, 3, 4]):
        want = num * float(truth[rows].sum())
        assert abs(int(torch.isin(ours, torch.tensor(rows)).sum()) - want) < 4 * math.sqrt(want) + 1, rows
    rarer = num * float(truth[1:5].sum())
    missed = (int(((theirs >= 1) & (theirs < 5)).sum()) - rarer) / math.sqrt(rarer)
    assert missed < -3.5, f"{missed} standard errors: {int(((theirs >= 1) & (theirs < 5)).sum())} of {rarer:.0f}"


def test_autocast_does_not_reach_the_draw() -> None:
    logits = torch.tensor([0.0, -9.0]).expand(100_000, -1)
    draws = streams(100_000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = draws.categorical(logits)
    assert torch.equal(inside, draws.categorical(logits))
    half = draws.categorical(logits.bfloat16())
    assert torch.equal(half, draws.categorical(logits.bfloat16().float()))
    assert abs(int(half.sum()) - 100_000 * math.exp(-9)) < 4 * math.sqrt(100_000 * math.exp(-9))


def test_impossible_letters_are_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, -60.0]).expand(50_000, -1)
    assert set(streams(50_000).categorical(logits).tolist()) == {1}
    assert set(streams(100).categorical(torch.tensor([-torch.inf, -300.0]).expand(100, -1)).tolist()) == {1}


def test_draws_do_not_depend_on_the_batch_or_its_layout() -> None:
    """Bit for bit: integers by construction, categorical draws because a vector's tail is computed like its middle."""
    draws, logits = streams(1001), torch.linspace(0, -8, 23).expand(1001, -1)
    whole = (draws.bits(), draws.uniform(), draws.categorical(logits))
    for size in (1, 7, 333):
        for part in torch.randperm(1001)[:40].split(size):
            mine = draws[part]
            assert torch.equal(mine.bits(), whole[0][part])
            assert torch.equal(mine.uniform(), whole[1][part])
            assert torch.equal(mine.categorical(logits[part]), whole[2][part])
    square = Draws(draws.keys[:1000].reshape(10, 100))
    assert torch.equal(square.categorical(logits[:1000].reshape(10, 100, -1)).flatten(), whole[2][:1000])


@pytest.mark.gpu
def test_draws_do_not_depend_on_the_device() -> None:
    draws, logits = streams(5000), torch.linspace(0, -8, 23).expand(5000, -1)
    there = draws.to("cuda")
    assert torch.equal(there.bits().cpu(), draws.bits())
    assert torch.equal(there.uniform().cpu(), draws.uniform())
    same = there.categorical(logits.cuda()).cpu() == draws.categorical(logits)
    assert float(same.float().mean()) > 0.9999, "logarithms may differ in their last bit"


def test_integers_are_uniform_below_their_bound() -> None:
    drawn = streams(100_000).integers(7)
    assert abs(chi_square(torch.bincount(drawn, minlength=7).double(), torch.full((7,), 1e5 / 7))) < 4
    assert streams(100).integers(1).unique().tolist() == [0]


def test_folding_broadcasts() -> None:
    base = streams(4)
    grid = Draws(base.keys[:, None]).fold_in(torch.arange(3))
    assert grid.keys.shape == (4, 3)
    assert torch.equal(grid.keys[2], base[torch.tensor(2)].fold_in(torch.arange(3)).keys)
    assert base.gumbel_vector(6).shape == (4, 6)
    assert streams(0).categorical(torch.zeros(0, 5)).shape == (0,)
