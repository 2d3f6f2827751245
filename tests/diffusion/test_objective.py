"""The objective: whose noise is whose, what is counted, what is left alone. Its value is tested in test_identities.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.diffusion.denoiser import Diffusion
from protlig_dd.diffusion.objective import DiffusionObjective, Prepared
from protlig_dd.diffusion.parameterizations import Parameterization, Score, Subs
from protlig_dd.diffusion.processes import Absorbing, Uniform
from protlig_dd.diffusion.schedules import Geometric, LogLinear, NoiseSchedule, Scaled, SigmaCurriculum
from protlig_dd.diffusion.times import BiasedTimes, StratifiedTimes, TaskMixture, Times, TimeSampler, UniformTimes
from protlig_dd.rng import Draws
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
from protlig_dd.tokens.tracks import TrackBatch, pack

TRACKS = {"protein": ProteinTrack(unknown="X", add_ends=True).build("protein"), "ligand": LigandTrack().build("ligand")}
MIXTURE = {"joint": 1.0, "ligand_given_protein": 1.0, "protein_only": 0.5, "ligand_only": 0.5, "independent": 1.0}
PROTEINS = ("MKTAYIAKQRQXISFVKSHFSRQ", "GSHMX", "ACDEFGHIKLMNPQRSTVWY", "MXXXXV")
LIGANDS = ("CCO", "c1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C)C(=O)N2C", "C[N+](C)(C)CC")


def examples(num: int) -> list[dict[str, list[int]]]:
    made = []
    for i in range(num):
        one = {"protein": TRACKS["protein"].encode(PROTEINS[i % 4]), "ligand": TRACKS["ligand"].encode(LIGANDS[i // 4 % 4])}
        made.append({name: ids for name, ids in one.items() if not (i % 7 == 3 and name == "protein")})
    return made


def batch_of(ids: list[int], *, size: int, offset: int = 0) -> TrackBatch:
    """Return examples of a global batch of `size`: example and slot i for each of `ids`."""
    everything = examples(size)
    return pack([everything[i] for i in ids], TRACKS, example_ids=[offset + i for i in ids], slots=ids, global_size=size)


def diffusion(kind: str = "absorbing", schedule: NoiseSchedule | None = None, **more: str) -> Diffusion:
    params: dict[str, Parameterization] = {}
    for name, track in TRACKS.items():
        if kind == "uniform":
            params[name] = Score(process=Uniform.of(track.vocabulary))
        else:
            params[name] = Subs(process=Absorbing.of(track.vocabulary), **more)  # type: ignore[arg-type]
    return Diffusion(parameterizations=params, schedule=schedule or LogLinear())


def objective(
    kind: str = "absorbing", *, tasks: Mapping[str, float] = MIXTURE, times: TimeSampler | None = None, **more: object
) -> DiffusionObjective:
    return DiffusionObjective(diffusion=diffusion(kind), tasks=TaskMixture(dict(tasks), tuple(TRACKS)), times=times, **more)  # type: ignore[arg-type]


@settings
class Fixed(UniformTimes):
    """Times that are all the same."""

    t: float

    def draw(self, draws: Draws, shared: Draws, slots: Tensor, global_size: int, step: int) -> Times:
        return Times(torch.full((len(slots),), self.t), torch.ones(len(slots)))


class Arbitrary:
    """A denoiser with keyed logits, the same for a token whatever the batch; it records what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[TrackBatch, Mapping[str, Tensor]]] = []

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        self.seen.append((batch, sigma))
        logits = {}
        for name, track in batch.tracks.items():
            keys = Draws.root(9).fold_in(batch.example_ids)[track.layout.segment].fold_in(track.layout.position)
            rows = keys.gumbel_vector(TRACKS[name].vocabulary.num_rows)
            logits[name] = rows if at is None else rows[at[name]]
        return logits


def by_example(prepared: Prepared) -> dict[int, tuple[object, ...]]:
    """Return for each example id its task, noise levels and noisy tokens."""
    rows = {name: track.split() for name, track in prepared.batch.tracks.items()}
    return {
        int(i): (
            prepared.tasks[place],
            *(float(prepared.sigma[name][place]) for name in TRACKS),
            *(tuple(rows[name][place]) for name in TRACKS),
        )
        for place, i in enumerate(prepared.batch.example_ids)
    }


@pytest.mark.parametrize("kind", ["absorbing", "uniform"])
@pytest.mark.parametrize("times", [StratifiedTimes(), UniformTimes(), BiasedTimes()], ids=lambda t: t.kind)
def test_an_examples_noise_does_not_depend_on_its_batch(kind: str, times: TimeSampler) -> None:
    """Neither on order, nor on neighbours, nor on the split over ranks and micro-batches: bit for bit."""
    one = objective(kind, times=times)
    size = 36
    whole = by_example(one.prepare(batch_of(list(range(size)), size=size), 5))
    order = torch.randperm(size).tolist()
    for parts in (1, 3, 12):
        together: dict[int, tuple[object, ...]] = {}
        for part in range(parts):
            together |= by_example(one.prepare(batch_of(order[part::parts], size=size), 5))
        assert together == whole


def test_selected_examples_keep_their_noise() -> None:
    """Ids and slots go with the examples, so a part of a batch in another order is noised as in the whole."""
    whole, times = batch_of([3, 14, 15, 9], size=64), StratifiedTimes()
    found = by_example(objective(times=times).prepare(whole.select([2, 0]), 5))
    expected = by_example(objective(times=times).prepare(whole, 5))
    assert found == {i: expected[i] for i in (15, 3)}


def test_the_split_changes_no_sum() -> None:
    """Totals and token counts of micro-batches add up to those of the global batch."""
    one, size = objective(), 40
    whole = one.prepare(batch_of(list(range(size)), size=size), 2)
    parts = [one.prepare(batch_of(list(range(k, size, 4)), size=size), 2) for k in range(4)]
    assert sum(p.num_tokens for p in parts) == whole.num_tokens
    total = sum(float(one.loss(Arbitrary(), p).total) for p in parts)
    assert total == pytest.approx(float(one.loss(Arbitrary(), whole).total), rel=1e-5)


def test_noise_is_keyed_by_seed_purpose_step_and_example() -> None:
    batch = batch_of(list(range(16)), size=16)
    base = by_example(objective().prepare(batch, 0))
    assert by_example(objective().prepare(batch, 0)) == base
    for changed in (objective(seed=1).prepare(batch, 0), objective(purpose="validation").prepare(batch, 0), objective().prepare(batch, 1)):
        assert by_example(changed) != base
    moved = by_example(objective().prepare(replace(batch, example_ids=batch.example_ids + 100), 0))
    assert [moved[i + 100] for i in range(16)] != [base[i] for i in range(16)]


@pytest.mark.parametrize("kind", ["absorbing", "uniform"])
def test_only_emittable_tokens_are_noised_and_into_legal_ones(kind: str) -> None:
    """X, begin and end tokens stay as they are, at every noise level, and cost nothing."""
    one = objective(kind, tasks={"joint": 1.0, "ligand_only": 1.0})
    for step in range(5):
        clean = batch_of(list(range(28)), size=28)
        prepared = one.prepare(clean, step)
        for name, track in prepared.batch.tracks.items():
            before = clean.tracks[name].keep([name in MODES[task] for task in prepared.tasks])
            fixed = ~before.maskable
            assert torch.equal(track.tokens[fixed], before.tokens[fixed])
            assert name != "protein" or int(fixed.sum()) > 40
            legal = {*TRACKS[name].vocabulary.emittable_ids}
            if kind == "absorbing":
                legal.add(TRACKS[name].vocabulary.mask_id)
            assert set(track.tokens[before.maskable].tolist()) <= legal
            assert bool(before.maskable[prepared.tracks[name].active].all())
            changed = (track.tokens != before.tokens).nonzero().flatten().tolist()
            assert set(changed) <= set(prepared.tracks[name].active.tolist())
            assert sum(prepared.tracks[name].num_tokens.values()) == int(before.maskable.sum())


MODES = {"joint": ("protein", "ligand"), "ligand_only": ("ligand",)}


def test_tasks_say_what_is_noised_clean_and_absent() -> None:
    prepared = objective().prepare(batch_of(list(range(64)), size=64), 0)
    assert set(prepared.tasks) == set(MIXTURE)
    clean = batch_of(list(range(64)), size=64)
    for i, task in enumerate(prepared.tasks):
        protein, ligand = (float(prepared.sigma[name][i]) for name in TRACKS)
        lengths = {name: prepared.batch.tracks[name].layout.lengths[i] for name in TRACKS}
        if task == "joint":
            assert protein == ligand > 0
        elif task == "independent":
            assert protein > 0 and ligand > 0 and protein != ligand
        elif task == "ligand_given_protein":
            assert protein == 0 and ligand > 0
            assert prepared.batch.tracks["protein"].split()[i] == clean.tracks["protein"].split()[i]
        elif task == "protein_only":
            assert protein > 0 and ligand == 0 and lengths["ligand"] == 0
        else:
            assert lengths["protein"] == 0 and ligand > 0
        if i % 7 == 3:
            assert task == "ligand_only", "this example has no protein"
    for name in TRACKS:
        segment = prepared.batch.tracks[name].layout.segment
        assert bool((prepared.sigma[name][segment[prepared.tracks[name].active]] > 0).all())


def test_counts_are_maskable_tokens_of_noised_tracks() -> None:
    """Unmasked ones too: the denominator does not depend on the noise."""
    prepared = objective().prepare(batch_of(list(range(64)), size=64), 0)
    clean = batch_of(list(range(64)), size=64)
    want = {f"{task}/{name}": 0 for task in MIXTURE for name in TRACKS}
    for i, task in enumerate(prepared.tasks):
        for name in TRACKS:
            noised = not (task.endswith("_only") and not task.startswith(name)) and not (
                task == "ligand_given_protein" and name == "protein"
            )
            if noised:
                ids = clean.tracks[name].split()[i]
                want[f"{task}/{name}"] += sum(id_ in TRACKS[name].vocabulary.emittable_ids for id_ in ids)
    terms = objective().loss(Arbitrary(), prepared)
    assert dict(terms.counts) == {f"nll/{key}": n for key, n in want.items() if n}
    assert prepared.num_tokens == sum(want.values())
    assert set(terms.sums) == set(terms.counts)


@pytest.mark.parametrize("kind", ["absorbing", "uniform"])
def test_the_loss_is_the_sum_over_tokens_written_out(kind: str) -> None:
    """Each token of each example by itself, with the alpha, slope and weight of its own example and track."""
    one = objective(kind, times=BiasedTimes(corrected=True, steps=10))
    clean = batch_of(list(range(8)), size=8)
    prepared = one.prepare(clean, 3)
    logits = Arbitrary()(prepared.batch, prepared.sigma)
    draws = Draws.root(0, "train", 3).fold("example").fold_in(clean.example_ids)
    drawn = [one.times.draw(draws.fold("time", g), draws, clean.slots, 8, 3) for g in (0, 1)]
    total = 0.0
    for name, track in prepared.batch.tracks.items():
        param, at = one.diffusion.parameterizations[name], 0
        for i, ids in enumerate(track.split()):
            task = one.tasks.tasks[prepared.tasks[i]]
            group = next((g for g, names in enumerate(task.noised) if name in names), None)
            before = clean.tracks[name].split()[i]
            for place, xt in enumerate(ids):
                if group is not None and before[place] in TRACKS[name].vocabulary.emittable_ids:
                    t = drawn[group].t[i]
                    alpha, slope = one.diffusion.schedule.alpha(t), one.diffusion.schedule.alpha_prime(t)
                    loss = param.loss(logits[name][at + place], torch.tensor(before[place]), torch.tensor(xt), alpha, slope)
                    total += float(loss * drawn[group].weight[i])
            at += len(ids)
    assert float(one.loss(Arbitrary(), prepared).total) == pytest.approx(total, rel=1e-4)


def test_sigma_is_the_noise_that_was_applied() -> None:
    """Under a curriculum too: corruption, network input and loss share one scaled sigma."""
    curriculum = SigmaCurriculum(ramp="linear", steps=100, start=0.1)
    params = diffusion().parameterizations
    one = DiffusionObjective(
        diffusion=Diffusion(parameterizations=params, schedule=Geometric()),
        tasks=TaskMixture({"ligand_only": 1.0}, tuple(TRACKS)),
        times=Fixed(t=0.9),
        curriculum=curriculum,
    )
    size = 120
    for step in (0, 50, 100):
        scaled = Scaled(base=Geometric(), factor=0.1 + 0.9 * step / 100)
        prepared = one.prepare(batch_of(list(range(size)), size=size), step)
        t = torch.tensor(0.9, dtype=torch.float64)
        sigma, slope = -math.log(float(scaled.alpha(t))), float(scaled.alpha_prime(t))
        assert prepared.sigma["ligand"].tolist() == pytest.approx([sigma] * size, rel=1e-5)
        noised = prepared.tracks["ligand"]
        assert noised.alpha.tolist() == pytest.approx([math.exp(-sigma)] * len(noised.alpha), rel=1e-5)
        assert noised.alpha_prime.tolist() == pytest.approx([slope] * len(noised.alpha), rel=1e-5)
        p, n = 1 - math.exp(-sigma), prepared.num_tokens
        assert abs(len(noised.active) - n * p) < 4 * math.sqrt(n * p * (1 - p)) + 1


@pytest.mark.parametrize("kind", ["absorbing", "uniform"])
def test_losses_are_finite_at_the_ends_of_time(kind: str) -> None:
    """A t so small that alpha would round to 1, and t = 1."""
    for t in (1e-30, 1e-9, 1.0):
        one = objective(kind, times=Fixed(t=t))
        prepared = one.prepare(batch_of(list(range(16)), size=16), 0)
        assert all(bool(s.isfinite().all()) for s in prepared.sigma.values())
        assert math.isfinite(float(one.loss(Arbitrary(), prepared).total))


@pytest.mark.parametrize("weighting", ["constant", "linear"])
def test_the_bound_is_reported_whatever_the_loss_is_weighted_by(weighting: str) -> None:
    batch = batch_of(list(range(32)), size=32)
    plain = objective()
    other = DiffusionObjective(diffusion=diffusion(weighting=weighting), tasks=plain.tasks)
    bound = plain.loss(Arbitrary(), plain.prepare(batch, 0))
    shown = other.loss(Arbitrary(), other.prepare(batch, 0))
    for name, value in bound.sums.items():
        assert name.startswith("nll/")
        assert float(shown.sums[name]) == pytest.approx(float(value), rel=1e-5)
    weighted = sum(float(v) for k, v in shown.sums.items() if k.startswith("loss/"))
    assert float(shown.total) == pytest.approx(weighted, rel=1e-5)
    assert float(shown.total) != pytest.approx(float(bound.total), rel=0.01)


def test_the_denoiser_is_asked_once_and_for_active_tokens_only() -> None:
    model, one = Arbitrary(), objective()
    prepared = one.prepare(batch_of(list(range(16)), size=16), 0)
    one.loss(model, prepared)
    assert len(model.seen) == 1
    batch, sigma = model.seen[0]
    assert batch is prepared.batch and sigma is prepared.sigma
    for name, track in prepared.tracks.items():
        assert torch.equal(prepared.batch.tracks[name].tokens[track.active], track.noised)
        assert bool((track.noised == TRACKS[name].vocabulary.mask_id).all())
        assert TRACKS[name].vocabulary.mask_id not in set(track.clean.tolist())


def test_preparing_writes_nothing_into_the_batch() -> None:
    batch = batch_of(list(range(16)), size=16)
    kept = {name: (track.tokens.clone(), track.layout.lengths) for name, track in batch.tracks.items()}
    objective().prepare(batch, 0)
    for name, (tokens, lengths) in kept.items():
        assert torch.equal(batch.tracks[name].tokens, tokens) and batch.tracks[name].layout.lengths == lengths


def test_conditions_are_hidden_at_their_rate_and_by_example() -> None:
    size = 700
    batch = replace(batch_of(list(range(size)), size=size), conditions={"affinity": torch.arange(size) % 5})
    hidden = objective(condition_dropout=0.2).prepare(batch, 0).batch.conditions["affinity"]
    share = float((hidden == -1).float().mean())
    assert abs(share - 0.2) < 4 * math.sqrt(0.16 / size)
    assert torch.equal(hidden[hidden >= 0], batch.conditions["affinity"][hidden >= 0])
    part = replace(batch_of([5, 699, 7], size=size), conditions={"affinity": torch.tensor([0, 4, 2])})
    again = objective(condition_dropout=0.2).prepare(part, 0).batch.conditions["affinity"]
    assert torch.equal(again, hidden[[5, 699, 7]])
    assert bool((objective(condition_dropout=0.0).prepare(batch, 0).batch.conditions["affinity"] >= 0).all())


def test_an_example_that_fits_no_task_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"tracks \['ligand'\] fits none of the tasks \['joint'\].*such as ligand_only"):
        objective(tasks={"joint": 1.0}).prepare(batch_of([3], size=7), 0)


def test_a_batch_without_noised_tokens_has_loss_zero() -> None:
    batch = pack([{"protein": [24, 24]}], TRACKS)
    one = objective(tasks={"protein_only": 1.0})
    prepared = one.prepare(batch, 0)
    assert prepared.num_tokens == 0
    terms = one.loss(Arbitrary(), prepared)
    assert float(terms.total) == 0 and not terms.sums


def test_a_prepared_batch_is_described_in_words() -> None:
    prepared = objective(tasks={"joint": 1.0}).prepare(batch_of([0, 1], size=2), 0)
    assert prepared.describe() == "tasks joint; tracks protein, ligand"
    assert prepared.to(torch.device("cpu")).num_tokens == prepared.num_tokens


def test_each_token_has_its_own_draw() -> None:
    """Equal sequences in two tracks, and equal neighbours, are not masked alike: the draw is keyed by track and position too."""
    tracks = dict.fromkeys(("one", "two"), TRACKS["protein"])
    one = DiffusionObjective(
        diffusion=Diffusion(
            parameterizations={name: Subs(process=Absorbing.of(TRACKS["protein"].vocabulary)) for name in tracks}, schedule=LogLinear()
        ),
        tasks=TaskMixture({"joint": 1.0}, ("one", "two")),
        times=Fixed(t=0.5),
    )
    ids = TRACKS["protein"].encode("A" * 100)
    prepared = one.prepare(pack([{"one": ids, "two": ids}] * 4, tracks), 0)
    masked = torch.stack([(prepared.batch.tracks[n].tokens == 32).reshape(4, -1)[:, 1:-1] for n in tracks]).float()
    assert 0.4 < float(masked.mean()) < 0.6
    rows = masked.reshape(8, -1)
    agreement = [float((rows[i] == rows[j]).float().mean()) for i in range(8) for j in range(i)]
    assert max(agreement) < 0.75, "two rows were masked alike"
    changes = float((rows[:, 1:] != rows[:, :-1]).float().mean())
    assert 0.4 < changes < 0.6, "neighbours were masked alike"
