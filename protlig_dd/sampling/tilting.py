"""Property guidance: samples of p(x) exp(weight * property(x)) / Z, where p is what the same sampler draws without it.

This file has the property, its settings, and classifier guidance, a wrapper around a denoiser that reweights p(x0_i = y | x_t) by
exp(weight * E[property | x_t, x0_i = y]) and keeps each row's total mass: *which* letter is drawn changes, never *when*. The expectation is

- exact for a property that is a sum (or mean) over letters, without any network call or text;
- estimated otherwise, from completions drawn from the product of p(x0_j | x_t) in which letter i is set to each y in turn. All y share their
  completions, so that their differences do not contain the other letters' noise (for a sum over letters one completion makes them exact).

Letters drawn this way follow the tilted law exactly if the clean letters are independent under p and the property is a sum over letters.
Otherwise two terms are missing: exp of an expectation is not the expectation of exp, and letters unmasked later depend on those unmasked
earlier. `smc` has no such error. Source: Nisonoff et al. 2024 (discrete guidance); theirs is a rate for a noisy classifier, ours uses clean
texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.diffusion.denoiser import Denoiser, Denoising, Diffusion
from protlig_dd.diffusion.parameterizations import restrict
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.errors import ConfigError
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import Track, TrackBatch


@dataclass(frozen=True, kw_only=True)
class Property:
    """A number for each text of one track.

    Args:
        name: its name in messages.
        track: the track whose texts it takes.
        function: returns a number for each text; -inf excludes a text (whatever the weight), NaN is refused.
        letters: for a sum over letters, the value of each symbol (0 for those not named), consistent with `function`; None otherwise.
        is_mean: whether the sum is divided by the number of letters.
        is_probability: whether `function` returns class probabilities; the property is then their logarithm, and weight 1 is Bayes' rule.
    """

    name: str
    track: str
    function: Callable[[list[str]], np.ndarray]
    letters: Mapping[str, float] | None = None
    is_mean: bool = False
    is_probability: bool = False

    def __call__(self, texts: list[str]) -> Float[np.ndarray, " n"]:
        """Return the value of each text; equal texts are evaluated once.

        Raises:
            ConfigError: for values that are missing, NaN, +inf, or not probabilities where probabilities are expected.
        """
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros(0)
        where = f"property '{self.name}'"
        try:
            found = np.asarray(self.function(distinct), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {error}; expected a function of a list of texts that returns numbers") from error
        if found.shape != (len(distinct),):
            raise ConfigError(f"{where}: found values of shape {found.shape} for {len(distinct)} texts, expected one for each")
        wrong = np.isnan(found) | (found == np.inf)
        if self.is_probability:
            wrong |= (found < 0) | (found > 1)
        if wrong.any():
            i = int(wrong.argmax())
            wanted = "a probability" if self.is_probability else "a number, or -inf for a text that must not come"
            raise ConfigError(f"{where}: found {found[i]} for '{distinct[i]}', expected {wanted}")
        if self.is_probability:
            found = np.log(found, out=np.full_like(found, -np.inf), where=found > 0)
        known = dict(zip(distinct, found.tolist(), strict=True))
        return np.array([known[text] for text in texts])


@settings
class Tilting:
    """How samples are drawn towards a property.

    Args:
        name: the property: charge, hydropathy, QED, ..., or module:function, which is taken from the command line and Python only.
        weight: weight of the property in the exponent; negative for less of it, 0 for plain samples, bit for bit.
        method: classifier (one network call a step, approximate), smc (the tilted law for many particles), best_of (the best of n).
        particles: number of particles of smc, each with the network calls of one sample; the n of best_of.
        threshold: smc resamples where the effective sample size falls below this share of the particles, 0 to 1.
        guess: smc: how masks are filled before the property is evaluated: with the likeliest letters, or with drawn ones.
        completions: classifier: number of completions that an estimated expectation is averaged over.
        is_probability: whether a module:function returns class probabilities; their logarithm is taken.
    """

    name: str
    weight: float = 1.0
    method: Literal["classifier", "smc", "best_of"] = "smc"
    particles: int = 16
    threshold: float = 0.5
    guess: Literal["argmax", "sampled"] = "argmax"
    completions: int = 1
    is_probability: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"weight: found {self.weight}, expected a finite number")
        if self.particles < 1 or self.completions < 1:
            raise ValueError(f"particles: found {self.particles} with {self.completions} completions, expected 1 or more of each")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: found {self.threshold}, expected 0 to 1")

    def check(self, prop: Property, diffusion: Diffusion, generate: tuple[str, ...]) -> None:
        """Refuse a property of a track that is not generated, and uniform noise where masks are needed.

        Raises:
            ConfigError: with the alternative.
        """
        if prop.track not in generate:
            raise ConfigError(
                f"property '{prop.name}': is one of the track '{prop.track}', and {', '.join(generate)} is generated; "
                f"nothing about it can change"
            )
        for name in generate:
            if self.method != "best_of" and not isinstance(diffusion.parameterizations[name].process, Absorbing):
                raise ConfigError(
                    f"property '{prop.name}': track '{name}' has uniform noise; {self.method} is defined for absorbing noise, "
                    f"use --property-method best_of"
                )


def letter_effects(prop: Property, track: Track, batch: TrackBatch) -> Float[Tensor, "n k"]:
    """Return the contribution of each letter at each position of the property's track to a sum or mean over letters."""
    assert prop.letters is not None
    v = track.vocabulary
    special = v.special_ids
    values = [0.0 if i in special else prop.letters.get(s, 0.0) for i, s in enumerate(v.symbols)]
    table = torch.zeros(v.num_rows, dtype=torch.float64)
    table[: len(values)] = torch.tensor(values, dtype=torch.float64)
    tokens, layout = batch.tracks[track.name].tokens, batch.tracks[track.name].layout
    if not prop.is_mean:
        return table.float().to(tokens.device).expand(len(tokens), -1)
    hidden = torch.tensor([i for i in (v.begin_id, v.end_id, v.pad_id) if i is not None], device=tokens.device)
    shown = (~torch.isin(tokens, hidden)).long()
    count = torch.zeros(layout.num_examples, dtype=torch.int64, device=tokens.device).index_add(0, layout.segment, shown)
    return table.float().to(tokens.device) / count.clamp(min=1)[layout.segment, None]


def texts_of(track: Track, batch: TrackBatch, tokens: Int[Tensor, " n"]) -> list[str]:
    """Return the text of each example, with these tokens in its track."""
    rows = [tuple(ids) for ids in replace(batch.tracks[track.name], tokens=tokens).split()]
    text = {row: track.decode(row) for row in set(rows)}
    return [text[row] for row in rows]


@dataclass(frozen=True, kw_only=True)
class Tilted:
    """A denoiser under classifier guidance, which changes only the rows of masks in the property's track.

    Args:
        denoiser: the denoiser, which may itself be guided.
        prop: the property that samples are drawn towards.
        track: the track of the property.
        weight: weight of the property in the exponent.
        completions: number of completions for the expectation of a property that is not a sum over letters.
        seed: seed of the completions; with the example's id and its number of masks it keys their draws.
    """

    denoiser: Denoiser
    prop: Property
    track: Track
    weight: float
    completions: int = 1
    seed: int = 0

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the guided logits."""
        name, tokens = self.track.name, batch.tracks[self.track.name].tokens
        asked = torch.arange(len(tokens), device=tokens.device) if at is None else at[name]
        is_mask = tokens[asked] == self.track.vocabulary.mask_id
        if self.prop.letters is not None:
            logits = self.denoiser(batch, sigma, at=at)
            effects = letter_effects(self.prop, self.track, batch)[asked]
        else:
            masks = (tokens == self.track.vocabulary.mask_id).nonzero().squeeze(1)
            wanted = torch.unique(torch.cat([asked, masks]))
            logits = self.denoiser(batch, sigma, at=None if at is None else {**at, name: wanted})
            rows = logits[name] if at is not None else logits[name][wanted]
            log_probs = restrict(rows, self.track.emittable).log_softmax(-1)
            effects = self._estimate(batch, asked, is_mask, masks, log_probs[torch.searchsorted(wanted, masks)])
            logits = {**logits, name: rows[torch.searchsorted(wanted, asked)]}
        return {**logits, name: self._tilt(logits[name], effects, is_mask)}

    def _tilt(self, logits: Float[Tensor, "a k"], effects: Float[Tensor, "a k"], is_mask: Tensor) -> Tensor:
        wide = restrict(logits, self.track.emittable)
        tilted = wide + self.weight * effects.to(wide)
        # log_softmax(log p + w E) + log-sum-exp of the row: its mass is kept
        kept = tilted.log_softmax(-1) + wide.logsumexp(-1, keepdim=True)
        return torch.where(is_mask[:, None], kept, logits.to(wide.dtype))

    def _estimate(
        self, batch: TrackBatch, asked: Tensor, is_mask: Tensor, masks: Tensor, log_probs: Float[Tensor, "m k"]
    ) -> Float[Tensor, "a k"]:
        """E[property | x_t, x0_i = y] for rows of masks [a, k], 0 elsewhere; values of -inf are left out of the mean."""
        layout = batch.tracks[self.track.name].layout
        ids = batch.example_ids.to(layout.device)
        left = torch.zeros_like(ids).index_add(0, layout.segment[masks], torch.ones_like(masks))
        streams = Draws.root(self.seed, "completion", self.prop.name).to(layout.device).fold_in(ids).fold_in(left)
        streams = Draws(streams.keys[layout.segment[masks]]).fold_in(layout.position[masks])
        letters = self.track.vocabulary.emittable_ids
        rows = is_mask.nonzero().squeeze(1)
        places = list(zip(layout.segment[asked[rows]].tolist(), layout.position[asked[rows]].tolist(), strict=True))
        values = np.zeros((self.completions, len(rows), len(letters)))
        for number in range(self.completions):
            drawn = streams.fold(f"completion {number}").categorical(log_probs)
            full = batch.tracks[self.track.name].tokens.index_copy(0, masks, drawn).tolist()
            texts = []
            for example, position in places:
                text = full[layout.offsets[example] : layout.offsets[example + 1]]
                texts += [self.track.decode([*text[:position], y, *text[position + 1 :]]) for y in letters]
            values[number] = self.prop(texts).reshape(len(rows), len(letters))
        effects = torch.zeros(len(asked), log_probs.shape[-1], dtype=torch.float64)
        effects[rows[:, None].cpu(), torch.tensor(letters)] = torch.from_numpy(_finite_mean(values))
        return effects.to(log_probs)


def exponents(values: Float[np.ndarray, "*s"], weight: float) -> Float[np.ndarray, "*s"]:
    """Return weight * value, and -inf for excluded texts whatever the weight's sign."""
    return np.asarray(np.where(values == -np.inf, -np.inf, weight * np.where(values == -np.inf, 0.0, values)))


def _finite_mean(values: Float[np.ndarray, "c a y"]) -> Float[np.ndarray, "a y"]:
    """The mean over completions of the finite values; a letter without any gets the mean of its row, 0 if the row has none."""
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0.0).sum(0), finite.sum(0)
    row = total.sum(-1, keepdims=True) / np.maximum(count.sum(-1, keepdims=True), 1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), row))


def guided(denoising: Denoising, *, prop: Property, tilting: Tilting, generate: tuple[str, ...], seed: int) -> Denoising:
    """Return the denoiser under classifier guidance; the same object for weight 0.

    Raises:
        ConfigError: for uniform noise, or a property of a track that is not generated.
    """
    tilting.check(prop, denoising.diffusion, generate)
    if tilting.weight == 0:
        return denoising
    tilted = Tilted(
        denoiser=denoising.denoiser,
        prop=prop,
        track=denoising.tracks[prop.track],
        weight=tilting.weight,
        completions=tilting.completions,
        seed=seed,
    )
    return replace(denoising, denoiser=tilted)
