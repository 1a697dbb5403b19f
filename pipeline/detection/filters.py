"""Gaussian blur, median and erosion of batched maps, exact at the borders and quick on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

TRUNCATE = 3.5  # where the Gaussian ends, in sigma; scikit-image's SSIM ends there too
ROWS_AT_ONCE = 8  # of the median: few enough that its 14 planes stay in the CPU's cache (1.5x at 64 px)


def gaussian_blur(maps: Tensor, sigma_fraction: float) -> Tensor:
    """Blur maps with a Gaussian whose sigma is a fraction of the size, along each axis, replicating the border.

    Each axis is one matrix product: exact, and quicker than a convolution for wide Gaussians.

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
    sigma = sigma_fraction * size
    matrix = gaussian_filter1d(np.eye(size), sigma, axis=0, mode="nearest", truncate=TRUNCATE)
    return torch.from_numpy(matrix.astype(np.float32))


def median_filter(maps: Tensor, size: int) -> Tensor:
    """Replace each value by the median of its neighbourhood of edge `size` (odd), replicating the border.

    The "forgetful" median: of half the neighbours and one more, minimum and maximum cannot be the median, so they are
    dropped and a new neighbour is taken in, until one is left. Only elementwise minimum and maximum, hence batched.

    Args:
        maps: [B, C, *spatial].
        size: 1 leaves the maps as they are.
    """
    if size == 1:
        return maps
    return torch.cat([_median(rows, size) for rows in maps.split(ROWS_AT_ONCE)])


def _median(maps: Tensor, size: int) -> Tensor:
    padded = F.pad(maps, (size // 2,) * 2 * (maps.ndim - 2), mode="replicate")
    waiting = _neighbours(padded, maps.shape[2:], size)
    window, waiting = waiting[: len(waiting) // 2 + 2], waiting[len(waiting) // 2 + 2 :]
    while waiting:
        window = [*_without_extremes(window), waiting.pop()]
    return _without_extremes(window)[0]


def _neighbours(padded: Tensor, shape: Sequence[int], size: int) -> list[Tensor]:
    shifts = product(range(size), repeat=len(shape))
    return [padded[(..., *[slice(s, s + n) for s, n in zip(shift, shape, strict=True)])] for shift in shifts]


def _without_extremes(window: list[Tensor]) -> list[Tensor]:
    """Order pairs, so that the minimum is in the first half and the maximum in the last; find both; drop both."""
    window, last = list(window), len(window) - 1
    half = len(window) // 2
    for i in range(half):
        _order(window, i, last - i)
    for i in range(1, len(window) - half):
        _order(window, 0, i)
    for i in range(half, last):
        _order(window, i, last)
    return window[1:-1]


def _order(window: list[Tensor], low: int, high: int) -> None:
    a, b = window[low], window[high]
    window[low], window[high] = torch.minimum(a, b), torch.maximum(a, b)


def erode(body: Tensor, pixels: int) -> Tensor:
    """Shrink a mask bool [B, 1, *spatial] by `pixels` (square neighbourhood); the edge of the frame is no edge of the
    body: a chest that fills the picture stays whole there."""
    if pixels == 0:
        return body
    pool = F.max_pool2d if body.ndim == 4 else F.max_pool3d
    outside = pool((~body).float(), kernel_size=2 * pixels + 1, stride=1, padding=pixels)
    return outside == 0
