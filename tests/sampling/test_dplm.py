"""DPLM's sampler: the recorded traces of the published one, step for step, and what it promises of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from protlig_dd.diffusion.denoiser import Diffusion
from protlig_dd.diffusion.parameterizations import Subs
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import LogLinear
from protlig_dd.models.encoder import Encoder
from protlig_dd.models.published.pretrained import read_pretrained
from protlig_dd.sampling import DPLMUnmasking, dplm, sample
from protlig_dd.sampling.loop import State
from protlig_dd.tokens.settings import ProteinTrack
from protlig_dd.tokens.tracks import Layout, Track, TrackBatch, TrackTokens, pack


@pytest.fixture(scope="module")
def goldens(shared: Path) -> Path:
    return shared / "goldens/dplm"


@dataclass(frozen=True)
class Published:
    """A published model with the ids that its sampler leaves open."""

    model: Encoder
    tracks: dict[str, Track]

    @property
    def diffusion(self) -> Diffusion:
        params = {name: Subs(process=Absorbing.of(track.vocabulary)) for name, track in self.tracks.items()}
        return Diffusion(parameterizations=params, schedule=LogLinear(eps=0.0))


def opened(folder: Path, emits: str) -> Published:
    found = read_pretrained(folder)
    protein = found.tracks["protein"]
    assert isinstance(protein, ProteinTrack)
    settings = {**found.tracks, "protein": replace(protein, emits=emits)}  # type: ignore[arg-type]
    tracks = {name: track.build(name) for name, track in settings.items()}
    model = found.model.build(tracks, "bucketed")
    model.load_state_dict(found.weights)
    return Published(model.eval(), tracks)


def track_of(ids: Tensor, is_open: Tensor) -> TrackTokens:
    real = ids != 1
    return TrackTokens(tokens=ids[real], maskable=is_open[real], layout=Layout(tuple(real.sum(1).tolist())))


def batch_of(tracks: dict[str, TrackTokens]) -> TrackBatch:
    num = next(iter(tracks.values())).layout.num_examples
    return TrackBatch(tracks=tracks, example_ids=torch.arange(num), slots=torch.arange(num), global_size=num)


def traced(published: Published, batch: TrackBatch, sampler: DPLMUnmasking, generate: tuple[str, ...]) -> list[TrackBatch]:
    steps: list[TrackBatch] = []

    def keep(_: int, state: State) -> None:
        steps.append(state.batch)

    sample(published.model, published.diffusion, batch, generate=generate, sampler=sampler, seed=0, trace=keep)
    return steps


CASES = {
    "gen_argmax": DPLMUnmasking(strategy="argmax"),
    "gen_argmax_inpaint": DPLMUnmasking(strategy="argmax"),
    "gen_argmax_nopartial": DPLMUnmasking(strategy="argmax"),
    "gen_vanilla_temperature_none": DPLMUnmasking(strategy="vanilla", temperature=0.0),
    "gen_gumbel_noresample": DPLMUnmasking(strategy="gumbel_argmax", resample_ratio=0.0),
}


@pytest.mark.data
@pytest.mark.parametrize("name", CASES)
def test_dplm_traces(goldens: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = {k: torch.from_numpy(v) for k, v in np.load(goldens / f"{name}.npz").items()}
    ids = golden["input_ids"]
    free = (ids != 0) & (ids != 1) & (ids != 2)
    if "partial_masks" in golden:
        free &= ~golden["partial_masks"]
    batch = batch_of({"protein": track_of(ids, free)})
    recorded = iter([golden[k] for k in sorted(golden) if k.startswith("u_")])

    def replay(draws: Any, size: int) -> Tensor:
        return -torch.log(-torch.log(next(recorded)[free] + 1e-8) + 1e-8)

    monkeypatch.setattr(dplm, "gumbel_rows", replay)
    published = opened(goldens / "hf_dplm_tiny", "dplm")
    steps = traced(published, batch, replace(CASES[name], num_steps=int(golden["max_iter"])), ("protein",))
    assert len(steps) == len(golden["tokens"])
    for number, (ours, theirs) in enumerate(zip(steps, golden["tokens"], strict=True)):
        assert torch.equal(ours.tracks["protein"].tokens, theirs[ids != 1]), f"step {number}"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "emits", "generate"),
    [
        ("gen_co_argmax_det", "hf_dplm2_tiny", "dplm2", ("structure", "protein")),
        ("gen_folding_argmax_det", "hf_dplm2_tiny", "dplm2", ("structure",)),
        ("gen_invfold_argmax_det", "hf_dplm2_tiny", "dplm2", ("protein",)),
        ("bit_gen_co_argmax_det", "hf_dplm2_bit_tiny", "amino_acids", ("structure", "protein")),
    ],
)
def test_dplm2_traces(goldens: Path, name: str, folder: str, emits: str, generate: tuple[str, ...]) -> None:
    golden = {k: torch.from_numpy(v) for k, v in np.load(goldens / f"dplm2/{name}.npz").items()}
    ids = golden["input_ids"]
    middle = ids.shape[1] // 2
    parts = {"structure": slice(0, middle), "protein": slice(middle, None)}
    free = ~torch.isin(ids, torch.tensor([0, 1, 2, 33, 34]))
    if "partial_masks" in golden:
        free &= ~golden["partial_masks"]
    batch = batch_of({track: track_of(ids[:, part], free[:, part]) for track, part in parts.items()})
    bits = folder == "hf_dplm2_bit_tiny"
    top_p = {"protein": 0.95} if bits else {"protein": 0.95, "structure": 0.95}
    sampler = DPLMUnmasking(num_steps=int(golden["max_iter"]), strategy="argmax", confidence="kept" if bits else "log_prob", top_p=top_p)
    steps = traced(opened(goldens / f"dplm2/{folder}", emits), batch, sampler, generate)
    for number, (ours, theirs) in enumerate(zip(steps, golden["tokens"], strict=True)):
        for track, part in parts.items():
            real = ids[:, part] != 1
            assert torch.equal(ours.tracks[track].tokens, theirs[:, part][real]), f"step {number}, {track}"


PROTEIN = {"protein": ProteinTrack().build("protein")}
DIFFUSION = Diffusion(parameterizations={"protein": Subs(process=Absorbing.of(PROTEIN["protein"].vocabulary))}, schedule=LogLinear(eps=0.0))


def flat(batch: TrackBatch, sigma: Any, *, at: Any = None) -> dict[str, Tensor]:
    """Logits that depend on the position alone."""
    position = batch.tracks["protein"].layout.position[at["protein"]]
    return {"protein": torch.sin(position[:, None] * 1.7 + torch.arange(33) * 0.9)}


def masked(lengths: list[int], ids: list[int] | None = None) -> TrackBatch:
    return pack([{"protein": [0, *[32] * n, 2]} for n in lengths], PROTEIN, example_ids=ids)


def open_all(batch: TrackBatch) -> TrackBatch:
    track = batch.tracks["protein"]
    return replace(batch, tracks={"protein": replace(track, maskable=track.tokens == 32)})


STRATEGIES = [
    DPLMUnmasking(num_steps=6, strategy="argmax"),
    DPLMUnmasking(num_steps=6, strategy="gumbel_argmax"),
    DPLMUnmasking(num_steps=6, strategy="gumbel_argmax", resample_ratio=0.05, randomness=1.0),
    DPLMUnmasking(num_steps=6, strategy="vanilla", temperature=0.7, schedule="cosine"),
    DPLMUnmasking(num_steps=6, strategy="annealing", randomness=1.0, top_p={"protein": 0.9}),
]


@pytest.mark.parametrize("sampler", STRATEGIES)
def test_samples_are_whole_and_do_not_depend_on_the_batch(sampler: DPLMUnmasking) -> None:
    lengths = [5, 9, 3]
    together = sample(flat, DIFFUSION, open_all(masked(lengths, [4, 5, 6])), generate=("protein",), sampler=sampler, seed=1)
    rows = together.batch.tracks["protein"].split()
    for i, n in enumerate(lengths):
        assert all(4 <= token <= 23 for token in rows[i][1:-1]) and len(rows[i]) == n + 2
        alone = sample(flat, DIFFUSION, open_all(masked([n], [4 + i])), generate=("protein",), sampler=sampler, seed=1)
        assert alone.batch.tracks["protein"].split()[0] == rows[i]


def test_the_number_of_masks_follows_the_schedule_and_letters_are_taken_back() -> None:
    counts, seen = [], []

    def keep(_: int, state: State) -> None:
        tokens = state.batch.tracks["protein"].tokens
        counts.append(int((tokens == 32).sum()))
        seen.append(tokens)

    def moody(batch: TrackBatch, sigma: Any, *, at: Any = None) -> dict[str, Tensor]:
        position = batch.tracks["protein"].layout.position[at["protein"]]
        return {"protein": torch.sin(position[:, None] * 1.7 * (1 + len(counts)) + torch.arange(33) * 0.9)}

    sampler = DPLMUnmasking(num_steps=7, strategy="argmax")
    sample(moody, DIFFUSION, open_all(masked([20])), generate=("protein",), sampler=sampler, seed=0, trace=keep)
    assert counts == [int(np.float32(20) * np.float32(1 - (s + 1) / 7)) for s in range(7)]
    taken_back = [int(((a != 32) & (b == 32)).sum()) for a, b in zip(seen, seen[1:], strict=False)]
    assert sum(taken_back) > 0


def test_repeats_are_drawn_again() -> None:
    calls = []

    def one_letter(batch: TrackBatch, sigma: Any, *, at: Any = None) -> dict[str, Tensor]:
        first = not calls
        calls.append(len(at["protein"]))
        logits = torch.zeros(len(at["protein"]), 33)
        logits[:, 7 if first else 8] = 50.0
        return {"protein": logits}

    sampler = DPLMUnmasking(num_steps=1, strategy="gumbel_argmax", resample_ratio=0.25)
    done = sample(one_letter, DIFFUSION, open_all(masked([12])), generate=("protein",), sampler=sampler, seed=0)
    assert len(calls) == 2 and set(done.batch.tracks["protein"].split()[0][1:-1]) == {8}
    calls.clear()
    off = replace(sampler, resample_ratio=0.0)
    done = sample(one_letter, DIFFUSION, open_all(masked([12])), generate=("protein",), sampler=off, seed=0)
    assert len(calls) == 1 and set(done.batch.tracks["protein"].split()[0][1:-1]) == {7}
