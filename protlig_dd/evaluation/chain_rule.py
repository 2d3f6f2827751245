"""The exact negative log-likelihood of an example under one order of its tokens, to compare with the bound of `likelihood.py`.

For short sequences: it calls the network once for every token of the longest example.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd import rng
from protlig_dd.diffusion.denoiser import Denoising, total_noise
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.times import Task
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.likelihood import ExampleBounds, add_up, of_task
from protlig_dd.sampling.loop import rank_within
from protlig_dd.tokens.tracks import TrackBatch


@torch.no_grad()
def chain_rule_nll(denoising: Denoising, batches: TrackBatch | Iterable[TrackBatch], task: str | Task, *, seed: int = 0) -> ExampleBounds:
    """Return the exact negative log-likelihood of each example under one random order of its tokens, in nats.

    -log p(x) = -sum_j log p(x_{o_j} | x_{o_1} .. x_{o_{j-1}}): one token is revealed in each network call, so this is for short
    sequences: the number of calls is the number of tokens of the longest example in a batch. The order depends on (seed, example id). Its mean over orders is the
    bound of an absorbing process whose denoiser does not depend on t; a single order may be above or below it.

    Args:
        denoising: the model in evaluation mode; absorbing noise only.
        batches: one batch or many, on the host.
        task: as in `bound`.
        seed: seed of the orders.

    Raises:
        ConfigError: for uniform noise, or an unknown task.
        ValueError: as `bound`.

    Source: Uria, Murray and Larochelle 2014; Ou et al. 2024 (RADD), for the two views of one likelihood.
    """
    parts = []
    for batch, mixture in of_task(denoising.denoiser, batches, task):
        spec = mixture.tasks[mixture.names[0]]
        for name in spec.noised_tracks:
            if not isinstance(denoising.diffusion.parameterizations[name].process, Absorbing):
                raise ConfigError(f"chain rule: track '{name}' has uniform noise, expected absorbing noise; use the bound instead")
        nats = _revealed_one_by_one(denoising, batch, spec, seed)
        parts.append(ExampleBounds.of_batch(mixture.names[0], batch, nats))
    return ExampleBounds.joined(parts)


def _revealed_one_by_one(denoising: Denoising, batch: TrackBatch, task: Task, seed: int) -> dict[str, Float[np.ndarray, " b"]]:
    diffusion, device = denoising.diffusion, torch.device(denoising.device)
    draws = rng.Draws.root(seed, "chain rule").fold_in(batch.example_ids)
    kept = {name: track.keep([name in task.tracks] * batch.num_examples) for name, track in batch.tracks.items()}
    batch, ranks = replace(batch, tracks=kept), _ranks(batch, task.noised_tracks, draws)
    totals = torch.zeros(batch.num_examples)
    for name in task.noised_tracks:
        totals += torch.bincount(batch.tracks[name].layout.segment[ranks[name] >= 0], minlength=batch.num_examples)
    batch = batch.to(device)
    ceiling = diffusion.schedule.alpha(torch.zeros(1))
    nats = {name: np.zeros(batch.num_examples) for name in task.noised_tracks}
    for index in range(int(totals.max())):
        # The mean of alpha given that m of n tokens are masked, for alpha uniform on (0, 1): (n - m + 1) / (n + 2), where n - m = index.
        alpha = torch.minimum((index + 1) / (totals + 2), ceiling).to(device)
        sigma = {n: total_noise(alpha if n in ranks else torch.ones_like(alpha)) for n in batch.tracks}
        at = {n: (ranks[n] == index).nonzero().squeeze(1).to(device) for n in ranks}
        none = torch.zeros(0, dtype=torch.int64, device=device)
        masks = {n: diffusion.parameterizations[n].process.mask_id for n in ranks}
        hidden = {n: torch.where((rank >= index).to(device), masks[n], batch.tracks[n].tokens) for n, rank in ranks.items()}
        logits = denoising.denoiser(batch.with_tokens(**hidden), sigma, at={n: at.get(n, none) for n in batch.tracks})
        for name, position in at.items():
            segment = batch.tracks[name].layout.segment[position]
            param, xt = diffusion.parameterizations[name], hidden[name][position]
            log_probs = param.x0_log_probs(logits[name], xt, alpha[segment])
            own = log_probs.gather(1, batch.tracks[name].tokens[position][:, None])[:, 0]
            nats[name] -= add_up(segment, own, batch.num_examples)
    return nats


def _ranks(batch: TrackBatch, noised: Sequence[str], draws: rng.Draws) -> dict[str, Int[Tensor, " n"]]:
    """The rank of each modelled token in its example's random order over all noised tracks; -1 for tokens that are not modelled."""
    tracks = [batch.tracks[name] for name in noised]
    maskable = torch.cat([track.maskable for track in tracks])
    segment = torch.cat([track.layout.segment for track in tracks])
    chance = torch.cat([draws[t.layout.segment].fold(n).fold_in(t.layout.position).uniform() for n, t in zip(noised, tracks, strict=True)])
    rank = torch.where(maskable, rank_within(segment, torch.where(maskable, chance, torch.inf)), -1)
    return dict(zip(noised, rank.split([t.layout.num_tokens for t in tracks]), strict=True))
