"""The single-track diffusion transformer (SEDD): embedding, adaLN blocks with rotary self-attention, head.

It may be given other tracks, which it reads as bags of k-mers (`given_kmers`) and never generates: ligands given a protein of any length.

Sources: Lou, Meng and Ermon 2024; Peebles and Xie 2023. `sedd/protein_66m` is this class with hidden 768, 12 heads, 8 blocks,
conditioning 256, 37 rows: 66,724,096 parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.errors import ConfigError
from protlig_dd.nn.attention import Backend
from protlig_dd.nn.blocks import BlockSettings, DiTBlock, Head
from protlig_dd.nn.flops import attention_flops, linear_flops
from protlig_dd.nn.kmers import KmerVector
from protlig_dd.nn.layers import ConditionEmbedding, LocalConvolution, NoiseLevelEmbedding, run_block
from protlig_dd.nn.packed import wanted_tokens
from protlig_dd.nn.rotary import rotation
from protlig_dd.tokens.tracks import TrackBatch, TrackSet


@settings
class DiTSettings(BlockSettings):
    """The shape of a single-track model.

    Args:
        given_kmers: tracks that the model is given and never generates, with the length of the k-mers that they are read by, such as
            {protein: 3}; their vector is added to that of the noise level.
    """

    kind: Literal["dit"] = "dit"
    given_kmers: dict[str, int] | None = None
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
            ConfigError: unless there is exactly one track beside those that are given.
        """
        given = self.given_kmers or {}
        own = [name for name in tracks if name not in given]
        if missing := [name for name in given if name not in tracks]:
            raise ConfigError(f"model.given_kmers: found track '{missing[0]}', expected one of {', '.join(tracks)}")
        if len(own) != 1:
            beside = f" beside those of model.given_kmers ({', '.join(given)})" if given else ""
            raise ConfigError(f"model.kind: 'dit' takes one track{beside}, found {sorted(own)}; use kind: dual_track for two")
        readers = {name: KmerVector(tracks[name], k, self.hidden_size, self.conditioning_size) for name, k in given.items()}
        return DiT(self, own[0], tracks[own[0]].vocabulary.num_rows, backend, given=readers)


class DiT(nn.Module):
    """A denoiser of one track, which may be given others."""

    def __init__(
        self, config: DiTSettings, track: str, num_rows: int, backend: Backend, *, given: Mapping[str, KmerVector] | None = None
    ) -> None:
        super().__init__()
        self.track = track
        self.head_size = config.hidden_size // config.num_heads
        self.embedding = nn.Embedding(num_rows, config.hidden_size)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.noise_level = NoiseLevelEmbedding(config.conditioning_size, final_silu=config.final_silu)
        self.conditions = ConditionEmbedding(config.conditions or {}, config.conditioning_size)
        self.given = nn.ModuleDict(given or {})
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
        for name, read in self._readers.items():
            condition = condition + read(batch.tracks[name])
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
        logits = self.head(x, layout, condition, asked) if wanted is None else self.head(x, wanted.layout, condition)
        return {self.track: logits, **self._of_given(batch, at, logits)}

    def _of_given(self, batch: TrackBatch, at: Mapping[str, Tensor] | None, like: Tensor) -> dict[str, Tensor]:
        """Logits of tracks that are given: zeros, since nothing is predicted there."""
        found = {}
        for name, read in self._readers.items():
            asked = None if at is None else at.get(name)
            found[name] = like.new_zeros(batch.tracks[name].layout.num_tokens if asked is None else len(asked), read.num_rows)
        return found

    @property
    def _readers(self) -> dict[str, KmerVector]:
        """`given` as a typed dictionary."""
        return cast("dict[str, KmerVector]", dict(self.given.items()))

    def forward_flops(self, batch: TrackBatch) -> float:
        """Return the operations of one forward pass for the logits of all tokens (a multiply-add counts as two)."""
        layout = batch.tracks[self.track].layout
        parts = [part for part in (self.blocks, self.head, self.convolution) if part is not None]
        per_token = sum(linear_flops(part, per_example=("modulation",)) for part in parts)
        pairs = sum(n * n for n in layout.lengths)
        attended = len(self.blocks) * attention_flops(self.embedding.embedding_dim, pairs)
        return float(per_token * layout.num_tokens + attended + linear_flops(self.given) * layout.num_examples)
