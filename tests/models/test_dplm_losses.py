"""Losses and noise of DPLM, DPLM-2 and DPLM-2 Bit, replayed from recorded noise; and what the variants of the objective promise."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.diffusion.denoiser import Diffusion
from protlig_dd.diffusion.objective import DiffusionObjective, Prepared
from protlig_dd.diffusion.parameterizations import Subs
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.diffusion.times import TaskMixture, UniformTimes
from protlig_dd.diffusion.variants import MaskedLanguage, Variant, corrupt, mix_up
from protlig_dd.models.bits import BitHead
from protlig_dd.models.encoder import Encoder
from protlig_dd.models.published.pretrained import read_pretrained
from protlig_dd.rng import Draws
from protlig_dd.tokens.settings import ProteinTrack, StructureTrack
from protlig_dd.tokens.tracks import Layout, Track, TrackBatch, TrackTokens, pack

NUM_TIMES = 500
PROTEIN, STRUCTURE = ProteinTrack().build("protein"), StructureTrack().build("structure")


@pytest.fixture(scope="module")
def goldens(shared: Path) -> Path:
    return shared / "goldens/dplm"


def subs(track: Track, weighting: str = "linear") -> Subs:
    process = Absorbing.of(track.vocabulary)
    return Subs(process=process, weighting=weighting, normalise="all", num_times=NUM_TIMES)  # type: ignore[arg-type]


def masked_mean(param: Subs, logits: Tensor, target: Tensor, mask: Tensor, t: Tensor) -> float:
    """The loss of recorded noise: a weighted sum over masks divided by their number."""
    alpha = (1 - t / NUM_TIMES).float()[:, None].expand(mask.shape)[mask]
    xt = torch.full((int(mask.sum()),), param.process.mask_id)
    loss = param.loss(logits[mask], target[mask], xt, alpha, torch.full_like(alpha, -1.0))
    return loss.sum().item() / max(1, len(xt))


@pytest.mark.data
@pytest.mark.parametrize("mode", ["plain", "coupled"])
@pytest.mark.parametrize("weighting", ["linear", "constant"])
def test_dplm_losses(goldens: Path, mode: str, weighting: str) -> None:
    golden = {k: torch.from_numpy(v) for k, v in np.load(goldens / "losses.npz").items() if v.ndim}
    told = json.loads((goldens / "losses.json").read_text())[f"{mode}/{weighting}"]
    logits, target, mask, t = (golden[f"{mode}_{name}"] for name in ("logits", "target", "mask", "t"))
    assert masked_mean(subs(PROTEIN, weighting), logits, target, mask, t) == pytest.approx(told["loss"], abs=1e-6)


@dataclass(frozen=True)
class Recorded(Draws):
    """Draws whose uniforms are given."""

    u: Tensor

    def uniform(self) -> Tensor:
        return self.u


@pytest.mark.data
def test_dplm_noise(goldens: Path) -> None:
    golden = {k: torch.from_numpy(v) for k, v in np.load(goldens / "q_sample.npz").items() if v.ndim}
    alpha = (1 - golden["t"].double() / NUM_TIMES)[:, None].expand(golden["x0"].shape)
    noised = Absorbing.of(PROTEIN.vocabulary).sample_xt(golden["x0"], alpha, Recorded(golden["t"], golden["u"]))
    assert torch.equal(torch.where(golden["maskable"], noised, golden["x0"]), golden["x_t"])


def opened(folder: Path) -> tuple[Encoder, dict[str, Track]]:
    found = read_pretrained(folder)
    tracks = {name: track.build(name) for name, track in found.tracks.items()}
    model = found.model.build(tracks, "bucketed")
    model.load_state_dict(found.weights)
    return model.eval(), tracks


def halves(ids: Tensor, apart: Tensor) -> TrackBatch:
    """A padded batch of DPLM-2, structure half first, as ours. What is special is not maskable."""
    tracks = {}
    for name, half, specials in (("structure", ids[:, : ids.shape[1] // 2], (33, 34)), ("protein", ids[:, ids.shape[1] // 2 :], (0, 2))):
        tokens = half[half != 1]
        tracks[name] = TrackTokens(
            tokens=tokens, maskable=~torch.isin(tokens, torch.tensor(specials)), layout=Layout(tuple((half != 1).sum(1).tolist()))
        )
    num = torch.arange(len(ids))
    return TrackBatch(tracks=tracks, example_ids=num, slots=num, global_size=len(ids), apart=tuple(apart.tolist()))


@pytest.mark.data
@pytest.mark.parametrize("case", ["plain", "selfmixup"])
def test_dplm2_losses(goldens: Path, case: str) -> None:
    golden = {k: torch.from_numpy(v) for k, v in np.load(goldens / f"dplm2/loss_{case}.npz").items()}
    told = json.loads((goldens / "dplm2/losses.json").read_text())[case]
    model, tracks = opened(goldens / "dplm2/hf_dplm2_tiny")
    batch = halves(golden["x_t"], golden["single_modality"])
    if case == "selfmixup":
        params = {name: subs(track) for name, track in tracks.items()}
        sigma = {name: torch.ones(batch.num_examples) for name in tracks}
        batch = mix_up(model, batch, sigma, Diffusion(parameterizations=params, schedule=LogLinear(eps=0.0)))
        expected = halves(golden["mixup_x"], golden["single_modality"])
        for name in tracks:
            assert torch.equal(batch.tracks[name].tokens, expected.tracks[name].tokens), name
    with torch.no_grad():
        logits = model(batch)
    losses = {}
    for name, key in (("structure", "struct"), ("protein", "aatype")):
        targets, present = golden[f"{key}_targets"], golden[f"{key}_targets"] != 1
        padded = torch.zeros(*targets.shape, logits[name].shape[-1])
        padded[present] = logits[name]
        t = NUM_TIMES * (1 - golden[f"w_{key}"].double()) + 1
        losses[key] = masked_mean(subs(tracks[name]), padded, targets, golden[f"mask_{key}"], t)
        assert losses[key] == pytest.approx(told[f"{key}/nll_loss"], abs=1e-6 * told[f"{key}/nll_loss"] + 1e-6)
    assert (losses["struct"] + losses["aatype"]) / 2 == pytest.approx(told["loss"], abs=6e-6)


@pytest.mark.data
def test_the_bit_loss_counts_every_bit(goldens: Path) -> None:
    """The sum over all 13 bits. The recorded value leaves out bits that are one, since the original took them for padding."""
    golden = {k: torch.from_numpy(v) for k, v in np.load(goldens / "dplm2/bit_loss.npz").items()}
    told = json.loads((goldens / "dplm2/losses.json").read_text())["bit"]
    head = BitHead(STRUCTURE.vocabulary, 13, 8)
    pairs = golden["struct_logits"]
    logits = head.codes(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2])
    codes = (golden["struct_bit_targets"] * 2 ** torch.arange(12, -1, -1)).sum(-1) + 36
    t = {key: NUM_TIMES * (1 - golden[f"w_{key}"].double()) + 1 for key in ("struct", "aatype")}
    structure = masked_mean(subs(STRUCTURE), logits, codes, golden["mask_struct"], t["struct"])
    assert structure == pytest.approx(4.9590545, abs=2e-6)
    assert told["struct/nll_loss"] == pytest.approx(2.8709922, abs=1e-6)
    mask, targets = golden["mask_aatype"], golden["aatype_targets"]
    protein = masked_mean(subs(PROTEIN), golden["aatype_logits"], targets, mask, t["aatype"])
    assert protein == pytest.approx(told["aatype/nll_loss"], abs=1e-6)


TRACKS = {"structure": StructureTrack(alphabet="3di").build("structure"), "protein": ProteinTrack(beside="3di").build("protein")}
PAIRED = [{"protein": "MKTAYIAKQR", "structure": "DDVVLLVVQD"}, {"protein": "GGSWH", "structure": "DPVVD"}] * 40


def example_batch(tracks: dict[str, Track] = TRACKS) -> TrackBatch:
    return pack([{n: t.encode(e[n]) for n, t in tracks.items()} for e in PAIRED], tracks)


def objective(tasks: dict[str, float], tracks: dict[str, Track] = TRACKS, **changes: Any) -> DiffusionObjective:
    variant = Variant(**changes)
    params = {n: Subs(process=Absorbing.of(t.vocabulary), weighting="linear", num_times=variant.num_times) for n, t in tracks.items()}
    return DiffusionObjective(
        diffusion=Diffusion(parameterizations=params, schedule=LogLinear(eps=0.0)),
        tasks=TaskMixture(tasks, tuple(tracks)),
        times=UniformTimes(t_min=0.0),
        variant=variant,
    )


def masks(prepared: Prepared, name: str) -> Tensor:
    return prepared.batch.tracks[name].tokens == TRACKS[name].vocabulary.mask_id


def test_times_are_multiples_of_one_over_their_number() -> None:
    prepared = objective({"joint": 1.0}, num_times=4).prepare(example_batch(), 3)
    alpha = torch.exp(-prepared.sigma["protein"])
    levels = {round(float(a) * 4, 4) for a in alpha}
    assert levels == {0.0, 1.0, 2.0, 3.0}
    track = prepared.tracks["protein"]
    weight = replace(objective({"joint": 1.0}, num_times=4).diffusion.parameterizations["protein"]).loss(
        torch.zeros(len(track.clean), 57), track.clean, track.noised, track.alpha, track.alpha_prime
    ) / np.log(20)
    assert {round(float(w), 4) for w in weight} == {0.25, 0.5, 0.75, 1.0}


def test_coupled_copies_have_nested_masks_and_two_times() -> None:
    plain = objective({"joint": 1.0}).prepare(example_batch(), 0)
    prepared = objective({"joint": 1.0}, coupled=True).prepare(example_batch(), 0)
    num = len(PAIRED)
    assert prepared.batch.num_examples == 2 * num
    first, second = (prepared.sigma["protein"][:num], prepared.sigma["protein"][num:])
    assert torch.equal(first, plain.sigma["protein"]) and not torch.isclose(first, second).any()
    both = masks(prepared, "protein").split(len(masks(prepared, "protein")) // 2)
    later = (first > second)[plain.batch.tracks["protein"].layout.segment]
    assert not ((both[0] & ~both[1]) & ~later).any() and not ((both[1] & ~both[0]) & later).any()
    assert (both[0] ^ both[1]).any()


def test_the_loss_can_be_divided_by_the_masks() -> None:
    tokens = objective({"joint": 1.0}).prepare(example_batch(), 0)
    masked = objective({"joint": 1.0}, count="masked").prepare(example_batch(), 0)
    assert masked.num_tokens == sum(int(masks(masked, n).sum()) for n in TRACKS) < tokens.num_tokens


def test_the_bound_in_the_log_is_a_tokens_whatever_the_loss_is_divided_by() -> None:
    """The same numbers beside a loss over all tokens and one over the masks; the cross-entropy is a mean over masks in both."""

    def flat(batch: TrackBatch, sigma: Any, at: Any) -> dict[str, Tensor]:
        return {n: torch.zeros(len(rows), TRACKS[n].vocabulary.num_rows) for n, rows in at.items()}

    shown = []
    for count in ("tokens", "masked"):
        one = objective({"joint": 1.0}, count=count)
        terms = one.loss(flat, one.prepare(example_batch(), 0))
        shown.append({name: float(value) / terms.counts[name] for name, value in terms.sums.items()})
    assert shown[0]["loss/joint/protein"] < shown[1]["loss/joint/protein"]
    for name in ("nll/joint/protein", "nll/joint/structure", "cross_entropy/joint/protein"):
        assert shown[0][name] == pytest.approx(shown[1][name]), name
    assert shown[0]["cross_entropy/joint/protein"] == pytest.approx(math.log(20), rel=1e-5)


def test_tracks_apart_are_said_to_be_apart() -> None:
    mixed = objective({"apart": 1.0, "joint": 1.0}).prepare(example_batch(), 0)
    assert mixed.batch.apart is not None
    assert [task == "apart" for task in mixed.tasks] == list(mixed.batch.apart) and len(set(mixed.tasks)) == 2
    assert objective({"joint": 1.0}).prepare(example_batch(), 0).batch.apart is None


def test_masked_language_modelling_chooses_and_corrupts_in_its_shares() -> None:
    tracks = {"protein": PROTEIN}
    long = pack([{"protein": PROTEIN.encode("ACDEFGHIKLMNPQRSTVWY" * 100)} for _ in range(8)], tracks)
    prepared = objective({"protein_only": 1.0}, tracks, masked_language=MaskedLanguage(), count="masked").prepare(long, 0)
    track, clean = prepared.tracks["protein"], long.tracks["protein"].tokens
    noisy = prepared.batch.tracks["protein"].tokens
    chosen = len(track.active) / int(long.tracks["protein"].maskable.sum())
    masked = (noisy[track.active] == 32).float().mean().item()
    kept = (noisy[track.active] == clean[track.active]).float().mean().item()
    assert chosen == pytest.approx(0.15, abs=0.01) and masked == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1 + 0.1 / 20, abs=0.02) and prepared.num_tokens == len(track.active)
    others = torch.ones(len(clean), dtype=torch.bool).index_fill(0, track.active, False)
    assert torch.equal(noisy[others], clean[others])


def test_self_mixup_swaps_letters_and_masks_and_counts_all() -> None:
    seen: list[TrackBatch] = []

    def model(batch: TrackBatch, sigma: Any, *, at: Any = None) -> dict[str, Tensor]:
        seen.append(batch)
        sizes = {n: len(at[n]) for n in TRACKS}
        return {n: torch.zeros(sizes[n], 57).index_fill(1, torch.tensor([5]), 1.0) for n in TRACKS}

    one = objective({"structure_given_protein": 1.0}, self_mixup=True, count="masked")
    prepared = one.prepare(example_batch(), 0)
    one.loss(model, prepared)
    before, after = seen
    for name, track in before.tracks.items():
        mask_id = TRACKS[name].vocabulary.mask_id
        was = track.tokens == mask_id
        expected = torch.where(was, 5, torch.where(track.maskable, mask_id, track.tokens))
        assert torch.equal(after.tracks[name].tokens, expected)
    assert prepared.num_tokens == sum(int(t.maskable.sum()) for t in before.tracks.values())


def test_keys_decide_the_corruption() -> None:
    draws = Draws.root(0).fold_in(torch.arange(50))
    tokens, candidate = torch.full((50,), 7), torch.ones(50, dtype=torch.bool)
    process = Absorbing.of(PROTEIN.vocabulary)
    whole, _ = corrupt(tokens, candidate, draws, process, MaskedLanguage(chosen=1.0))
    part, _ = corrupt(tokens[20:], candidate[20:], draws[torch.arange(20, 50)], process, MaskedLanguage(chosen=1.0))
    assert torch.equal(whole[20:], part)
