"""Resampling of images whose tissue moved by a field of offsets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def displace(images: Tensor, offset: Tensor) -> Tensor:
    """Return images [B, C, *spatial] sampled bilinearly at each pixel + offset, with the border value beyond the frame.

    Args:
        images: float32.
        offset: [B, *spatial, dims], last axis of the image first, in units of half the edge (-1 .. 1 spans it).
    """
    return F.grid_sample(images, pixel_places(images) + offset, padding_mode="border", align_corners=False)


def pixel_places(images: Tensor) -> Tensor:
    """Return where the pixels of images [B, C, *spatial] are: [B, *spatial, dims], -1..1 over the edge, last axis
    first.
    """
    dims = images.ndim - 2
    identity = torch.eye(dims, dims + 1, device=images.device).expand(len(images), -1, -1)
    return F.affine_grid(identity, list(images.shape), align_corners=False)
