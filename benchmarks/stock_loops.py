"""Stock models and their training loops for `learning.py`, in plain PyTorch, each as strong as its usual recipe makes it.

- `esm`: transformers' `EsmForMaskedLM` with random weights (SDPA, rotary positions), without dropout and token dropout.
- `encoder`: `nn.TransformerEncoder`, norms first, learned positions, key padding mask.
- `decoder`: a small causal decoder with rotary positions, RMS norms without parameters (also of queries and keys), squared ReLU, a
  head of its own that starts at zero, and Muon for its matrices.

Every model is called as `model(ids, is_real)` with padded ids [b, l] and gives logits [b, l, k]. `PaddedDenoiser` and `PaddedCausal` let the
package's own objectives evaluate them on packed batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from protlig_dd.diffusion.parameterizations import Parameterization, Score, restrict
from protlig_dd.errors import require
from protlig_dd.tokens.tracks import Layout, Track, TrackBatch

WARM_UP, CLIP_NORM, WEIGHT_DECAY = 0.1, 1.0, 0.01
DECODER_WARM_UP, DECODER_DECAY, MUON_WEIGHT_DECAY, EMBEDDING_RATE, SOFT_CAP, ROTARY_BASE = 0.05, 0.4, 0.1, 50.0, 15.0, 10000.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a stock model; `inner_size` is the width of its feed-forward layers, `max_length` the longest sequence."""

    hidden_size: int
    num_heads: int
    num_blocks: int
    inner_size: int
    num_rows: int
    max_length: int
    pad_id: int
    mask_id: int


class Esm(nn.Module):
    """Stock `EsmForMaskedLM`, freshly initialised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        transformers = require("transformers", "the stock model", extra="hf")
        config = transformers.EsmConfig(
            vocab_size=shape.num_rows,
            mask_token_id=shape.mask_id,
            pad_token_id=shape.pad_id,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.num_blocks,
            num_attention_heads=shape.num_heads,
            intermediate_size=shape.inner_size,
            max_position_embeddings=shape.max_length + 2,
            position_embedding_type="rotary",
            token_dropout=False,
            layer_norm_eps=1e-5,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="sdpa",
        )
        self.network = transformers.EsmForMaskedLM(config)

    def forward(self, ids: Tensor, is_real: Tensor) -> Tensor:
        """Return logits [b, l, k]."""
        return self.network(input_ids=ids, attention_mask=is_real.long()).logits  # type: ignore[no-any-return]


class PlainEncoder(nn.Module):
    """Embedding, learned positions, `nn.TransformerEncoder`, one Linear layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.embedding, self.positions = nn.Embedding(shape.num_rows, size), nn.Embedding(shape.max_length, size)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            size, shape.num_heads, shape.inner_size, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, shape.num_blocks, norm=nn.LayerNorm(size), enable_nested_tensor=False)
        self.head = nn.Linear(size, shape.num_rows)

    def forward(self, ids: Tensor, is_real: Tensor) -> Tensor:
        """Return logits [b, l, k]."""
        x = self.embedding(ids) + self.positions.weight[: ids.shape[1]]
        return self.head(self.encoder(x, src_key_padding_mask=~is_real))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A causal decoder; padding on the right needs no mask."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.embedding, self.head = nn.Embedding(shape.num_rows, size), nn.Linear(size, shape.num_rows, bias=False)
        self.blocks = nn.ModuleList(DecoderBlock(shape) for _ in range(shape.num_blocks))
        nn.init.zeros_(self.head.weight)
        head_size = size // shape.num_heads
        rates = ROTARY_BASE ** (-torch.arange(0, head_size, 2) / head_size)
        angles = torch.arange(shape.max_length)[:, None] * rates
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor, is_real: Tensor) -> Tensor:
        """Return logits [b, l, k] of the token after each position."""
        length = ids.shape[1]
        turn = (self.cos[:length], self.sin[:length])  # type: ignore[index]
        x = _normed(self.embedding(ids))
        for block in self.blocks:
            x = block(x, turn)
        return SOFT_CAP * torch.tanh(self.head(_normed(x)) / SOFT_CAP)


class DecoderBlock(nn.Module):
    """Causal attention and a feed-forward layer, each added to its input; both start as zero."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        size, self.num_heads = shape.hidden_size, shape.num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(size, size, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(size, shape.inner_size, bias=False), nn.Linear(shape.inner_size, size, bias=False)
        for layer in (self.query, self.key, self.value, self.up):
            nn.init.uniform_(layer.weight, -math.sqrt(3 / size), math.sqrt(3 / size))
        for layer in (self.out, self.down):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Return the block's output [b, l, e]."""
        own = _normed(x)
        q, k, v = (layer(own).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        q, k = (_normed(_turned(one, *turn)) for one in (q, k))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(_normed(x))).square())  # type: ignore[no-any-return]


def _normed(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the two halves of each head are the coordinates of planes that turn with the position."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Unigram(nn.Module):
    """Predicts the same letters everywhere: with logits [k] of their frequencies, what no model of the context has to beat."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, ids: Tensor, is_real: Tensor) -> Tensor:
        """Return logits [b, l, k]."""
        return self.logits.expand(*ids.shape, -1)  # type: ignore[operator,no-any-return]


MODELS: Mapping[str, Callable[[Shape], nn.Module]] = {"esm": Esm, "encoder": PlainEncoder, "decoder": Decoder}


def padded(rows: Sequence[Tensor], pad: int) -> tuple[Tensor, Tensor]:
    """Return rows as one tensor [b, l], and which of it is not padding."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = pad_sequence(list(rows), batch_first=True, padding_value=pad)
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


class PaddedDenoiser:
    """A stock model as a denoiser of one track: takes packed batches, pads them, and returns logits at the asked positions.

    Args:
        model: predicts clean tokens from partly masked ones.
        track: the track.
        meaning: what the objective takes logits for; probabilities are converted into scores where it expects these.
    """

    def __init__(self, model: nn.Module, track: Track, meaning: Parameterization) -> None:
        self.model, self.track, self.meaning = model, track, meaning

    def __call__(self, batch: TrackBatch, sigma: Mapping[str, Tensor], *, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return logits [a, k] by track; see `diffusion.denoiser.Denoiser`."""
        name = self.track.name
        own = batch.tracks[name]
        ids, is_real = padded(own.tokens.split(list(own.layout.lengths)), self.track.vocabulary.pad_id or 0)
        logits, segment = self.model(ids, is_real)[is_real], own.layout.segment
        if at is not None:
            logits, segment = logits[at[name]], segment[at[name]]
        log_probs = restrict(logits, self.track.emittable).log_softmax(-1)
        if isinstance(self.meaning, Score):  # log_score = log p + log(alpha / (1 - alpha)), and alpha = exp(-sigma)
            by_sigma = -torch.expm1(sigma[name][segment]).log()[:, None]
            log_probs = log_probs + (math.log(self.meaning.process.num_states) if self.meaning.scale_by_sigma else by_sigma)
        return {name: log_probs}


class PaddedCausal:
    """A stock decoder on packed sequences, called as our causal model is."""

    def __init__(self, model: nn.Module, pad: int) -> None:
        self.model, self.pad = model, pad

    def __call__(self, tokens: Tensor, layout: Layout, *, rows: Tensor) -> Tensor:
        """Return logits [a, k] of the token after each of the packed positions `rows`."""
        ids, is_real = padded(tokens.split(list(layout.lengths)), self.pad)
        return self.model(ids, is_real)[is_real][rows]  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training sequence, and which of its tokens are learned: those that may be masked, or a decoder's targets."""

    tokens: Tensor
    is_learned: Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of a stock loop: model, steps, examples of a step, learning rate, seed, steps between evaluations."""

    model: str
    shape: Shape
    steps: int
    batch_size: int
    lr: float
    seed: int
    every: int


def train(plan: Plan, examples: Sequence[Example], begin: Callable[[], Callable[[int, nn.Module], None]]) -> None:
    """Train a stock model from random weights.

    Args:
        plan: see `Plan`.
        examples: the training set, drawn in a new random order in every epoch.
        begin: called when the model is built; returns what is called with the step and the model after every `plan.every` steps.
    """
    torch.manual_seed(plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    model = MODELS[plan.model](plan.shape).train()
    is_decoder = plan.model == "decoder"
    evaluate = begin()
    optimizers = decoder_optimizers(model, plan.lr) if is_decoder else [adamw(model.parameters(), plan.lr, (0.9, 0.98))]
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    warm_up, decay = (DECODER_WARM_UP, DECODER_DECAY) if is_decoder else (WARM_UP, 1 - WARM_UP)
    order: list[int] = []
    for step in range(1, plan.steps + 1):
        while len(order) < plan.batch_size:
            order += torch.randperm(len(examples), generator=generator).tolist()
        batch, order = [examples[i] for i in order[: plan.batch_size]], order[plan.batch_size :]
        loss = causal_loss(model, batch, plan.shape) if is_decoder else masked_loss(model, batch, plan.shape, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        factor = trapezoid(step, plan.steps, warm_up, decay)
        for group, rate in zip((g for o in optimizers for g in o.param_groups), rates, strict=True):
            group["lr"] = rate * factor
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % plan.every == 0:
            model.eval()
            with torch.no_grad():
                evaluate(step, model)
            model.train()


def masked_loss(model: nn.Module, batch: Sequence[Example], shape: Shape, generator: torch.Generator) -> Tensor:
    """Return the cross-entropy at masks, with a share of masks that is uniform for each sequence."""
    ids, is_real = padded([example.tokens for example in batch], shape.pad_id)
    may_mask, _ = padded([example.is_learned for example in batch], False)
    share = torch.rand(len(batch), 1, generator=generator)
    is_masked = (torch.rand(ids.shape, generator=generator) < share) & may_mask
    logits = model(ids.masked_fill(is_masked, shape.mask_id), is_real)
    return F.cross_entropy(logits[is_masked], ids[is_masked])


def causal_loss(model: nn.Module, batch: Sequence[Example], shape: Shape) -> Tensor:
    """Return the cross-entropy of the learned tokens given everything before them."""
    ids, is_real = padded([example.tokens for example in batch], shape.pad_id)
    is_target, _ = padded([example.is_learned for example in batch], False)
    logits = model(ids[:, :-1], is_real[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].masked_fill(~is_target[:, 1:], -100).flatten())


def adamw(parameters: Iterable[Any], lr: float, betas: tuple[float, float], weight_decay: float = WEIGHT_DECAY) -> torch.optim.Optimizer:
    """Return fused AdamW."""
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def decoder_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks, its updates as large as AdamW's, and AdamW for the head and the embedding.

    The embedding starts with standard deviation 1 and is normalised at once, so its rate is larger.
    """
    assert isinstance(model, Decoder)
    tables = [{"params": [model.head.weight], "lr": lr}, {"params": [model.embedding.weight], "lr": EMBEDDING_RATE * lr}]
    muon = torch.optim.Muon(model.blocks.parameters(), lr=lr, weight_decay=MUON_WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    return [muon, adamw(tables, lr, (0.9, 0.95), 0.0)]


def trapezoid(step: int, steps: int, warm_up: float, decay: float) -> float:
    """Return the factor of the learning rate at a step, from 1: a linear rise, a plateau if there is room for one, a linear fall."""
    return min(1.0, step / max(warm_up * steps, 1.0), (steps - step + 1) / max(decay * steps, 1.0))
