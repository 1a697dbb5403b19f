"""Edges of images: where their smoothed intensity changes fast."""

from __future__ import annotations

import torch
from torch import Tensor

SMOOTHING = (1 / 4, 1 / 2, 1 / 4)  # along every axis, before the differences


def find_edges(x: Tensor, threshold: float) -> Tensor:
    """Return where the gradient of smoothed images [B, C, *spatial] exceeds a threshold, float32 [B, 1, *spatial].

    Central differences, as Canny's first step (IEEE TPAMI 1986); the edges are not thinned. Beyond the border an image
    goes on as at the border. The threshold is in units of the image per pixel; channels are averaged first.
    """
    image = x.float().mean(dim=1, keepdim=True)
    axes = range(2, x.ndim)
    for axis in axes:
        before, after = _shifted(image, axis)
        image = SMOOTHING[0] * before + SMOOTHING[1] * image + SMOOTHING[2] * after
    squares = [((after - before) / 2).square() for before, after in (_shifted(image, axis) for axis in axes)]
    return (torch.stack(squares).sum(dim=0).sqrt() > threshold).float()


def _shifted(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the values before and after each pixel along an axis."""
    last = x.shape[axis] - 1
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, last)], dim=axis)
    after = torch.cat([x.narrow(axis, 1, last), x.narrow(axis, last, 1)], dim=axis)
    return before, after
