"""Hysteresis on the maps of a series: low values count only where they are connected with high ones.

The rule is a grey-scale reconstruction (Vincent, IEEE Transactions on Image Processing 1993, section 3): thresholding
its result at any t gives what the binary rule gives at t. So it has no threshold of its own; thresholds are calibrated
afterwards, on normals whose maps went through the same rule.

Pixels are connected with all neighbours that share an edge or a corner with them, also in adjacent slices.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hysteresis(maps: Tensor, ratio: float) -> Tensor:
    """Lower each value to the level at which its region still contains a pixel `ratio` times as high.

    For every t >= 0: result > t exactly where map > t in a connected region with a pixel > ratio * t. Values of 0 and
    below are unchanged.

    Args:
        maps: float [N, 1, *spatial], the slices of one series in order.
        ratio: at least 1, which changes nothing.
    """
    return reconstruct(torch.where(maps > 0, maps / ratio, maps), maps)


def reconstruct(seeds: Tensor, ceiling: Tensor) -> Tensor:
    """Spread `seeds` to their neighbours, never above `ceiling`, until nothing changes.

    Each value of the result is the highest min(path of ceiling, seed at its end) over all paths (Vincent 1993,
    definition 3.1 and proposition 3.1).

    Args:
        seeds: float [N, 1, *spatial], nowhere above `ceiling`.
        ceiling: float [N, 1, *spatial].
    """
    axes = [axis for axis in range(ceiling.ndim) if axis != 1 and ceiling.shape[axis] > 1]
    level = seeds
    while True:
        spread = level
        for axis in axes:
            spread = _dilated(spread, axis)
        spread = torch.minimum(spread, ceiling)
        if torch.equal(spread, level):
            return level
        level = spread


def _dilated(values: Tensor, axis: int) -> Tensor:
    """Return the maximum of each value and its two neighbours along an axis."""
    out, last = values.clone(), values.shape[axis] - 1
    for here, there in ((1, 0), (0, 1)):
        inside = out.narrow(axis, here, last)
        torch.maximum(inside, values.narrow(axis, there, last), out=inside)
    return out
