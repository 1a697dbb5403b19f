"""A hole in images: the mask that says where it is, and a first filling that reads nothing of it."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import ConfigError


def check_mask(mask: Tensor, x: Tensor) -> Tensor:
    """Return a mask of hidden pixels of x [B, C, *spatial]; ConfigError unless it is bool [B, 1, *spatial]."""
    expected = (len(x), 1, *x.shape[2:])
    if mask.dtype != torch.bool or tuple(mask.shape) != expected:
        raise ConfigError(
            f"The mask is {mask.dtype} {list(mask.shape)}; it must be bool {list(expected)}, True where pixels are "
            "missing."
        )
    return mask


def fill_hidden(x: Tensor, mask: Tensor) -> Tensor:
    """Return x with the mean of each channel's visible pixels in place of the hidden ones; 0 if all are hidden."""
    visible = (~mask).float()
    spatial = tuple(range(2, x.ndim))
    mean = (x * visible).sum(dim=spatial, keepdim=True) / visible.sum(dim=spatial, keepdim=True).clamp_min(1)
    return x.where(~mask, mean)
