"""Structure tokens of chains, and chains from tokens, in Angstrom, by a trained Kanzi autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from protlig_dd.checkpoints.checkpoint import hash_tensors
from protlig_dd.errors import FormatError
from protlig_dd.kanzi.batches import ANGSTROM_PER_NM, pack_traces
from protlig_dd.kanzi.flow import FlowSampler, centred, centred_noise
from protlig_dd.kanzi.model import FlowDecoder, Kanzi
from protlig_dd.nn.packed import spans
from protlig_dd.rng import Draws, key
from protlig_dd.tokens.tracks import Layout


class KanziTokenizer:
    """Encodes C-alpha traces and decodes tokens. Deterministic: the result for a chain depends on it and the seed, never on its batch.

    Args:
        model: the model in evaluation mode, on its device.
        sampler: how coordinates are generated.
        residues_a_call: largest number of residues per network call (a longer chain has a call of its own).
    """

    def __init__(self, model: Kanzi, *, sampler: FlowSampler | None = None, residues_a_call: int = 8192) -> None:
        self.model, self.sampler = model, sampler or FlowSampler()
        self.residues_a_call = residues_a_call
        self.num_codes = model.quantiser.num_codes

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return next(self.model.parameters()).device

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the weights, which decide the tokens."""
        return hash_tensors({name: value.cpu() for name, value in self.model.state_dict().items()})

    @torch.no_grad()
    def encode(self, chains: Sequence[Float[np.ndarray, "_ 3"]]) -> list[list[int]]:
        """Return the tokens of chains, one for each residue.

        Args:
            chains: C-alpha coordinates of each chain in Angstrom.

        Raises:
            FormatError: for an empty chain, or a residue without coordinates.
        """
        tokens: list[list[int]] = []
        for start, stop in spans([len(chain) for chain in chains], self.residues_a_call):
            batch = pack_traces(chains[start:stop]).to(self.device)
            flat = self.model.quantise(batch.points, batch.layout)[1].tolist()
            tokens += [flat[a:b] for a, b in _spans(batch.layout)]
        return tokens

    @torch.no_grad()
    def decode(
        self, tokens: Sequence[Sequence[int]], *, seed: int = 0, sampler: FlowSampler | None = None
    ) -> list[Float[np.ndarray, "_ 3"]]:
        """Return C-alpha coordinates in Angstrom for the tokens of chains, centred, in an arbitrary frame (superpose before comparing).

        Args:
            tokens: the tokens of each chain.
            seed: seed of the random draws; another seed gives other samples for the same tokens.
            sampler: how coordinates are generated; the tokenizer's own sampler by default.

        Raises:
            FormatError: for an empty chain, or a number that is not a token.
        """
        for number, row in enumerate(tokens, 1):
            if not len(row):
                raise FormatError(f"tokens: chain {number} has none, expected one for each residue")
            wrong = [i for i in row if not 0 <= i < self.num_codes]
            if wrong:
                raise FormatError(f"tokens: found '{wrong[0]}' in chain {number}, expected 0 to {self.num_codes - 1}")
        coords: list[np.ndarray] = []
        for start, stop in spans([len(row) for row in tokens], self.residues_a_call):
            coords += self._decode(tokens[start:stop], seed, sampler or self.sampler)
        return coords

    def _decode(self, tokens: Sequence[Sequence[int]], seed: int, sampler: FlowSampler) -> list[np.ndarray]:
        layout = Layout(tuple(len(row) for row in tokens))
        keys = torch.tensor([key(seed, "kanzi decode", *map(int, row)) for row in tokens], dtype=torch.int64)
        draws, device = Draws(keys), self.device
        there = layout.to(device)
        codes = self.model.quantiser.embed(torch.tensor([i for row in tokens for i in row], device=device))
        velocity = guided_velocity(self.model.decoder, codes, there, sampler.guidance)

        def noise(step: int) -> Tensor:
            return centred_noise(draws.fold("step", step), layout).to(device)

        found = sampler.integrate(velocity, centred_noise(draws.fold("start"), layout).to(device), noise)
        flat = (found.float().cpu() * ANGSTROM_PER_NM).numpy()
        return [flat[a:b] - flat[a:b].mean(0) for a, b in _spans(layout)]

    def to_text(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, such as "<K599> <K358>"."""
        return " ".join(f"<K{int(i)}>" for i in tokens)

    def tokenize(self, coords_angstrom: Float[np.ndarray, "l 3"]) -> str:
        """Return the token text of one chain of C-alphas."""
        return self.to_text(self.encode([coords_angstrom])[0])


def guided_velocity(
    decoder: FlowDecoder, codes: Float[Tensor, "n d"], layout: Layout, guidance: float = 1.0
) -> Callable[[Tensor, float], Tensor]:
    """Return the function that a sampler integrates: the velocity of points at a time, given codes, with zero mean over each chain.

    Args:
        decoder: the decoder of a trained autoencoder.
        codes: quantised vectors, as the decoder reads them.
        layout: layout of the chains.
        guidance: weight of the prediction with codes against that without; other than 1 costs a second pass.
    """

    def velocity(x: Tensor, t: float) -> Tensor:
        time = torch.full((layout.num_examples,), t, device=x.device)
        given: Tensor = decoder(x, time, codes, layout)
        if guidance != 1:
            free: Tensor = decoder(x, time, torch.zeros_like(codes), layout)
            given = free + guidance * (given - free)
        return centred(given, layout)

    return velocity


def _spans(layout: Layout) -> Iterator[tuple[int, int]]:
    return zip(layout.offsets[:-1], layout.offsets[1:], strict=True)
