"""The masked-diffusion protein encoder: ESM-2's transformer, as DPLM uses it for sequences and DPLM-2 for sequences and structure tokens.

Blocks are pre-norm with rotary self-attention; the noise level is not embedded, since the masks show it (`sigma` is ignored). Attention runs
over the concatenated tracks of an example; positions restart in each track. Where a batch says `apart`, the tracks are separate sequences of
the layout, so no [l, l] mask is needed.
Sources: Lin et al. 2022 (ESM-2), Wang et al. 2024 (DPLM), Wang et al. 2024 (DPLM-2, DPLM-2 Bit).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from protlig_dd.config import settings
from protlig_dd.errors import ConfigError
from protlig_dd.models.bits import BitEmbedding, BitHead
from protlig_dd.models.lora import LoraSettings
from protlig_dd.nn.attention import Backend
from protlig_dd.nn.flops import attention_flops, linear_flops
from protlig_dd.nn.layers import Activation, EncoderBlock, LanguageHead, LocalConvolution, check_heads, run_block, scaled_init
from protlig_dd.nn.packed import joined, wanted_tokens
from protlig_dd.nn.rotary import rotation
from protlig_dd.tokens.tracks import Layout, TrackBatch, TrackSet, TrackTokens

_KEPT = 1 - 0.15 * 0.8
"""Share of unmasked embeddings in ESM-2's training: 15 % of the tokens were chosen, 80 % of these masked."""


@settings
class EncoderSettings:
    """The shape of an encoder; the defaults are ESM-2 8M.

    Args:
        hidden_size: width of the hidden state; a multiple of 2 x num_heads.
        num_heads: attention heads.
        num_blocks: blocks.
        mlp_ratio: width of the feed-forward layers, as a multiple of hidden_size.
        dropout: dropout rate of the two branches of a block.
        token_dropout: zero the embedding of protein masks and rescale the rest by the share of masks (ESM-2), in training and evaluation.
        tied_head: use the embedding as the last matrix of the head. By default as published: tied for one track, untied for several.
        conv_width: width in tokens of a convolution along each track before the first block, odd; 0 for none.
        activation: activation of the feed-forward layers; `gelu` is the exact form.
        qk_norm: normalise each head's queries and keys to a mean square of 1.
        init: new weights. "esm": normal with standard deviation 0.02, as in the original. "scaled": 1 / sqrt(inputs) for matrices, 1 for the
            embedding, 0 for the last matrix of each branch and of the head, so that every block begins as the identity.
        code_bits: bits of a structure code at input and output (DPLM-2 Bit: 13); 0 for one embedding row per code.
        lora: train low-rank adapters of the blocks (and embeddings and heads fully); start them from a model with `train.init_from`.
        activation_checkpointing: compute blocks again in the backward pass instead of keeping their activations.
        parameters: the expected number of parameters; `protlig check` compares it with the built model.
    """

    kind: Literal["encoder"] = "encoder"
    hidden_size: int = 320
    num_heads: int = 20
    num_blocks: int = 6
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    token_dropout: bool = True
    tied_head: bool | None = None
    conv_width: int = 0
    activation: Activation = "gelu"
    qk_norm: bool = False
    init: Literal["esm", "scaled"] = "esm"
    code_bits: int = 0
    lora: LoraSettings | None = None
    activation_checkpointing: bool = False
    parameters: int | None = None

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)

    def build(self, tracks: TrackSet, backend: Backend) -> Encoder:
        """Return the model, freshly initialised.

        Raises:
            ConfigError: without a protein track, or for tracks that do not share one table of ids.
            MissingDependencyError: for adapters without peft.
        """
        if "protein" not in tracks:
            raise ConfigError(f"model.kind: 'encoder' needs a track named protein, found {sorted(tracks)}")
        rows = {name: track.vocabulary.num_rows for name, track in tracks.items()}
        if self.code_bits:
            if set(tracks) != {"protein", "structure"}:
                raise ConfigError(f"model.code_bits: needs the tracks protein and structure, found {sorted(tracks)}")
        elif len(set(rows.values())) > 1:
            raise ConfigError(
                f"model.kind: 'encoder' has one table of ids for all tracks, found rows {rows}; "
                f"set tracks.protein.beside to the alphabet of the structure track"
            )
        model = Encoder(self, tracks, backend)
        if self.lora is not None:
            self.lora.add_to(model)
        return model


class Encoder(nn.Module):
    """A denoiser of a protein track, alone or with others aligned to it."""

    def __init__(self, config: EncoderSettings, tracks: TrackSet, backend: Backend) -> None:
        super().__init__()
        size = config.hidden_size
        self.tracks = tuple(tracks)
        self.head_size = size // config.num_heads
        self.token_dropout = config.token_dropout
        self.mask_id = tracks["protein"].vocabulary.mask_id
        self.activation_checkpointing = config.activation_checkpointing
        pad_id = tracks["protein"].vocabulary.pad_id
        self.embedding = nn.Embedding(tracks["protein"].vocabulary.num_rows, size)
        inner = round(size * config.mlp_ratio)
        shape = (size, config.num_heads, inner, config.dropout, backend)
        own = {"normed": config.qk_norm, "activation": config.activation}
        self.blocks = nn.ModuleList(EncoderBlock(*shape, **own) for _ in range(config.num_blocks))  # type: ignore[arg-type]
        self.convolution = LocalConvolution(size, config.conv_width) if config.conv_width else None
        self.norm = nn.LayerNorm(size)
        tied = len(tracks) == 1 if config.tied_head is None else config.tied_head
        self.head = LanguageHead(size, self.embedding.num_embeddings, tied=tied)
        self.bits, self.bit_head = None, None
        if config.code_bits:
            vocabulary = tracks["structure"].vocabulary
            self.bits = BitEmbedding(vocabulary, config.code_bits, size)
            self.bit_head = BitHead(vocabulary, config.code_bits, size)
        self.apply(_initialise)
        if config.init == "scaled":
            self._rescale()
        if pad_id is not None:
            nn.init.zeros_(self.embedding.weight.data[pad_id])

    def _rescale(self) -> None:
        """Initialise with `init: scaled`; a tied head keeps logits of size 1 with an embedding of 1 / sqrt(hidden size)."""
        last = [linear for block in self.blocks if isinstance(block, EncoderBlock) for linear in block.branch_ends]
        scaled_init(self, zeroed=last if self.head.decoder is None else [*last, self.head.decoder])
        if self.head.decoder is None:
            nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)

    def forward(
        self, batch: TrackBatch, sigma: Mapping[str, Float[Tensor, " b"]] | None = None, *, at: Mapping[str, Tensor] | None = None
    ) -> dict[str, Float[Tensor, "a k"]]:
        """Return logits of every track; see `diffusion.denoiser.Denoiser`. `sigma` is not used."""
        hidden, index = self._hidden(batch, at)
        logits = {}
        for name, rows in index.items():
            own = hidden if rows is None else hidden.index_select(0, rows)
            if name == "structure" and self.bit_head is not None:
                logits[name] = self.bit_head(own)
            else:
                logits[name] = self.head(own, self.embedding.weight)
        return logits

    def embed(self, batch: TrackBatch) -> dict[str, Float[Tensor, "n e"]]:
        """Return the hidden state of every token after the last norm, by track."""
        hidden, index = self._hidden(batch, None)
        return {name: hidden if rows is None else hidden.index_select(0, rows) for name, rows in index.items()}

    def _hidden(self, batch: TrackBatch, at: Mapping[str, Tensor] | None) -> tuple[Tensor, dict[str, Tensor | None]]:
        """The last hidden states, and for each track the requested rows of them (None: all, in order)."""
        layouts = tuple(batch.tracks[name].layout for name in self.tracks)
        x, positions = self._embedded(batch), torch.cat([layout.position for layout in layouts])
        if self.convolution is not None:
            own_tokens = x.split([one.num_tokens for one in layouts])
            x = torch.cat([self.convolution(part, one) for part, one in zip(own_tokens, layouts, strict=True)])
        asked = {name: None if at is None else at.get(name) for name in self.tracks}
        layout, rows = layouts[0], dict(asked)
        if len(layouts) > 1:
            order, layout = joined(layouts, batch.apart)
            x, positions = x.index_select(0, order), positions.index_select(0, order)
            place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
            own = dict(zip(self.tracks, place.split([one.num_tokens for one in layouts]), strict=True))
            rows = {name: own[name] if i is None else own[name].index_select(0, i) for name, i in asked.items()}
        wanted_rows = [r for r in rows.values() if r is not None]
        every = torch.cat(wanted_rows) if len(wanted_rows) == len(rows) else None
        wanted = wanted_tokens(every if every is None or len(rows) == 1 else every.sort().values, layout)
        x = self._through_blocks(x, layout, positions, wanted)
        if wanted is None:
            return self.norm(x), rows
        if len(rows) == 1:
            return self.norm(x), dict.fromkeys(self.tracks)
        assert every is not None
        rank = torch.empty_like(every).scatter_(0, every.argsort(), torch.arange(len(every), device=every.device))
        ranks = rank.split([len(r) for r in wanted_rows])
        return self.norm(x), dict(zip(rows, ranks, strict=True))

    def _through_blocks(self, x: Tensor, layout: Layout, positions: Tensor, wanted: object) -> Tensor:
        by = rotation(positions, self.head_size)
        for i, block in enumerate(self.blocks):
            last = wanted if i == len(self.blocks) - 1 else None
            arguments = (x, layout, by) if last is None else (*last.read_of(x, by), last)  # type: ignore[attr-defined]
            x = run_block(block, *arguments, recompute=self.activation_checkpointing and self.training)
        return x

    def _embedded(self, batch: TrackBatch) -> Float[Tensor, "n e"]:
        """Concatenated embeddings of all tracks, with ESM-2's token dropout.

        DPLM-2 applies it twice, and its published weights expect that: with several tracks the factor is squared. In the Bit model the first
        pass is over the protein alone, the second over all tokens.
        """
        protein = batch.tracks["protein"]
        parts = {name: self._table(name, batch.tracks[name].tokens) for name in self.tracks}
        if not self.token_dropout:
            return torch.cat(list(parts.values()))
        is_mask = protein.tokens == self.mask_id
        parts["protein"] = parts["protein"].masked_fill(is_mask[:, None], 0)
        masks = torch.zeros(batch.num_examples, device=is_mask.device)
        masks = masks.index_add(0, protein.layout.segment, is_mask.float())
        alone = _factor(masks, [protein])
        if len(self.tracks) == 1:
            return parts["protein"] * alone[protein.layout.segment][:, None]
        whole = _factor(masks, list(batch.tracks.values()))
        factors = dict.fromkeys(self.tracks, whole if self.bits is not None else whole * whole)
        if self.bits is not None:
            factors["protein"] = whole * alone
        return torch.cat([parts[n] * factors[n][batch.tracks[n].layout.segment][:, None] for n in self.tracks])

    def _table(self, name: str, ids: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        embedded: Tensor = self.bits(ids) if name == "structure" and self.bits is not None else self.embedding(ids)
        return embedded

    def forward_flops(self, batch: TrackBatch) -> float:
        """Return the operations of one forward pass for the logits of all tokens (a multiply-add counts as two)."""
        tokens, size = batch.num_tokens, self.embedding.embedding_dim
        heads = linear_flops(self.head) + (2 * self.embedding.weight.numel() if self.head.decoder is None else 0)
        layout = joined(tuple(batch.tracks[name].layout for name in self.tracks), batch.apart)[1]
        attended = len(self.blocks) * attention_flops(size, sum(n * n for n in layout.lengths))
        local = 0 if self.convolution is None else linear_flops(self.convolution)
        return float((linear_flops(self.blocks) + heads + local) * tokens + attended)


def _factor(masks: Float[Tensor, " b"], tracks: list[TrackTokens]) -> Float[Tensor, " b"]:
    """ESM-2's factor 0.88 / (1 - r), r the share of protein masks among all tokens of an example, specials included."""
    lengths = torch.tensor([track.layout.lengths for track in tracks], dtype=torch.float32).sum(0).to(masks.device)
    share = masks / lengths.clamp(min=1)
    return _KEPT / (1 - share).clamp(min=1e-6)


def _initialise(module: nn.Module) -> None:
    """Normal weights with standard deviation 0.02 and zero biases, as in the original."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
