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
ROWS_AT_ONCE = 16  # of the median: few enough that its planes stay in the CPU's cache (1.5x at 64 px)


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
    first = len(waiting) // 2 + 2
    window, spare = [plane.clone() for plane in waiting[:first]], torch.empty_like(maps)
    for plane in waiting[first:]:
        spare = _bring_out_extremes(window, spare)
        window = [window[-1].copy_(plane), *window[1:-1]]
    _bring_out_extremes(window, spare)
    return window[1]


def _neighbours(padded: Tensor, shape: Sequence[int], size: int) -> list[Tensor]:
    shifts = product(range(size), repeat=len(shape))
    return [padded[(..., *[slice(s, s + n) for s, n in zip(shift, shape, strict=True)])] for shift in shifts]


def _bring_out_extremes(window: list[Tensor], spare: Tensor) -> Tensor:
    """Reorder in place until the first plane is the minimum and the last the maximum; return a plane that is free.

    Ordered pairs leave the minimum in one half and the maximum in the other, which are then searched.
    """
    last, half = len(window) - 1, len(window) // 2
    pairs = [(i, last - i) for i in range(half)]
    pairs += [(0, i) for i in range(1, len(window) - half)]
    pairs += [(i, last) for i in range(half, last)]
    for low, high in pairs:
        torch.minimum(window[low], window[high], out=spare)
        torch.maximum(window[low], window[high], out=window[high])
        window[low], spare = spare, window[low]
    return spare


def erode(body: Tensor, pixels: int) -> Tensor:
    """Shrink a mask bool [B, 1, *spatial] by `pixels` (square neighbourhood); the edge of the frame is no edge of the
    body: a chest that fills the picture stays whole there."""
    outside = ~body
    for axis in range(2, body.ndim if pixels else 2):
        size, before = body.shape[axis], outside.clone()
        for shift in range(1, min(pixels, size - 1) + 1):
            outside.narrow(axis, shift, size - shift).logical_or_(before.narrow(axis, 0, size - shift))
            outside.narrow(axis, 0, size - shift).logical_or_(before.narrow(axis, shift, size - shift))
    return ~outside
