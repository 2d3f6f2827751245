"""The exact law of samples on the enumerable world, and how a Monte-Carlo sample is held against a law.

A stepper that draws each token once a step is run on all noised states of the world at once, with `RecordingDraws` in place of random
streams: they write down the probabilities instead of drawing. The law of the samples is then a product of matrices, without any noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from protlig_dd.diffusion.denoiser import Diffusion
from protlig_dd.diffusion.parameterizations import Parameterization
from protlig_dd.diffusion.processes import Absorbing
from protlig_dd.diffusion.schedules import LogLinear, NoiseSchedule
from protlig_dd.rng import Draws
from protlig_dd.sampling.loop import Problem, State, Stepper, level, sample
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackTokens
from tests.support.enumerable import AXES, LENGTHS, LETTERS, NAMES, ExactDenoiser, World

KINDS = ("subs", "score", "score_unscaled", "uniform", "mixed")
ABSORBING = ("subs", "score", "score_unscaled")
EVERYWHERE = {name: (True,) * LENGTHS[name] for name in NAMES}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is generated: the tracks that are there, and for each generated track which places are open."""

    open: Mapping[str, tuple[bool, ...]]
    tracks: tuple[str, ...] = NAMES

    @property
    def axes(self) -> list[int]:
        """The axes of the joint that are there."""
        return [i for i, (name, _) in enumerate(AXES) if name in self.tracks]

    def truth(self, world: World) -> Tensor:
        """Return the law that samples of an exact sampler have, over the axes that are there, flat."""
        others = [i for i in range(len(AXES)) if i not in self.axes]
        return (world.joint.sum(others) if others else world.joint).flatten()

    def batch(self, world: World, num: int, *, seed: int = 0) -> TrackBatch:
        """Return `num` examples drawn from the joint, with `maskable` at the open places."""
        chance = Draws.root(seed, "scene").fold_in(torch.arange(num)).uniform().double()
        drawn = world.states[torch.searchsorted(world.probs.cumsum(0), chance).clamp(max=len(world.states) - 1)]
        tracks = {}
        for name in NAMES:
            mine = drawn[:, [n == name for n, _ in AXES]]
            ids = torch.tensor(world.tracks[name].vocabulary.emittable_ids)
            places = torch.tensor(self.open.get(name, (False,) * LENGTHS[name]))
            present = num if name in self.tracks else 0
            tracks[name] = TrackTokens(
                tokens=ids[mine].flatten()[: present * LENGTHS[name]],
                maskable=places.repeat(present),
                layout=Layout((LENGTHS[name] if present else 0,) * num),
            )
        return TrackBatch(tracks=tracks, example_ids=torch.arange(num), slots=torch.arange(num), global_size=num)

    def law(self, world: World, batch: TrackBatch) -> Tensor:
        """Return the frequencies of finished samples over the axes that are there, flat."""
        index = torch.zeros(batch.num_examples, dtype=torch.int64)
        for name in self.tracks:
            for column in world.letters(name, batch.tracks[name].tokens).T:
                assert int(column.min()) >= 0, "a mask among finished samples"
                index = index * LETTERS[name] + column
        size = math.prod(LETTERS[AXES[axis][0]] for axis in self.axes)
        return torch.bincount(index, minlength=size).double() / len(index)


SCENES = {
    "joint": Scene(open=EVERYWHERE),
    "a given b": Scene(open={"a": EVERYWHERE["a"]}),
    "b given a": Scene(open={"b": EVERYWHERE["b"]}),
    "infill": Scene(open={"a": (True, False, True), "b": (False, True)}),
    "a alone": Scene(open={"a": EVERYWHERE["a"]}, tracks=("a",)),
}


class RememberingDenoiser(ExactDenoiser):
    """The exact denoiser, quick where it is asked for the same states again and the noise level does not matter."""

    _last: tuple[Tensor, dict[str, Tensor]] | None = None

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        tokens = torch.cat([batch.tracks[name].tokens for name in NAMES])
        last = self._last
        if last is None or not torch.equal(last[0], tokens) or not self._is_stationary:
            last = (tokens, super().__call__(batch, sigma))
            self._last = last
        return last[1] if at is None else {name: logits[at[name]] for name, logits in last[1].items()}

    @property
    def _is_stationary(self) -> bool:
        """Whether p(x0 | x_t), and with it the logits, is the same at all times."""
        return all(
            isinstance(param.process, Absorbing) and getattr(param, "scale_by_sigma", True) for param in self.parameterizations.values()
        )


@dataclass(frozen=True)
class RecordingDraws(Draws):
    """Streams that record what they are asked to draw from: `rows[key]` becomes the law of token `key`."""

    rows: Tensor

    def fold(self, *names: str | int) -> RecordingDraws:
        return self

    def __getitem__(self, index: Tensor) -> RecordingDraws:
        return RecordingDraws(self.keys[index], self.rows)

    def categorical(self, log_probs: Tensor) -> Tensor:
        self.rows[self.keys] = log_probs.double().softmax(-1)
        return log_probs.argmax(-1)


class Propagation:
    """The law of a sampler's states, carried from step to step over all noised states of the world."""

    def __init__(self, world: World, kind: str, scene: Scene, *, schedule: NoiseSchedule, t_start: float = 1.0) -> None:
        self.world, self.scene = world, scene
        self.parameterizations: dict[str, Parameterization] = world.parameterizations(kind)
        self.masks = {n: isinstance(self.parameterizations[n].process, Absorbing) for n in NAMES}
        self.sizes = [LETTERS[AXES[a][0]] + self.masks[AXES[a][0]] for a in scene.axes]
        codes = torch.full((math.prod(self.sizes), len(AXES)), 0)
        codes[:, scene.axes] = torch.tensor(list(product(*map(range, self.sizes))))
        for axis in scene.axes:
            codes[:, axis][codes[:, axis] == LETTERS[AXES[axis][0]]] = -1
        self.batch = world.batch(codes, scene.tracks)
        diffusion = Diffusion(parameterizations=self.parameterizations, schedule=schedule)
        is_open = {n: torch.tensor(places).repeat(len(codes)) for n, places in scene.open.items()}
        self.problem = Problem(
            denoiser=RememberingDenoiser(world, self.parameterizations),
            diffusion=diffusion,
            open=is_open,
            draws={n: self._recorder(n) for n in is_open},
            layouts={n: self.batch.tracks[n].layout for n in is_open},
            t_start=t_start,
        )
        alpha = level(schedule, torch.tensor(float(t_start), dtype=torch.float64))
        self.law = self._noised(None if t_start == 1 else alpha)
        self.alpha = alpha.expand(len(codes))

    def _recorder(self, name: str) -> RecordingDraws:
        tokens = self.batch.tracks[name].tokens
        rows = torch.nn.functional.one_hot(tokens, self.world.tracks[name].vocabulary.num_rows).double()
        return RecordingDraws(torch.arange(len(tokens)), rows)

    def kernel(self, axis: int, keep: Tensor | None) -> Tensor:
        """Return the noise at one place, from letters (and the mask, if there is one) to noised codes; no `keep` is the prior."""
        name, place = AXES[axis]
        n, size = LETTERS[name], LETTERS[name] + self.masks[name]
        eye = torch.eye(size, dtype=torch.float64)
        if name not in self.scene.open or not self.scene.open[name][place]:
            return eye
        keep = torch.zeros((), dtype=torch.float64) if keep is None else keep
        lost = eye[-1].expand(size, size) if self.masks[name] else torch.full((size, size), 1 / n, dtype=torch.float64)
        return keep * eye + (1 - keep) * lost

    def _noised(self, keep: Tensor | None) -> Tensor:
        law = self.scene.truth(self.world).reshape([LETTERS[AXES[a][0]] for a in self.scene.axes])
        for i, axis in enumerate(self.scene.axes):
            kernel = self.kernel(axis, keep)[: law.shape[i]]
            law = torch.movedim(torch.tensordot(law, kernel, dims=([i], [0])), -1, i)
        return law.flatten()

    def noise(self, keep: float) -> None:
        """Noise all open places further, keeping each token with this probability."""
        law = self.law.reshape(self.sizes)
        for i, axis in enumerate(self.scene.axes):
            kernel = self.kernel(axis, torch.tensor(keep, dtype=torch.float64))
            law = torch.movedim(torch.tensordot(law, kernel, dims=([i], [0])), -1, i)
        self.law = law.flatten()

    def step(self, stepper: Stepper, index: int) -> State:
        """Carry the law through one step of a stepper that draws each token once."""
        for name, draws in self.problem.draws.items():
            fresh = self._recorder(name)
            assert isinstance(draws, RecordingDraws)
            draws.rows.copy_(fresh.rows)
        state = stepper.step(self.problem, State(batch=self.batch, alpha=self.alpha), index)
        sides = [self._side(name) if name in self.problem.draws else self._stay(name) for name in self.scene.tracks]
        if len(sides) == 1:
            self.law = self.law @ sides[0]
        else:
            self.law = ((self.law[:, None] * sides[0]).T @ sides[1]).flatten()
        self.alpha = state.alpha
        return state

    def _side(self, name: str) -> Tensor:
        """The law of a track's next letters from each state [s, letters of all places]."""
        draws = self.problem.draws[name]
        assert isinstance(draws, RecordingDraws)
        v = self.world.tracks[name].vocabulary
        ids = [*v.emittable_ids, v.mask_id][: LETTERS[name] + self.masks[name]]
        others = [i for i in range(v.num_rows) if i not in ids]
        assert float(draws.rows[:, others].sum()) == 0, f"track {name} may be given special ids"
        rows = draws.rows[:, ids].reshape(len(self.law), LENGTHS[name], len(ids))
        side = rows[:, 0]
        for place in range(1, LENGTHS[name]):
            side = (side[:, :, None] * rows[:, place, None, :]).flatten(1)
        return side

    def _stay(self, name: str) -> Tensor:
        size = (LETTERS[name] + self.masks[name]) ** LENGTHS[name]
        before = math.prod(s for a, s in zip(self.scene.axes, self.sizes, strict=True) if AXES[a][0] < name)
        after = len(self.law) // size // before
        return torch.eye(size, dtype=torch.float64).repeat_interleave(after, 0).repeat(before, 1)

    def finished(self) -> Tensor:
        """Return the law over letters, flat.

        Raises:
            AssertionError: if a mask is left.
        """
        law = self.law.reshape(self.sizes)
        for i, axis in enumerate(self.scene.axes):
            law = law.narrow(i, 0, LETTERS[AXES[axis][0]])
        left = 1 - float(law.sum())
        assert abs(left) < 1e-5, f"a mask is left with probability {left}"
        return law.flatten()


def exact_law(
    world: World, kind: str, scene: Scene, stepper: Stepper, *, schedule: NoiseSchedule | None = None, t_start: float = 1.0
) -> Tensor:
    """Return the law of finished samples of a stepper that draws each token once a step."""
    run = Propagation(world, kind, scene, schedule=schedule or LogLinear(), t_start=t_start)
    for index in range(stepper.num_calls(run.problem, State(batch=run.batch, alpha=run.alpha))):
        run.step(stepper, index)
    return run.finished()


def draw(
    world: World,
    kind: str,
    scene: Scene,
    stepper: Stepper,
    num: int,
    *,
    seed: int = 0,
    schedule: NoiseSchedule | None = None,
    t_start: float = 1.0,
) -> Tensor:
    """Return the frequencies of `num` samples of the exact denoiser, over the axes that are there, flat."""
    parameterizations = world.parameterizations(kind)
    drawn = sample(
        ExactDenoiser(world, parameterizations),
        Diffusion(parameterizations=parameterizations, schedule=schedule or LogLinear()),
        scene.batch(world, num, seed=seed),
        generate=tuple(scene.open),
        sampler=stepper,
        seed=seed,
        t_start=t_start,
    )
    return scene.law(world, drawn.batch)


def total_variation(p: Tensor, q: Tensor) -> float:
    """Return half the sum of absolute differences."""
    return float((p - q).abs().sum() / 2)


def misfit(found: Tensor, expected: Tensor, num: int) -> float:
    """Return by how many standard deviations Pearson's chi-square exceeds its mean; cells expected below 5 are taken as one."""
    order = expected.argsort(descending=True)
    large = expected[order] * num >= 5
    cells = torch.cat([expected[order][large], expected[order][~large].sum()[None]]) * num
    counts = torch.cat([found[order][large], found[order][~large].sum()[None]]) * num
    if cells[-1] < 1:
        assert counts[-1] <= 12, f"{counts[-1]} samples where {cells[-1]} are expected"
        cells, counts = cells[:-1], counts[:-1]
    freedom = len(cells) - 1
    chi_square = float(((counts - cells) ** 2 / cells).sum())
    return (chi_square - freedom) / math.sqrt(2 * freedom)
