"""Structure codes as bits (DPLM-2 Bit): a code of 13 bits is embedded as 13 signs, and predicted as 13 independent pairs of logits.

The head returns logits over whole codes, the sums of their bits' log-probabilities. The cross-entropy of a code is then the sum over its
bits, and a draw of a code at some temperature is a draw of its bits at that temperature, so losses and samplers are independent of
bits. Source: Wang et al. 2024 (DPLM-2 Bit); most significant bit first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from protlig_dd.nn.layers import LanguageHead
from protlig_dd.tokens.vocabulary import Vocabulary


def code_signs(num_bits: int) -> Float[Tensor, "c j"]:
    """Return the signs (-1 or 1) of the bits of every code, the most significant first."""
    codes = torch.arange(2**num_bits)
    return ((codes[:, None] >> torch.arange(num_bits - 1, -1, -1)) & 1).float() * 2 - 1


class BitEmbedding(nn.Module):
    """Embeds codes through the signs of their bits; begin, end and mask have their own vectors."""

    def __init__(self, vocabulary: Vocabulary, num_bits: int, hidden_size: int) -> None:
        super().__init__()
        self.first_code = min(vocabulary.emittable_ids)
        self.num_bits = num_bits
        assert vocabulary.begin_id is not None and vocabulary.end_id is not None
        self.begin_id, self.end_id, self.mask_id = vocabulary.begin_id, vocabulary.end_id, vocabulary.mask_id
        self.project = nn.Linear(num_bits, hidden_size)
        self.begin, self.end, self.mask = (nn.Parameter(0.02 * torch.randn(hidden_size)) for _ in range(3))

    def forward(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n e"]:
        """Return the embeddings of structure ids."""
        code = ids - self.first_code
        shifts = torch.arange(self.num_bits - 1, -1, -1, device=ids.device)
        signs = ((code[:, None] >> shifts) & 1).to(self.project.weight.dtype) * 2 - 1
        embedded: Tensor = self.project(signs)
        for special, vector in ((self.begin_id, self.begin), (self.end_id, self.end), (self.mask_id, self.mask)):
            embedded = torch.where(ids.eq(special)[:, None], vector, embedded)
        return embedded


class BitHead(nn.Module):
    """Logits of codes from logits of bits; -inf at ids that are not codes."""

    def __init__(self, vocabulary: Vocabulary, num_bits: int, hidden_size: int) -> None:
        super().__init__()
        self.pairs = LanguageHead(hidden_size, 2 * num_bits, tied=False)
        self.first_code, self.num_rows = min(vocabulary.emittable_ids), vocabulary.num_rows
        self.num_bits = num_bits

    def bit_logits(self, x: Float[Tensor, "a e"]) -> Float[Tensor, "a j 2"]:
        """Return the two logits of every bit."""
        pairs: Tensor = self.pairs(x).unflatten(-1, (self.num_bits, 2))
        return pairs

    def forward(self, x: Float[Tensor, "a e"]) -> Float[Tensor, "a k"]:
        """Return log p(code) at the rows of codes, -inf at all others."""
        return self.codes(self.bit_logits(x))

    def codes(self, bit_logits: Float[Tensor, "a j 2"]) -> Float[Tensor, "a k"]:
        """Return log p(code) from the logits of bits, summed over bits in float32."""
        log_probs = bit_logits.float().log_softmax(-1)
        ones = (code_signs(self.num_bits).to(bit_logits.device) + 1) / 2
        codes = log_probs[..., 0].sum(-1, keepdim=True) + (log_probs[..., 1] - log_probs[..., 0]) @ ones.T
        behind = self.num_rows - self.first_code - len(ones)
        return F.pad(codes, (self.first_code, behind), value=-torch.inf)
