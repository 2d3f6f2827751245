"""Structures from a causal run: requests in, samples out, as from any other run (`runs/generate.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from protlig_dd.causal.decoding import CausalDecoding, Decoded, Together, alone, decode
from protlig_dd.causal.objective import CausalObjective
from protlig_dd.config import to_mapping
from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.runs.generate import Generator, Request, Sample
from protlig_dd.runs.run import Run
from protlig_dd.tokens.tracks import Track, pack


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A structure about to be written: the protein's ids, and how many tokens there shall be, or may be at most."""

    id: int
    request: Request
    protein: list[int]
    length: int


class CausalGenerator:
    """Draws structures from a causal run; the interface is that of `generation.Generator`.

    Args:
        run: an opened run of a causal model.
        seed: with the sample ids the root of all draws.
        decoding: by default that of the run's config.
        batch_size: sequences a network call.
        with_likelihood: also compute each structure's nats per token, its end included.
        together: how processes agree where several share a sharded model; each of them must then make the same calls.
    """

    def __init__(
        self,
        run: Run,
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
        self.batch_size = batch_size or settings.batch_size
        self.with_likelihood = with_likelihood

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the samples, to be kept beside them."""
        return {
            "run": str(self.run.folder),
            "step": self.run.step,
            "seed": self.seed,
            "decoding": to_mapping(self.decoding),
        }

    def generate(self, requests: Sequence[Request], num: int, *, ids: Sequence[int] | None = None) -> Iterator[Sample]:
        """Yield `num` samples of each request, in order of their ids.

        Args:
            requests: each gives a protein and asks for its structure; sample ids run through them: id = request x num + copy.
            num: samples a request.
            ids: only these (a shard, or what is left of a stopped run).

        Raises:
            FormatError: for proteins that do not fit their track, or are too long.
            ConfigError: for anything else than a structure of a whole protein.
        """
        items = [self._item(requests[i // num], i) for i in (range(len(requests) * num) if ids is None else ids)]
        for chunk in range(self.together(-(-len(items) // self.batch_size))):
            yield from self._draw(items[chunk * self.batch_size : (chunk + 1) * self.batch_size])

    def _item(self, request: Request, sample_id: int) -> _Item:
        if set(request.given) != {"protein"} or set(request.generate) != {"structure"} or request.conditions:
            raise ConfigError(
                f"{request.name}: found {', '.join(request.given) or 'nothing'} given and {', '.join(request.generate) or 'nothing'} "
                f"to generate; a causal run writes the structure of a given protein: use --task folding --protein"
            )
        if "_" in request.given["protein"]:
            raise ConfigError(
                f"{request.name}: found gaps `_` in the protein, which a causal run cannot fill; give every residue, or X for one unknown"
            )
        tracks = self.run.parts.tracks
        protein = tracks["protein"].encode(request.given["protein"], where=request.name)
        _require_fitting(tracks["protein"], len(protein), request.name)
        kept = [i for i in protein if self.run.parts.causal_vocabulary.residues[i] >= 0]
        asked, most = request.generate["structure"], tracks["structure"].max_length - 2 * tracks["structure"].add_ends
        if self.decoding.length == "learned":
            return _Item(id=sample_id, request=request, protein=protein, length=asked or most)
        if asked not in (None, len(kept)):
            raise ConfigError(
                f"{request.name}: found length {asked} for a protein of {len(kept)} residues; expected the same, or leave it out"
            )
        _require_fitting(tracks["structure"], len(kept) + 2 * tracks["structure"].add_ends, request.name)
        return _Item(id=sample_id, request=request, protein=protein, length=len(kept))

    def _draw(self, chunk: Sequence[_Item]) -> Iterator[Sample]:
        parts, choice = self.run.parts, self.run.choice
        vocabulary = parts.causal_vocabulary
        with torch.autocast(choice.device.type, choice.dtype, enabled=choice.autocast):
            found = decode(
                self.run.model,
                vocabulary,
                [vocabulary.prompt(item.protein) for item in chunk],
                lengths=[item.length for item in chunk],
                sample_ids=[item.id for item in chunk],
                seed=self.seed,
                decoding=self.decoding,
                device=choice.device,
                together=self.together,
            )
            scores = self._scores(chunk, found) if self.with_likelihood else [None] * len(chunk)
        for item, one, score in zip(chunk, found, scores, strict=True):
            text = parts.tracks["structure"].decode(vocabulary.structure(one.tokens))
            measured = {"ended": float(one.ended)} if self.decoding.length == "learned" else {}
            yield Sample(
                id=item.id, request=item.request.name, texts={"structure": text}, nll_per_token=score, measured=measured
            )

    def _scores(self, chunk: Sequence[_Item], found: Sequence[Decoded]) -> list[float | None]:
        """Nats per structure token, the end among them."""
        parts = self.run.parts
        examples = [
            {"protein": item.protein, "structure": parts.causal_vocabulary.structure(one.tokens)}
            for item, one in zip(chunk, found, strict=True)
        ]
        objective = parts.objective(self.run.choice)
        assert isinstance(objective, CausalObjective)
        return [float(x) for x in objective.nll(self.run.model, pack(examples, parts.tracks))]


def generator_for(run: Run, **settings: Any) -> Generator | CausalGenerator:
    """Return what draws samples from a run, whatever its model; each kind takes its own settings."""
    return CausalGenerator(run, **settings) if run.parts.is_causal else Generator(run, **settings)


def agreement(predicted: Sequence[str], true: Sequence[str], track: Track) -> dict[str, float]:
    """Return how far structures agree with the true ones.

    `token_accuracy` counts over the true length, so what is missing is wrong; `length_match` is the share of structures as long as the
    true ones, `length_ratio` the tokens written over the true ones, `valid_tokens` the share of the alphabet among them.
    """
    known = set(track.vocabulary.ids)
    pairs = [
        (track.split(a, where="prediction") if a else [], track.split(b, where="truth"))
        for a, b in zip(predicted, true, strict=True)
    ]
    tokens = sum(len(b) for _, b in pairs)
    written = sum(len(a) for a, _ in pairs)
    return {
        "token_accuracy": sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False)) / max(tokens, 1),
        "length_match": sum(len(a) == len(b) for a, b in pairs) / max(len(pairs), 1),
        "length_ratio": written / max(tokens, 1),
        "valid_tokens": sum(x in known for a, _ in pairs for x in a) / max(written, 1),
    }


def _require_fitting(track: Track, length: int, where: str) -> None:
    if length > track.max_length:
        raise FormatError(
            f"{where}: {track.name} of {length} tokens, expected at most {track.max_length} (tracks.{track.name}.max_length of the run); "
            f"nothing is cropped: shorten it, or use a run trained on longer ones"
        )
