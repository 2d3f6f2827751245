"""Kanzi: a flow autoencoder of C-alpha traces, with one token of 1,000 for each residue.

The encoder attends to each residue's neighbours and rounds to a code, so it tokenizes chains of any length (the original stops at 256). The
decoder is a diffusion transformer over the concatenated points and codes. Coordinates are in nanometres here and centred; `tokenizer.py`
converts from and to Angstrom, `flow.py` has times and noise, `published.py` the published names.

The input is raw coordinates: tokens are invariant to translation, and to rotation only as far as learned from rotated chains.
Source: arXiv 2510.00351; written from descriptions of it and of its code. In evaluation it computes the same as that code (see
`published.py`); in training the original also has dropout inside the feed-forward layers and before the output projection, and initialises
modulations and the last layer at random, not to zero.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.errors import refuse_unless
from protlig_dd.kanzi.blocks import FlowBlock, LocalBlock, ModulatedNorm, PairTable
from protlig_dd.kanzi.fsq import FSQ, LEVELS
from protlig_dd.kanzi.windowed import tiles_of
from protlig_dd.nn.attention import Backend
from protlig_dd.nn.flops import attention_flops, linear_flops
from protlig_dd.nn.layers import NUM_FEATURES, check_heads, sigma_features, zero_init
from protlig_dd.nn.packed import common_length, joined
from protlig_dd.nn.rotary import rotation
from protlig_dd.tokens.tracks import Layout

_SEGMENTS = 2  # points and codes
_LARGEST_TILE = 64  # largest number of residues that a short chain is padded to


@settings
class KanziSettings:
    """The shape of a Kanzi autoencoder; the defaults are the published one.

    Args:
        encoder_size: width of the encoder; a multiple of 2 x encoder_heads.
        encoder_heads: attention heads of the encoder.
        encoder_blocks: blocks of the encoder.
        window: residues to either side that an encoder block attends to; one larger than all chains attends to all, with quadratic memory.
        pair_size: width of the pair features from which the attention bias of neighbours is computed.
        levels: levels of each number of a code, 2 or more; their product is the number of codes.
        decoder_size: width of the decoder; a multiple of 2 x decoder_heads.
        decoder_heads: attention heads of the decoder.
        decoder_blocks: blocks of the decoder.
        mlp_ratio: width of all feed-forward layers, as a multiple of their input width.
        dropout: dropout rate of the branches of a block, 0 to below 1.
        code_positions: rotary positions of the codes: "continued" after the points' (published), or "restarted", so that a residue's point
            and code have the same position for every chain length.
        normed_queries: RMS norm of the queries and keys of each head, in the decoder.
        parameters: the expected number of parameters; `protlig check` compares it with the built model.
    """

    kind: Literal["kanzi"] = "kanzi"
    encoder_size: int = 256
    encoder_heads: int = 8
    encoder_blocks: int = 2
    window: int = 16
    pair_size: int = 256
    levels: tuple[int, ...] = LEVELS
    decoder_size: int = 512
    decoder_heads: int = 8
    decoder_blocks: int = 8
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    code_positions: Literal["continued", "restarted"] = "continued"
    normed_queries: bool = False
    parameters: int | None = None

    def __post_init__(self) -> None:
        check_heads(self.encoder_size, self.encoder_heads)
        check_heads(self.decoder_size, self.decoder_heads)
        refuse_unless(self.window >= 1, "window", self.window, "1 or more residues to either side, such as 16")
        refuse_unless(min(self.levels, default=0) >= 2, "levels", self.levels, "numbers from 2 on, such as [8, 5, 5, 5]")
        refuse_unless(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")

    @property
    def num_codes(self) -> int:
        """Number of different tokens."""
        return math.prod(self.levels)

    def build(self, backend: Backend) -> Kanzi:
        """Return the model, freshly initialised."""
        return Kanzi(self, backend)


class Reconstruction(NamedTuple):
    """The output of a training pass: the velocity and the token of each residue."""

    velocity: Float[Tensor, "n 3"]
    tokens: Int[Tensor, " n"]


class KanziEncoder(nn.Module):
    """Centred coordinates to hidden states: a small network on each point, then blocks of windowed attention."""

    def __init__(self, config: KanziSettings) -> None:
        super().__init__()
        size = config.encoder_size
        self.reach, self.head_size = config.window, size // config.encoder_heads
        self.lift = nn.Sequential(nn.Linear(3, size), nn.SiLU(), nn.Linear(size, size), nn.LayerNorm(size))
        self.pairs = PairTable(config.pair_size, config.mlp_ratio)
        inner = round(size * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            LocalBlock(size, config.encoder_heads, inner, config.pair_size, config.dropout) for _ in range(config.encoder_blocks)
        )

    def forward(self, points: Float[Tensor, "n 3"], layout: Layout) -> Float[Tensor, "n e"]:
        """Return the hidden state of each residue."""
        # tiles of at most this size do not depend on the batch, so that a chain's result does not either, bit for bit
        reach = self.reach if self.reach <= _LARGEST_TILE else min(self.reach, max(layout.lengths))
        tiles = tiles_of(layout, max(reach, 1))
        table, entry = self.pairs(points, tiles)
        by = rotation(layout.position, self.head_size)
        x: Tensor = self.lift(points)
        for block in self.blocks:
            x = block(x, tiles, by, table, entry)
        return x


class FlowDecoder(nn.Module):
    """The velocity of each point, given all points, the time and the codes."""

    def __init__(self, config: KanziSettings, backend: Backend) -> None:
        super().__init__()
        size = config.decoder_size
        self.head_size = size // config.decoder_heads
        self.continued = config.code_positions == "continued"
        self.lift = nn.Linear(3, size)
        self.lift_norm = ModulatedNorm(size)
        self.time = nn.Sequential(nn.Linear(NUM_FEATURES, size), nn.SiLU(), nn.Linear(size, size))
        self.segments = nn.Parameter(torch.randn(_SEGMENTS, size) * 0.02)
        inner = round(size * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            FlowBlock(size, config.decoder_heads, inner, config.dropout, backend, normed=config.normed_queries)
            for _ in range(config.decoder_blocks)
        )
        self.final_norm = ModulatedNorm(size)
        self.final = zero_init(nn.Linear(size, 3))

    def forward(
        self, points: Float[Tensor, "n 3"], time: Float[Tensor, " b"], codes: Float[Tensor, "n d"], layout: Layout
    ) -> Float[Tensor, "n 3"]:
        """Return the velocity of each residue in float32."""
        condition = nn.functional.silu(self.time(sigma_features(time)))
        segment, length = layout.segment, common_length(layout)
        lifted = self.lift_norm(self.lift(points), condition, segment, length)
        both = torch.cat([lifted + self.segments[0], codes + self.segments[1]])
        order, whole = joined((layout, layout))
        positions = layout.position
        if self.continued:
            lengths = torch.tensor(layout.lengths, dtype=torch.int64).to(layout.device)
            positions = torch.cat([positions, positions + lengths[segment]])
        else:
            positions = positions.repeat(_SEGMENTS)
        x = both.index_select(0, order)
        by = rotation(positions.index_select(0, order), self.head_size)
        for block in self.blocks:
            x = block(x, whole, by, condition)
        rows = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        x = x.index_select(0, rows[: layout.num_tokens])
        velocity: Tensor = self.final(self.final_norm(x, condition, segment, length))
        return velocity.float()


class Kanzi(nn.Module):
    """The autoencoder. Points are packed, centred and in nanometres; times are from 0 (noise) to 1 (data)."""

    def __init__(self, config: KanziSettings, backend: Backend) -> None:
        super().__init__()
        self.config = config
        self.encoder = KanziEncoder(config)
        self.quantiser = FSQ(config.encoder_size, config.decoder_size, config.levels)
        self.decoder = FlowDecoder(config, backend)

    def forward(
        self,
        data: Float[Tensor, "n 3"],
        points: Float[Tensor, "n 3"],
        time: Float[Tensor, " b"],
        layout: Layout,
        given: Bool[Tensor, " b"] | None = None,
    ) -> Reconstruction:
        """Return the velocity at noised points, given the codes of the data.

        Args:
            data: the points that are encoded.
            points: the points at which the velocity is predicted.
            time: time of each chain.
            layout: layout of both.
            given: chains whose codes are given; codes of all other chains are zero (for guidance). All by default.
        """
        codes, tokens = self.quantise(data, layout)
        if given is not None:
            codes = codes * given[layout.segment][:, None]
        return Reconstruction(self.decoder(points, time, codes, layout), tokens)

    def quantise(self, data: Float[Tensor, "n 3"], layout: Layout) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """Return the codes of centred points, as vectors for the decoder and as tokens."""
        hidden = self.encoder(data, layout)
        # the network may run in half precision, the rounding may not
        with torch.autocast(hidden.device.type, enabled=False):
            codes, tokens = self.quantiser(hidden.float())
        return codes, tokens

    def forward_flops(self, layout: Layout) -> float:
        """Return the operations of encoding and one decoder pass (a multiply-add counts as two)."""
        tokens, config = layout.num_tokens, self.config
        encoder = linear_flops(self.encoder, per_example=("pairs", "pair_bias"))
        decoder = 2 * linear_flops(self.decoder.blocks, per_example=("modulation",))
        seen = sum(min(3 * config.window, 3 * n) * n for n in layout.lengths)
        local = config.encoder_blocks * attention_flops(config.encoder_size, seen)
        whole = sum(4 * n * n for n in layout.lengths)
        attended = config.decoder_blocks * attention_flops(config.decoder_size, whole)
        return float((encoder + decoder) * tokens + local + attended)
