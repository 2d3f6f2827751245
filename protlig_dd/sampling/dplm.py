"""DPLM's sampler: candidates for every open position, of which the most confident are kept and the least confident are (re)masked.

Each step asks the network about all open positions, including those with a letter. A mask gets the candidate drawn there; a letter is ranked
by the *new* candidate's confidence but keeps its own letter. The least confident of both are masked, as many as the schedule says, counted
for each track. Not exact. Source: Wang et al. 2024 (DPLM, DPLM-2), the strategies of their published samplers:

| strategy      | candidate                                     | confidence                                  |
|---------------|-----------------------------------------------|---------------------------------------------|
| argmax        | the likeliest                                 | its logit (DPLM) or log-probability (DPLM-2) |
| gumbel_argmax | argmax of logits plus Gumbel noise            | its log-probability among the noised        |
| vanilla       | drawn at a fixed temperature                  | its log-probability                         |
| annealing     | drawn at a temperature that falls from a to b | its log-probability                         |

Repeats (gumbel_argmax): where one letter makes up more than `resample_ratio` of an example's candidates, these are masked and redrawn once
given all other candidates. The original counts padding too, so its samples depend on the batch; ours counts open positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.rng import Draws
from protlig_dd.sampling.ancestral import FixedSteps, require_absorbing
from protlig_dd.sampling.guidance import keep_top_p
from protlig_dd.sampling.loop import Problem, State, grid, rank_within, write

Candidates = tuple[Int[Tensor, " a"], Float[Tensor, " a"]]


@settings
class DPLMUnmasking(FixedSteps):
    """The published samplers of DPLM and DPLM-2.

    Args:
        num_steps: steps, one network call each (and one more for examples with repeats).
        strategy: how candidates are drawn, see the table of this module.
        temperature: temperature of "vanilla" (0 is greedy) and of the noise of "gumbel_argmax".
        annealing: the first and the last temperature of "annealing".
        randomness: weight of Gumbel noise on the confidences, falling with the share of masks; 0 is DPLM's deterministic unmasking, 1
            DPLM-2's "stochastic1.0".
        schedule: the share of masks after a fraction s of the steps: 1 - s, or cos(s pi / 2).
        top_p: by track, keep the smallest set of likeliest letters with at least this probability (DPLM-2: 0.95 for both tracks, Bit: for
            the protein).
        resample_ratio: share of an example's candidates, 0 to 1, above which repeats are redrawn; 0 turns redrawing off.
        confidence: what "argmax" ranks by: the logit (DPLM), the log-probability among all rows of the head (DPLM-2), or among the
            letters that are kept (Bit).
    """

    kind: Literal["dplm"] = "dplm"
    num_steps: int = 500
    strategy: Literal["argmax", "gumbel_argmax", "vanilla", "annealing"] = "gumbel_argmax"
    temperature: float = 1.0
    annealing: tuple[float, float] = (2.0, 0.1)
    randomness: float = 0.0
    schedule: Literal["linear", "cosine"] = "linear"
    top_p: dict[str, float] | None = None
    resample_ratio: float = 0.25
    confidence: Literal["logit", "log_prob", "kept"] = "logit"
    exact = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature < 0 or min(self.annealing) <= 0:
            raise ValueError(f"temperature: found {self.temperature}, annealing {self.annealing}, expected positive numbers")
        if not all(0 < p <= 1 for p in (self.top_p or {}).values()) or not 0 <= self.resample_ratio <= 1:
            raise ValueError(
                f"top_p: found {self.top_p} with resample_ratio {self.resample_ratio}, expected 0 < top_p <= 1 and 0 <= ratio <= 1"
            )

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the number of steps."""
        require_absorbing(problem, self.kind)
        return self.num_steps

    def step(self, problem: Problem, state: State, index: int) -> State:
        """Return the state after one more step."""
        at = {track: is_open.nonzero().squeeze(1) for track, is_open in problem.open.items()}
        draws = {track: problem.draws[track][position].fold(f"step {index}") for track, position in at.items()}
        found = self._candidates(problem, state, at, draws, index, self.top_p or {})
        if self.strategy == "gumbel_argmax" and self.resample_ratio:
            found = self._without_repeats(problem, state, at, draws, index, found)
        progress = (index + 1) / self.num_steps
        rate = 1 - progress if self.schedule == "linear" else math.cos(progress * math.pi / 2)
        for track, (letters, confidence) in found.items():
            mask_id = problem.diffusion.parameterizations[track].process.mask_id
            owner = problem.layouts[track].segment[at[track]]
            if self.randomness:
                confidence = confidence + self.randomness * rate * draws[track].fold("confidence").gumbel()
            low = _least_sure(owner, confidence, rate, state.batch.num_examples)
            before = state.batch.tracks[track].tokens[at[track]]
            after = torch.where(before == mask_id, letters, before).masked_fill(low, mask_id)
            state = write(state, track, at[track], after)
        return replace(state, alpha=grid(problem, state, index, self.num_steps)[1])

    def _candidates(
        self, problem: Problem, state: State, at: dict[str, Tensor], draws: dict[str, Draws], index: int, top_p: Mapping[str, float]
    ) -> dict[str, Candidates]:
        """A letter and its confidence for every open position."""
        logits = problem.logits(state, at)
        found = {}
        for track, stream in draws.items():
            process = problem.diffusion.parameterizations[track].process
            wide = logits[track].float()
            if self.confidence == "log_prob":
                wide = wide.log_softmax(-1)
            allowed = keep_top_p(wide.masked_fill(process.emittable(wide) == 0, -torch.inf), top_p.get(track, 1.0))
            kept = allowed.log_softmax(-1) if self.confidence == "kept" else allowed
            found[track] = self._choose(kept, stream, index)
        return found

    def _choose(self, logits: Float[Tensor, "a k"], draws: Draws, index: int) -> Candidates:
        if self.strategy == "argmax":
            best = logits.max(-1)
            return best.indices, best.values
        if self.strategy == "gumbel_argmax":
            noised = (logits + self.temperature * gumbel_rows(draws, logits.shape[-1])).log_softmax(-1)
            best = noised.max(-1)
            return best.indices, best.values
        first, last = self.annealing
        temperature = last + (first - last) * (1 - index / self.num_steps)
        temperature = temperature if self.strategy == "annealing" else self.temperature
        log_probs = (logits / (temperature or 1.0)).log_softmax(-1)
        letters = draws.categorical(log_probs) if temperature else log_probs.argmax(-1)
        return letters, log_probs.gather(-1, letters[:, None])[:, 0]

    def _without_repeats(
        self, problem: Problem, state: State, at: dict[str, Tensor], draws: dict[str, Draws], index: int, found: dict[str, Candidates]
    ) -> dict[str, Candidates]:
        """Redraw letters that make up too much of their example once, given all other candidates."""
        drafted, hot = state, {}
        for track, (letters, _) in found.items():
            process = problem.diffusion.parameterizations[track].process
            owner = problem.layouts[track].segment[at[track]]
            place = owner * process.num_rows + letters
            counts = torch.zeros(state.batch.num_examples * process.num_rows, dtype=torch.int64, device=place.device)
            counts = counts.index_add(0, place, torch.ones_like(place))
            size = torch.bincount(owner, minlength=state.batch.num_examples)[owner]
            hot[track] = counts[place] > size * self.resample_ratio
            drafted = write(drafted, track, at[track], letters.masked_fill(hot[track], process.mask_id))
        if not any(bool(h.any()) for h in hot.values()):
            return found
        some = {track: at[track][is_hot] for track, is_hot in hot.items()}
        streams = {track: draws[track][is_hot].fold("again") for track, is_hot in hot.items()}
        again = self._candidates(problem, drafted, some, streams, index, dict.fromkeys(some, 0.95))
        merged = {}
        for track, (letters, confidence) in found.items():
            rows = hot[track].nonzero().squeeze(1)
            new_letters, new_confidence = again[track]
            merged[track] = (letters.index_copy(0, rows, new_letters), confidence.index_copy(0, rows, new_confidence))
        return merged


def _least_sure(owner: Tensor, confidence: Tensor, rate: float, num: int) -> Tensor:
    """Whether positions are among the least confident of their example: below the value at rank trunc(float32(count) * rate)."""
    counts = torch.bincount(owner, minlength=num)
    keep_masked = (counts.float() * rate).long()
    at_rank = rank_within(owner, confidence) == keep_masked[owner]
    cutoff = torch.full((num,), -torch.inf, device=confidence.device).index_copy(0, owner[at_rank], confidence[at_rank])
    return confidence < cutoff[owner]


def gumbel_rows(draws: Draws, size: int) -> Float[Tensor, "a k"]:
    """Return Gumbel noise for every letter of every position."""
    return draws.gumbel_vector(size)
