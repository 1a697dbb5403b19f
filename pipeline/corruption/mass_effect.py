"""Mass effect of a painted lesion: the tissue around it is pushed outwards, as by a growing tumour."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.corruption.displace import displace
from pipeline.corruption.random_fields import blur

SPREAD = 0.6  # length of the blur of the coverage, in radii: the push fades out at about this distance from the border


def push_outwards(images: Tensor, coverage: Tensor, radius: Tensor, strength: Tensor) -> Tensor:
    """Return images whose tissue moved down the slope of the blurred coverage, away from the lesion.

    Bilinear, with the border value beyond the frame. Nothing moves in the middle of a lesion, which the lesion's own
    content covers, nor far from it.

    Args:
        images: float32 [B, C, *spatial].
        coverage: float32 [B, 1, *spatial] in [0, 1].
        radius: [B], of the lesion / image edge.
        strength: [B], the largest displacement in radii.
    """
    dims = images.ndim - 2
    slope = _slope(blur(coverage, SPREAD * radius))
    steepest = slope.square().sum(dim=-1).sqrt().flatten(1).amax(dim=1).clamp_min(1e-6)
    far = 2 * strength * radius / steepest  # 2: the edge is 2 long in the coordinates of the sampling grid
    # The tissue at a place comes from higher up the slope, nearer to the lesion.
    return displace(images, far.reshape(-1, *[1] * (dims + 1)) * slope)


def _slope(field: Tensor) -> Tensor:
    """Return the gradient of fields [B, 1, *spatial] by central differences, last axis first: [B, *spatial, dims]."""
    axes = tuple(range(field.ndim - 1, 1, -1))
    return torch.stack([axis[:, 0] for axis in torch.gradient(field, dim=axes)], dim=-1)
