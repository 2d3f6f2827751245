"""Sampling from a denoising run: requests become packed batches, batches become samples with their likelihood bounds.

A sample depends on the seed, what its request asks for and its copy number only (`sampling.requests.sample_keys`), so other requests and
their order do not matter, and shards and resumed commands give the same samples as one command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from protlig_dd.checkpoints.finite import Watched, require_finite
from protlig_dd.config import to_mapping
from protlig_dd.data.lengths import draw_length
from protlig_dd.data.table import TokenTable
from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.diffusion.times import Task
from protlig_dd.errors import ConfigError, FormatError, nearest
from protlig_dd.evaluation.likelihood import bound
from protlig_dd.evaluation.objectives import sample_measured
from protlig_dd.runs.experiment import Parts
from protlig_dd.runs.run import Run
from protlig_dd.sampling import Guidance, SamplerSettings, Tilting, sample
from protlig_dd.sampling.requests import Request, Sample, checked_batch_size, sample_keys
from protlig_dd.tokens.tracks import Example, Track, TrackBatch, pack

_GAP = "_"


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A sample to draw: token ids with masks at the open positions, which positions are open, and the key of its draws."""

    id: int
    key: int
    request: Request
    ids: Example
    open: Mapping[str, list[bool]]


def open_tokens(track: Track, text: str) -> tuple[list[int], list[bool]]:
    """Return the token ids of a text with gaps `_`, and which of them are gaps: "MKT__V" has two.

    Raises:
        FormatError: if the text has other symbols than those of the track.
    """
    ids, is_open = list[int](), list[bool]()
    for piece in re.findall(f"{_GAP}+|[^{_GAP}]+", text):
        if piece[0] == _GAP:
            ids += [track.vocabulary.mask_id] * len(piece)
            is_open += [True] * len(piece)
        else:
            where = f"{track.name} '{text[:40]}{'...' * (len(text) > 40)}'"
            found = [i for i in track.encode(piece, where=where) if i not in _ends(track)]
            ids += found
            is_open += [False] * len(found)
    if track.add_ends:
        ids, is_open = [*_ends(track)[:1], *ids, *_ends(track)[1:]], [False, *is_open, False]
    return ids, is_open


def _ends(track: Track) -> list[int]:
    return [i for i in (track.vocabulary.begin_id, track.vocabulary.end_id) if i is not None] if track.add_ends else []


class Generator:
    """Draws samples from a denoising run.

    Args:
        run: an opened run.
        seed: root seed; a draw depends on the seed and the key of its sample.
        sampler: sampling method; None for the run's.
        guidance: temperature, top-p, forbidden symbols and classifier-free weight; None for the run's.
        batch_size: samples per network call; None for the run's.
        with_likelihood: also compute the likelihood bound of each sample (8 noise levels).
        tilting: draw towards a property. Each sample then has its value, and the value of the same sample without guidance.
    """

    def __init__(
        self,
        run: Run,
        *,
        seed: int = 0,
        sampler: SamplerSettings | None = None,
        guidance: Guidance | None = None,
        batch_size: int | None = None,
        with_likelihood: bool = True,
        tilting: Tilting | None = None,
    ) -> None:
        settings = run.config.sampling
        self.run, self.seed = run, seed
        self.sampler = sampler or settings.sampler
        self.guidance = guidance or settings.guidance
        self.batch_size = checked_batch_size(settings.batch_size if batch_size is None else batch_size)
        self.with_likelihood = with_likelihood
        self.tilting = tilting
        self.watched = Watched(run.model, str(run.folder))

    def guided(self, weight: float) -> Generator:
        """Return the same generator with another weight of classifier-free guidance, without likelihoods."""
        guidance = replace(self.guidance, weight=weight)
        how: dict[str, Any] = {"seed": self.seed, "sampler": self.sampler, "batch_size": self.batch_size, "tilting": self.tilting}
        return Generator(self.run, guidance=guidance, with_likelihood=False, **how)

    def settings(self) -> dict[str, Any]:
        """Return all settings that decide the samples, to be stored with them."""
        towards = {} if self.tilting is None else {"property": to_mapping(self.tilting)}
        return {
            "run": str(self.run.folder),
            "step": self.run.step,
            "seed": self.seed,
            "sampler": to_mapping(self.sampler),
            "guidance": to_mapping(self.guidance),
            **towards,
        }

    def generate(self, requests: Sequence[Request], num: int, *, ids: Sequence[int] | None = None) -> Iterator[Sample]:
        """Yield `num` samples of each request, in order of their ids.

        Args:
            requests: sample ids run through the requests: id = request x num + copy.
            num: samples a request.
            ids: draw only these samples (a shard, or the rest of a stopped command); None for all.

        Raises:
            FormatError: for texts with symbols that their track lacks, or too long for it.
            ConfigError: for tracks or conditions that the run lacks.
        """
        for request in requests:
            self._check(request)
        keys = sample_keys(requests, num)
        chunk: list[_Item] = []
        for i in range(len(keys)) if ids is None else ids:
            item = self._item(requests[i // num], i, keys[i])
            if chunk and (len(chunk) == self._chunk_size or _makeup(chunk[0]) != _makeup(item)):
                yield from self._draw(chunk)
                chunk = []
            chunk.append(item)
        if chunk:
            yield from self._draw(chunk)

    @property
    def _chunk_size(self) -> int:
        """Samples per batch; each particle of a property's SMC counts as one."""
        many = self.tilting.particles if self.tilting and self.tilting.method != "classifier" else 1
        return max(1, self.batch_size // many)

    def _check(self, request: Request) -> None:
        tracks = self.run.parts.tracks
        for name in (*request.given, *request.generate):
            if name not in tracks:
                raise ConfigError(f"{request.name}: this run has no track '{name}'; it has {', '.join(tracks)}")
        for name, label in request.conditions.items():
            known = getattr(self.run.config.model, "conditions", None) or {}
            found = f"{request.name}: condition {name}={label}"
            if name not in known:
                classes = ", ".join(f"{other} (0 to {num - 1})" for other, num in known.items())
                raise ConfigError(f"{found}: this run knows {classes or 'no conditions'}{nearest(name, known)}")
            if not 0 <= label < known[name]:
                raise ConfigError(f"{found}: expected 0 to {known[name] - 1}")
        opened = [n for n, text in request.given.items() if _GAP in text]
        if not request.generate and not opened:
            raise ConfigError(f"{request.name}: nothing to generate; leave a track out, or write gaps as '{_GAP}'")

    def _item(self, request: Request, sample_id: int, key: int) -> _Item:
        tracks, ids, is_open = self.run.parts.tracks, {}, {}
        for name, text in request.given.items():
            ids[name], is_open[name] = open_tokens(tracks[name], text)
            _check_length(tracks[name], len(ids[name]), request.name)
        for name in sorted(request.generate, key=lambda name: tracks[name].aligned_to is not None):
            extra = len(_ends(tracks[name]))
            total = self._length(request, name, {n: len(x) for n, x in ids.items()}, key)
            _check_length(tracks[name], total, request.name)
            ids[name], is_open[name] = open_tokens(tracks[name], _GAP * (total - extra))
        return _Item(id=sample_id, key=key, request=request, ids=ids, open=is_open)

    def _length(self, request: Request, name: str, known: Mapping[str, int], key: int) -> int:
        """Return the tokens of a track to generate whole: as many as the track it is aligned to, or as requested, or drawn."""
        tracks, length = self.run.parts.tracks, request.generate[name]
        extra = len(_ends(tracks[name]))
        partners = [n for n in known if tracks[name].aligned_to == n or tracks[n].aligned_to == name]
        if partners:
            total = known[partners[0]] - len(_ends(tracks[partners[0]])) + extra
            if length is not None and length + extra != total:
                raise ConfigError(
                    f"{request.name}: found length {length} for {name} and {total - extra} for {partners[0]}, which it is aligned to; "
                    f"expected the same, or leave one out"
                )
            return total
        if length is not None:
            return length + extra
        return draw_length(self.run.lengths, name, known, key, self.seed)

    def _pack(self, chunk: Sequence[_Item]) -> TrackBatch:
        conditions = {
            name: [item.request.conditions.get(name, -1) for item in chunk]
            for name in sorted({n for item in chunk for n in item.request.conditions})
        }
        tracks = self.run.parts.tracks
        batch = pack([x.ids for x in chunk], tracks, example_ids=[x.key for x in chunk], conditions=conditions)
        maskable = {}
        for name in batch.tracks:
            flags = [flag for item in chunk for flag in item.open.get(name, [])]
            maskable[name] = replace(batch.tracks[name], maskable=torch.tensor(flags, dtype=torch.bool))
        return replace(batch, tracks=maskable).to(self.run.choice.device)

    def denoising(self, generate: tuple[str, ...]) -> Denoising:
        """Return the run's model with guidance applied.

        Raises:
            ConfigError: for classifier-free guidance that the run was not trained for.
        """
        self.run.parts.require_guidance(self.guidance, generate)
        return self.guidance.apply(replace(self.run.denoising, denoiser=self.watched), generate=generate)

    def lead(self, request: Request, track: str) -> TrackBatch:
        """Return a batch of one example in which every emittable token of a track may change.

        Raises:
            FormatError, ConfigError: as in `generate`.
        """
        for name in request.given:
            if name not in self.run.parts.tracks:
                raise ConfigError(f"{request.name}: this run has no track '{name}'; it has {', '.join(self.run.parts.tracks)}")
        item = self._item(request, 0, 0)
        emittable = self.run.parts.tracks[track].emittable
        is_open = {name: [name == track and bool(emittable[i]) for i in ids] for name, ids in item.ids.items()}
        return self._pack([replace(item, open=is_open)])

    def _draw(self, chunk: Sequence[_Item]) -> Iterator[Sample]:
        generate = _open_tracks(chunk[0])
        parts, batch, denoising = self.run.parts, self._pack(chunk), self.denoising(generate)
        with torch.autocast(self.run.choice.device.type, self.run.choice.dtype, enabled=self.run.choice.autocast):
            measured: dict[str, np.ndarray] = {}
            how: Any = {"generate": generate, "sampler": self.sampler, "seed": self.seed}
            if self.tilting is None:
                done = sample(denoising.denoiser, denoising.diffusion, batch, **how).batch
            else:
                done, measured = sample_measured(denoising, batch, tilting=self.tilting, **how)
            self.watched.check()
            scores = self._likelihood(done, generate) if self.with_likelihood else [None] * len(chunk)
        ids = {name: track.split() for name, track in done.tracks.items()}
        for row, item in enumerate(chunk):
            texts = {name: parts.tracks[name].decode(ids[name][row]) for name in ids if ids[name][row]}
            yield Sample(
                id=item.id,
                request=item.request.name,
                texts=texts,
                nll_per_token=scores[row],
                measured={name: round(float(x[row]), 5) for name, x in measured.items()},
                about=item.request.about,
            )

    def _likelihood(self, done: TrackBatch, generate: tuple[str, ...]) -> list[float]:
        """Return the bound of the generated tokens of each sample, in nats per token, given all other tokens."""
        given = tuple(n for n, t in done.tracks.items() if t.layout.num_tokens and n not in generate)
        task = Task(noised=(generate,), clean=given)
        host = done.to(torch.device("cpu"))
        result = bound(self.run.denoising, host, task, seed=self.seed)
        require_finite(result.total, str(self.run.folder))
        return [float(x) for x in result.total / np.maximum(result.total_tokens, 1)]


def example_requests(parts: Parts, table: TokenTable, generated: str, rows: Iterable[int]) -> list[Request]:
    """Return a request named after each of these examples: all other tracks are given, the length is drawn from the training lengths."""
    requests = []
    for i in rows:
        example = table.example(i)
        given = {
            name: track.decode(example[name].tolist()) for name, track in parts.tracks.items() if name != generated and len(example[name])
        }
        requests.append(Request(name=table.name_of(i), given=given, generate={generated: None}))
    return requests


def _makeup(item: _Item) -> tuple[tuple[str, ...], Set[str]]:
    """The generated tracks and all tracks of a sample: those of one batch agree, since its likelihood is one of a single task."""
    return _open_tracks(item), item.ids.keys()


def _open_tracks(item: _Item) -> tuple[str, ...]:
    return tuple(name for name, flags in item.open.items() if any(flags))


def _check_length(track: Track, length: int, where: str) -> None:
    if not 0 < length <= track.max_length:
        raise FormatError(
            f"{where}: {track.name} of {length} tokens, expected 1 to {track.max_length} (tracks.{track.name}.max_length of the run); "
            f"sampling never crops: shorten it, or use a run trained on longer ones"
        )
