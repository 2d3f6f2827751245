"""The sampling loop: what never changes, what samples depend on, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from protlig_dd.diffusion.schedules import Cosine, Geometric, LogLinear
from protlig_dd.errors import ConfigError
from protlig_dd.sampling import Ancestral, Euler, FirstHitting, SamplerSettings, sample
from protlig_dd.sampling.loop import Problem, State, rank_within
from tests.support.enumerable import World
from tests.support.networks import SAMPLERS, Counting, choose, diffusion_of, odd_batch, pairs, small_network


@pytest.fixture(scope="module")
def network(world: World) -> nn.Module:
    """Return a small dual-track model."""
    return small_network(world)


def label(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{value.kind}{'+corrector' if getattr(value, 'corrector_steps', 0) else ''}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("t_start", [1.0, 0.5])
@pytest.mark.parametrize("kind,sampler", pairs(), ids=label)
def test_frozen_positions_never_change_and_only_emittable_ids_are_drawn(
    world: World, network: nn.Module, kind: str, sampler: SamplerSettings, t_start: float
) -> None:
    """Also that no mask is left, although the network's scores do not sum to one."""
    batch = odd_batch(world, 30)
    for generate in (("a", "b"),) if t_start == 1 else (("b",),):

        def check(step: int, state: State, generate: tuple[str, ...] = generate) -> None:
            for name, track in state.batch.tracks.items():
                frozen = ~batch.tracks[name].maskable if name in generate else torch.ones(len(track.tokens), dtype=bool)
                assert torch.equal(track.tokens[frozen], batch.tracks[name].tokens[frozen]), (step, name)

        drawn = sample(network, diffusion_of(world, kind), batch, generate=generate, sampler=sampler, seed=3, t_start=t_start, trace=check)
        for name, track in drawn.batch.tracks.items():
            assert bool(world.tracks[name].emittable[track.tokens].all()), (name, track.tokens)
            assert torch.equal(track.maskable, batch.tracks[name].maskable)
            assert track.layout == batch.tracks[name].layout


@pytest.mark.parametrize("kind,sampler", pairs(("subs", "uniform")), ids=label)
def test_the_same_seed_gives_the_same_sample_and_another_seed_another(
    world: World, network: nn.Module, kind: str, sampler: SamplerSettings
) -> None:
    batch, diffusion = odd_batch(world, 30), diffusion_of(world, kind)
    first, again, other = (sample(network, diffusion, batch, generate=("a", "b"), sampler=sampler, seed=seed).batch for seed in (1, 1, 2))
    assert all(torch.equal(first.tracks[n].tokens, again.tracks[n].tokens) for n in ("a", "b"))
    is_open = batch.tracks["b"].maskable
    changed = first.tracks["b"].tokens[is_open] != other.tracks["b"].tokens[is_open]
    assert float(changed.float().mean()) > 0.2


@pytest.mark.parametrize("kind,sampler", pairs(("score", "uniform")), ids=label)
def test_sample_i_is_the_same_whatever_else_is_in_the_batch(world: World, network: nn.Module, kind: str, sampler: SamplerSettings) -> None:
    num = 64
    batch, diffusion = odd_batch(world, num), diffusion_of(world, kind)
    whole = sample(network, diffusion, batch, generate=("a", "b"), sampler=sampler, seed=8).batch
    expected = {name: track.split() for name, track in whole.tracks.items()}
    shuffled = torch.randperm(num, generator=torch.Generator().manual_seed(1)).tolist()
    parts = [shuffled, *(list(range(i, i + 7)) for i in (0, 35)), [3], [40]]
    for chosen in parts:
        part = sample(network, diffusion, choose(batch, world, chosen), generate=("a", "b"), sampler=sampler, seed=8).batch
        for name, track in part.tracks.items():
            assert track.split() == [expected[name][i] for i in chosen], (name, chosen)


def test_no_token_shares_its_random_stream_with_another_track_or_example(world: World, network: nn.Module) -> None:
    """Not even with the token at the same position of the same example's other track."""
    seen: list[torch.Tensor] = []

    class Look(FirstHitting):
        def num_calls(self, problem: Problem, state: State) -> int:
            seen.extend(problem.draws[name].keys for name in ("a", "b"))
            return 0

    sample(network, diffusion_of(world, "subs"), odd_batch(world, 40), generate=("a", "b"), sampler=Look(), seed=0)
    keys = torch.cat(seen)
    assert len(seen[0]) > 40 < len(seen[1]) and len(keys.unique()) == len(keys)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=label)
def test_num_calls_is_the_number_of_calls(world: World, network: nn.Module, sampler: SamplerSettings) -> None:
    counting, batch = Counting(network), odd_batch(world, 20)
    drawn = sample(counting, diffusion_of(world, "subs"), batch, generate=("a", "b"), sampler=sampler, seed=0)
    expected = {"euler": 5, "confidence": 4, "remasking": 5}.get(sampler.kind)
    if isinstance(sampler, Ancestral):
        expected = 5 if sampler.corrector_steps == 0 else 3 + 2 * 2
    if isinstance(sampler, FirstHitting):
        owners = torch.cat([t.layout.segment[t.maskable] for t in batch.tracks.values()])
        expected = int(torch.bincount(owners).max())
    assert drawn.num_calls == counting.calls == expected


def test_finished_examples_cost_nothing(world: World, network: nn.Module) -> None:
    counting, batch = Counting(network), odd_batch(world, 20)
    sample(counting, diffusion_of(world, "subs"), batch, generate=("a", "b"), sampler=FirstHitting(), seed=0)
    assert counting.tokens == sorted(counting.tokens, reverse=True)
    owners = torch.cat([t.layout.segment[t.maskable] for t in batch.tracks.values()])
    num_open = torch.bincount(owners, minlength=20)
    lengths = torch.tensor([sum(pair) for pair in zip(*(t.layout.lengths for t in batch.tracks.values()), strict=True)])
    assert counting.tokens == [int(lengths[num_open > step].sum()) for step in range(len(counting.tokens))]


@pytest.mark.parametrize("kind,sampler", pairs(("subs", "uniform")), ids=label)
def test_tokens_at_open_positions_do_not_matter_from_noise(world: World, network: nn.Module, kind: str, sampler: SamplerSettings) -> None:
    batch = odd_batch(world, 20)
    track = batch.tracks["b"]
    masked = torch.where(track.maskable, world.tracks["b"].vocabulary.mask_id, track.tokens)
    drawn = [
        sample(network, diffusion_of(world, kind), start, generate=("b",), sampler=sampler, seed=0).batch.tracks["b"].tokens
        for start in (batch, batch.with_tokens(b=masked))
    ]
    assert torch.equal(*drawn)


def test_a_partial_noise_loses_the_share_of_tokens_that_its_time_says(world: World, network: nn.Module) -> None:
    batch = odd_batch(world, 400, open_share=1.0)
    mask_id, lost = world.tracks["b"].vocabulary.mask_id, []

    def look(noisy, sigma, *, at=None):  # type: ignore[no-untyped-def]
        lost.append(int((noisy.tracks["b"].tokens == mask_id).sum()))
        assert float((sigma["b"] + torch.log1p(torch.tensor(-0.3 * (1 - 1e-3)))).abs().max()) < 1e-5
        return network(noisy, sigma, at=at)

    sample(look, diffusion_of(world, "subs"), batch, generate=("b",), sampler=Ancestral(num_steps=1), seed=0, t_start=0.3)
    n, p = len(batch.tracks["b"].tokens), 0.3 * (1 - 1e-3)
    assert abs(lost[0] - n * p) < 4 * (n * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("kind,sampler", pairs(("subs", "score", "uniform")), ids=label)
def test_half_precision_logits_are_drawn_from_in_float32(world: World, network: nn.Module, kind: str, sampler: SamplerSettings) -> None:
    """The draws of bfloat16 logits are those of the same numbers in float32."""

    class Rounded(Counting):
        def __call__(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            return {name: x.float() for name, x in super().__call__(*args, **kwargs).items()}

    batch, diffusion = odd_batch(world, 50), diffusion_of(world, kind)
    half, full = (
        sample(denoiser, diffusion, batch, generate=("a", "b"), sampler=sampler, seed=0).batch
        for denoiser in (Counting(network, torch.bfloat16), Rounded(network, torch.bfloat16))
    )
    assert all(torch.equal(half.tracks[n].tokens, full.tracks[n].tokens) for n in ("a", "b"))


@pytest.mark.parametrize("kind", ["score", "score_unscaled", "uniform"])
@pytest.mark.parametrize("sampler", [Ancestral(num_steps=4), Euler(num_steps=4)], ids=label)
def test_a_noise_that_reaches_alpha_zero_is_sampled(world: World, network: nn.Module, sampler: SamplerSettings, kind: str) -> None:
    """Rates are infinite there; numbers that are none would give one and the same letter everywhere."""
    batch = odd_batch(world, 60, open_share=1.0)
    diffusion = diffusion_of(world, kind, LogLinear(eps=0.0))
    drawn = sample(network, diffusion, batch, generate=("b",), sampler=sampler, seed=0)
    letters = drawn.batch.tracks["b"].tokens.bincount(minlength=7)
    assert int((letters[[0, 1, 3, 4]] > 0).sum()) == 4, letters


@pytest.mark.parametrize("schedule", [Cosine(), Geometric()], ids=lambda s: s.kind)
def test_euler_gives_probabilities_where_the_slope_of_the_schedule_rounds_to_zero(
    world: World, network: nn.Module, schedule: Cosine | Geometric
) -> None:
    batch = odd_batch(world, 60, open_share=1.0)
    drawn = sample(network, diffusion_of(world, "subs", schedule), batch, generate=("b",), sampler=Euler(num_steps=6), seed=0)
    letters = drawn.batch.tracks["b"].tokens.bincount(minlength=7)
    assert int((letters[[0, 1, 3, 4]] > 0).sum()) == 4, letters


def test_a_batch_with_nothing_to_generate_comes_back_as_it_is(world: World, network: nn.Module) -> None:
    batch = odd_batch(world, 5, open_share=0.0)
    for sampler in SAMPLERS:
        drawn = sample(network, diffusion_of(world, "subs"), batch, generate=("a",), sampler=sampler, seed=0)
        assert torch.equal(drawn.batch.tracks["a"].tokens, batch.tracks["a"].tokens)


@pytest.mark.parametrize("schedule", [Cosine(sigma_max=4.0), LogLinear(eps=0.05)], ids=lambda s: s.kind)
def test_a_schedule_that_does_not_end_in_noise_is_refused(world: World, network: nn.Module, schedule: Cosine | LogLinear) -> None:
    with pytest.raises(ConfigError, match=rf"{schedule.kind} leaves alpha\(1\) = 0.0(18|5).*expected at most 0.01.*sigma_max >= 4.7"):
        sample(network, diffusion_of(world, "subs", schedule), odd_batch(world, 2), generate=("a",), sampler=FirstHitting(), seed=0)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"generate": ("ligand",)}, "generate: found track 'ligand', expected one of a, b"),
        ({"generate": ()}, "generate: found no track, expected one or more of a, b"),
        ({"t_start": 0.0}, "t_start: found 0.0, expected 0 < t_start <= 1"),
        ({"t_start": 1.5}, "t_start: found 1.5, expected 0 < t_start <= 1"),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, network: nn.Module, changes: dict, message: str) -> None:
    arguments = {"generate": ("a",), "sampler": FirstHitting(), "seed": 0, **changes}
    with pytest.raises(ConfigError, match=message.replace("<", ".")):
        sample(network, diffusion_of(world, "subs"), odd_batch(world, 2), **arguments)


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s.kind in ("first_hitting", "confidence", "remasking")], ids=label)
def test_samplers_that_open_masks_refuse_uniform_noise(world: World, network: nn.Module, sampler: SamplerSettings) -> None:
    with pytest.raises(ConfigError, match=f"'{sampler.kind}' opens masks, and track 'b' has uniform noise; use ancestral or euler"):
        sample(network, diffusion_of(world, "mixed"), odd_batch(world, 2), generate=("a", "b"), sampler=sampler, seed=0)


def test_rank_within_ranks_inside_each_segment() -> None:
    segment = torch.tensor([0, 2, 0, 2, 2, 0])
    value = torch.tensor([0.3, 0.9, 0.1, 0.2, 0.9, 0.3])
    assert rank_within(segment, value).tolist() == [1, 1, 0, 0, 2, 2]
