"""What short trainings with several learning rates and batch sizes say: their table, the best one, and how far that can be trusted.

`runs/lr_find.py` makes the trainings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from protlig_dd.evaluation.intervals import Estimate
from protlig_dd.evaluation.likelihood import per_token

_BAR = 24  # characters
_COLUMNS = ("lr", "batch", "steps", "tokens", "seconds", "nll")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A short training with one learning rate and one batch size.

    Attributes:
        lr: the learning rate after warm-up.
        batch: the batch size, in tokens or examples.
        steps: updates that were made.
        tokens: tokens that were seen.
        seconds: duration, with its validation.
        is_last: whether it belongs to the second, longer round.
        values: the metrics of validation, `nll` among them; empty if it diverged.
        nats, counts: nats and tokens of each validation example, in the same order in all trials; empty if it diverged.
    """

    lr: float
    batch: int
    steps: int
    tokens: int
    seconds: float = 0.0
    is_last: bool = False
    values: Mapping[str, float]
    nats: Float[np.ndarray, " b"]
    counts: Float[np.ndarray, " b"]

    @property
    def nll(self) -> float:
        """The validation value, nats per token; infinite if the training diverged."""
        return self.values.get("nll", math.inf)

    @property
    def diverged(self) -> bool:
        """Whether loss, gradient or validation were not finite."""
        return not self.values

    def __str__(self) -> str:
        return f"lr {self.lr:g}, batch {self.batch:,}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """All trials of a sweep.

    Attributes:
        unit: what batch sizes count.
        lrs, batches: the grid, ascending.
        untrained: the validation metrics of the weights that all trials start from.
        first: a trial of every point of the grid.
        last: trials of the best points, started afresh with a longer budget; empty if there was one round.
        length: how many times longer than the longest trial the config's own training is.
    """

    unit: Literal["tokens", "examples"]
    lrs: tuple[float, ...]
    batches: tuple[int, ...]
    untrained: Mapping[str, float]
    first: tuple[Trial, ...]
    last: tuple[Trial, ...] = ()
    length: float

    @property
    def judged(self) -> tuple[Trial, ...]:
        """The trials among which the best is sought: those of the longer round, if there was one."""
        return self.last or self.first

    @cached_property
    def best(self) -> Trial | None:
        """The trial with the lowest validation value; None if all diverged."""
        return _best_of(self.judged)

    @property
    def null(self) -> tuple[float, str]:
        """The value of a model that has learned nothing, and its name: guessing by frequency, or the weights before training."""
        if "unigram_null" in self.untrained:
            return self.untrained["unigram_null"], "the unigram null"
        return self.untrained["nll"], "the weights before training"

    @property
    def has_learned(self) -> bool:
        """Whether the best value is below the null; a choice among models that have learned nothing means nothing."""
        return self.best is not None and self.best.nll < self.null[0]

    def difference(self, trial: Trial) -> Estimate:
        """Return how much worse than the best a trial is, paired over the validation examples, with its interval."""
        assert self.best is not None and not trial.diverged
        return per_token(trial.nats - self.best.nats, trial.counts)[0]

    @property
    def tied(self) -> list[Trial]:
        """The trials that cannot be told from the best: the interval of their difference reaches zero, or is not known."""
        return [trial for trial in self._others if not self.difference(trial).low > 0]

    @property
    def _others(self) -> list[Trial]:
        """The trials beside the best, the better ones first."""
        return sorted((trial for trial in self.judged if trial is not self.best and not trial.diverged), key=lambda trial: trial.nll)

    def table(self) -> Iterator[str]:
        """Yield the trials of both rounds as aligned lines, with a bar that is the longer the better."""
        for title, trials in (("all candidates", self.first), ("the best of them, afresh and longer", self.last)):
            if trials:
                yield f"{title} (batch in {self.unit}, nll in nats per token):"
                yield from self._rows(trials)

    def _rows(self, trials: Sequence[Trial]) -> Iterator[str]:
        found, best = [trial.nll for trial in trials if not trial.diverged], _best_of(trials)
        top = self.untrained["nll"] if len(found) < 2 else min(max(found), self.untrained["nll"])  # a bar of length 0
        rows = [_COLUMNS]
        bars = [""]
        for trial in sorted(trials, key=lambda t: (-t.batch, t.lr)):
            value = "diverged" if trial.diverged else f"{trial.nll:.4f}"
            rows += [(f"{trial.lr:g}", f"{trial.batch:,}", f"{trial.steps:,}", f"{trial.tokens:,}", f"{trial.seconds:.1f}", value)]
            share = (top - trial.nll) / (top - best.nll) if best is not None and best.nll < top else 0.0
            bars += ["" if trial.diverged else "#" * round(_BAR * max(share, 0.0)) + "  best" * (trial is best)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        for row, bar in zip(rows, bars, strict=True):
            yield f"  {'  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))}  {bar}".rstrip()

    def remarks(self) -> Iterator[str]:
        """Yield what limits the recommendation, one line each."""
        best = self.best
        if best is None:
            yield f"no recommendation: every candidate diverged; try lower ones: {_range(self.lrs[0] / 100, self.lrs[0] / 3)}"
            return
        value, name = self.null
        if not self.has_learned:
            yield (
                f"no recommendation: no candidate is below {name} ({value:.4f}; the best is {best.nll:.4f}): so far the runs have learned "
                "nothing that could tell learning rates apart; give them more --minutes or --steps, or other --lrs"
            )
            return
        if not best.values.get("nll_high", best.nll) < value:
            yield (
                f"the best value, {_with_interval(best.values)}, cannot be told from {name}, {value:.4f}: longer runs (--minutes) or more "
                "validation examples (evaluation.num_examples) would show whether anything was learned"
            )
        yield from self._edges(best)
        yield from self._ties(best)
        yield from self._about_length(best)

    def _edges(self, best: Trial) -> Iterator[str]:
        low, high = self.lrs[0], self.lrs[-1]
        if low < high and best.lr in (low, high):
            wider = _range(low / 10, low * 3) if best.lr == low else _range(high / 3, high * 10)
            yield f"the best learning rate lies at the {'lower' if best.lr == low else 'upper'} edge of the grid; widen it: {wider}"
        small, large = self.batches[0], self.batches[-1]
        if small < large and best.batch in (small, large):
            sizes = (max(small // 2, 1), small) if best.batch == small else (large, large * 2)
            yield (
                f"the best batch size is the {'smallest' if best.batch == small else 'largest'} of the grid; to widen it: "
                f"--batches {','.join(map(str, sizes))}"
            )

    def _ties(self, best: Trial) -> Iterator[str]:
        others, tied = self._others, self.tied
        if tied:
            told = "; ".join(f"{trial} ({_signed(self.difference(trial))})" for trial in tied)
            lowest = min([best, *tied], key=lambda t: t.lr)
            hint = f"; {lowest.lr:g} is the lowest learning rate of them, and the safest for a long run" * (lowest.lr < best.lr)
            yield f"not told apart from the best on {len(best.nats)} validation examples: {told}{hint}"
        elif others:
            yield (
                f"better than the next, {others[0]}, by {self.difference(others[0])} nats on the same {len(best.nats)} validation examples; "
                "another seed may decide otherwise (seed=1)"
            )

    def _about_length(self, best: Trial) -> Iterator[str]:
        before = _best_of(self.first)
        if self.last and before is not None and before.lr > best.lr:
            yield f"the best learning rate fell from {before.lr:g} to {best.lr:g} as the runs became longer"
        longer = f"; this config's training is {self.length:.3g} times as long as the longest of these" if self.length > 1 else ""
        yield (f"a learning rate chosen in short runs is an upper estimate for long ones, and a batch size a lower one{longer}")

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as plain values, differences from the best included, without the values of single examples."""
        return {
            "batch_unit": self.unit,
            "lrs": list(self.lrs),
            "batches": list(self.batches),
            "untrained": _as_json(self.untrained),
            "trials": [self._plain(trial) for trial in (*self.first, *self.last)],
            "best": None if self.best is None else {"lr": self.best.lr, "batch": self.best.batch, "nll": self.best.nll},
            "has_learned": self.has_learned,
            "remarks": list(self.remarks()),
        }

    def _plain(self, trial: Trial) -> dict[str, Any]:
        plain: dict[str, Any] = {name: getattr(trial, name) for name in ("lr", "batch", "steps", "tokens", "seconds", "diverged")}
        plain |= {"round": 2 if trial.is_last else 1, "values": _as_json(trial.values)}
        if trial in self.judged and not trial.diverged:
            found = self.difference(trial)
            plain["worse_than_best"] = {"value": found.value, "low": found.low, "high": found.high} if found.has_interval else None
        return plain


def _best_of(trials: Sequence[Trial]) -> Trial | None:
    return min((trial for trial in trials if not trial.diverged), key=lambda trial: trial.nll, default=None)


def _range(low: float, high: float) -> str:
    return "--lrs " + "..".join(f"{float(f'{end:.1g}'):g}" for end in (low, high))


def _signed(difference: Estimate) -> str:
    return f"+{difference} nats"


def _with_interval(values: Mapping[str, float]) -> str:
    interval = f" [{values['nll_low']:.4f}, {values['nll_high']:.4f}]" if {"nll_low", "nll_high"} <= values.keys() else ""
    return f"{values['nll']:.4f}{interval}"


def _as_json(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers that are not finite, such as the ends of the interval of one example, are none in JSON."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
