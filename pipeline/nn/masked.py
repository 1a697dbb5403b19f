"""Means that count the body only, image by image."""

from __future__ import annotations

from torch import Tensor


def within_body(error: Tensor, body: Tensor) -> Tensor:
    """Return the mean over images of the mean over each body; an image without a body counts 0.

    Args:
        error: float [B, 1, *spatial].
        body: bool [B, 1, *spatial].
    """
    inside = body.flatten(1).to(error.dtype)
    return ((error.flatten(1) * inside).sum(dim=1) / inside.sum(dim=1).clamp_min(1)).mean()
