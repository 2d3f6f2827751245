"""What the trainings of DPLM, DPLM-2 and ESM do differently from the plain diffusion loss; all under absorbing noise.

Sources: Wang et al. 2024 (DPLM: coupled sampling, integer times), Wang et al. 2024 (DPLM-2: self-mixup), Lin et al. 2022 (ESM-2: masked
language modelling, the first stage of DPLM's training).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.diffusion.denoiser import Denoiser, Diffusion
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import TrackBatch


@settings
class MaskedLanguage:
    """Masked language modelling instead of diffusion: some tokens are chosen; most of these are masked, some replaced, the rest kept.

    Args:
        chosen: share of all tokens that is predicted, above 0 and at most 1.
        masked: share of the chosen tokens that is masked, 0 to 1.
        replaced: share of the chosen tokens that becomes a random letter, 0 to 1 - masked.
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
    """Departures from the plain diffusion loss.

    Args:
        num_times: DPLM's T: times are 1/T, 2/T ... 1, and linear weights are 1 - (t - 1) / T; 0 is continuous time.
        coupled: each example is noised to two times, and the masks at the earlier time are among those at the later (DPLM's t1, t2).
        count: the loss is the sum over tokens divided by the number of tokens of all noised tracks, or of masked tokens as in DPLM.
        self_mixup: train on the network's own predictions (DPLM-2): masked tokens are predicted first without gradient, then the visible
            tokens are masked instead, and the loss is over all of them.
        masked_language: train by masked language modelling instead of diffusion; null for diffusion.
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
            raise ValueError("masked_language: found together with coupled or self_mixup, which are of diffusion; use one")


def twice(batch: TrackBatch) -> TrackBatch:
    """Return the batch followed by a copy of itself; both copies have the same ids, so the same noise at the same time."""
    return batch.select([*range(batch.num_examples)] * 2)


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


def mix_up(model: Denoiser, batch: TrackBatch, sigma: Mapping[str, Float[Tensor, " b"]], diffusion: Diffusion) -> TrackBatch:
    """Return the batch with each mask replaced by its prediction and each visible letter by a mask (DPLM-2's self-mixup)."""
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
