"""What the trainings of DPLM, DPLM-2 and ESM do differently from the plain diffusion loss; all under absorbing noise.

Sources: Wang et al. 2024 (DPLM: coupled sampling, integer times), Wang et al. 2024 (DPLM-2: self-mixup), Lin et al. 2022 (ESM-2: masked
language modelling, the first stage of DPLM's training).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.diffusion.denoiser import Denoiser, Diffusion
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackTokens


@settings
class MaskedLanguage:
    """Masked language modelling in place of diffusion: some tokens are chosen, most of these masked, some replaced, the rest kept.

    Args:
        chosen: the share of all tokens that is predicted.
        masked: the share of the chosen that is masked.
        replaced: the share of the chosen that becomes a random letter.
    """

    chosen: float = 0.15
    masked: float = 0.8
    replaced: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.chosen <= 1 or not 0 <= self.masked <= 1 or not 0 <= self.replaced <= 1 - self.masked:
            raise ValueError(
                f"chosen: found {self.chosen}, {self.masked} masked, {self.replaced} replaced; expected shares that add up to at most 1"
            )


@settings
class Variant:
    """Departures from the plain loss.

    Args:
        num_times: DPLM's T: times are 1/T, 2/T ... 1, and linear weights are 1 - (t - 1) / T; 0 is continuous time.
        coupled: each example is noised twice, to two times, the masks of the earlier being among those of the later (DPLM's t1, t2).
        count: the loss is the sum over tokens divided by all noised tracks' tokens, or as in DPLM by the masked ones.
        self_mixup: train on the network's own predictions (DPLM-2): what was masked is predicted first without gradient, then the visible
            tokens are masked instead, and the loss is over all of them.
        masked_language: instead of diffusion.
    """

    num_times: int = 0
    coupled: bool = False
    count: Literal["tokens", "masked"] = "tokens"
    self_mixup: bool = False
    masked_language: MaskedLanguage | None = None

    def __post_init__(self) -> None:
        if self.num_times < 0:
            raise ValueError(f"num_times: found {self.num_times}, expected 0 (continuous time) or more")
        if self.masked_language is not None and (self.coupled or self.self_mixup):
            raise ValueError(
                "masked_language: found together with coupled or self_mixup, which are of diffusion; use one"
            )


def twice(batch: TrackBatch) -> TrackBatch:
    """Return a batch with its examples repeated behind it; both copies have the same ids, so the same noise at the same time."""
    tracks = {
        name: TrackTokens(
            tokens=track.tokens.repeat(2),
            maskable=track.maskable.repeat(2),
            layout=Layout(track.layout.lengths * 2, track.layout.device),
        )
        for name, track in batch.tracks.items()
    }
    return replace(
        batch,
        tracks=tracks,
        example_ids=batch.example_ids.repeat(2),
        slots=batch.slots.repeat(2),
        conditions={name: c.repeat(2) for name, c in batch.conditions.items()},
    )


def corrupt(
    tokens: Int[Tensor, " n"], candidate: Bool[Tensor, " n"], draws: Draws, process: Absorbing, how: MaskedLanguage
) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return tokens corrupted for masked language modelling, and which were chosen."""
    chosen = candidate & (draws.fold("chosen").uniform() < how.chosen)
    u = draws.fold("what").uniform()
    letters = torch.tensor(process.emittable_ids, device=tokens.device)
    random = letters[draws.fold("letter").integers(len(letters))]
    new = torch.where(u < how.masked, process.mask_id, torch.where(u < how.masked + how.replaced, random, tokens))
    return torch.where(chosen, new, tokens), chosen


def mix_up(
    model: Denoiser, batch: TrackBatch, sigma: Mapping[str, Float[Tensor, " b"]], diffusion: Diffusion
) -> TrackBatch:
    """Return a batch in which predictions stand where masks were, and masks where letters were (DPLM-2's self-mixup)."""
    masked = {}
    for name, track in batch.tracks.items():
        process = diffusion.parameterizations[name].process
        assert isinstance(process, Absorbing)
        masked[name] = track.tokens == process.mask_id
    at = {name: is_mask.nonzero().squeeze(1) for name, is_mask in masked.items()}
    with torch.no_grad():
        logits = model(batch, sigma, at=at)
    mixed = {}
    for name, track in batch.tracks.items():
        process = diffusion.parameterizations[name].process
        assert isinstance(process, Absorbing)
        swapped = torch.where(track.maskable, process.mask_id, track.tokens)
        mixed[name] = swapped.index_copy(0, at[name], logits[name].argmax(-1))
    return batch.with_tokens(**mixed)
