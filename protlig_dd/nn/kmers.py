"""A vector of a sequence from how often each of its k-mers occurs: any length at once, without positions and without pre-training.

Similar sequences have similar counts, so a model that is conditioned on the vector tells proteins apart from its first steps on, whatever
their length. Source of the counts as a measure of similarity: Leslie, Eskin and Noble 2002, the spectrum kernel.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protlig_dd.errors import ConfigError
from protlig_dd.nn.layers import zero_init
from protlig_dd.tokens.tracks import Track, TrackTokens

_MOST = 200_000  # k-mers that may be counted


class KmerVector(nn.Module):
    """log(1 + counts) of all k-mers, scaled to length 1; Linear, layer norm, SiLU, and a Linear layer initialised to zero.

    A k-mer with a mask, an unknown residue or another special token is not counted. An example without the track has a learned vector.

    Args:
        track: the track that is read.
        k: letters of a k-mer.
        hidden_size: width of the layer between.
        size: width c of the vector.

    Raises:
        ConfigError: for so large a k that its k-mers cannot be counted.
    """

    letter: Tensor

    def __init__(self, track: Track, k: int, hidden_size: int, size: int) -> None:
        super().__init__()
        vocabulary = track.vocabulary
        letters = sorted(vocabulary.emittable_ids, key=lambda i: vocabulary.symbols[i])  # so that the order of ids does not matter
        if not k >= 1 or len(letters) ** k > _MOST:
            raise ConfigError(
                f"model.given_kmers.{track.name}: found {k}, expected 1 or more and at most {_MOST:,} k-mers; "
                f"those of {len(letters)} letters are {len(letters)}^k, use 3"
            )
        self.k, self.num_letters, self.num_rows = k, len(letters), vocabulary.num_rows
        letter = torch.full((vocabulary.num_rows,), -1)
        letter[letters] = torch.arange(len(letters))
        self.register_buffer("letter", letter, persistent=False)
        first = nn.Linear(len(letters) ** k, hidden_size, bias=False)
        nn.init.normal_(first.weight)
        self.layers = nn.Sequential(first, nn.LayerNorm(hidden_size), nn.SiLU(), zero_init(nn.Linear(hidden_size, size)))
        self.absent = nn.Parameter(torch.zeros(size))

    def counts(self, track: TrackTokens) -> Float[Tensor, "b k"]:
        """Return how often each example has each k-mer; the first letter counts most in the order of k-mers."""
        codes, layout = self.letter[track.tokens], track.layout
        last = self.k - 1
        size = max(len(codes) - last, 0)
        windows = [codes[i : i + size] for i in range(self.k)]
        segment = layout.segment
        inside = (segment[:size] == segment[last:]) & torch.stack(windows).ge(0).all(0)
        code = torch.zeros(size, dtype=torch.int64, device=codes.device)
        for window in windows:
            code = code * self.num_letters + window
        kinds = self.num_letters**self.k
        flat = torch.zeros(layout.num_examples * kinds, device=codes.device)
        flat.index_add_(0, (segment[:size] * kinds + code).where(inside, 0), inside.to(flat.dtype))
        return flat.view(layout.num_examples, kinds)

    def forward(self, track: TrackTokens) -> Float[Tensor, "b c"]:
        """Return the vector of each example."""
        features = nn.functional.normalize(torch.log1p(self.counts(track)), dim=1)
        vectors: Tensor = self.layers(features)
        lengths = torch.tensor(track.layout.lengths)
        return torch.where((lengths > 0).to(vectors.device)[:, None], vectors, self.absent)
