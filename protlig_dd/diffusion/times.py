"""Sampling of noise levels: times, tasks, and the mixture of tasks.

A task is a pattern of times over tracks: which tracks share one t, and which stay clean at t = 0; a track it does not name is absent.
Each example draws its own task, so the mixture does not depend on the batch size. All draws come from keyed streams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.config import settings
from protlig_dd.errors import ConfigError, nearest
from protlig_dd.rng import Draws


class Times(NamedTuple):
    """Times t [b] and the weights [b] that make their mean an integral over (0, 1)."""

    t: Float[Tensor, " b"]
    weight: Float[Tensor, " b"]


@settings
class _Bounded:
    """The smallest time that a sampler of times draws."""

    kind: str = ""
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < 0.5:
            raise ValueError(f"t_min: found {self.t_min}, expected 0 <= t_min < 0.5")


@settings
class UniformTimes(_Bounded):
    """t uniform on (t_min, 1), independent for each example.

    Args:
        t_min: the smallest time, 0 to below 0.5.
    """

    kind: Literal["uniform"] = "uniform"

    def draw(self, draws: Draws, shared: Draws, slots: Int[Tensor, " b"], global_size: int, step: int) -> Times:
        """Return a time for each example."""
        return _uniform_times(draws.uniform(), self.t_min)


@settings
class StratifiedTimes(_Bounded):
    """t uniform on (t_min, 1), one in each of global_size equal strata: the same mean loss with less variance.

    Example j of the global batch gets frac(u + j / global_size) with one u per step, for any number of ranks.

    Args:
        t_min: the smallest time, 0 to below 0.5.
    """

    kind: Literal["stratified"] = "stratified"

    def draw(self, draws: Draws, shared: Draws, slots: Int[Tensor, " b"], global_size: int, step: int) -> Times:
        """Return a time for each example."""
        u = (shared.uniform() + slots.double() / global_size) % 1.0
        return _uniform_times(u.float().clamp(2.0**-24, 1 - 2.0**-24), self.t_min)


@settings
class BiasedTimes(_Bounded):
    """A curriculum on sampling: early steps prefer small t, t = t_min + (1 - 2 t_min) U^power, power = 1 + bias * strength.

    The bias falls from 1 to 0 over `steps`: exponential e^(-strength p), cosine (1 + cos pi p) / 2, linear 1 - p; then times are uniform.
    Validation never uses it.

    Args:
        t_min: the smallest time, 0 to below 0.5.
        ramp: how the bias falls.
        steps: step at which times become uniform, 1 or more.
        strength: the bias at step 0, 0 or more.
        corrected: weight the loss by 1 / density(t), so that its mean is the bound at every step (with more variance); without it early
            steps train a re-weighted objective, as the predecessor did.
    """

    kind: Literal["biased"] = "biased"
    ramp: Literal["exponential", "cosine", "linear"] = "exponential"
    steps: int = 5000
    strength: float = 2.0
    corrected: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not 0 <= self.strength < math.inf:
            raise ValueError(f"steps: found {self.steps} with strength {self.strength}, expected steps >= 1 and strength >= 0")

    def power(self, step: int) -> float:
        """Return the exponent at a step; 1 is uniform."""
        progress = step / self.steps
        if progress >= 1:
            return 1.0
        if self.ramp == "exponential":
            bias = math.exp(-self.strength * progress)
        else:
            bias = (1 + math.cos(math.pi * progress)) / 2 if self.ramp == "cosine" else 1 - progress
        return 1 + bias * self.strength

    def draw(self, draws: Draws, shared: Draws, slots: Int[Tensor, " b"], global_size: int, step: int) -> Times:
        """Return a time for each example."""
        return self.from_uniform(draws.uniform(), step)

    def from_uniform(self, u: Float[Tensor, " b"], step: int) -> Times:
        """Return the times at a step for uniform numbers u in (0, 1)."""
        power = self.power(step)
        if power == 1:
            return _uniform_times(u, self.t_min)
        wide = u.double()  # a float32 power differs in its last bit with the place in the batch
        t = self.t_min + (1 - 2 * self.t_min) * wide**power
        # density of t is u^(1 - power) / power, so its inverse is power * u^(power - 1)
        weight = (1 - 2 * self.t_min) * power * wide ** (power - 1) if self.corrected else torch.ones_like(wide)
        return Times(t.to(u.dtype), weight.to(u.dtype))


TimeSampler = StratifiedTimes | UniformTimes | BiasedTimes


def _uniform_times(u: Float[Tensor, " b"], t_min: float) -> Times:
    return Times(t_min + (1 - t_min) * u, torch.full_like(u, 1 - t_min))


@settings
class Task:
    """A pattern of times over tracks.

    Args:
        noised: groups of tracks; the tracks of a group share one t.
        clean: tracks that are given, at t = 0.
        weight: relative frequency of the task, 0 or more.
        apart: block attention between the tracks (DPLM-2's "single modality"; implemented by the encoder).
    """

    noised: tuple[tuple[str, ...], ...]
    clean: tuple[str, ...] = ()
    weight: float = 1.0
    apart: bool = False

    def __post_init__(self) -> None:
        names = self.tracks
        if not all(self.noised) or not self.noised or len(set(names)) != len(names):
            raise ValueError(f"noised {self.noised} and clean {self.clean}: expected at least one noised track and none twice")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight: found {self.weight}, expected a finite number >= 0")

    @property
    def tracks(self) -> tuple[str, ...]:
        """All tracks of the task."""
        return (*(name for group in self.noised for name in group), *self.clean)

    @property
    def noised_tracks(self) -> tuple[str, ...]:
        """The tracks that carry noise."""
        return tuple(name for group in self.noised for name in group)


def named_tasks(tracks: tuple[str, ...]) -> dict[str, Task]:
    """Return the predefined tasks by name: `joint`, `independent`, `apart`, `<a>_only`, and `<a>_given_<b>` for every pair.

    Of three tracks there are also `<a>_given_<b>_<c>` and `<a>_<b>_given_<c>`, the tracks in the experiment's order.
    """
    tasks = {f"{a}_only": Task(noised=((a,),)) for a in tracks}
    if len(tracks) > 1:
        tasks["joint"] = Task(noised=(tracks,))
        tasks["independent"] = Task(noised=tuple((a,) for a in tracks))
        tasks["apart"] = Task(noised=tuple((a,) for a in tracks), apart=True)
        parts = [part for size in range(1, len(tracks)) for part in combinations(tracks, size)]
        conditionals = [(a, b) for a in parts for b in parts if not set(a) & set(b)]
        tasks |= {f"{'_'.join(a)}_given_{'_'.join(b)}": Task(noised=(a,), clean=b) for a, b in conditionals}
    return tasks


class TaskMixture:
    """Named tasks and their weights.

    Args:
        tasks: for each name a `Task`, or a weight for one of `named_tasks`.
        tracks: the tracks of the experiment.

    Raises:
        ConfigError: for an unknown name or track, or no positive weight.
    """

    def __init__(self, tasks: Mapping[str, Task | float], tracks: tuple[str, ...]) -> None:
        known = named_tasks(tracks)
        self.tasks: dict[str, Task] = {}
        self.weights: dict[str, float] = {}
        for name, value in tasks.items():
            if isinstance(value, Task):
                task, weight = value, value.weight
            elif name in known:
                task, weight = known[name], float(value)
            else:
                raise ConfigError(f"diffusion.tasks.{name}: unknown task{nearest(name, known)}; known ones are: {', '.join(known)}")
            missing = set(task.tracks) - set(tracks)
            if missing:
                raise ConfigError(f"diffusion.tasks.{name}: found track '{min(missing)}', expected one of {', '.join(tracks)}")
            self.tasks[name], self.weights[name] = task, weight
        if not any(w > 0 for w in self.weights.values()) or min(self.weights.values()) < 0:
            raise ConfigError(f"diffusion.tasks: found weights {self.weights}, expected none negative and at least one positive")
        self.names = tuple(self.tasks)

    def draw(self, draws: Draws, present: Mapping[str, list[bool]]) -> list[str]:
        """Return the name of a task for each example, drawn from the tasks whose tracks the example has.

        Args:
            draws: one stream for each example [b].
            present: for each track, whether each example has it.

        Raises:
            ValueError: if an example fits no task of the mixture.
        """
        weights = torch.tensor([self.weights[n] for n in self.names])
        num = len(draws.keys)
        needed = [self.tasks[n].tracks for n in self.names]
        rows = [[all(t in present and present[t][i] for t in tracks) for tracks in needed] for i in range(num)]
        fits = torch.tensor(rows).reshape(num, len(self.names))
        log_probs = torch.log(weights * fits)
        stuck = (log_probs == -math.inf).all(-1)
        if bool(stuck.any()):
            row = int(stuck.nonzero()[0])
            has = [t for t in present if present[t][row]]
            raise ValueError(
                f"an example with the tracks {has} fits none of the tasks {list(self.names)}; "
                f"add a task for it under diffusion.tasks, such as {has[0] if has else 'protein'}_only"
            )
        return [self.names[i] for i in draws.categorical(log_probs).tolist()]
