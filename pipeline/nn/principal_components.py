"""Principal components of vectors that arrive in batches, in bounded memory.

Rows whose outer products sum to the scatter matrix are collected, with one row per batch for the shift of the mean
(Ross et al. 2008, International Journal of Computer Vision 77:125, section 2.1). When there are too many, they are
replaced by their leading singular vectors, times the singular values. So the result is exact while all the vectors fit,
or the data have no more components than are retained; else it is the best approximation that this memory allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1024  # at least; their eigenvectors take about a second
AT_ONCE = 65536  # columns per block of the products, which are taken in float64


@dataclass(frozen=True)
class Principal:
    """Mean [D], orthonormal components [K, D] by falling variance, their variances [K], and the number of vectors."""

    mean: Tensor
    components: Tensor
    variances: Tensor
    count: int


class PrincipalComponents:
    """Mean and leading principal components of all vectors that were added.

    Args:
        components: K; at most this many are returned.
    """

    def __init__(self, components: int) -> None:
        self.components, self.limit = components, max(ROWS, 4 * components)
        self.count, self.mean, self.rows = 0, torch.zeros(0, dtype=torch.float64), torch.zeros(0)

    def add(self, vectors: Tensor) -> None:
        """Add vectors float32 [B, D]."""
        old, new = self.count, len(vectors)
        if not new:
            return
        centre = vectors.double().mean(dim=0)
        before = self.mean if old else centre
        shift = (old * new / (old + new)) ** 0.5 * (centre - before)
        more = torch.cat([(vectors - centre).float(), shift[None].float()])
        self.rows = torch.cat([self.rows, more]) if old else more
        self.count, self.mean = old + new, before + new / (old + new) * (centre - before)
        if len(self.rows) > self.limit:
            values, directions = _leading(self.rows, self.limit // 2)
            self.rows = values[:, None] * directions

    def result(self) -> Principal:
        """Return the mean and the leading components of the vectors so far; there are at most `count - 1` of them."""
        most = min(self.components, max(self.count - 1, 0))
        values, directions = _leading(self.rows, most)
        return Principal(self.mean.float(), directions, values**2 / max(self.count - 1, 1), self.count)


def _leading(rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the largest singular values of rows [R, D] and their right vectors: [K], [K, D] with K <= most.

    Values that are zero but for rounding are left out, since their vectors would be noise.
    """
    squares, left = torch.linalg.eigh(_outer(rows))
    largest = squares[-1].clamp_min(0) if len(squares) else torch.zeros(())
    chosen = torch.arange(len(squares) - 1, -1, -1)[:most]
    chosen = chosen[squares[chosen] > 1e-12 * largest.clamp_min(1e-30)]
    values = squares[chosen].sqrt()
    weights = (left[:, chosen] / values).T
    directions = torch.cat([(weights @ block.double()).float() for block in rows.split(AT_ONCE, dim=1)], dim=1)
    return values.float(), directions


def _outer(rows: Tensor) -> Tensor:
    """Return R R' in float64 [R, R], a block of columns at a time."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for block in rows.split(AT_ONCE, dim=1):
        total += block.double() @ block.double().T
    return total
