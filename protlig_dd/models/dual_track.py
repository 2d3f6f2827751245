"""The dual-track transformer: a stack of blocks for each track, with cross-attention to all other tracks in every block.

All tracks are updated in parallel from the inputs of layer i: a block's context is the hidden state of the other track before its own
block i. Attention is along the sequence, never across the batch; cross-attention is gated and starts at zero; every track has its own
noise level, so the model knows that a condition is clean. With more than two tracks the context is the concatenation of all others.
Cross-attention uses rotary positions between tracks that are aligned residue by residue, and none otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.errors import ConfigError
from protlig_dd.nn.attention import Backend
from protlig_dd.nn.blocks import BlockSettings, DiTBlock, Head
from protlig_dd.nn.flops import attention_flops, linear_flops
from protlig_dd.nn.layers import ConditionEmbedding, CrossAttention, LocalConvolution, NoiseLevelEmbedding, run_block
from protlig_dd.nn.packed import Context, joined, turned, wanted_tokens
from protlig_dd.nn.rotary import Rotation, rotation
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackSet


@settings
class DualTrackSettings(BlockSettings):
    """The shape of a dual-track model; `conv_width` gives a track a local convolution before its first block."""

    kind: Literal["dual_track"] = "dual_track"
    cross_attention: bool = True
    conv_width: dict[str, int] | None = None
    activation_checkpointing: bool = False
    conditions: dict[str, int] | None = None
    parameters: int | None = None
    """The expected number of parameters; `protlig check` compares it with the built model."""

    def build(self, tracks: TrackSet, backend: Backend) -> DualTrack:
        """Return the model, freshly initialised.

        Raises:
            ConfigError: for fewer than two tracks, or a convolution on a track that is not there.
        """
        if len(tracks) < 2:
            raise ConfigError(f"model.kind: 'dual_track' takes two tracks or more, found {sorted(tracks)}; use kind: dit for one")
        for name in self.conv_width or {}:
            if name not in tracks:
                raise ConfigError(f"model.conv_width: found track '{name}', expected one of {', '.join(tracks)}")
        rows = {name: track.vocabulary.num_rows for name, track in tracks.items()}
        return DualTrack(self, rows, {name: track.aligned_to or name for name, track in tracks.items()}, backend)


class TrackStack(nn.Module):
    """The modules of one track: embedding, noise level, convolution, blocks, head."""

    def __init__(self, config: DualTrackSettings, num_rows: int, conv_width: int, backend: Backend) -> None:
        super().__init__()
        context_size = config.hidden_size if config.cross_attention else None
        self.embedding = nn.Embedding(num_rows, config.hidden_size)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.noise_level = NoiseLevelEmbedding(config.conditioning_size)
        self.conditions = ConditionEmbedding(config.conditions or {}, config.conditioning_size)
        self.convolution = LocalConvolution(config.hidden_size, conv_width) if conv_width else None
        self.blocks = nn.ModuleList(DiTBlock(config, backend, context_size=context_size) for _ in range(config.num_blocks))
        self.head = Head(config.hidden_size, num_rows, config.conditioning_size)


class DualTrack(nn.Module):
    """A denoiser of several tracks with cross-attention between them."""

    def __init__(self, config: DualTrackSettings, num_rows: Mapping[str, int], numbering: Mapping[str, str], backend: Backend) -> None:
        super().__init__()
        self.numbering = dict(numbering)  # for each track the track that it shares positions with
        self.head_size = config.hidden_size // config.num_heads
        self.num_blocks = config.num_blocks
        widths = config.conv_width or {}
        self.stacks = nn.ModuleDict({name: TrackStack(config, rows, widths.get(name, 0), backend) for name, rows in num_rows.items()})
        self.activation_checkpointing = config.activation_checkpointing

    def forward(
        self, batch: TrackBatch, sigma: Mapping[str, Float[Tensor, " b"]], *, at: Mapping[str, Tensor] | None = None
    ) -> dict[str, Float[Tensor, "a k"]]:
        """Return logits of every track; see `diffusion.denoiser.Denoiser`."""
        layouts = {name: batch.tracks[name].layout for name in self.stacks}
        hidden, conditions, rotations = {}, {}, {}
        for name, stack in self._stacks.items():
            condition = stack.noise_level(sigma[name])
            conditions[name] = condition + stack.conditions(batch.conditions, condition)
            rotations[name] = rotation(layouts[name].position, self.head_size)
            hidden[name] = stack.embedding(batch.tracks[name].tokens)
            if stack.convolution is not None:
                hidden[name] = stack.convolution(hidden[name], layouts[name])
        asked = {name: None if at is None else at.get(name) for name in self.stacks}
        wanted = {name: wanted_tokens(asked[name], layouts[name]) for name in self.stacks}
        recompute = self.activation_checkpointing and self.training
        for i in range(self.num_blocks):
            before = hidden
            hidden = {}
            for name, stack in self._stacks.items():
                context = self._context(name, before, layouts, rotations)
                own = (before[name], layouts[name], rotations[name])
                only = wanted[name] if i == self.num_blocks - 1 else None
                if only is not None:
                    own = only.read_of(before[name], rotations[name])
                    context = only.context_of(context)
                arguments = (*own, conditions[name], context, only)
                hidden[name] = run_block(stack.blocks[i], *arguments, recompute=recompute)
        logits = {}
        for name, stack in self._stacks.items():
            only = wanted[name]
            layout, rows = (layouts[name], asked[name]) if only is None else (only.layout, None)
            logits[name] = stack.head(hidden[name], layout, conditions[name], rows)
        return logits

    def _context(
        self, name: str, hidden: Mapping[str, Tensor], layouts: Mapping[str, Layout], rotations: Mapping[str, Rotation]
    ) -> Context:
        """The context of a track: the other track, or all others concatenated example by example."""
        others = [n for n in hidden if n != name]
        together = torch.cat([hidden[n] for n in others]) if len(others) > 1 else hidden[others[0]]
        by, aligned = None, {n: self.numbering[n] == self.numbering[name] for n in others}
        if any(aligned.values()):  # all others are at position 0
            turns = [
                rotations[n] if same else rotation(torch.zeros_like(layouts[n].position), self.head_size) for n, same in aligned.items()
            ]
            by = Rotation(torch.cat([t.cos for t in turns]), torch.cat([t.sin for t in turns]))
        if len(others) == 1:
            return Context(together, layouts[others[0]], by)
        index, layout = joined(tuple(layouts[n] for n in others))
        return Context(together.index_select(0, index), layout, None if by is None else turned(by, index))

    @property
    def _stacks(self) -> dict[str, TrackStack]:
        """`stacks` as a typed dictionary."""
        return cast("dict[str, TrackStack]", dict(self.stacks.items()))

    def forward_flops(self, batch: TrackBatch) -> float:
        """Return the operations of one forward pass for the logits of all tokens (a multiply-add counts as two)."""
        layouts = {name: batch.tracks[name].layout for name in self.stacks}
        total = 0.0
        for name, stack in self._stacks.items():
            own, skip = layouts[name], ("modulation", "kv", "noise_level")
            total += linear_flops(stack, per_example=skip) * own.num_tokens
            size = stack.embedding.embedding_dim
            others = [layouts[n] for n in self.stacks if n != name]
            pairs = sum(n * n for n in own.lengths)
            for block in stack.blocks:
                total += attention_flops(size, pairs)
                if isinstance(block.cross, CrossAttention):
                    crossed = sum(a * b for other in others for a, b in zip(own.lengths, other.lengths, strict=True))
                    total += linear_flops(block.cross.kv) * sum(o.num_tokens for o in others)
                    total += attention_flops(size, crossed)
        return total
