"""Gaussian blur and erosion of batched maps, exact at the borders and fast on a CPU."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

TRUNCATE = 3.5  # cut-off of the Gaussian in sigma, the same as in scikit-image's SSIM


def gaussian_blur(maps: Tensor, sigma_fraction: float) -> Tensor:
    """Blur maps with a Gaussian whose sigma is a fraction of the size, along each axis, replicating the border.

    Each axis is one matrix product: exact, and faster than a convolution for wide Gaussians.

    Args:
        maps: [B, C, *spatial].
        sigma_fraction: sigma / size; 3/64 is 3 px at 64 px.
    """
    first = 2
    for axis in range(first, maps.ndim):
        kernel = _blur_matrix(maps.shape[axis], sigma_fraction).to(maps)
        if axis == maps.ndim - 1:
            maps = maps @ kernel.T
        elif axis == maps.ndim - 2:
            maps = kernel @ maps
        else:
            maps = torch.movedim(torch.movedim(maps, axis, -1) @ kernel.T, -1, axis)
    return maps


@lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma_fraction: float) -> Tensor:
    from scipy.ndimage import gaussian_filter1d

    sigma = sigma_fraction * size
    matrix = gaussian_filter1d(np.eye(size), sigma, axis=0, mode="nearest", truncate=TRUNCATE)
    return torch.from_numpy(matrix.astype(np.float32))


def across_slices(maps: Tensor, weight: float) -> Tensor:
    """Average each map of a series with its one or two neighbours: (m + w (m- + m+)) / (1 + w n) with n neighbours.

    False positives are seldom at the same place in the next slice; lesions are.

    Args:
        maps: [N, C, *spatial], the slices of one series in order.
        weight: weight w of each neighbour, relative to 1 for the slice itself.
    """
    total, sums = maps.clone(), torch.ones(len(maps), *[1] * (maps.ndim - 1), device=maps.device)
    for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        total[here] += weight * maps[there]
        sums[here] += weight
    return total.div_(sums)


def erode(body: Tensor, pixels: int) -> Tensor:
    """Shrink a mask bool [B, 1, *spatial] by `pixels` (square neighbourhood); the edge of the frame is not an edge of
    the body: a chest that fills the image is not eroded there."""
    outside = ~body
    for axis in range(2, body.ndim if pixels else 2):
        size, before = body.shape[axis], outside.clone()
        for shift in range(1, min(pixels, size - 1) + 1):
            outside.narrow(axis, shift, size - shift).logical_or_(before.narrow(axis, 0, size - shift))
            outside.narrow(axis, 0, size - shift).logical_or_(before.narrow(axis, shift, size - shift))
    return ~outside
