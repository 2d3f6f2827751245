"""Sequential Monte Carlo towards a property: samples of p(x) exp(weight * property(x)) / Z.

Each sample is drawn from its own particles, which go through the sampler in one batch. Before every step a particle's weight is
multiplied by potential(x_t) / potential(x_s), the ratio to its potential a step earlier, and where the effective sample size falls too low the
sample's particles are resampled by their weights (systematic resampling). At the end the weight exp(weight * property(x)) replaces the last
potential, and one particle is drawn by its weight. The potentials cancel, so the law tends to the tilted one as the number of particles grows,
for any potentials and any p of the sampler; the potentials decide how many particles are needed. The error is of the order of 1 / particles.

- A property that is a sum over letters has the potential E[exp(weight * property) | x_t] under the product of p(x0_i | x_t). With samplers
  whose letters are drawn from p(x0_i | x_t) (`exact`), the steps are guided and the weights correct for it (twisted SMC, Wu et al. 2023): if
  the clean letters are independent, all weights stay equal.
- Any other property is evaluated on the text with its masks filled, and its weight grows with the share of unmasked letters (tempering).

Cost: `particles` times the network calls of plain samples; the guess uses the step's own call where the sampler asks at the same noise level
(all but first_hitting, which needs one more). Particle j of sample i depends on (seed, i, j) only. Source: Del Moral et al. 2006.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from protlig_dd.diffusion.parameterizations import restrict
from protlig_dd.rng import Draws
from protlig_dd.sampling.loop import Problem, State, Stepper
from protlig_dd.sampling.tilting import Property, Tilting, exponents, letter_effects, texts_of
from protlig_dd.tokens.tracks import Layout, Track, TrackBatch


@dataclass(frozen=True, kw_only=True)
class Weighted(State):
    """A state with the particles' weights.

    Args:
        log_weights: log weight of each particle since its sample was last resampled [b, particles], float64 on the host.
        potential: the log potential that the weight includes now [b, particles].
        order: the random order of positions of each track, resampled with the particle [n].
        log_z: running estimate of log E[exp(weight * property)] [b].
        num_resamplings: number of resamplings so far [b].
        ess: effective sample size before each step [b].
    """

    log_weights: Tensor
    potential: Tensor
    order: dict[str, Tensor]
    log_z: Tensor
    num_resamplings: Tensor
    ess: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Step(Problem):
    """The problem that the inner sampler sees in one step: its own draws, the particles' order, and letters drawn with the tilt.

    Args:
        carried: the order of positions that is resampled with the particles.
        known: a state whose logits have been computed.
        rows: for each track the row of each packed position in these logits, -1 for none [n].
        logits_known: these logits, without the tilt.
        track: the tilted track.
        effects: weight * value of each letter at each position of the tilted track [n, k], or None for plain draws.
        calls: for each call of the sampler the tokens before it, the positions, and log E[exp(effect)] at each.
    """

    carried: Mapping[str, Tensor]
    known: State
    rows: Mapping[str, Tensor]
    logits_known: Mapping[str, Tensor]
    track: Track
    effects: Tensor | None = None
    calls: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    @property
    def order(self) -> dict[str, Int[Tensor, " n"]]:  # type: ignore[override]
        """The order of positions, resampled with the particles."""
        return dict(self.carried)

    def logits(self, state: State, at: Mapping[str, Int[Tensor, " _a"]]) -> dict[str, Float[Tensor, "_a _k"]]:
        """Return the logits, tilted in the rows of masks."""
        logits = self._plain(state, at)
        if self.effects is None:
            return logits
        name = self.track.name
        log_probs = restrict(logits[name], self.track.emittable)
        mass = log_probs.logsumexp(-1, keepdim=True)
        tilted = log_probs + self.effects[at[name]].to(log_probs)
        self.calls.append((state.batch.tracks[name].tokens, at[name], tilted.logsumexp(-1) - mass[:, 0]))
        return {**logits, name: tilted.log_softmax(-1) + mass}

    def _plain(self, state: State, at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = {name: self.rows[name][index] for name, index in at.items()}
        if state is not self.known or any(bool((r < 0).any()) for r in rows.values()):
            return super().logits(state, at)
        return {name: self.logits_known[name][r] for name, r in rows.items()}

    def log_ratio(self, after: TrackBatch) -> Float[Tensor, " e"]:
        """Return log p / q of the unmasked letters of each particle: the weight correction for guided draws."""
        layout = after.tracks[self.track.name].layout
        total = torch.zeros(layout.num_examples, dtype=torch.float64)
        for before, index, log_mean in self.calls:
            assert self.effects is not None
            now = after.tracks[self.track.name].tokens[index]
            mask_id = self.track.vocabulary.mask_id
            opened = (before[index] == mask_id) & (now != mask_id)
            effect = self.effects[index].gather(-1, now[:, None])[:, 0].to(log_mean)
            paid = torch.where(opened, log_mean - effect, 0.0)
            total = total.index_add(0, layout.segment[index].cpu(), paid.double().cpu())
        return total


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """A stepper that weighs and resamples the particles of each sample before each step of another stepper.

    Args:
        inner: the sampler.
        prop: the property that samples are drawn towards.
        track: the track of the property.
        tilting: weight, particles, threshold, guess.
        streams: one random stream for each sample [b].
    """

    inner: Stepper
    prop: Property
    track: Track
    tilting: Tilting
    streams: Draws
    exact = False

    def num_calls(self, problem: Problem, state: State) -> int:
        """Return the number of steps of the inner sampler."""
        return self.inner.num_calls(problem, state)

    def step(self, problem: Problem, state: State, index: int) -> Weighted:
        """Return the particles after one more step, with their weights."""
        now = state if isinstance(state, Weighted) else self._start(problem, state)
        own = replace(problem, draws={n: d.fold(f"particles {index}") for n, d in problem.draws.items()})
        plain = State(batch=now.batch, alpha=now.alpha)
        # a sampler that redraws letters asks about them too
        at = {n: own.active(plain, n) if self.inner.exact else is_open.nonzero().squeeze(1) for n, is_open in own.open.items()}
        logits = own.logits(plain, at) if sum(len(i) for i in at.values()) else {}
        now = self._weigh(own, now, at, logits, index)
        now, gather = self._resample(now, index)
        known = State(batch=now.batch, alpha=now.alpha)
        step = _Step(
            **{name: getattr(own, name) for name in ("denoiser", "diffusion", "open", "draws", "layouts", "t_start")},
            carried=now.order,
            known=known,
            rows={n: _rows(now.batch.tracks[n].layout, i)[gather[n]] for n, i in at.items()},
            logits_known=logits,
            track=self.track,
            effects=self._effects(now.batch) if self.prop.letters is not None and self.inner.exact else None,
        )
        moved = self.inner.step(step, known, index)
        return replace(
            now,
            batch=moved.batch,
            alpha=moved.alpha,
            log_weights=now.log_weights + step.log_ratio(moved.batch).reshape(now.log_weights.shape),
        )

    def _effects(self, batch: TrackBatch) -> Tensor:
        return self.tilting.weight * letter_effects(self.prop, self.track, batch)

    def _start(self, problem: Problem, state: State) -> Weighted:
        none = torch.zeros(state.batch.num_examples // self.tilting.particles, dtype=torch.float64)
        zeros = none[:, None].expand(-1, self.tilting.particles)
        return Weighted(
            batch=state.batch,
            alpha=state.alpha,
            log_weights=zeros,
            potential=zeros,
            order=problem.order,
            log_z=none,
            num_resamplings=none.long(),
        )

    def _weigh(self, problem: Problem, now: Weighted, at: Mapping[str, Tensor], logits: Mapping[str, Tensor], index: int) -> Weighted:
        """The particles with this state's potential instead of the last one in their weights."""
        name = self.track.name
        rows = logits.get(name, torch.zeros(0, self.track.vocabulary.num_rows))
        log_probs = restrict(rows, self.track.emittable).log_softmax(-1)
        index_ = at[name] if len(rows) else at[name][:0]
        is_mask = now.batch.tracks[name].tokens[index_] == self.track.vocabulary.mask_id
        masks, log_probs = index_[is_mask], log_probs[is_mask]
        potential = (
            self._additive(now, masks, log_probs) if self.prop.letters is not None else self._guessed(problem, now, masks, log_probs)
        )
        potential = potential.reshape(now.potential.shape)
        # an excluded guess says nothing about the final text
        potential = torch.where(potential.isfinite(), potential, now.potential)
        log_weights = now.log_weights + potential - now.potential
        ess = effective_size(log_weights)
        return replace(now, log_weights=log_weights, potential=potential, ess=(*now.ess, ess))

    def _additive(self, now: Weighted, masks: Tensor, log_probs: Float[Tensor, "m k"]) -> Float[Tensor, " e"]:
        """log E[exp(weight * property)] under the product of p(x0_i | x_t); a visible letter contributes its own value."""
        one = now.batch.tracks[self.track.name]
        effects = self._effects(now.batch)
        each = effects.gather(-1, one.tokens[:, None])[:, 0]
        expected = (log_probs + effects[masks].to(log_probs)).logsumexp(-1)
        each = each.double().cpu().index_copy(0, masks.cpu(), expected.double().cpu())
        return torch.zeros(one.layout.num_examples, dtype=torch.float64).index_add(0, one.layout.segment.cpu(), each)

    def _guessed(self, problem: Problem, now: Weighted, masks: Tensor, log_probs: Float[Tensor, "m k"]) -> Float[Tensor, " e"]:
        """weight * property of the text with its masks filled, times the share of open positions that are unmasked."""
        name = self.track.name
        one = now.batch.tracks[name]
        if self.tilting.guess == "argmax":
            letters = log_probs.argmax(-1)
        else:
            letters = problem.draws[name][masks].fold("guess").categorical(log_probs)
        values = self.prop(texts_of(self.track, now.batch, one.tokens.index_copy(0, masks, letters)))
        segment, is_open = one.layout.segment.cpu(), problem.open[name].cpu()
        size = one.layout.num_examples
        open_ = torch.bincount(segment[is_open], minlength=size).double()
        left = torch.bincount(segment[masks.cpu()], minlength=size).double()
        share = torch.where(open_ > 0, 1 - left / open_.clamp(min=1), 1.0)
        aims = torch.from_numpy(exponents(values, self.tilting.weight))
        return torch.where(aims.isfinite(), share * aims, aims)

    def _resample(self, now: Weighted, index: int) -> tuple[Weighted, dict[str, Tensor]]:
        """The particles, resampled where their effective size is too low, and the packed position each token comes from."""
        num = self.tilting.particles
        low = now.ess[-1] < self.tilting.threshold * num
        chosen = torch.where(low[:, None], systematic(now.log_weights, self.streams.fold(f"step {index}")), torch.arange(num))
        ancestor = (chosen + num * torch.arange(len(chosen))[:, None]).flatten()
        gather = {n: t.layout.rows_of(ancestor.tolist()) for n, t in now.batch.tracks.items()}
        tokens = {n: t.tokens[gather[n]] for n, t in now.batch.tracks.items()}
        average = now.log_weights.logsumexp(-1) - math.log(num)
        resampled = replace(
            now,
            batch=now.batch.with_tokens(**tokens),
            alpha=now.alpha[ancestor.to(now.alpha.device)],
            potential=now.potential.gather(-1, chosen),
            order={n: o[gather[n]] for n, o in now.order.items()},
            log_weights=torch.where(low[:, None], 0.0, now.log_weights),
            log_z=now.log_z + torch.where(low, average, 0.0),
            num_resamplings=now.num_resamplings + low.long(),
        )
        return resampled, gather


def effective_size(log_weights: Float[Tensor, "b p"]) -> Float[Tensor, " b"]:
    """Return (sum w)^2 / sum w^2 of each row: p for equal weights, 1 if one particle has all weight, 0 if no particle has any."""
    none = (log_weights == -torch.inf).all(-1)
    size = torch.exp(2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1))
    return torch.where(none, 0.0, size)


def systematic(log_weights: Float[Tensor, "b p"], streams: Draws) -> Int[Tensor, "b p"]:
    """Return the ancestor of each particle: one uniform u a row, particle j at the quantile (j + u) / p of the weights.

    Particle i is the ancestor of floor or ceil of p times its share of the weights, on average exactly that.
    """
    num = log_weights.shape[-1]
    quantiles = (torch.arange(num) + streams.uniform().double()[:, None]) / num
    upto = log_weights.softmax(-1).cumsum(-1)
    return torch.searchsorted(upto / upto[:, -1:], quantiles).clamp(max=num - 1)


def _rows(layout: Layout, index: Int[Tensor, " a"]) -> Int[Tensor, " n"]:
    """The row of each packed position among some positions, -1 for all other positions."""
    rows = torch.full((layout.num_tokens,), -1, dtype=torch.int64, device=index.device)
    return rows.index_copy(0, index, torch.arange(len(index), device=index.device))
