"""Zero-shot mutation effects: the denoiser's score of a mutant relative to its wild type, and its agreement with a measurement.

Four methods, in nats, higher is fitter:

- `masked-marginal`: all mutated positions of a mutant are hidden at once, and sum_i log p(mut_i | rest) - log p(wt_i | rest) is taken over
  them: the masked-marginal score as Meier et al. 2021 define it. One network call for each distinct set of positions.
- `masked-marginal-additive`: each position is hidden alone, in the context of the wild type, and the effects of the sites of a
  multi-mutant are added, as in the code of that paper and ProteinGym's tables. Equal to the first for single mutants. One call for each
  distinct position.
- `wt-marginal`: one call on the wild type with nothing hidden; effects are added over sites. It uses predictions at visible
  tokens, which a masked-diffusion model is never trained on (ESM-2 is, on some): validate before use.
- `bound`: the bound of the wild type minus that of the mutant, under the same hidden sets (absorbing) or noise (uniform).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from protlig_dd import rng
from protlig_dd.data.readers.mutants import Mutants
from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.times import Task
from protlig_dd.errors import ConfigError, nearest
from protlig_dd.evaluation.any_order import stratified_bound
from protlig_dd.evaluation.intervals import Estimate, Score, percentile_interval
from protlig_dd.evaluation.likelihood import bound
from protlig_dd.evaluation.questions import ask, num_places, places
from protlig_dd.tokens.tracks import Example, pack

METHODS = ("masked-marginal", "masked-marginal-additive", "wt-marginal", "bound")
"""The methods by which a mutant can be scored."""

LEAST_PAIRS = 3
"""Pairs that a rank correlation takes."""

_NUM_RESAMPLES = 2000
_BOUND_BATCH = 64  # mutants whose bounds are computed at once


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores mutants with a denoiser.

    Attributes:
        denoising: the model in evaluation mode.
        track: the track of the protein.
        given: token ids of other tracks that are shown clean, such as a ligand's; absent tracks stay absent.
        tokens_per_call: tokens in one network call.
    """

    denoising: Denoising
    track: str = "protein"
    given: Example | None = None
    tokens_per_call: int = 16_384

    def effects(
        self, mutants: Mutants, method: str = "masked-marginal", *, seed: int = 0, num_strata: int = 32, num_draws: int = 2
    ) -> Float[np.ndarray, " m"]:
        """Return the predicted effect of each mutant in nats, 0 for the wild type itself.

        Args:
            mutants: checked against their wild type.
            method: one of `METHODS`, described above.
            seed: seed of the hidden sets of `bound`.
            num_strata: strata of `bound`, as in `stratified_bound` (for uniform noise, the number of times).
            num_draws: draws in each stratum of `bound`.

        Raises:
            ConfigError: for an unknown method or track, or a masked marginal under uniform noise.
            FormatError: if a sequence does not fit the track's vocabulary.
        """
        if method not in METHODS:
            raise ConfigError(f"method: found '{method}'{nearest(method, METHODS)}, expected one of {', '.join(METHODS)}")
        if self.track not in self.denoising.tracks:
            raise ConfigError(f"track: found '{self.track}', expected one of {', '.join(self.denoising.tracks)}")
        if method == "bound":
            return self._bound_differences(mutants, seed, num_strata, num_draws)
        return self._marginals(mutants, method)

    def _example(self, sequence: str) -> dict[str, list[int]]:
        others: Mapping[str, Sequence[int]] = self.given or {}
        return {**{name: list(ids) for name, ids in others.items()}, self.track: self.denoising.tracks[self.track].encode(sequence)}

    def _marginals(self, mutants: Mutants, method: str) -> Float[np.ndarray, " m"]:
        """sum_i log p(mut_i) - log p(wt_i), each site answered in the context that the method defines."""
        batch = pack([self._example(mutants.wild_type)], self.denoising.tracks)
        track = self.denoising.tracks[self.track]
        first = 1 if track.add_ends else 0
        place_of = places(batch, (self.track,))[self.track].tolist()[first:]
        sites = [tuple(place_of[m.position] for m in mutations) for mutations in mutants.mutations]
        if method == "masked-marginal":
            sets = sorted(set(sites) - {()})
        elif method == "masked-marginal-additive":
            sets = sorted({(site,) for own in sites for site in own})
        else:
            sets = [tuple(sorted({site for own in sites for site in own}))]
        wanted = torch.zeros(len(sets), int(num_places(batch, (self.track,))[0]), dtype=torch.bool)
        for row, places_of_set in enumerate(sets):
            wanted[row, list(places_of_set)] = True
        hidden = torch.zeros_like(wanted) if method == "wt-marginal" else wanted
        answers: dict[tuple[int, int], torch.Tensor] = {}
        questions, limit = [0] * len(sets), self.tokens_per_call
        for answer in ask(self.denoising, batch, (self.track,), questions, hidden, wanted=wanted, tokens_per_call=limit):
            keys = zip(answer.question.tolist(), answer.place.tolist(), strict=True)
            answers.update(zip(keys, answer.log_probs, strict=True))
        number = {own: i for i, own in enumerate(sets)}
        effects = np.zeros(len(mutants))
        for i, (own, mutations) in enumerate(zip(sites, mutants.mutations, strict=True)):
            for site, mutation in zip(own, mutations, strict=True):
                asked = {"masked-marginal": own, "masked-marginal-additive": (site,)}.get(method, sets[0])
                log_probs = answers[number[asked], site]
                new, old = track.vocabulary.encode([mutation.mutant, mutation.wild])
                effects[i] += float(log_probs[new].double() - log_probs[old].double())
        return effects

    def _bound_differences(self, mutants: Mutants, seed: int, num_strata: int, num_draws: int) -> Float[np.ndarray, " m"]:
        """Bounds of wild type and mutants under one example id, so that all hide the same places."""
        clean = tuple(name for name, ids in (self.given or {}).items() if len(ids))
        task = Task(noised=((self.track,),), clean=clean)
        absorbing = isinstance(self.denoising.diffusion.parameterizations[self.track].process, Absorbing)
        sequences = [mutants.wild_type, *(mutants.sequence(i) for i in range(len(mutants)))]
        nats = list[float]()
        for start in range(0, len(sequences), _BOUND_BATCH):
            examples = [self._example(sequence) for sequence in sequences[start : start + _BOUND_BATCH]]
            batch = pack(examples, self.denoising.tracks, example_ids=[0] * len(examples))
            if absorbing:
                found = stratified_bound(
                    self.denoising, batch, task, num_strata=num_strata, num_draws=num_draws, seed=seed, tokens_per_call=self.tokens_per_call
                ).bounds
            else:
                found = bound(self.denoising, batch, task, num_times=num_strata, seed=seed)
            nats += found.total.tolist()
        return nats[0] - np.array(nats[1:])


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return the ranks of values from 0; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse], dtype=np.float64)


def spearman(predicted: Float[np.ndarray, " n"], measured: Float[np.ndarray, " n"]) -> float:
    """Return the rank correlation of two lists, with mean ranks for ties; NaN if either is constant.

    Source: Spearman 1904; the Pearson correlation of the ranks.
    """
    a, b = (ranks(np.asarray(values, dtype=np.float64)) for values in (predicted, measured))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else float("nan")


def agreement(
    predicted: Float[np.ndarray, " m"],
    measured: Float[np.ndarray, " m"],
    *,
    name: str = "Spearman of mutation effects",
    seed: int = 0,
    num_resamples: int = _NUM_RESAMPLES,
    level: float = 0.95,
) -> Score:
    """Return the Spearman correlation of predictions with a measurement and its bootstrap interval over mutants; the null is the
    correlation with the measurement in random order.

    Mutants of one site are not independent: the interval is valid for this library of mutants, not for another protein.

    Raises:
        ValueError: if the lists differ in length, contain a number that is not finite, or have fewer than 3.
    """
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if len(a) != len(b) or len(a) < LEAST_PAIRS or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(
            f"agreement: found {len(a)} predictions and {len(b)} measurements, expected at least {LEAST_PAIRS} pairs of finite numbers"
        )
    value = spearman(a, b)
    if np.isnan(value):
        return Score(name=name, value=Estimate.missing(), note="predictions or measurements are all equal")
    draws = np.random.default_rng(rng.key(seed, "spearman"))
    rows = (draws.integers(len(a), size=len(a)) for _ in range(num_resamples))
    resampled = np.array([spearman(a[row], b[row]) for row in rows])
    finite = resampled[np.isfinite(resampled)]
    permuted = np.array([spearman(a, draws.permutation(b)) for _ in range(num_resamples)])
    # the observed order counts as one of the permutations, so that the p-value is never 0
    p_value = float((1 + (np.abs(permuted) >= abs(value)).sum()) / (1 + num_resamples))
    return Score(
        name=name,
        value=percentile_interval(value, finite, len(a), level=level) if len(finite) else Estimate.plain(value, len(a)),
        null=percentile_interval(float(permuted.mean()), permuted, len(a), level=level),
        null_name="measurements in random order",
        note=f"two-sided permutation p = {p_value:.2g}",
    )
