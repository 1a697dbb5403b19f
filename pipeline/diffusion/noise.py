"""Noise for diffusion and for denoising: Gaussian, coarse (Kascenas et al. 2022) and simplex (Wyatt et al. 2022).

Every kind has mean 0 and variance 1 at every pixel, over the randomness of the row's own stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pipeline.diffusion.simplex import simplex_octaves
from pipeline.nn.rng import Rng

NoiseKind = Literal["gaussian", "coarse", "simplex"]


def draw_noise(kind: NoiseKind, rng: Rng, shape: Sequence[int], grid: int = 16) -> Tensor:
    """Return noise [B, *shape] for images of `shape` = (C, *spatial).

    Args:
        kind: gaussian, coarse or simplex.
        rng: one stream per row.
        shape: shape of one image, channels first.
        grid: cells along one edge of the coarse noise; ignored by the others.
    """
    if kind == "coarse":
        return coarse(rng, shape, grid)
    return simplex(rng, shape) if kind == "simplex" else rng.normal(*shape)


def coarse(rng: Rng, shape: Sequence[int], grid: int = 16) -> Tensor:
    """Return normal noise on a coarse grid, upsampled linearly and rolled by a random shift: [B, *shape], variance 1.

    Kascenas et al., "Denoising autoencoders for unsupervised anomaly detection in brain MRI", MIDL 2022, section 3.
    Deviations: interpolation averages neighbours, which lowers the mean variance to 4/9 of that at the grid points
    in two dimensions; it is restored on average, so that the stated standard deviation is that of the image. The roll
    is circular over a periodic grid, so that no seam enters the image.
    """
    channels, *spatial = shape
    noise = rng.normal(channels, *[grid] * len(spatial))
    offsets = rng.uniform(len(spatial))
    for axis, size in enumerate(spatial):
        # Each turn upsamples the first spatial axis and moves it to the end, so the order is restored after the loop.
        noise = torch.einsum("bcx...,bpx->bc...p", noise, _interpolation(size, grid, offsets[:, axis]))
    # E over the position of (1 - w)^2 + w^2 is 2/3 per axis: divide by its root to keep the variance at 1 on average.
    return noise * (3 / 2) ** (len(spatial) / 2)


def _interpolation(size: int, grid: int, offset: Tensor) -> Tensor:
    """Return weights [B, size, grid] that sample a periodic grid linearly at every pixel, shifted by `offset` [B]."""
    position = (torch.arange(size, device=offset.device) / size + offset[:, None]) * grid
    distance = position[:, :, None] - torch.arange(grid, device=offset.device)
    distance = (distance + grid / 2) % grid - grid / 2
    return (1 - distance.abs()).clamp_min(0)


def simplex(rng: Rng, shape: Sequence[int], octaves: int = 6, persistence: float = 0.8, period: float = 0.25) -> Tensor:
    """Return fractal simplex noise [B, *shape], variance 1.

    Wyatt et al., "AnoDDPM", CVPR workshops 2022: 6 octaves, persistence 0.8, first period 64 pixels of 256.
    Deviations: the period is a fraction of the image's edge, and the sum is scaled to variance 1, as the forward
    process of diffusion supposes.
    """
    channels, *spatial = shape
    planes = [simplex_octaves(rng, spatial, octaves, persistence, period) for _ in range(channels)]
    return torch.stack(planes, dim=1)
