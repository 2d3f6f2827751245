"""A two-track world so small that everything about it can be counted: the oracle behind the tests of losses and samplers.

Track a has three letters at three places, track b four letters at two, so there are 27 x 16 = 432 pairs. Their joint law couples places
within and across tracks and stands in tests/golden/joint.json. Ids are awkward on purpose: a special id comes first, another one stands
between letters, masks and padded rows come last, and rows that may not be emitted carry large logits, which a correct
parameterization ignores. All numbers are float64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path

import torch
from torch import Tensor

from protlig_dd.diffusion.parameterizations import Parameterization, Score, Subs
from protlig_dd.diffusion.processes import Absorbing, Uniform
from protlig_dd.rng import Draws
from protlig_dd.tokens.tracks import Track, TrackBatch, pack
from protlig_dd.tokens.vocabulary import Vocabulary

JOINT = Path(__file__).parents[1] / "golden" / "joint.json"
NAMES = ("a", "b")
LENGTHS = {"a": 3, "b": 2}
LETTERS = {"a": 3, "b": 4}
AXES = tuple((name, place) for name in NAMES for place in range(LENGTHS[name]))
COUPLING = {False: 1.6, True: 1.2}
"""How strongly two places depend on each other, across tracks and within one."""
FORBIDDEN_LOGIT = 9.0
"""What the exact denoiser puts at ids that may not be emitted."""

_VOCABULARIES = {
    "a": Vocabulary(name="a", symbols=("<pad>", "p", "q", "r", "<mask>"), mask_id=4, pad_id=0, emittable_ids=(1, 2, 3), num_rows=6),
    "b": Vocabulary(name="b", symbols=("k", "l", "?", "m", "n"), mask_id=6, unknown_id=2, emittable_ids=(0, 1, 3, 4), num_rows=7),
}


def _split(text: str, *, where: str) -> list[str]:
    return list(text)


def draw_weights() -> Tensor:
    """Return the integer weights of the joint as they were made: pair tables over all places and a little noise, from keyed draws."""
    draws = Draws.root(2024, "enumerable world")
    sizes = [LETTERS[name] for name, _ in AXES]
    energy = 0.5 * _signed(draws.fold("state"), 432).reshape(sizes)
    for i in range(len(AXES)):
        for j in range(i + 1, len(AXES)):
            table = _signed(draws.fold("pair", i, j), sizes[i] * sizes[j])
            shape = [sizes[d] if d in (i, j) else 1 for d in range(len(AXES))]
            energy = energy + COUPLING[AXES[i][0] == AXES[j][0]] * table.reshape(shape)
    return (energy.flatten().softmax(0) * 1e6).round().long().clamp(min=1)


def _signed(draws: Draws, size: int) -> Tensor:
    """Uniforms in (-1, 1) [size]."""
    return 2 * draws.fold_in(torch.arange(size)).uniform().double() - 1


@dataclass(frozen=True, kw_only=True)
class NoisedLaw:
    """All noised states of the world and how likely each is beside each clean letter.

    Args:
        batch: one example for each noised state.
        probs: the probability of each state [s].
        with_letter: for each (track, place) the probability of state and clean letter at that place [s, letters].
    """

    batch: TrackBatch
    probs: Tensor
    with_letter: Mapping[tuple[str, int], Tensor]


class World:
    """The joint law of tracks a and b, and what follows from it by counting."""

    def __init__(self, joint: Tensor) -> None:
        self.joint = joint.reshape([LETTERS[name] for name, _ in AXES])
        self._batches: dict[tuple[tuple[int, ...], tuple[str, ...]], TrackBatch] = {}
        self.tracks = {name: Track(name=name, vocabulary=_VOCABULARIES[name], max_length=LENGTHS[name], split=_split) for name in NAMES}

    @classmethod
    def load(cls) -> World:
        """Return the world of tests/golden/joint.json."""
        weights = torch.tensor(json.loads(JOINT.read_text())["weights"], dtype=torch.float64)
        return cls(weights / weights.sum())

    @property
    def probs(self) -> Tensor:
        """The probability of each state [432]."""
        return self.joint.flatten()

    @cached_property
    def states(self) -> Tensor:
        """The letters of each state, counted from 0 [432, 5]."""
        return torch.tensor(list(product(*(range(LETTERS[name]) for name, _ in AXES))))

    def entropy(self, *tracks: str) -> float:
        """Return the entropy of some tracks, in nats."""
        others = [axis for axis, (name, _) in enumerate(AXES) if name not in tracks]
        p = self.joint.sum(others) if others else self.joint
        return -float(torch.xlogy(p, p).sum())

    def parameterizations(self, kind: str) -> dict[str, Parameterization]:
        """Return one for each track: "subs", "score", "score_unscaled", "uniform", or "mixed" (a absorbing, b uniform)."""
        v = {name: track.vocabulary for name, track in self.tracks.items()}
        if kind == "mixed":
            return {"a": Subs(process=Absorbing.of(v["a"])), "b": Score(process=Uniform.of(v["b"]))}
        if kind == "subs":
            return {name: Subs(process=Absorbing.of(v[name])) for name in NAMES}
        process = Uniform if kind == "uniform" else Absorbing
        return {name: Score(process=process.of(v[name]), scale_by_sigma=kind == "score") for name in NAMES}

    def batch(self, states: Tensor, tracks: tuple[str, ...] = NAMES) -> TrackBatch:
        """Return letters counted from 0 [b, 5] as a packed batch; tracks that are not named are absent. -1 becomes the mask."""
        rows = {name: self._ids(name, states[:, [n == name for n, _ in AXES]]).tolist() for name in NAMES if name in tracks}
        return pack([{name: rows[name][i] for name in rows} for i in range(len(states))], self.tracks)

    def sample(self, num: int, *, seed: int = 0, tracks: tuple[str, ...] = NAMES) -> TrackBatch:
        """Return a batch drawn from the joint."""
        draws = Draws.root(seed, "world").fold_in(torch.arange(num))
        return self.batch(self.states[draws.categorical(self.probs.log().expand(num, -1))], tracks)

    def law(self, batch: TrackBatch) -> Tensor:
        """Return how often each state occurs among examples that have both tracks and no masks, as frequencies [432]."""
        letters = torch.cat([self.letters(name, batch.tracks[name].tokens) for name in NAMES], dim=1)
        assert int(letters.min()) >= 0, "a mask or a special id among finished samples"
        index = torch.zeros(len(letters), dtype=torch.int64)
        for column, (name, _) in zip(letters.T, AXES, strict=True):
            index = index * LETTERS[name] + column
        return torch.bincount(index, minlength=432).double() / len(index)

    def total_variation(self, law: Tensor) -> float:
        """Return the total variation between a law [432] and the truth."""
        return float((law - self.probs).abs().sum() / 2)

    def letters(self, name: str, tokens: Tensor) -> Tensor:
        """Return letters counted from 0 of packed full-length tokens [b, length]; -1 is a mask.

        Raises:
            AssertionError: for an id that is neither a letter nor the mask.
        """
        v = self.tracks[name].vocabulary
        lookup = torch.full((v.num_rows,), -2)
        lookup[list(v.emittable_ids)] = torch.arange(LETTERS[name])
        lookup[v.mask_id] = -1
        found = lookup[tokens].reshape(-1, LENGTHS[name])
        assert not bool((found == -2).any()), f"track {name}: {tokens[lookup[tokens] == -2].tolist()} are special ids"
        return found

    def _ids(self, name: str, letters: Tensor) -> Tensor:
        v = self.tracks[name].vocabulary
        return torch.tensor([*v.emittable_ids, v.mask_id])[letters]

    def noised_law(self, parameterizations: Mapping[str, Parameterization], alphas: Mapping[str, float]) -> NoisedLaw:
        """Return every noised state with its exact probability; tracks without an alpha are absent."""
        kernels = []
        for name, _ in AXES:
            n = LETTERS[name]
            if name not in alphas:
                kernels.append(torch.ones(n, 1, dtype=torch.float64))
                continue
            alpha, eye = alphas[name], torch.eye(n, dtype=torch.float64)
            if isinstance(parameterizations[name].process, Absorbing):
                kernels.append(torch.cat([alpha * eye, torch.full((n, 1), 1 - alpha, dtype=torch.float64)], dim=1))
            else:
                kernels.append(alpha * eye + (1 - alpha) / n)
        with_letter = {}
        for axis, key in enumerate(AXES):
            law = self.joint
            for other, kernel in enumerate(kernels):
                if other != axis:
                    law = torch.movedim(torch.tensordot(law, kernel, dims=([other], [0])), -1, other)
            # law: the clean letter at `axis`, noised ones elsewhere; the kernel of `axis` adds its noised letter.
            both = torch.movedim(law, axis, -1)[..., :, None] * kernels[axis]
            with_letter[key] = torch.movedim(both, -1, axis).reshape(-1, LETTERS[key[0]])
        batch = self._all_states(tuple(k.shape[1] for k in kernels), tuple(alphas))
        return NoisedLaw(batch=batch, probs=with_letter[AXES[0]].sum(-1), with_letter=with_letter)

    def _all_states(self, sizes: tuple[int, ...], tracks: tuple[str, ...]) -> TrackBatch:
        """Every combination of letters, and of the mask where a place has one size more than letters."""
        if (sizes, tracks) not in self._batches:
            codes = torch.cartesian_prod(*(torch.arange(size) for size in sizes))
            letters = torch.tensor([LETTERS[name] for name, _ in AXES])
            self._batches[sizes, tracks] = self.batch(torch.where(codes == letters, -1, codes), tracks)
        return self._batches[sizes, tracks]


class ExactDenoiser:
    """The denoiser that has learned the world: its logits make each track's parameterization exact.

    Args:
        world: the joint law.
        parameterizations: what the logits of each track should mean.
    """

    def __init__(self, world: World, parameterizations: Mapping[str, Parameterization]) -> None:
        self.world = world
        self.parameterizations = dict(parameterizations)
        self.calls = 0
        self._last: tuple[Tensor, list[Tensor], Tensor] | None = None

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return float64 logits [a, k] for each track."""
        self.calls += 1
        alphas = {name: torch.exp(-sigma[name].double()) for name in NAMES}
        codes = self._codes(batch)
        noise = torch.stack([alphas[n] * isinstance(self.parameterizations[n].process, Uniform) for n in NAMES], dim=1)
        beside, inverse = self._distinct(torch.cat([codes.double(), noise], dim=1))
        logits, start = {}, 0
        for name in NAMES:
            own = list(range(start, start + LENGTHS[name]))
            start += LENGTHS[name]
            others = torch.stack([beside[axis] for axis in own], dim=1)[inverse]
            present = codes[:, own[0]] > -2
            packed = self._logits(name, others[present], codes[present][:, own], alphas[name][present])
            packed = packed.reshape(-1, packed.shape[-1])
            logits[name] = packed if at is None else packed[at[name]]
        return logits

    def _distinct(self, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """The answers for distinct rows of codes and noise, and which row has which; the last ones are kept."""
        if self._last is None or not torch.equal(self._last[0], rows):
            distinct, inverse = torch.unique(rows, dim=0, return_inverse=True)
            beside = self._given_others(distinct[:, : len(AXES)].long(), distinct[:, len(AXES) :])
            self._last = rows, beside, inverse
        return self._last[1], self._last[2]

    def _codes(self, batch: TrackBatch) -> Tensor:
        """Letters counted from 0, -1 for a mask, -2 for an absent track [b, 5]."""
        columns = []
        for name in NAMES:
            track = batch.tracks[name]
            present = torch.tensor([n > 0 for n in track.layout.lengths])
            assert set(track.layout.lengths) <= {0, LENGTHS[name]}, track.layout.lengths
            codes = torch.full((batch.num_examples, LENGTHS[name]), -2)
            codes[present] = self.world.letters(name, track.tokens.cpu())
            columns.append(codes)
        return torch.cat(columns, dim=1)

    def _likelihood(self, axis: int, codes: Tensor, alpha: Tensor) -> Tensor:
        """q(x_t | x0) for each letter x0 at one place [b, letters]; 1 where the place tells nothing."""
        name = AXES[axis][0]
        n = LETTERS[name]
        known = torch.nn.functional.one_hot(codes.clamp(min=0), n).double()
        if isinstance(self.parameterizations[name].process, Uniform):
            known = alpha[:, None] * known + (1 - alpha[:, None]) / n
        return torch.where(codes[:, None] >= 0, known, 1.0)

    def _given_others(self, codes: Tensor, noise: Tensor) -> list[Tensor]:
        """For each place, p(x0 there, x_t at all other places) [b, letters]."""
        names = [name for name, _ in AXES]
        likelihoods = [self._likelihood(i, codes[:, i], noise[:, NAMES.index(names[i])]) for i in range(len(AXES))]
        beside = []
        for axis in range(len(AXES)):
            first, *others = [i for i in reversed(range(len(AXES))) if i != axis]
            law = torch.movedim(self.world.joint, axis, 0)  # this place, then the others in order
            law = law.reshape(-1, law.shape[-1]) @ likelihoods[first].T
            for other in others:
                law = (law.reshape(-1, likelihoods[other].shape[1], len(codes)) * likelihoods[other].T).sum(1)
            beside.append(law.T)
        return beside

    def _logits(self, name: str, others: Tensor, codes: Tensor, alpha: Tensor) -> Tensor:
        """Logits [b, length, k] from p(x0, x_t elsewhere) [b, length, letters]."""
        param = self.parameterizations[name]
        a = alpha[:, None, None]
        n = LETTERS[name]
        if isinstance(param.process, Uniform):
            marginal = a * others + (1 - a) / n * others.sum(-1, keepdim=True)
            letters = _log(marginal) - _log(marginal.gather(-1, codes[..., None]))
        else:
            shown = torch.nn.functional.one_hot(codes.clamp(min=0), n).double()
            letters = torch.where((codes < 0)[..., None], others, shown)
            letters = _log(letters / letters.sum(-1, keepdim=True))
            if isinstance(param, Score):
                letters = letters + (math.log(n) if param.scale_by_sigma else torch.log(a / (1 - a)))
        ids = list(param.process.emittable_ids)
        logits = torch.full((*letters.shape[:-1], param.process.num_rows), FORBIDDEN_LOGIT, dtype=torch.float64)
        logits[..., ids] = letters
        return logits


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(torch.float64).tiny).log()


def write_joint() -> None:
    """Write tests/golden/joint.json anew."""
    weights = draw_weights().tolist()
    cuts = range(0, len(weights) + 1, 16)
    lines = ",\n  ".join(", ".join(map(str, weights[a:b])) for a, b in pairwise(cuts))
    JOINT.write_text(f'{{"made_by": "tests.support.enumerable.write_joint", "order": "a1 a2 a3 b1 b2", "weights": [\n  {lines}\n]}}\n')
