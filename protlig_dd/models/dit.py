"""The single-track diffusion transformer (SEDD): embedding, adaLN blocks with rotary self-attention, head.

Sources: Lou, Meng and Ermon 2024; Peebles and Xie 2023. `sedd/protein_66m` is this class with hidden 768, 12 heads, 8 blocks,
conditioning 256, 37 rows: 66,724,096 parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.errors import ConfigError
from protlig_dd.nn.attention import Backend
from protlig_dd.nn.blocks import BlockSettings, DiTBlock, Head
from protlig_dd.nn.flops import attention_flops, linear_flops
from protlig_dd.nn.layers import ConditionEmbedding, LocalConvolution, NoiseLevelEmbedding, run_block
from protlig_dd.nn.packed import wanted_tokens
from protlig_dd.nn.rotary import rotation
from protlig_dd.tokens.tracks import TrackBatch, TrackSet


@settings
class DiTSettings(BlockSettings):
    """The shape of a single-track model."""

    kind: Literal["dit"] = "dit"
    head_bias: bool = True
    final_silu: bool = True
    conv_width: int = 0
    activation_checkpointing: bool = False
    conditions: dict[str, int] | None = None
    parameters: int | None = None
    """The expected number of parameters; `protlig check` compares it with the built model."""

    def build(self, tracks: TrackSet, backend: Backend) -> DiT:
        """Return the model, freshly initialised.

        Raises:
            ConfigError: unless there is exactly one track.
        """
        if len(tracks) != 1:
            raise ConfigError(f"model.kind: 'dit' takes one track, found {sorted(tracks)}; use kind: dual_track for two")
        ((name, track),) = tracks.items()
        return DiT(self, name, track.vocabulary.num_rows, backend)


class DiT(nn.Module):
    """A denoiser of one track."""

    def __init__(self, config: DiTSettings, track: str, num_rows: int, backend: Backend) -> None:
        super().__init__()
        self.track = track
        self.head_size = config.hidden_size // config.num_heads
        self.embedding = nn.Embedding(num_rows, config.hidden_size)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.noise_level = NoiseLevelEmbedding(config.conditioning_size, final_silu=config.final_silu)
        self.conditions = ConditionEmbedding(config.conditions or {}, config.conditioning_size)
        self.convolution = LocalConvolution(config.hidden_size, config.conv_width) if config.conv_width else None
        self.blocks = nn.ModuleList(DiTBlock(config, backend) for _ in range(config.num_blocks))
        self.head = Head(config.hidden_size, num_rows, config.conditioning_size, bias=config.head_bias)
        self.activation_checkpointing = config.activation_checkpointing

    def forward(
        self, batch: TrackBatch, sigma: Mapping[str, Float[Tensor, " b"]], *, at: Mapping[str, Tensor] | None = None
    ) -> dict[str, Float[Tensor, "a k"]]:
        """Return logits of the track; see `diffusion.denoiser.Denoiser`."""
        track = batch.tracks[self.track]
        condition = self.noise_level(sigma[self.track])
        condition = condition + self.conditions(batch.conditions, condition)
        layout, by = track.layout, rotation(track.layout.position, self.head_size)
        x = self.embedding(track.tokens)
        if self.convolution is not None:
            x = self.convolution(x, layout)
        asked = None if at is None else at.get(self.track)
        wanted = wanted_tokens(asked, layout)
        for i, block in enumerate(self.blocks):
            arguments: tuple[object, ...] = (x, layout, by, condition)
            if wanted is not None and i == len(self.blocks) - 1:
                arguments = (*wanted.read_of(x, by), condition, None, wanted)
            x = run_block(block, *arguments, recompute=self.activation_checkpointing and self.training)
        if wanted is not None:
            return {self.track: self.head(x, wanted.layout, condition)}
        return {self.track: self.head(x, layout, condition, asked)}

    def forward_flops(self, batch: TrackBatch) -> float:
        """Return the operations of one forward pass for the logits of all tokens (a multiply-add counts as two)."""
        layout = batch.tracks[self.track].layout
        parts = [part for part in (self.blocks, self.head, self.convolution) if part is not None]
        per_token = sum(linear_flops(part, per_example=("modulation",)) for part in parts)
        pairs = sum(n * n for n in layout.lengths)
        attended = len(self.blocks) * attention_flops(self.embedding.embedding_dim, pairs)
        return float(per_token * layout.num_tokens + attended)
