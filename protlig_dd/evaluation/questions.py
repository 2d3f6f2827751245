"""Questions to a masked-diffusion denoiser: its predictions for chosen tokens of an example when chosen tokens are hidden.

`ask` packs many questions into few network calls. The likelihoods of `any_order.py` and the mutation effects of `fitness.py` are computed
from its answers. A place is the index of a modelled (maskable) token in its example, counted from 0 over the noised tracks in turn.
Absorbing noise only: a uniform process hides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from protlig_dd.diffusion.denoiser import Denoising, total_noise
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.errors import ConfigError
from protlig_dd.nn.packed import spans
from protlig_dd.tokens.tracks import TrackBatch


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The denoiser's predictions for the wanted tokens of one track, on the host.

    Attributes:
        track: the track.
        question: the index of the question of each answer.
        place: the place of the token in its example.
        token: its true id.
        log_probs: log p(x0 | visible tokens), normalised over emittable ids.
    """

    track: str
    question: Int[Tensor, " a"]
    place: Int[Tensor, " a"]
    token: Int[Tensor, " a"]
    log_probs: Float[Tensor, "a k"]

    def of_token(self) -> Float[Tensor, " a"]:
        """Return the log probability of each true token."""
        return self.log_probs.gather(1, self.token[:, None])[:, 0]


def places(batch: TrackBatch, noised: Sequence[str]) -> dict[str, Int[Tensor, " n"]]:
    """Return the place of each token of the noised tracks, -1 where it is not modelled."""
    found, before = {}, torch.zeros(batch.num_examples, dtype=torch.int64)
    for name in noised:
        track = batch.tracks[name]
        running = torch.cat([torch.zeros(1, dtype=torch.int64), track.maskable.long().cumsum(0)])
        starts = running[torch.tensor(track.layout.offsets)]
        at = running[1:] - 1 - starts[:-1][track.layout.segment] + before[track.layout.segment]
        found[name] = torch.where(track.maskable, at, -1)
        before = before + starts.diff()
    return found


def num_places(batch: TrackBatch, noised: Sequence[str]) -> Int[Tensor, " b"]:
    """Return the number of modelled tokens of each example in the noised tracks."""
    total = torch.zeros(batch.num_examples, dtype=torch.int64)
    for name in noised:
        track = batch.tracks[name]
        total += torch.bincount(track.layout.segment[track.maskable], minlength=batch.num_examples)
    return total


@torch.no_grad()
def ask(
    denoising: Denoising,
    batch: TrackBatch,
    noised: Sequence[str],
    questions: Sequence[int],
    hidden: Bool[Tensor, "q p"],
    *,
    wanted: Bool[Tensor, "q p"] | None = None,
    tokens_per_call: int = 16_384,
) -> Iterator[Answers]:
    """Iterate over the answers to questions, several questions in one network call.

    The noise level given to the denoiser is the mean of alpha given that m of n tokens are hidden, for alpha uniform on (0, 1):
    (n - m + 1) / (n + 2). A denoiser that does not read it gives the exact conditional.

    Args:
        denoising: the model in evaluation mode; absorbing noise only.
        batch: examples on the host; tracks that are not noised are shown clean.
        noised: tracks whose tokens may be hidden.
        questions: the row of the example of each question.
        hidden: the places of that example that are replaced by the mask.
        wanted: the places whose answers are returned; the hidden ones when None.
        tokens_per_call: maximum number of tokens of all tracks in one call; a longer question gets a call of its own.

    Raises:
        ConfigError: for uniform noise.
    """
    diffusion, device = denoising.diffusion, torch.device(denoising.device)
    for name in noised:
        if not isinstance(diffusion.parameterizations[name].process, Absorbing):
            raise ConfigError(f"track '{name}': found uniform noise, expected absorbing noise; use the bound instead")
    where, counts = places(batch, noised), num_places(batch, noised)
    ceiling = float(diffusion.schedule.alpha(torch.zeros(1)))
    wanted = hidden if wanted is None else wanted
    sizes = [sum(track.layout.lengths[row] for track in batch.tracks.values()) for row in questions]
    for start, end in spans(sizes, tokens_per_call):
        rows = list(questions[start:end])
        part = batch.select(rows)
        at = {name: place[batch.tracks[name].layout.rows_of(rows)] for name, place in where.items()}
        shown = counts[torch.tensor(rows)]
        alpha = ((shown - hidden[start:end].sum(1) + 1) / (shown + 2)).clamp(max=ceiling)
        tokens, asked = {}, {name: torch.zeros(0, dtype=torch.int64) for name in part.tracks}
        for name, place in at.items():
            track, mask_id = part.tracks[name], diffusion.parameterizations[name].process.mask_id
            own = track.layout.segment, place.clamp(min=0)
            tokens[name] = torch.where((place >= 0) & hidden[start:end][own], mask_id, track.tokens)
            asked[name] = ((place >= 0) & wanted[start:end][own]).nonzero().squeeze(1)
        sigma = {name: total_noise(alpha if name in at else torch.ones_like(alpha)).to(device) for name in part.tracks}
        logits = denoising.denoiser(
            part.with_tokens(**tokens).to(device), sigma, at={name: index.to(device) for name, index in asked.items()}
        )
        for name, place in at.items():
            index, segment = asked[name], part.tracks[name].layout.segment[asked[name]]
            xt, level = tokens[name][index].to(device), alpha[segment].to(device)
            yield Answers(
                track=name,
                question=segment + start,
                place=place[index],
                token=part.tracks[name].tokens[index],
                log_probs=diffusion.parameterizations[name].x0_log_probs(logits[name], xt, level).cpu(),
            )
