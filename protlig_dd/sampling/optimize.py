"""Lead optimisation: noise a lead partly, generate the masked part again, keep the best variations, and repeat.

A model's variations on a molecule stay close to what it has learned, so this searches among likely molecules near the lead. An objective
may improve only because many samples are drawn; as a null, the same number of variations of the original lead is drawn as well, and both
histories are returned. Token lengths stay those of the lead: noise replaces tokens, it neither inserts nor deletes them.
Objectives are callables, defined elsewhere (`evaluation.properties`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from protlig_dd import rng
from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.errors import ConfigError
from protlig_dd.sampling.loop import Sampled, Stepper, sample
from protlig_dd.sampling.requests import checked_batch_size
from protlig_dd.tokens.tracks import Track, TrackBatch

Objective = Callable[[list[str]], np.ndarray]
"""Returns the score of each text, larger is better; NaN for an invalid text."""

Constraint = Callable[[str], bool]
"""Returns whether a text may be kept, such as "contains this substructure"; called before the objective, for invalid texts too."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A text with its score and its token ids."""

    text: str
    score: float
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Round:
    """The outcome of one round.

    Args:
        t: the time that tokens were noised to, in (0, 1].
        num_samples: number of variations drawn.
        num_admissible: number of these that are valid and meet the constraint.
        num_evaluations: number of new texts scored.
        mean: mean score of the admissible variations, NaN if there is none.
        best: the best score so far, the lead's included.
    """

    t: float
    num_samples: int
    num_admissible: int
    num_evaluations: int
    mean: float
    best: float


@dataclass(frozen=True, kw_only=True)
class OptimizeResult:
    """The best texts found, best first, with the history, and the null: as many variations without selection.

    Args:
        lead: the starting point.
        best: the best distinct texts of the optimisation, the lead among them if nothing displaced it.
        history: the rounds of the optimisation.
        null_best: the best distinct texts among variations of the lead itself.
        null: the rounds of the null.
        num_evaluations: distinct texts scored by the optimisation, the lead included; the null's are counted in its rounds.
    """

    lead: Candidate
    best: tuple[Candidate, ...]
    history: tuple[Round, ...]
    null_best: tuple[Candidate, ...]
    null: tuple[Round, ...]
    num_evaluations: int


def optimize(
    denoising: Denoising,
    batch: TrackBatch,
    *,
    track: str,
    objective: Objective,
    constraint: Constraint | None = None,
    rounds: int,
    population: int,
    t_range: tuple[float, float] = (0.3, 0.7),
    seed: int,
    sampler: Stepper,
    batch_size: int | None = None,
) -> OptimizeResult:
    """Return the best variations on a lead, and the null. A pure function of its arguments, including the seed.

    Args:
        denoising: a model, or a guided one, with the tracks that turn tokens into text.
        batch: one example: the lead in `track`, its conditions in the other tracks. Positions that are not `maskable` are kept.
        track: the track that is optimised.
        objective: scores texts, larger is better, NaN for an invalid one.
        constraint: texts that fail it are dropped, whatever their score.
        rounds: how often variations are drawn and selected, 1 or more.
        population: variations per round, and the number of best distinct texts they are drawn from.
        t_range: each round noises to a time drawn from this range, within (0, 1]; the smaller, the closer variations stay to their parents.
        seed: seed of all random draws.
        sampler: the sampler that generates masked positions again.
        batch_size: variations per network call, None for all of a round; it changes no variation.

    Raises:
        ConfigError: for a batch of several examples, a range outside (0, 1], or a lead that is invalid or fails the constraint.
    """
    _check(batch, track, rounds, population, t_range)
    judge = _Judge(objective, constraint)
    ids = tuple(batch.tracks[track].tokens.tolist())
    text = denoising.tracks[track].decode(ids)
    lead = Candidate(text=text, score=judge.scores_of([text])[0], ids=ids)
    if math.isnan(lead.score):
        raise ConfigError(f"optimize: the lead '{text}' has no score or fails the constraint; start from one that is valid and meets it")
    vary = partial(sample, denoising.denoiser, denoising.diffusion, generate=(track,), sampler=sampler)
    variations = _Variations(vary, batch, denoising.tracks[track], checked_batch_size(population if batch_size is None else batch_size))
    search = partial(_search, lead, variations, rounds=rounds, population=population, t_range=t_range, seed=seed)
    best, history = search(judge, selects=True)
    null_best, null = search(_Judge(objective, constraint, {text: lead.score}), selects=False)
    return OptimizeResult(
        lead=lead, best=best, history=history, null_best=null_best, null=null, num_evaluations=1 + sum(r.num_evaluations for r in history)
    )


def _check(batch: TrackBatch, track: str, rounds: int, population: int, t_range: tuple[float, float]) -> None:
    if batch.num_examples != 1:
        raise ConfigError(f"optimize: found {batch.num_examples} examples, expected one lead")
    if track not in batch.tracks:
        raise ConfigError(f"optimize.track: found '{track}', expected one of {', '.join(batch.tracks)}")
    if rounds < 1 or population < 1:
        raise ConfigError(f"optimize: found rounds {rounds} and population {population}, expected 1 or more of each")
    if not 0 < t_range[0] <= t_range[1] <= 1:
        raise ConfigError(f"optimize.t_range: found {list(t_range)}, expected 0 < first <= last <= 1")


@dataclass
class _Judge:
    """Scores texts, each once; NaN for a text that is invalid or fails the constraint."""

    objective: Objective
    constraint: Constraint | None
    known: dict[str, float] = field(default_factory=dict)
    num_evaluations: int = 0

    def scores_of(self, texts: Sequence[str]) -> list[float]:
        """Return the score of each text; the objective sees only new ones that meet the constraint."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        asked = [text for text in new if self.constraint is None or self.constraint(text)]
        self.known.update(dict.fromkeys(new, math.nan))
        if asked:
            found = np.asarray(self.objective(asked), dtype=np.float64)
            if found.shape != (len(asked),):
                raise ValueError(f"objective: found scores of shape {found.shape} for {len(asked)} texts, expected one for each")
            self.known.update(zip(asked, found.tolist(), strict=True))
            self.num_evaluations += len(asked)
        return [self.known[text] for text in texts]


@dataclass(frozen=True)
class _Variations:
    """Draws variations on token ids that replace the lead's."""

    sample: Callable[..., Sampled]
    batch: TrackBatch
    track: Track
    batch_size: int

    def draw(self, parents: Sequence[Candidate], *, t: float, seed: int, first_id: int) -> list[tuple[int, ...]]:
        """Return the ids of one variation on each parent, noised to time t."""
        found: list[tuple[int, ...]] = []
        for start in range(0, len(parents), self.batch_size):
            some = parents[start : start + self.batch_size]
            ids = torch.tensor([i for parent in some for i in parent.ids], dtype=torch.int64, device=self.batch.device)
            slots = start + torch.arange(len(some))
            repeated = replace(self.batch.select([0] * len(some)), example_ids=first_id + slots, slots=slots, global_size=len(parents))
            drawn = self.sample(batch=repeated.with_tokens(**{self.track.name: ids}), seed=seed, t_start=t)
            found += [tuple(row) for row in drawn.batch.tracks[self.track.name].split()]
        return found


def _search(
    lead: Candidate,
    variations: _Variations,
    judge: _Judge,
    *,
    selects: bool,
    rounds: int,
    population: int,
    t_range: tuple[float, float],
    seed: int,
) -> tuple[tuple[Candidate, ...], tuple[Round, ...]]:
    """Return the best distinct candidates and the rounds: variations of the best so far, or (the null) always of the lead."""
    pool, history = [lead], []
    key = rng.key(seed, "optimize", "selected" if selects else "null")
    for number in range(rounds):
        u = float(rng.Draws.root(seed, "optimize", "time", number).uniform())
        t = t_range[0] + (t_range[1] - t_range[0]) * u
        among = pool if selects else [lead]
        parents = [among[i % len(among)] for i in range(population)]
        rows = variations.draw(parents, t=t, seed=key, first_id=number * population)
        texts, before = [variations.track.decode(row) for row in rows], judge.num_evaluations
        scores = judge.scores_of(texts)
        children = [Candidate(text=x, score=y, ids=z) for x, y, z in zip(texts, scores, rows, strict=True)]
        valid = [child for child in children if not math.isnan(child.score)]
        pool = _best([*pool, *valid], population)
        history.append(
            Round(
                t=t,
                num_samples=population,
                num_admissible=len(valid),
                num_evaluations=judge.num_evaluations - before,
                mean=float(np.mean([child.score for child in valid])) if valid else math.nan,
                best=pool[0].score,
            )
        )
    return tuple(pool), tuple(history)


def _best(candidates: Sequence[Candidate], num: int) -> list[Candidate]:
    """Return the best candidates with distinct texts, best first; equals come in the order of their texts."""
    distinct = {candidate.text: candidate for candidate in candidates}
    return sorted(distinct.values(), key=lambda candidate: (-candidate.score, candidate.text))[:num]
