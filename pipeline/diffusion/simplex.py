"""Simplex noise (Perlin 2001; Gustavson, "Simplex noise demystified", 2005) in two and three dimensions, row by row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import cast

import torch
from torch import Tensor

from pipeline.nn.rng import Rng

TABLE = 256  # lattice gradients per row; the noise repeats after this many cells, far beyond an image


def simplex_octaves(rng: Rng, spatial: Sequence[int], octaves: int, persistence: float, period: float) -> Tensor:
    """Return a sum of octaves [B, *spatial] with variance 1; octave k has `period / 2^k` and amplitude persistence^k.

    Args:
        rng: one stream per row.
        spatial: image size in pixels, 2 or 3 axes.
        octaves: number of octaves to sum; octaves finer than two pixels are left out.
        persistence: ratio of amplitudes.
        period: cell size of the first octave, as a fraction of the longest edge.
    """
    cell = period * max(spatial)
    finest = max(1, min(octaves, sum(cell / 2**k >= 2 for k in range(octaves))))
    total = torch.zeros(len(rng), *spatial, device=rng.device)
    for k in range(finest):
        total += persistence**k * _octave(rng, spatial, cell / 2**k)
    power = _mean_square(len(spatial)) * sum(persistence ** (2 * k) for k in range(finest))
    return total / power**0.5


def _octave(rng: Rng, spatial: Sequence[int], cell: float) -> Tensor:
    dims = len(spatial)
    gradients = torch.nn.functional.normalize(rng.normal(TABLE, dims), dim=-1)
    order = rng.uniform(TABLE).argsort(dim=-1)
    origin = rng.uniform(dims) * TABLE
    axes = [torch.arange(size, device=rng.device) / cell for size in spatial]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, dims)
    return _noise(points + origin[:, None], gradients, order).reshape(len(rng), *spatial)


def _noise(points: Tensor, gradients: Tensor, order: Tensor) -> Tensor:
    """Evaluate at points [B, P, dims] with gradients [B, TABLE, dims] and a permutation [B, TABLE]: [B, P]."""
    value = torch.zeros(points.shape[:2], device=points.device)
    for lattice, offset in _corners(points):
        gradient = gradients.take_along_dim(_hashed(lattice, order)[..., None], dim=1)
        value += _falloff(offset) * (gradient * offset).sum(-1)
    return value


def _corners(points: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the dims + 1 corners of each point's simplex: lattice indices and the offset from the corner."""
    dims = points.shape[-1]
    skew, unskew = ((dims + 1) ** 0.5 - 1) / dims, (1 - 1 / (dims + 1) ** 0.5) / dims
    base = (points + skew * points.sum(-1, keepdim=True)).floor()
    first = points - (base - unskew * base.sum(-1, keepdim=True))
    # Walk from the base corner along the axes in order of decreasing coordinate; rank 0 is the largest.
    rank = first.argsort(dim=-1, descending=True).argsort(dim=-1)
    steps = [(rank < k).to(points.dtype) for k in range(dims + 1)]
    return [(base + step, first - step + k * unskew) for k, step in enumerate(steps)]


def _hashed(lattice: Tensor, order: Tensor) -> Tensor:
    index = torch.zeros(lattice.shape[:2], dtype=torch.int64, device=lattice.device)
    for axis in lattice.long().unbind(-1):
        index = order.take_along_dim((index + axis) % TABLE, dim=1)
    return index


def _falloff(offset: Tensor) -> Tensor:
    """Return (1/2 - |offset|^2)_+^4, which is continuous across simplices."""
    return (0.5 - offset.square().sum(-1)).clamp_min(0) ** 4


@cache
def _mean_square(dims: int) -> float:
    """Return E[noise^2] over the position, for unit gradients of random direction: E[(g . d)^2] = |d|^2 / dims."""
    axis = (torch.arange(48, dtype=torch.float64) + 0.5) / 48
    unskew = (1 - 1 / (dims + 1) ** 0.5) / dims
    cube = torch.tensor(list(itertools.product(axis.tolist(), repeat=dims)), dtype=torch.float64)
    points = (cube - unskew * cube.sum(-1, keepdim=True))[None]
    squares = [_falloff(offset) ** 2 * offset.square().sum(-1) / dims for _, offset in _corners(points)]
    return float(cast(Tensor, sum(squares)).mean())
