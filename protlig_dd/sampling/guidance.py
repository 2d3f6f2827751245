"""Guidance: wrappers that turn one denoiser into another. Samplers are unaware of them.

All of them change p(x0 | x_t) of absorbing tracks and keep the total score, so they change *which* letter is drawn, never *when*:
dividing log scores by a temperature without this would speed up or slow down unmasking itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.diffusion.denoiser import Denoiser, Denoising
from protlig_dd.diffusion.parameterizations import restrict
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.errors import ConfigError, nearest
from protlig_dd.tokens.tracks import TrackBatch, TrackSet


@settings
class Guidance:
    """How the denoiser's predictions are changed.

    Args:
        temperature: temperature of p(x0 | x_t), above 0; 1 leaves it unchanged.
        top_p: keep the smallest set of likeliest letters with at least this probability, 0 to 1; 1 keeps all.
        forbidden: symbols that are never drawn, by track.
        weight: weight of classifier-free guidance by the given tracks; 1 is the plain conditional model, bit for bit.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    forbidden: dict[str, tuple[str, ...]] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: found {self.temperature}, expected a positive number (argmax is a small one, such as 0.01)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: found {self.top_p}, expected 0 < top_p <= 1")

    def apply(self, denoising: Denoising, *, generate: tuple[str, ...]) -> Denoising:
        """Return the guided denoiser; the same object if there is nothing to change.

        Raises:
            ConfigError: for a symbol that is not in a track, or guidance of a track with uniform noise.
        """
        if self == Guidance():
            return denoising
        for name in generate:
            if not isinstance(denoising.diffusion.parameterizations[name].process, Absorbing):
                raise ConfigError(f"sampling.guidance: track '{name}' has uniform noise; guidance is defined for absorbing noise")
        denoiser, tracks = denoising.denoiser, denoising.tracks
        emittable = {name: tracks[name].emittable for name in generate}
        if self.weight != 1:
            denoiser = ClassifierFree(denoiser, emittable=emittable, weight=self.weight)
        if self.temperature == 1 and self.top_p == 1 and not self.forbidden:
            return replace(denoising, denoiser=denoiser)
        allowed = {name: self._allowed(name, tracks) for name in generate}
        reshaped = Reshaped(denoiser, emittable, allowed, temperature=self.temperature, top_p=self.top_p)
        return replace(denoising, denoiser=reshaped)

    def _allowed(self, name: str, tracks: TrackSet) -> Bool[Tensor, " k"]:
        allowed = tracks[name].emittable.clone()
        ids = tracks[name].vocabulary.ids
        for symbol in (self.forbidden or {}).get(name, ()):
            if symbol not in ids:
                raise ConfigError(f"sampling.guidance.forbidden.{name}: found '{symbol}'{nearest(symbol, ids)}, not a symbol of the track")
            allowed[ids[symbol]] = False
        if not allowed.any():
            raise ConfigError(f"sampling.guidance.forbidden.{name}: every symbol is forbidden; leave at least one")
        return allowed


@dataclass(frozen=True)
class Reshaped:
    """A denoiser with temperature, top-p and forbidden symbols; each row keeps its total mass (its log-sum-exp)."""

    denoiser: Denoiser
    emittable: Mapping[str, Bool[Tensor, " k"]]
    allowed: Mapping[str, Bool[Tensor, " k"]]
    temperature: float
    top_p: float

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the reshaped logits."""
        logits = self.denoiser(batch, sigma, at=at)
        return {name: self._reshape(x, name) if name in self.allowed else x for name, x in logits.items()}

    def _reshape(self, logits: Float[Tensor, "a k"], name: str) -> Float[Tensor, "a k"]:
        allowed = self.allowed[name].to(logits.device)
        wide = restrict(logits, self.emittable[name])
        mass = wide.logsumexp(-1, keepdim=True)
        log_probs = (wide.masked_fill(~allowed, -torch.inf) / self.temperature).log_softmax(-1)
        if self.top_p < 1:
            log_probs = keep_top_p(log_probs, self.top_p).log_softmax(-1)
        return log_probs + mass


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance: log p_w = log p_free + w (log p_given - log p_free), normalised; two network calls a step.

    The free prediction is for the same batch without any track that is not generated. Source: Ho and Salimans 2022; Schiff et al. 2024 for
    discrete diffusion.
    """

    denoiser: Denoiser
    emittable: Mapping[str, Bool[Tensor, " k"]]
    weight: float

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return guided logits of the generated tracks and plain logits of all other tracks."""
        given = self.denoiser(batch, sigma, at=at)
        nothing = [False] * batch.num_examples
        tracks = {n: t if n in self.emittable else t.keep(nothing) for n, t in batch.tracks.items()}
        hidden = {n: torch.full_like(c, -1) for n, c in batch.conditions.items()}
        none = torch.zeros(0, dtype=torch.int64, device=batch.device)
        kept = None if at is None else {n: at[n] if n in self.emittable else none for n in at}
        free = self.denoiser(replace(batch, tracks=tracks, conditions=hidden), sigma, at=kept)
        return {n: self._combine(x, free[n], self.emittable[n]) if n in self.emittable else x for n, x in given.items()}

    def _combine(self, given: Float[Tensor, "a k"], free: Float[Tensor, "a k"], emittable: Tensor) -> Float[Tensor, "a k"]:
        given, free = restrict(given, emittable), restrict(free, emittable)
        mass = given.logsumexp(-1, keepdim=True)
        log_given, log_free = given.log_softmax(-1), free.log_softmax(-1)
        guided = torch.where(given == -torch.inf, given, log_free + self.weight * (log_given - log_free))
        return guided.log_softmax(-1) + mass


def keep_top_p(logits: Float[Tensor, "a k"], top_p: float) -> Float[Tensor, "a k"]:
    """Return logits with -inf outside the nucleus: the smallest set of likeliest letters whose probability is at least top_p.

    The letter that reaches top_p is kept, the letters after it are not; of equally likely letters the one with the lower id comes first.

    Args:
        logits: unnormalised log probabilities; -inf is allowed. Kept entries are returned unchanged.
        top_p: above 0 and at most 1; 1 keeps every letter.

    Source: Holtzman et al. 2020.

    >>> keep_top_p(torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log(), 0.6).isfinite().tolist()
    [[False, True, True, False]]
    """
    if top_p == 1:
        return logits
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    probs = ordered.softmax(-1)
    before = probs.cumsum(-1) - probs  # the probability of all likelier letters
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index, before >= top_p)
    return logits.masked_fill(dropped, -torch.inf)
