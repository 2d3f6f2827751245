"""Small layers on packed tokens: feed-forward, local convolution, attention with its projections; and embeddings per example."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from protlig_dd.nn.attention import Backend, attention
from protlig_dd.nn.packed import Wanted, window_rows
from protlig_dd.nn.rotary import Rotation, rotate, rotate_heads
from protlig_dd.tokens.tracks import Layout

Activation = Literal["gelu", "gelu_tanh", "relu_squared"]
NUM_FEATURES = 256


def run_block(block: nn.Module, *arguments: object, recompute: bool) -> Tensor:
    """Return a block's output; with `recompute` its activations are computed again in the backward pass instead of kept."""
    out: Tensor = checkpoint(block, *arguments, use_reentrant=False) if recompute else block(*arguments)
    return out


def zero_init(linear: nn.Linear) -> nn.Linear:
    """Return the layer with weight and bias set to zero, so that a residual branch through it starts at zero."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def scaled_init(model: nn.Module, *, zeroed: Iterable[nn.Linear]) -> None:
    """Draw new weights: embeddings with standard deviation 1, matrices with 1 / sqrt(inputs), and zeros for the layers in `zeroed`."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    for linear in zeroed:
        zero_init(linear)


class ReluSquared(nn.Module):
    """max(x, 0)^2 (So et al. 2021, Primer)."""

    def forward(self, x: Float[Tensor, "n e"]) -> Float[Tensor, "n e"]:
        """Return the activation of each number."""
        return nn.functional.relu(x).square()


class FeedForward(nn.Sequential):
    """Linear, GELU (exact or tanh) or squared ReLU, Linear."""

    def __init__(self, hidden_size: int, inner_size: int, activation: Activation = "gelu") -> None:
        between: nn.Module = nn.GELU(approximate="tanh" if activation == "gelu_tanh" else "none")
        if activation == "relu_squared":
            between = ReluSquared()
        super().__init__(nn.Linear(hidden_size, inner_size), between, nn.Linear(inner_size, hidden_size))


class SelfAttention(nn.Module):
    """Attention along the sequence with one qkv projection and rotary positions.

    Args:
        hidden_size: width e of the hidden state; a multiple of 2 x num_heads.
        num_heads: attention heads h.
        backend: the attention back-end.
        bias: whether both projections have a bias.
        normed: normalise each head's queries and keys to a mean square of 1 (RMS norm without parameters).
    """

    def __init__(self, hidden_size: int, num_heads: int, backend: Backend, *, bias: bool = False, normed: bool = False) -> None:
        super().__init__()
        self.num_heads, self.normed = num_heads, normed
        self.backend: Backend = backend
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=bias)
        self.out = nn.Linear(hidden_size, hidden_size, bias=bias)

    def forward(self, x: Float[Tensor, "n e"], layout: Layout, by: Rotation, wanted: Wanted | None = None) -> Float[Tensor, "a e"]:
        """Return the attention output of all tokens, or of the wanted ones."""
        h = self.num_heads
        q, k, v = rotate_heads(self.qkv(x).unflatten(-1, (3 * h, -1)), by)
        if self.normed:  # a rotation preserves the norm, so the order of the two does not matter
            q, k = (nn.functional.rms_norm(heads, heads.shape[-1:]) for heads in (q, k))
        if wanted is None:
            attended = attention(q, k, v, layout, layout, backend=self.backend)
        else:
            q = q.index_select(0, wanted.queries)
            attended = attention(q, k, v, wanted.layout, layout, backend=self.backend)
        projected: Tensor = self.out(attended.flatten(1))
        return projected


class CrossAttention(nn.Module):
    """Attention from one track to another; rotary positions are used only if the two are aligned residue by residue."""

    def __init__(self, hidden_size: int, context_size: int, num_heads: int, backend: Backend) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.backend: Backend = backend
        self.q = nn.Linear(hidden_size, hidden_size, bias=False)
        self.kv = nn.Linear(context_size, 2 * hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(
        self,
        x: Float[Tensor, "n e"],
        context: Float[Tensor, "m c"],
        layout: Layout,
        context_layout: Layout,
        by: tuple[Rotation, Rotation] | None = None,
    ) -> Float[Tensor, "n e"]:
        """Return the attention output of each token over its example's context; zeros for an empty context.

        Args:
            x: hidden states of the querying track.
            context: hidden states of the track that is attended to.
            layout: layout of x.
            context_layout: layout of the context.
            by: rotary angles of both, if they are aligned.
        """
        q = self.q(x).unflatten(-1, (self.num_heads, -1))
        k, v = self.kv(context).unflatten(-1, (2, self.num_heads, -1)).unbind(1)
        if by is not None:
            q, k = rotate(q, by[0]), rotate(k, by[1])
        read = attention(q, k, v, layout, context_layout, backend=self.backend)
        projected: Tensor = self.out(read.flatten(1))
        return projected


class LocalConvolution(nn.Module):
    """A dense convolution along each example, zero-padded at its ends, for short motifs.

    Args:
        hidden_size: width e of the hidden state.
        width: number of tokens of the kernel, odd.
    """

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        assert width % 2 == 1, f"width {width}: expected an odd number"
        self.width = width
        self.mix = nn.Linear(width * hidden_size, hidden_size)

    def forward(self, x: Float[Tensor, "n e"], layout: Layout) -> Float[Tensor, "n e"]:
        """Return x plus the GELU of the convolution."""
        index = window_rows(layout, self.width)
        padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
        windows = padded.index_select(0, index.flatten()).view(len(x), self.width * x.shape[1])
        return x + nn.functional.gelu(self.mix(windows))


class EncoderBlock(nn.Module):
    """A pre-norm block of self-attention and feed-forward, all with biases (ESM-2)."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        inner_size: int,
        dropout: float,
        backend: Backend,
        *,
        normed: bool = False,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size)
        self.attention = SelfAttention(hidden_size, num_heads, backend, bias=True, normed=normed)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.mlp = FeedForward(hidden_size, inner_size, activation)
        self.dropout = nn.Dropout(dropout)

    @property
    def branch_ends(self) -> tuple[nn.Linear, nn.Linear]:
        """The last layers of the two branches."""
        end = self.mlp[2]
        assert isinstance(end, nn.Linear)
        return self.attention.out, end

    def forward(self, x: Float[Tensor, "n e"], layout: Layout, by: Rotation, wanted: Wanted | None = None) -> Float[Tensor, "a e"]:
        """Return the hidden states after the block, of all tokens or of the wanted ones."""
        attended = self.attention(self.norm1(x), layout, by, wanted)
        if wanted is not None:
            x = x.index_select(0, wanted.queries)
        x = x + self.dropout(attended)
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


class LanguageHead(nn.Module):
    """Dense layer, GELU, layer norm, and a matrix to the vocabulary: its own, or the embedding if tied (ESM-2)."""

    def __init__(self, hidden_size: int, num_rows: int, *, tied: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.decoder = None if tied else nn.Linear(hidden_size, num_rows, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_rows))

    def forward(self, x: Float[Tensor, "a e"], embedding: Float[Tensor, "k e"] | None = None) -> Float[Tensor, "a k"]:
        """Return logits; `embedding` is the tied matrix."""
        weight = embedding if self.decoder is None else self.decoder.weight
        assert weight is not None, "a tied head needs the embedding"
        return nn.functional.linear(self.norm(nn.functional.gelu(self.dense(x))), weight, self.bias)


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Refuse a head size that is not an even whole number.

    Raises:
        ValueError: with both sizes.
    """
    if hidden_size % num_heads or (hidden_size // num_heads) % 2:
        raise ValueError(
            f"hidden_size: found {hidden_size} with {num_heads} heads, expected a multiple of 2 x num_heads (rotary turns pairs)"
        )


def sigma_features(sigma: Float[Tensor, " b"]) -> Float[Tensor, "b 256"]:
    """Return [cos(sigma f_k), sin(sigma f_k)] with f_k = exp(-ln(10000) k / 128), k = 0 .. 127 (SEDD's timestep embedding of sigma)."""
    half = NUM_FEATURES // 2
    k = torch.arange(half, dtype=torch.float32, device=sigma.device)
    angle = sigma.float()[:, None] * torch.exp(-math.log(10000.0) * k / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class NoiseLevelEmbedding(nn.Module):
    """A vector for each example's noise level in one track: features, Linear, SiLU, Linear, and a final SiLU by default."""

    def __init__(self, size: int, *, final_silu: bool = True) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(NUM_FEATURES, size), nn.SiLU(), nn.Linear(size, size))
        self.final_silu = final_silu

    def forward(self, sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """Return the conditioning vector of each example."""
        embedded = self.mlp(sigma_features(sigma))
        return nn.functional.silu(embedded) if self.final_silu else embedded


class ConditionEmbedding(nn.Module):
    """The sum of learned vectors of class labels, such as affinity bins; label -1 ("not given") has its own vector."""

    def __init__(self, classes: Mapping[str, int], size: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(num + 1, size) for name, num in classes.items()})
        for table in self.tables.values():
            assert isinstance(table, nn.Embedding)
            nn.init.zeros_(table.weight)

    def forward(self, labels: Mapping[str, Int[Tensor, " b"]], like: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Return the vector of each example; a label that is not in the batch counts as not given."""
        total = torch.zeros_like(like)
        for name, table in self.tables.items():
            given = labels.get(name)
            index = torch.zeros(len(like), dtype=torch.int64, device=like.device) if given is None else given + 1
            total = total + table(index)
        return total
