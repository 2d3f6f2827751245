"""Random numbers as a pure function of names: no global state, the same on every device and for every batch size.

A draw is keyed by (seed, purpose, step, global example index, position, ...) and made by a counter-based generator: SplitMix64
(Steele, Lea and Flood 2014) on int64 tensors, whose wrap-around multiplication is the same on CPU, CUDA, XPU and MPS. So the numbers of
example i do not depend on the batch, the rank or the number of ranks, and resuming needs no saved state. Draws have 63 random bits; the
categorical draw is a race of exponentials whose winning tail is at u -> 0, where float32 is dense, so that a probability of 1e-12 is still
drawn at its rate (a race on 24-bit uniforms loses everything below about 1e-7).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, SplitMix64's odd increment, as a signed number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_BELOW_ONE = 1.0 - 2.0**-24  # the largest float32 below one


def key(seed: int, *names: str | int) -> int:
    """Return a 63-bit key derived from a seed and any names by blake2b (never by Python's salted `hash`)."""
    text = "/".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator keyed by a seed and names, for library calls that take one (weights, permutations).

    >>> first, again = (torch.randperm(5, generator=generator(0, "split")) for _ in range(2))
    >>> bool((first == again).all())
    True
    """
    return torch.Generator(device=device).manual_seed(key(seed, *names))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # int64 shifts are arithmetic; the mask makes this one logical


def _mix(x: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    """Scramble 64 bits: SplitMix64's finalizer."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


@dataclass(frozen=True)
class Draws:
    """A tensor of keys, each the root of a random stream; every method is pure.

    `fold` and `fold_in` derive new keys from names or integers; `uniform`, `gumbel` and `categorical` draw.
    Two draws from the same `Draws` are equal: fold in a name for each purpose.

    >>> draws = Draws.root(0, "example").fold_in(torch.tensor([7, 8]))
    >>> draws.integers(100).tolist() == Draws.root(0, "example").fold_in(torch.tensor([8, 7])).integers(100).flip(0).tolist()
    True
    """

    keys: Int[Tensor, "*s"]

    @staticmethod
    def root(seed: int, *names: str | int, device: torch.device | str = "cpu") -> Draws:
        """Return the scalar stream of a seed and names."""
        return Draws(torch.tensor(key(seed, *names), dtype=torch.int64, device=device))

    def fold(self, *names: str | int) -> Draws:
        """Return the stream of these names under each key."""
        return Draws(_mix(self.keys ^ key(0, *names)))

    def fold_in(self, indices: Int[Tensor, "*t"]) -> Draws:
        """Return the stream of each index, broadcast against the keys (example indices, positions, letters)."""
        return Draws(_mix(_mix(self.keys + _GOLDEN) + (indices.to(torch.int64) + 1) * _GOLDEN))

    def to(self, device: torch.device | str) -> Draws:
        """Return the same streams on another device."""
        return Draws(self.keys.to(device))

    def __getitem__(self, index: Tensor) -> Draws:
        return Draws(self.keys[index])

    def bits(self) -> Int[Tensor, "*s"]:
        """Return 63 random bits for each key, as non-negative integers."""
        return _shift_right(_mix(self.keys + _GOLDEN), 1)

    def uniform(self) -> Float[Tensor, "*s"]:
        """Return float32 uniform numbers in (0, 1), dense towards 0 (down to 2^-64), never 0 or 1."""
        u = self.bits().to(torch.float32) * 2.0**-63 + 2.0**-64
        return u.clamp(max=_BELOW_ONE)

    def gumbel(self) -> Float[Tensor, "*s"]:
        """Return standard Gumbel noise -log(-log1p(-u)): large values come from u -> 0, where u has all its bits."""
        return -torch.log(-torch.log1p(-self.uniform()))

    def gumbel_vector(self, size: int) -> Float[Tensor, "*s {size}"]:
        """Return `size` independent Gumbel draws for each key, along a new last axis."""
        letters = torch.arange(size, device=self.keys.device)
        return Draws(self.keys[..., None]).fold_in(letters).gumbel()

    def categorical(self, log_probs: Float[Tensor, "*s k"]) -> Int[Tensor, "*s"]:
        """Return exact draws from unnormalised log probabilities, one for each key.

        Computed in float32 for every input dtype, outside autocast: the network may run in half precision, the draw may not.
        Entries of -inf are never drawn; a row must have at least one finite entry.
        """
        with torch.autocast(log_probs.device.type, enabled=False):
            return (log_probs.float() + self.gumbel_vector(log_probs.shape[-1])).argmax(-1)

    def integers(self, high: int) -> Int[Tensor, "*s"]:
        """Return uniform integers in [0, high), by remainder of 63 bits (bias below high / 2^63)."""
        return self.bits() % high
