"""Randomness per batch row: a row gets the same draws whatever its neighbours are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

SeedPart = int | str


def row_key(*parts: SeedPart) -> int:
    """Return a 64-bit key of `parts`: stable across processes and machines; 1 and "1" give different keys."""
    digest = blake2b(repr(parts).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


class Rng:
    """One CPU generator per batch row.

    Row i draws from a stream that its own key alone decides, so that results depend neither on the batch's size and
    order nor on the device: draws are made on the CPU and then moved. (Torch's generator uses the low 32 bits of a key,
    so two images in some ten thousand may share their noise, which is harmless.)

    Args:
        keys: one integer per row.
        device: device that receives the draws.
    """

    def __init__(self, keys: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.keys = tuple(int(key) & (2**64 - 1) for key in keys)
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(key) for key in self.keys]

    @classmethod
    def training(cls, seed: int, images_seen: int, batch_size: int, device: torch.device | str = "cpu") -> Rng:
        """Return streams for a training step: row i is image number `images_seen + i` of the training,
        however batched.
        """
        return cls([row_key(seed, images_seen + row) for row in range(batch_size)], device)

    @classmethod
    def scoring(cls, seed: int, ids: Sequence[str], device: torch.device | str = "cpu") -> Rng:
        """Return streams for scoring: row i depends on `ids[i]`, so a slice is always scored with the same noise."""
        return cls([row_key(seed, item) for item in ids], device)

    def __len__(self) -> int:
        return len(self.keys)

    def fork(self, name: SeedPart) -> Rng:
        """Return fresh streams that depend on the keys and `name` only, not on earlier draws."""
        return Rng([row_key(key, name) for key in self.keys], self.device)

    def rows(self, indices: Sequence[int]) -> Rng:
        """Return new streams of the given rows, from their start."""
        return Rng([self.keys[i] for i in indices], self.device)

    def normal(self, *shape: int) -> Tensor:
        """Draw N(0, 1): float32 [B, *shape]."""
        return self._fill(shape, lambda row, generator: torch.randn(shape, generator=generator, out=row))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw from [low, high): float32 [B, *shape]."""
        draws = self._fill(shape, lambda row, generator: torch.rand(shape, generator=generator, out=row))
        return draws if (low, high) == (0.0, 1.0) else low + (high - low) * draws

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Draw from {low, ..., high - 1}: int64 [B, *shape]."""
        draws = torch.empty((len(self), *shape), dtype=torch.int64)
        for row, generator in zip(draws, self._generators, strict=True):
            row.random_(low, high, generator=generator)
        return draws.to(self.device)

    def poisson(self, rate: Tensor) -> Tensor:
        """Draw counts of mean `rate` [B, ...]: float32, each row from its own stream."""
        rows = zip(rate.cpu(), self._generators, strict=True)
        return torch.stack([torch.poisson(row, generator) for row, generator in rows]).to(self.device)

    def _fill(self, shape: Sequence[int], draw: Callable[[Tensor, torch.Generator], object]) -> Tensor:
        draws = torch.empty((len(self), *shape))
        for row, generator in zip(draws, self._generators, strict=True):
            draw(row, generator)
        return draws.to(self.device)
