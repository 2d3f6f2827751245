"""Small networks and odd-sized batches for tests of the sampling loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from protlig_dd.diffusion.denoiser import Denoiser, Diffusion
from protlig_dd.diffusion.schedules import LogLinear, NoiseSchedule
from protlig_dd.models import DualTrackSettings
from protlig_dd.rng import Draws
from protlig_dd.sampling import Ancestral, ConfidenceUnmasking, Euler, FirstHitting, Remasking, SamplerSettings
from protlig_dd.tokens.tracks import TrackBatch, TrackTokens, pack
from tests.support.enumerable import World

SAMPLERS: tuple[SamplerSettings, ...] = (
    Ancestral(num_steps=5),
    Ancestral(num_steps=3, corrector_steps=2),
    Euler(num_steps=5),
    FirstHitting(),
    ConfidenceUnmasking(num_steps=4, randomness=1.0),
    Remasking(num_steps=5, eta=0.5),
)
ON_MASKS = (FirstHitting, ConfidenceUnmasking, Remasking)


def pairs(kinds: tuple[str, ...] = ("subs", "score", "uniform")) -> list[tuple[str, SamplerSettings]]:
    """Return every (parameterization, sampler) that go together."""
    return [(k, s) for s in SAMPLERS for k in kinds if k != "uniform" or not isinstance(s, ON_MASKS)]


def small_network(world: World) -> nn.Module:
    """Return a dual-track model with random weights, so that letters have unlike and unnormalised scores."""
    settings = DualTrackSettings(
        hidden_size=16, num_heads=2, num_blocks=2, conditioning_size=8, mlp_ratio=2.0, dropout=0.0, conv_width={"a": 3}
    )
    model = settings.build(world.tracks, "bucketed").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        # Large embeddings beside small shifts, so that letters depend on their context and none is certain.
        scale = 1.6 if "embedding" in name else 0.1 if "modulation" in name or "noise" in name else 0.4
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def odd_batch(world: World, num: int, *, open_share: float = 0.7, seed: int = 0) -> TrackBatch:
    """Return examples of unlike lengths (none at all, too), of whose positions about a share may be generated."""
    examples = []
    for i in range(num):
        draws = Draws.root(seed, "odd", i).fold_in(torch.arange(20))
        a, b = int(draws.fold("a").bits()[0] % 9), int(draws.fold("b").bits()[0] % 6) + 1
        ids = {n: torch.tensor(world.tracks[n].vocabulary.emittable_ids) for n in ("a", "b")}
        examples.append(
            {"a": ids["a"][draws.fold("letters").integers(3)][:a].tolist(), "b": ids["b"][draws.fold("letters").integers(4)][:b].tolist()}
        )
    batch = pack(examples, world.tracks, example_ids=range(100, 100 + num))
    tracks = {}
    for name, track in batch.tracks.items():
        owner = Draws.root(seed, "open", name).fold_in(track.layout.segment).fold_in(track.layout.position)
        tracks[name] = TrackTokens(tokens=track.tokens, maskable=owner.uniform() < open_share, layout=track.layout)
    return TrackBatch(tracks=tracks, example_ids=batch.example_ids, slots=batch.slots, global_size=num)


def choose(batch: TrackBatch, world: World, chosen: list[int]) -> TrackBatch:
    """Return some examples of a batch, in that order."""
    tracks = {}
    for name, track in batch.tracks.items():
        at = track.layout.offsets
        rows = [torch.arange(at[i], at[i + 1]) for i in chosen]
        index = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)
        tracks[name] = TrackTokens(
            tokens=track.tokens[index],
            maskable=track.maskable[index],
            layout=type(track.layout)(tuple(track.layout.lengths[i] for i in chosen)),
        )
    return TrackBatch(tracks=tracks, example_ids=batch.example_ids[chosen], slots=batch.slots[chosen], global_size=len(chosen))


def diffusion_of(world: World, kind: str, schedule: NoiseSchedule | None = None) -> Diffusion:
    """Return the diffusion of a kind of parameterization."""
    return Diffusion(parameterizations=world.parameterizations(kind), schedule=schedule or LogLinear())


@dataclass
class Counting:
    """A denoiser that counts its calls and the tokens in them, and gives its logits in another dtype if told to."""

    denoiser: Denoiser
    dtype: torch.dtype | None = None
    calls: int = 0
    tokens: list[int] = field(default_factory=list)

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        self.calls += 1
        self.tokens.append(batch.num_tokens)
        logits = self.denoiser(batch, sigma, at=at)
        return logits if self.dtype is None else {name: x.to(self.dtype) for name, x in logits.items()}
