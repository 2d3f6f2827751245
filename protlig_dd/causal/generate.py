"""Sampling structures from a causal model: requests in, samples out, with the interface of `runs.generate.Generator`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from protlig_dd.causal.decoding import CausalDecoding, Decoded, Together, alone, decode
from protlig_dd.causal.objective import CausalObjective
from protlig_dd.causal.sequences import CausalVocabulary
from protlig_dd.checkpoints.finite import Watched
from protlig_dd.config import to_mapping
from protlig_dd.device import DeviceChoice
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.sampling.requests import Request, Sample, checked_batch_size, sample_keys
from protlig_dd.tokens.tracks import Track, TrackSet, pack


@runtime_checkable
class CausalRun(Protocol):
    """The attributes of an opened run (`runs.run.Run`) that sampling from it needs."""

    @property
    def folder(self) -> Path: ...
    @property
    def step(self) -> int: ...
    @property
    def model(self) -> nn.Module: ...
    @property
    def choice(self) -> DeviceChoice: ...
    @property
    def config(self) -> Any: ...
    @property
    def tracks(self) -> TrackSet: ...


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A structure to generate: the ids of its protein, and its number of tokens, or the maximum where the model decides."""

    id: int
    key: int
    request: Request
    protein: list[int]
    length: int


class CausalGenerator:
    """Draws structures from a causal run; the interface is that of `runs.generate.Generator`.

    Args:
        run: an opened run of a causal model.
        seed: root seed; a draw depends on the seed and the key of its sample (`sampling.requests.sample_keys`).
        decoding: temperature, top-p and length; None for the run's.
        batch_size: sequences per network call; None for the run's.
        with_likelihood: also compute the nats per token of each structure, its end included.
        together: returns the largest of a number over the processes that share a sharded model; they must all make the same calls.
    """

    def __init__(
        self,
        run: CausalRun,
        *,
        seed: int = 0,
        decoding: CausalDecoding | None = None,
        batch_size: int | None = None,
        with_likelihood: bool = True,
        together: Together = alone,
    ) -> None:
        settings = run.config.sampling
        self.run, self.seed, self.together = run, seed, together
        self.decoding = decoding or settings.decoding
        self.batch_size = checked_batch_size(settings.batch_size if batch_size is None else batch_size)
        self.with_likelihood = with_likelihood

    @cached_property
    def vocabulary(self) -> CausalVocabulary:
        """The ids of the model's sequences."""
        return self.run.config.model.vocabulary(self.run.tracks)  # type: ignore[no-any-return]

    def settings(self) -> dict[str, Any]:
        """Return all settings that decide the samples, to be stored with them."""
        return {"run": str(self.run.folder), "step": self.run.step, "seed": self.seed, "decoding": to_mapping(self.decoding)}

    def generate(self, requests: Sequence[Request], num: int, *, ids: Sequence[int] | None = None) -> Iterator[Sample]:
        """Yield `num` samples of each request, in order of their ids.

        Args:
            requests: each gives a protein and asks for its structure; id = request x num + copy.
            num: samples a request.
            ids: draw only these samples (a shard, or the rest of a stopped command); None for all.

        Raises:
            FormatError: for proteins with unknown symbols, or too long for the run.
            ConfigError: for a request other than the structure of a whole protein.
        """
        keys = sample_keys(requests, num)
        items = [self._item(requests[i // num], i, keys[i]) for i in (range(len(keys)) if ids is None else ids)]
        for chunk in range(self.together(-(-len(items) // self.batch_size))):
            yield from self._draw(items[chunk * self.batch_size : (chunk + 1) * self.batch_size])

    def _item(self, request: Request, sample_id: int, key: int) -> _Item:
        if set(request.given) != {"protein"} or set(request.generate) != {"structure"} or request.conditions:
            raise ConfigError(
                f"{request.name}: found {', '.join(request.given) or 'nothing'} given and {', '.join(request.generate) or 'nothing'} "
                f"to generate; a causal run writes the structure of a given protein: use --task folding --protein"
            )
        if "_" in request.given["protein"]:
            raise ConfigError(
                f"{request.name}: found gaps `_` in the protein, which a causal run cannot fill; give every residue, or X for one unknown"
            )
        tracks = self.run.tracks
        protein = tracks["protein"].encode(request.given["protein"], where=request.name)
        _require_fitting(tracks["protein"], len(protein), request.name)
        kept = [i for i in protein if self.vocabulary.residues[i] >= 0]
        asked, most = request.generate["structure"], tracks["structure"].max_length - 2 * tracks["structure"].add_ends
        if self.decoding.length == "learned":
            return _Item(id=sample_id, key=key, request=request, protein=protein, length=most if asked is None else asked)
        if asked not in (None, len(kept)):
            raise ConfigError(
                f"{request.name}: found length {asked} for a protein of {len(kept)} residues; expected the same, or leave it out"
            )
        _require_fitting(tracks["structure"], len(kept) + 2 * tracks["structure"].add_ends, request.name)
        return _Item(id=sample_id, key=key, request=request, protein=protein, length=len(kept))

    def _draw(self, chunk: Sequence[_Item]) -> Iterator[Sample]:
        choice, vocabulary = self.run.choice, self.vocabulary
        model = Watched(self.run.model, str(self.run.folder))
        with torch.autocast(choice.device.type, choice.dtype, enabled=choice.autocast):
            found = decode(
                model,
                vocabulary,
                [vocabulary.prompt(item.protein) for item in chunk],
                lengths=[item.length for item in chunk],
                sample_ids=[item.key for item in chunk],
                seed=self.seed,
                decoding=self.decoding,
                device=choice.device,
                together=self.together,
            )
            model.check()
            scores = self._scores(chunk, found) if self.with_likelihood else [None] * len(chunk)
        for item, one, score in zip(chunk, found, scores, strict=True):
            text = self.run.tracks["structure"].decode(vocabulary.structure(one.tokens))
            measured = {"ended": float(one.ended)} if self.decoding.length == "learned" else {}
            yield Sample(id=item.id, request=item.request.name, texts={"structure": text}, nll_per_token=score, measured=measured)

    def _scores(self, chunk: Sequence[_Item], found: Sequence[Decoded]) -> list[float | None]:
        """Return the nats per structure token of each sample, its end included."""
        examples = [
            {"protein": item.protein, "structure": self.vocabulary.structure(one.tokens)} for item, one in zip(chunk, found, strict=True)
        ]
        objective = CausalObjective(self.vocabulary, device=self.run.choice.device)
        return [float(x) for x in objective.nll(self.run.model, pack(examples, self.run.tracks))]


def _require_fitting(track: Track, length: int, where: str) -> None:
    if length > track.max_length:
        raise FormatError(
            f"{where}: {track.name} of {length} tokens, expected at most {track.max_length} (tracks.{track.name}.max_length of the run); "
            f"nothing is cropped: shorten it, or use a run trained on longer ones"
        )
